"""The experiment file as frozen, typed objects: read, overridden, completed, checked; not yet tied to plugins."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mimic_keras.contracts import InputError
from mimic_keras.validation import Problems, join, typed

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise ValueError("expected 1 to 100 letters, digits, '_', '-' or '.', the first a letter or digit")
    return name


class Section(pydantic.BaseModel):
    """Unknown keys are errors; values are not converted (no '3' for 3)."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ComponentSpec(pydantic.BaseModel):
    """{name: ..., argument: ...}: the arguments are checked against the plugin's signature, not here."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    name: str


class Sgd(Section):
    name: Literal["sgd"]
    learning_rate: Rate
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False


class Adam(Section):
    name: Literal["adam"]
    learning_rate: Rate
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Rate = 1e-7


class Constant(Section):
    name: Literal["constant"] = "constant"


class Cosine(Section):
    """From the rate to `final_fraction` of it over all epochs, along half a cosine."""

    name: Literal["cosine"]
    final_fraction: Fraction = 0.0


class Step(Section):
    """The rate times `factor` after every `every` epochs."""

    name: Literal["step"]
    every: Positive
    factor: Annotated[float, Field(gt=0, lt=1)]


class PlateauHalving(Section):
    """Urban et al. 2017, section 2.6: `training.PlateauHalving` says how."""

    name: Literal["plateau_halving"]
    patience: Positive = 10
    cooldown: Annotated[int, Field(ge=0)] = 8
    stop_after: Positive = 30
    smallest_fraction: Fraction = 1 / 2000


class Training(Section):
    """How one net is trained. `restore`: the weights of the best epoch on validation, or of the last one."""

    epochs: Positive
    batch_size: Positive
    optimizer: Annotated[Sgd | Adam, Field(discriminator="name")]
    schedule: Annotated[Constant | Cosine | Step | PlateauHalving, Field(discriminator="name")] = Constant()
    restore: Literal["best", "last"] = "last"
    precision: Literal["float32", "mixed_bfloat16"] = "float32"


class MemberEntry(Section):
    """One entry of the ensemble: `copies` nets that differ in their seed alone."""

    teacher: ComponentSpec
    copies: Positive = 1
    weight: Rate = 1.0
    training: Training | None = None
    dataset: ComponentSpec | None = None


class TeacherSection(Section):
    members: Annotated[list[MemberEntry], Field(min_length=1)]
    training: Training | None = None
    seed: Seed


class StudentSection(Section):
    architecture: ComponentSpec
    loss: ComponentSpec | None = None
    standardize_logits: bool = False
    hard_label_weight: Fraction = 0.0
    training: Training
    seed: Seed


class BaselineSection(Section):
    """The student's architecture and training with the changes of the file already applied."""

    architecture: ComponentSpec
    training: Training


class DistributionSection(Section):
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"] = "auto"
    virtual_devices: Annotated[int, Field(ge=2, le=64)] | None = None


class ExportSection(Section):
    """Nothing to choose yet; its presence in the file changes nothing."""


class Experiment(Section):
    name: Annotated[str, pydantic.AfterValidator(_folder_name)]
    seed: Seed = 0
    deterministic: bool = True
    dataset: ComponentSpec
    teacher: TeacherSection | None = None
    student: StudentSection
    baseline: BaselineSection | None = None
    distribution: DistributionSection = DistributionSection()
    export: ExportSection = ExportSection()


@dataclass(frozen=True)
class Source:
    """An experiment file as plain data: `given` as written (with the overrides), `complete` with what sections inherit.

    `problems` collects everything that is found wrong with it.
    """

    given: dict[str, Any]
    complete: dict[str, Any]
    problems: Problems

    def components(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """(kind, mapping, path) of every component that can be recognised, whatever else is wrong."""
        teacher = self.complete.get("teacher")
        members = teacher.get("members") if isinstance(teacher, dict) else None
        places: list[tuple[str, Any, str, str]] = [("dataset", self.complete, "dataset", "")]
        for index, entry in enumerate(members if isinstance(members, list) else []):
            places += [(kind, entry, kind, f"teacher.members[{index}]") for kind in ("teacher", "dataset")]
        for section, kinds in (("student", ("architecture", "loss")), ("baseline", ("architecture",))):
            places += [(kind, self.complete.get(section), kind, section) for kind in kinds]
        for kind, holder, key, path in places:
            if isinstance(holder, dict) and isinstance(holder.get(key), dict):
                yield kind, holder[key], join(path, key)

    def drop_inherited(self) -> None:
        """A fault of `seed` or `student` shows again where it is inherited: keep what the file itself says there."""
        faults = [path.partition(".")[0] for path in self.problems.found]
        for path in list(self.problems.found):
            section, *rest = path.split(".")
            inherited = (section == "baseline" and "student" in faults) or (rest == ["seed"] and "seed" in faults)
            if inherited and not _is_given(self.given, path):
                del self.problems.found[path]


def read(file: Path, overrides: Sequence[str] = ()) -> Source:
    """Read an experiment, apply the `key=value` overrides, fill in the environment and what sections inherit.

    Raises:
        InputError: the file can not be read or is no YAML mapping, or an override is malformed.
    """
    raw = read_yaml(file)
    for override in overrides:
        override_leaf(raw, override)
    problems = Problems(str(file))
    given = _expand(raw, "", problems)
    return Source(given, _complete(given), problems)


def check(source: Source) -> Experiment | None:
    """The typed experiment; None, with the problems added, if values do not fit or make no sense together."""
    experiment = typed(Experiment, source.complete, "", source.problems)
    if experiment:
        _check_sense(experiment, source.problems)
    return experiment


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML 1.2 file that holds a mapping of plain data; tags and duplicate keys are refused."""
    yaml = YAML(typ="safe", pure=True)
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: the experiment can not be read: {error.strerror}") from error
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise InputError(f"{file}: not a YAML file: {reason}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{file}: expected a mapping of name, dataset, student, ...; got {type(raw).__name__}")
    return raw


def override_leaf(raw: dict[str, Any], override: str) -> None:
    """Apply one `a.b.0.c=value` in place; setting a component's `name` to another drops its other keys.

    Raises:
        InputError: no '=', no YAML value, or a path through something that is neither mapping nor list.
    """
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {override}: expected KEY=VALUE, as in --set student.training.epochs=5")
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise InputError(f"--set {override}: the value is not YAML: {' '.join(str(error).split())}") from error
    target: Any = raw
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(target, list):
            if not part.isdigit() or int(part) >= len(target):
                raise InputError(f"--set {override}: '{part}' is no index of a list of {len(target)}")
            index: Any = int(part)
        elif isinstance(target, dict):
            index = part
        else:
            raise InputError(f"--set {override}: '{'.'.join(parts[:depth])}' is {target!r}, which has no keys")
        if not last:
            target = target.setdefault(index, {}) if isinstance(target, dict) else target[index]
        else:
            if part == "name" and depth and isinstance(target, dict) and target.get("name") != value:
                target.clear()
            target[index] = value


def merge(base: Any, changes: Any) -> Any:
    """`base` with `changes`, mapping by mapping; a mapping of another `name` replaces the whole component."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    if "name" in changes and changes["name"] != base.get("name"):
        return changes
    return {**base, **{key: merge(base.get(key), value) for key, value in changes.items()}}


def _expand(value: Any, path: str, problems: Problems) -> Any:
    """`${VAR}` in texts becomes the environment's value."""
    if isinstance(value, dict):
        return {str(key): _expand(item, join(path, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, join(path, index), problems) for index, item in enumerate(value)]
    if isinstance(value, str):
        for variable in re.findall(r"\$\{(\w+)\}", value):
            if variable in os.environ:
                value = value.replace("${" + variable + "}", os.environ[variable])
            else:
                problems.add(path, f"the environment has no variable {variable}")
    return value


def _complete(raw: dict[str, Any]) -> dict[str, Any]:
    """Fill in what other sections give: the seeds, and the student's architecture and training in the baseline."""
    complete = dict(raw)
    for name in ("teacher", "student"):
        if isinstance(raw.get(name), dict):
            complete[name] = {"seed": raw.get("seed", 0), **raw[name]}
    student = raw.get("student")
    if isinstance(raw.get("baseline"), dict) and isinstance(student, dict):
        inherited = {key: student[key] for key in ("architecture", "training") if key in student}
        complete["baseline"] = merge(inherited, raw["baseline"])
    return complete


def _is_given(raw: Any, path: str) -> bool:
    for part in path.split("."):
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return True


def _check_sense(experiment: Experiment, problems: Problems) -> None:
    """What types can not say."""
    teacher, student = experiment.teacher, experiment.student
    if experiment.distribution.strategy == "multi_worker":
        problems.add("distribution.strategy", "multi_worker is not built yet; accepted: auto, one_device, mirrored")
    if experiment.distribution.virtual_devices and experiment.distribution.strategy != "mirrored":
        problems.add("distribution.virtual_devices", "only strategy: mirrored splits the processor into devices")
    if teacher and not student.loss:
        problems.add("student.loss", "required with a teacher: {name: logit_l2}, for one")
    if not teacher:
        for key, given in (
            ("student.loss", student.loss),
            ("student.standardize_logits", student.standardize_logits),
            ("student.hard_label_weight", student.hard_label_weight),
            ("baseline", experiment.baseline),
        ):
            if given:
                problems.add(key, "needs a teacher; without one the student is trained on the labels")
        return
    seen: dict[str, int] = {}
    for index, entry in enumerate(teacher.members):
        same = seen.setdefault(entry.model_dump_json(exclude={"copies", "weight"}), index)
        if same != index:
            problems.add(f"teacher.members[{index}]", f"the same as members[{same}]; use copies: for more of a kind")
