"""An experiment tied to the installed plugins: every component bound, every net built, before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mimic_keras.contracts import DatasetInfo, Teacher
from mimic_keras.experiment import ranges
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems
from mimic_keras.experiment.schema import Experiment, MemberEntry, Select, TeacherSection, Training, parse
from mimic_keras.planning import budgets, components, preflight
from mimic_keras.planning.components import Component
from mimic_keras.storage.files import hash_json
from mimic_keras.training import distribution, models


@dataclass(frozen=True)
class MemberPlan:
    """One net of the teacher."""

    name: str
    teacher: Component
    seed: int
    weight: float
    training: Training | None
    dataset: Component | None

    @property
    def is_trained(self) -> bool:
        """Whether the net is trained here, and not loaded."""
        return getattr(self.teacher.plugin.target, "source_digest", None) is Teacher.source_digest


@dataclass(frozen=True)
class NetPlan:
    """The student or its baseline. `loss` is None where the labels are learnt."""

    name: str
    architecture: Component
    training: Training
    seed: int
    loss: Component | None = None
    standardize_logits: bool = False
    hard_label_weight: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What a run will do. `costs` holds every net that can be built without training or loading."""

    experiment: Experiment
    dataset: Component
    info: DatasetInfo
    members: tuple[MemberPlan, ...]
    student: NetPlan
    baseline: NetPlan | None
    costs: Mapping[str, models.Cost]

    @property
    def select(self) -> Select | None:
        return self.experiment.teacher.select if self.experiment.teacher else None

    def code(self) -> set[str]:
        """Distributions, versions and digests of all that takes part."""
        nets = [self.student, *([self.baseline] if self.baseline else [])]
        parts: list[Component | None] = [self.dataset, *(part for net in nets for part in (net.architecture, net.loss))]
        parts += [part for member in self.members for part in (member.teacher, member.dataset)]
        return {line for part in parts if part for line in part.code()}

    @property
    def augmentation_seed(self) -> int:
        """Teacher and students see the same virtual copies, whatever the student's own seed."""
        return self.experiment.teacher.seed if self.experiment.teacher else self.experiment.student.seed


def make(source: Source, built: dict[str, models.Cost] | None = None) -> Plan:
    """Bind every component and build every net; no data is read.

    `built` is what earlier plans of the same process built, and is added to.

    Raises:
        InputError: a `Problems` with everything that does not fit.
    """
    problems = source.problems
    ranges.refuse_searched(source)
    source = budgets.solved(ranges.drawn(source))
    experiment = parse(source)
    bound = {path: components.bind(kind, spec, path, problems) for kind, spec, path in source.components()}
    if experiment:
        _check_standardizable(experiment, bound, problems)
    source.drop_inherited()
    problems.check()
    assert experiment is not None
    found = {path: component for path, component in bound.items() if component}
    distribution.configure(experiment.distribution, experiment.deterministic)
    info = preflight.dataset_info(found["dataset"], "dataset", problems)
    problems.check()
    assert info is not None
    members = _members(experiment.teacher, found, problems)
    student, baseline = _student(experiment, found), _baseline(experiment, found)
    if student.loss:
        preflight.check_loss(student.loss, info.num_classes, "student.loss", problems)
    costs = _costs(info, members, student, baseline, {} if built is None else built, problems)
    problems.check()
    return Plan(experiment, found["dataset"], info, tuple(members.values()), student, baseline, costs)


def _check_standardizable(experiment: Experiment, bound: Mapping[str, Component | None], problems: Problems) -> None:
    loss = bound.get("student.loss")
    if loss and experiment.student.standardize_logits and not getattr(loss.plugin.target, "standardizable", False):
        problems.add(
            "student.standardize_logits",
            f"'{loss.plugin.name}' needs real logits; accepted with true: losses that are standardizable, as logit_l2",
        )


def _members(
    section: TeacherSection | None, components: Mapping[str, Component], problems: Problems
) -> dict[str, MemberPlan]:
    """{path in the file: member}; the copies of an entry get paths of their own behind a '#'."""
    members: dict[str, MemberPlan] = {}
    seen: dict[str, int] = {}
    for index, entry in enumerate(section.members if section else ()):
        assert section
        path = f"teacher.members[{index}]"
        teacher, other = components[f"{path}.teacher"], components.get(f"{path}.dataset")
        training = entry.training or section.training
        plan = MemberPlan("", teacher, 0, entry.weight, training, other)
        if plan.is_trained and training is None:
            problems.add(f"{path}.training", "required here or as teacher.training: this teacher is trained")
        if not plan.is_trained and entry.copies > 1:
            problems.add(f"{path}.copies", f"a loaded model is the same net every time; expected 1, got {entry.copies}")
        same = seen.setdefault(hash_json([teacher.written(), other and other.written(), training]), index)
        if same != index:
            problems.add(path, f"the same net as members[{same}]; use copies: for more of a kind that is trained")
        for copy in range(entry.copies):
            seed = _member_seed(section.seed, entry, teacher, other, copy)
            members[f"{path}#{copy}"] = replace(plan, name=f"teacher/{len(members)}", seed=seed)
    return members


def _member_seed(seed: int, entry: MemberEntry, teacher: Component, dataset: Component | None, copy: int) -> int:
    """From what the entry says, never from its place in the list: another member leaves the others as they are."""
    content = {
        "seed": seed,
        "teacher": teacher.request(),
        "dataset": dataset.request() if dataset else None,
        "training": entry.training.model_dump() if entry.training else None,
        "copy": copy,
    }
    return int.from_bytes(hashlib.sha256(hash_json(content).encode()).digest()[:4]) % 2**31


def _student(experiment: Experiment, components: Mapping[str, Component]) -> NetPlan:
    section = experiment.student
    architecture, loss = components["student.architecture"], components.get("student.loss")
    options = (section.standardize_logits, section.hard_label_weight)
    return NetPlan("student", architecture, section.training, section.seed, loss, *options)


def _baseline(experiment: Experiment, components: Mapping[str, Component]) -> NetPlan | None:
    section = experiment.baseline
    if section is None:
        return None
    return NetPlan("baseline", components["baseline.architecture"], section.training, experiment.student.seed)


def _costs(
    info: DatasetInfo,
    members: Mapping[str, MemberPlan],
    student: NetPlan,
    baseline: NetPlan | None,
    built: dict[str, models.Cost],
    problems: Problems,
) -> dict[str, models.Cost]:
    costs: dict[str, models.Cost] = {}

    def build(name: str, component: Component, of: DatasetInfo, path: str) -> None:
        key = hash_json([component.request(), of.input_shape, of.num_classes])
        if key not in built and (cost := preflight.net_cost(component, of, path, problems)):
            built[key] = cost
        if key in built:
            costs[name] = built[key]

    for path, member in members.items():
        entry = path.partition("#")[0]
        seen = preflight.dataset_info(member.dataset, f"{entry}.dataset", problems) if member.dataset else info
        if seen is None:
            continue
        if seen.num_classes != info.num_classes:
            problems.add(f"{entry}.dataset", f"{seen.num_classes} classes, but the student's has {info.num_classes}")
        preflight.check_teacher(member.teacher, seen, f"{entry}.teacher", problems)
        for argument, component in member.teacher.nested.items():
            build(member.name, component, seen, f"{entry}.teacher.{argument}")
    build("student", student.architecture, info, "student.architecture")
    if baseline and "student" in costs:
        build("baseline", baseline.architecture, info, "baseline.architecture")
    return costs


def describe(plan: Plan) -> list[str]:
    """What each stage of the run will do, a line each."""
    sizes = ", ".join(f"{count:,} {split}" for split, count in plan.info.num_examples.items()) or "sizes not known yet"
    trained = sum(member.is_trained for member in plan.members)
    shape = f"inputs {list(plan.info.input_shape)}, {plan.info.num_classes} classes"
    lines = [f"data        {plan.dataset.plugin.name} {plan.info.version}: {shape}; {sizes}"]
    if plan.members and plan.student.loss:
        lines += [
            f"teachers    {trained} trained, {len(plan.members) - trained} loaded; each kept on its own",
            f"logits      of {_labelling(plan)} on transfer, validation and test; each kept on its own",
            f"student     mimics with {plan.student.loss.plugin.name}",
        ]
    else:
        lines.append("student     learns the labels; there is no teacher")
    if plan.baseline:
        lines.append("baseline    learns the labels")
    return [
        *lines,
        "evaluation  on validation and test",
        f"export      {plan.experiment.name}, the next version unless this student is the newest",
        f"report      {plan.experiment.name}/report.html",
    ]


def _labelling(plan: Plan) -> str:
    nets = len(plan.members)
    return f"{plan.select.members} members chosen of {nets} on validation" if plan.select else f"{nets} members"


def estimates(plan: Plan) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of what `validate` prints: every net, what it needs to train, and what will be kept."""
    examples = plan.info.num_examples
    splits = ("validation",) if plan.select else ("transfer", "validation", "test")
    logits = sum(examples.get(split, 0) for split in splits) * plan.info.num_classes * 4
    rows = []
    settings = [(member.name, "teachers", member.training) for member in plan.members]
    settings += [(net.name, "student", net.training) for net in (plan.baseline, plan.student) if net]
    for name, stage, training in settings:
        cost = plan.costs.get(name)
        row: dict[str, Any] = {"net": name, "stage": stage}
        if cost and training:
            copies = 3 + (training.optimizer.name == "adam") + (training.restore == "best")
            size = cost.parameters * 4
            row |= {
                "parameters": cost.parameters,
                "multiply-adds": cost.multiply_adds,
                "epochs": training.epochs,
                "training memory": _bytes(size * copies),
            }
        kept = (cost.parameters * 4 if cost else 0) + (logits if stage == "teachers" else 0)
        row["kept on disk"] = _bytes(kept)
        rows.append(row)
    return list(dict.fromkeys(key for row in rows for key in row)), rows


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
