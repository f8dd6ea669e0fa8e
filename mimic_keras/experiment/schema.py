"""The experiment as frozen, typed objects, whose values make sense together; not yet tied to plugins."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems, typed

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def folder_name(name: str) -> str:
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
    """Urban et al. 2017, section 2.6: `callbacks.Plateau` says how."""

    name: Literal["plateau_halving"]
    patience: Positive = 10
    cooldown: Annotated[int, Field(ge=0)] = 8
    stop_after: Positive = 30
    smallest_fraction: Fraction = 1 / 2000


class Training(Section):
    """How one net is trained. `restore`: the weights of the best epoch on validation, or of the last one.
    `checkpoint_every`: steps between states from which an interrupted training goes on; None: as few as cost little.
    `evaluate_every`: epochs between the data set's own metrics on validation, for curves; None: at the end alone."""

    epochs: Positive
    batch_size: Positive
    optimizer: Annotated[Sgd | Adam, Field(discriminator="name")]
    schedule: Annotated[Constant | Cosine | Step | PlateauHalving, Field(discriminator="name")] = Constant()
    restore: Literal["best", "last"] = "last"
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    checkpoint_every: Positive | None = None
    evaluate_every: Positive | None = None

    def identity(self) -> dict[str, Any]:
        """What a cache key has to know: all that the weights and the curves depend on."""
        return self.model_dump(
            exclude={"checkpoint_every"} | ({"evaluate_every"} if not self.evaluate_every else set())
        )


class MemberEntry(Section):
    """One entry of the ensemble: `copies` nets that differ in their seed alone."""

    teacher: ComponentSpec
    copies: Positive = 1
    weight: Rate = 1.0
    training: Training | None = None
    dataset: ComponentSpec | None = None


class Select(Section):
    """Greedy forward selection on validation (Caruana et al. 2004): so many of the members are the teacher."""

    members: Positive
    replacement: bool = False


class TeacherSection(Section):
    members: Annotated[list[MemberEntry], Field(min_length=1)]
    training: Training | None = None
    select: Select | None = None
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
    """`absorb_bottleneck`: a linear layer into the one behind it; auto: where that takes no more multiply-adds."""

    absorb_bottleneck: Literal["auto", "always", "never"] = "auto"


class SearchSection(Section):
    """How `mimic-keras tune` searches: the first `random_trials` are drawn, the others suggested by a Gaussian process.

    `metric`: of the student on validation, to be made small. `best`: so many of the best count in a sweep.
    """

    trials: Positive
    random_trials: Positive = 4
    seed: Seed = 0
    metric: str = "error_rate"
    best: Positive = 1


class Experiment(Section):
    name: Annotated[str, pydantic.AfterValidator(folder_name)]
    seed: Seed = 0
    deterministic: bool = True
    dataset: ComponentSpec
    teacher: TeacherSection | None = None
    student: StudentSection
    baseline: BaselineSection | None = None
    distribution: DistributionSection = DistributionSection()
    export: ExportSection = ExportSection()
    search: SearchSection | None = None


def parse(source: Source) -> Experiment | None:
    """The typed experiment; None, with the problems added, if values do not fit or make no sense together."""
    experiment = typed(Experiment, source.complete, "", source.problems)
    if experiment:
        _check_sense(experiment, source.problems)
    return experiment


def _check_sense(experiment: Experiment, problems: Problems) -> None:
    """What types can not say."""
    teacher, student = experiment.teacher, experiment.student
    if experiment.distribution.strategy == "multi_worker":
        problems.add("distribution.strategy", "multi_worker is not built yet; accepted: auto, one_device, mirrored")
    if experiment.distribution.virtual_devices and experiment.distribution.strategy != "mirrored":
        problems.add("distribution.virtual_devices", "only strategy: mirrored splits the processor into devices")
    if teacher and teacher.select and not teacher.select.replacement:
        nets = sum(entry.copies for entry in teacher.members)
        if teacher.select.members > nets:
            problems.add("teacher.select.members", f"{teacher.select.members} of {nets} nets, each at most once")
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
