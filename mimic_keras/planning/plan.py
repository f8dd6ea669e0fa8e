"""A plan: the experiment with every component bound to a plugin and every net built once, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mimic_keras.contracts import DatasetInfo, Teacher
from mimic_keras.experiment import ranges
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.experiment.schema import (
    Experiment,
    MemberEntry,
    MixupSection,
    SelectionSection,
    TeacherSection,
    list_trainings,
    parse_experiment,
)
from mimic_keras.experiment.training import TrainingSection
from mimic_keras.planning import budgets, components, locations, preflight
from mimic_keras.planning.components import Component
from mimic_keras.planning.uses import DataUse, Uses
from mimic_keras.storage.files import derive_seed, hash_json
from mimic_keras.training.models import Cost

Costs = dict[str, Cost]


@dataclass(frozen=True)
class MemberPlan:
    """One net of the teacher. `learns_from` is of no use to a net that is loaded."""

    name: str
    teacher: Component
    seed: int
    weight: float
    training: TrainingSection | None
    learns_from: DataUse
    labels: DataUse

    @property
    def is_trained(self) -> bool:
        """Whether the net is trained here rather than loaded."""
        return getattr(self.teacher.plugin.target, "source_digest", None) is Teacher.source_digest

    @property
    def source(self) -> str:
        """What people know the net by: its architecture, or else its files, or the name of its teacher."""
        architectures = [part.plugin.name for part in self.teacher.nested.values()]
        return ", ".join(architectures or map(str, self.teacher.paths())) or self.teacher.plugin.name


@dataclass(frozen=True)
class NetPlan:
    """The student or its baseline. `loss` is None where the net learns the labels."""

    name: str
    architecture: Component
    training: TrainingSection
    seed: int
    learns_from: DataUse
    loss: Component | None = None
    standardize_logits: bool = False
    hard_label_weight: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What a run will do. `costs` holds the cost of every net that can be built without training or loading; `source`
    is what the plan was made from, with absolute paths.

    `labelled` is what the baseline learns from. `transfer` is what the teacher labels, the student learns from, and all
    nets are evaluated on; without a `transfer` section they are the same, and so are `info` and `transfer_info`.
    """

    source: Source
    experiment: Experiment
    labelled: DataUse
    transfer: DataUse
    info: DatasetInfo
    transfer_info: DatasetInfo
    members: tuple[MemberPlan, ...]
    student: NetPlan
    baseline: NetPlan | None
    costs: Mapping[str, Cost]

    @property
    def dataset(self) -> Component:
        return self.labelled.dataset

    @property
    def select(self) -> SelectionSection | None:
        return self.experiment.teacher.select if self.experiment.teacher else None

    @property
    def mixup(self) -> MixupSection | None:
        return self.experiment.student.mixup

    @property
    def transfer_examples(self) -> int:
        """What the teacher labels of the transfer set, virtual and mixed copies included; 0 if unknown."""
        labelled = self.transfer_info.num_examples.get("transfer", 0)
        return labelled + (labelled // self.transfer_info.repeats * self.mixup.copies if self.mixup else 0)

    @property
    def drops_diverged(self) -> bool:
        """Whether a member that diverges is left out, instead of ending the run."""
        return self.experiment.teacher is not None and self.experiment.teacher.on_divergence == "drop"

    @property
    def nets(self) -> list[NetPlan]:
        """What is trained after the teacher: the baseline, if there is one, and the student."""
        return [self.baseline, self.student] if self.baseline else [self.student]

    @property
    def other_uses(self) -> list[DataUse]:
        """What members label or learn from where it is not the transfer set."""
        return [
            use
            for member in self.members
            for use in (member.labels, *([member.learns_from] if member.learns_from != member.labels else []))
            if use != self.transfer
        ]

    def components(self) -> list[Component]:
        """Every component, those nested in others included."""
        used: list[Component | None] = [
            self.dataset,
            *(part for net in self.nets for part in (net.architecture, net.loss)),
        ]
        used += [part for member in self.members for part in (member.teacher, member.learns_from.dataset)]
        return [part for component in used if component for part in component.parts()]

    def code_versions(self) -> set[str]:
        """Distribution, version and digest of every component."""
        return {line for component in self.components() for line in component.code_versions()}


def make_plan(source: Source, known_costs: Costs | None = None) -> Plan:
    """Bind every component and build every net once; no data is read and nothing of TensorFlow is configured.

    `known_costs` {key of a net: its cost} are not measured again; new costs are added.

    Raises:
        InputError: a `Problems` with everything that does not fit.
    """
    problems = source.problems
    ranges.refuse_ranges(source)
    given = locations.anchor_paths(source)
    source = budgets.solve_budgets(ranges.draw_members(given))
    experiment = parse_experiment(source)
    bound = {place: components.bind(kind, spec, place, problems) for kind, spec, place in source.components()}
    if experiment:
        _check_loss(experiment, bound.get(Place("student", "loss")), problems)
        for place, training in list_trainings(experiment).items():
            preflight.check_optimizer(training, place / "optimizer", problems)
        preflight.check_formats(experiment.export.formats, problems)
    source.drop_inherited_problems()
    problems.check()
    assert experiment is not None
    parts = {place: component for place, component in bound.items() if component}
    dataset = parts[Place("dataset")]
    info = preflight.read_dataset_info(dataset, Place("dataset"), problems)
    problems.check()
    assert info is not None
    for place, training in list_trainings(experiment).items():
        preflight.check_monitor(training, dataset, info, place / "monitor", problems)
    source.drop_inherited_problems()
    uses = Uses.of(experiment, dataset, info, problems)
    members = _plan_members(experiment.teacher, parts, uses, problems)
    student, baseline = _plan_student(experiment, parts, uses), _plan_baseline(experiment, parts, uses)
    if student.loss:
        preflight.check_loss(student.loss, info.num_classes, Place("student", "loss"), problems)
    meter = _CostMeter(problems, {} if known_costs is None else known_costs)
    _measure_members(meter, dataset, info, members)
    meter.measure("student", student.architecture, info, Place("student", "architecture"))
    if baseline and "student" in meter.costs:
        meter.measure("baseline", baseline.architecture, info, Place("baseline", "architecture"))
    problems.check()
    return Plan(
        given,
        experiment,
        uses.learnt_from(experiment.student.seed),
        uses.transfer,
        info,
        uses.transfer_info,
        tuple(members.values()),
        student,
        baseline,
        meter.costs,
    )


def _check_loss(experiment: Experiment, loss: Component | None, problems: Problems) -> None:
    """Check that the loss goes with what the student learns from: a teacher's logits or the labels."""
    place = Place("student", "loss")
    needs_teacher = loss is not None and getattr(loss.plugin.target, "needs_teacher", True)
    if needs_teacher and not experiment.teacher:
        problems.add(place, "needs a teacher: without one, the student is trained on the labels")
    if loss and not needs_teacher and experiment.teacher:
        problems.add(
            place, f"'{loss.plugin.name}' compares with the labels alone: it is for a student without a teacher"
        )
    if loss and experiment.student.standardize_logits and not getattr(loss.plugin.target, "standardizable", False):
        problems.add(
            Place("student", "standardize_logits"),
            f"'{loss.plugin.name}' needs real logits; true is accepted with standardizable losses such as logit_l2",
        )


def _plan_members(
    section: TeacherSection | None, parts: Mapping[Place, Component], uses: Uses, problems: Problems
) -> dict[tuple[Place, int], MemberPlan]:
    """{(place of the entry, number of the copy): member}."""
    members: dict[tuple[Place, int], MemberPlan] = {}
    first_places: dict[str, Place] = {}
    for index, entry in enumerate(section.members if section else ()):
        assert section
        place = Place("teacher", "members", index)
        teacher, dataset = parts[place / "teacher"], parts.get(place / "dataset")
        training = entry.training or section.training
        labels = uses.labelled_with(entry.dataset, dataset, problems)
        plan = MemberPlan("", teacher, 0, entry.weight, training, labels, labels)
        if plan.is_trained and training is None:
            problems.add(place / "training", "required here or as teacher.training: this teacher is trained")
        if not plan.is_trained and entry.copies > 1:
            problems.add(place / "copies", f"copies of a loaded model are all the same; expected 1, got {entry.copies}")
        key = hash_json([teacher.specification(), dataset and dataset.specification(), training])
        if first_places.setdefault(key, place) != place:
            problems.add(place, f"the same net as {first_places[key]}; to train several, use copies: N")
        for copy in range(entry.copies):
            seed = _member_seed(section.seed, entry, teacher, dataset, copy)
            learns_from = uses.learnt_from(seed, dataset) if plan.is_trained else labels
            members[place, copy] = replace(plan, name=f"teacher/{len(members)}", seed=seed, learns_from=learns_from)
    return members


def _member_seed(seed: int, entry: MemberEntry, teacher: Component, dataset: Component | None, copy: int) -> int:
    """The seed depends on the entry, not on its position: adding a member leaves the others as they are."""
    content = {
        "seed": seed,
        "teacher": teacher.configuration(),
        "dataset": dataset.configuration() if dataset else None,
        "training": entry.training.model_dump() if entry.training else None,
        "copy": copy,
    }
    return derive_seed(hash_json(content))


def _plan_student(experiment: Experiment, parts: Mapping[Place, Component], uses: Uses) -> NetPlan:
    section = experiment.student
    architecture, loss = parts[Place("student", "architecture")], parts.get(Place("student", "loss"))
    options = (section.standardize_logits, section.hard_label_weight)
    return NetPlan("student", architecture, section.training, section.seed, uses.transfer, loss, *options)


def _plan_baseline(experiment: Experiment, parts: Mapping[Place, Component], uses: Uses) -> NetPlan | None:
    section, seed = experiment.baseline, experiment.student.seed
    if section is None:
        return None
    architecture = parts[Place("baseline", "architecture")]
    return NetPlan("baseline", architecture, section.training, seed, uses.learnt_from(seed))


@dataclass(frozen=True)
class _CostMeter:
    """Measures nets, each kind once. `costs` {net: cost}; `known` {key of a net: cost}."""

    problems: Problems
    known: Costs
    costs: Costs = field(default_factory=dict)

    def measure(self, name: str, architecture: Component, info: DatasetInfo, place: Place) -> None:
        key = hash_json([architecture.configuration(), info.input_shape, info.num_classes])
        if key not in self.known and (cost := preflight.measure_net(architecture, info, place, self.problems)):
            self.known[key] = cost
        if key in self.known:
            self.costs[name] = self.known[key]


def _measure_members(
    meter: _CostMeter, labelled: Component, info: DatasetInfo, members: Mapping[tuple[Place, int], MemberPlan]
) -> None:
    """Check that every member fits its data set, and measure the nets inside the trained ones."""
    for (place, _), member in members.items():
        own = info
        if member.learns_from.dataset is not labelled:
            read = preflight.read_dataset_info(member.learns_from.dataset, place / "dataset", meter.problems)
            if read is None:
                continue
            own = read
        if own.num_classes != info.num_classes:
            message = f"{own.num_classes} classes, but the student's data set has {info.num_classes}"
            meter.problems.add(place / "dataset", message)
        preflight.check_teacher(member.teacher, own, place / "teacher", meter.problems)
        for argument, architecture in member.teacher.nested.items():
            meter.measure(member.name, architecture, own, place / "teacher" / argument)
