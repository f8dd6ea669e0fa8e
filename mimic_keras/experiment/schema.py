"""The experiment as frozen, typed sections whose values make sense together; not yet tied to plugins."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from mimic_keras.experiment.file import Source
from mimic_keras.experiment.formats import FORMATS, SAVED_MODEL, FormatName
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems, parse_section
from mimic_keras.experiment.ranges import MOST_COPIES
from mimic_keras.experiment.sections import Fraction, Positive, Rate, Section, Seed, Weight
from mimic_keras.experiment.training import TrainingSection


def check_folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise ValueError("expected 1 to 100 letters, digits, '_', '-' or '.', the first a letter or digit")
    return name


class ComponentSpec(pydantic.BaseModel):
    """{name: ..., argument: ...}: the arguments are checked against the plugin's signature, not here."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    name: str


class TransferSection(pydantic.BaseModel):
    """Arguments of the data set that are others for the transfer set."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)


class MemberEntry(Section):
    """One entry of the ensemble: `copies` nets that differ only in their seed."""

    teacher: ComponentSpec
    copies: Annotated[int, Field(ge=1, le=MOST_COPIES)] = 1
    weight: Weight = 1.0
    training: TrainingSection | None = None
    dataset: ComponentSpec | None = None


class SelectionSection(Section):
    """Greedy forward selection of `members` nets on validation (Caruana et al. 2004)."""

    members: Positive
    replacement: bool = False


class TeacherSection(Section):
    """The teacher. `on_divergence`: whether a member whose loss becomes infinite ends the run or is left out."""

    members: Annotated[list[MemberEntry], Field(min_length=1)]
    training: TrainingSection | None = None
    select: SelectionSection | None = None
    on_divergence: Literal["fail", "drop"] = "fail"
    seed: Seed


class MixupSection(Section):
    """Mixed examples in the transfer set: Beyer et al. 2022; see `mixing.MixedSplit`.

    `copies`: mixed copies of every example, beside the data set's own copies. `alpha`: of the beta distribution from
    which the shares are drawn; 1: uniform.
    """

    copies: Positive
    alpha: Rate = 1.0


class StudentSection(Section):
    added = ("mixup",)

    architecture: ComponentSpec
    loss: ComponentSpec | None = None
    standardize_logits: bool = False
    hard_label_weight: Fraction = 0.0
    mixup: MixupSection | None = None
    training: TrainingSection
    seed: Seed


class BaselineSection(Section):
    """The student's architecture and training, with the file's changes already applied."""

    architecture: ComponentSpec
    training: TrainingSection


class DistributionSection(Section):
    """The devices. `workers`: of multi_worker, the processes that train one net, each on a machine of its own."""

    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"] = "auto"
    virtual_devices: Annotated[int, Field(ge=2, le=64)] | None = None
    workers: Annotated[int, Field(ge=2)] | None = None


class ExportSection(Section):
    """What is published, and whether.

    `absorb_bottleneck`: merge a linear layer into the next one; auto: where that adds no multiply-adds.
    `publish`: whether a run publishes its student. `minimum_agreement`: the least agreement with the teacher on
    validation of a student that is published; None: it need only be better than chance; 0: it need not even be that.
    `formats`: what the student is written in; the SavedModel always is, listed or not. `maximum_error_increase`: by how
    much the error rate on validation may grow in a quantised format that is published.
    """

    absorb_bottleneck: Literal["auto", "always", "never"] = "auto"
    publish: bool = True
    minimum_agreement: Fraction | None = None
    formats: list[FormatName] = Field(default=[SAVED_MODEL])
    maximum_error_increase: Fraction = 0.01

    @property
    def other_formats(self) -> list[str]:
        """The formats besides the SavedModel, each once."""
        return [name for name in FORMATS if name in self.formats]

    def key_inputs(self) -> dict[str, Any]:
        """What goes into an export's key: everything that its content depends on."""
        inputs: dict[str, Any] = {"absorb_bottleneck": self.absorb_bottleneck}
        if self.other_formats:
            inputs["formats"] = self.other_formats
        if any(FORMATS[name].is_quantized for name in self.other_formats):
            inputs["maximum_error_increase"] = self.maximum_error_increase
        return inputs


class SearchSection(Section):
    """How `mimic-keras tune` searches: `random_trials` random points, then points suggested by a Gaussian process.

    `parallel_trials`: how many suggested points are tried at the same time, at most; each follows from the scores of
    the trials at least so many before it. So the points depend on this number, not on how many processes there are.
    `metric`: the student's metric on validation that is minimised. `best`: how many of the best trials a sweep reports.
    """

    trials: Positive
    random_trials: Positive = 4
    parallel_trials: Positive = 1
    seed: Seed = 0
    metric: str = "error_rate"
    best: Positive = 1


class Experiment(Section):
    added = ("transfer",)

    name: Annotated[str, pydantic.AfterValidator(check_folder_name)]
    seed: Seed = 0
    deterministic: bool = True
    dataset: ComponentSpec
    transfer: TransferSection | None = None
    teacher: TeacherSection | None = None
    student: StudentSection
    baseline: BaselineSection | None = None
    distribution: DistributionSection = DistributionSection()
    export: ExportSection = ExportSection()
    search: SearchSection | None = None


def parse_experiment(source: Source) -> Experiment | None:
    """The typed experiment; None, with the problems added, if values do not fit their types."""
    experiment = parse_section(Experiment, source.complete, Place(), source.problems)
    if experiment:
        _check_combinations(experiment, source.problems)
    return experiment


def list_trainings(experiment: Experiment) -> dict[Place, TrainingSection]:
    """Every `training` section by its place."""
    sections: dict[Place, TrainingSection | None] = {Place("student", "training"): experiment.student.training}
    if experiment.teacher:
        sections[Place("teacher", "training")] = experiment.teacher.training
        for index, entry in enumerate(experiment.teacher.members):
            sections[Place("teacher", "members", index, "training")] = entry.training
    if experiment.baseline:
        sections[Place("baseline", "training")] = experiment.baseline.training
    return {place: training for place, training in sections.items() if training}


def parse_distribution(source: Source) -> DistributionSection | None:
    """The `distribution` section alone; None if it is invalid, which `parse_experiment` reports."""
    section = source.complete.get("distribution", {})
    scratch = Problems(source.problems.file)
    return parse_section(DistributionSection, section, Place("distribution"), scratch)


def _check_combinations(experiment: Experiment, problems: Problems) -> None:
    """Check what types cannot express: values that do not go together."""
    teacher, student = experiment.teacher, experiment.student
    if experiment.distribution.strategy == "multi_worker" and not experiment.distribution.workers:
        problems.add(Place("distribution", "workers"), "required with strategy: multi_worker, as in 2")
    if experiment.distribution.strategy != "multi_worker" and experiment.distribution.workers:
        problems.add(Place("distribution", "workers"), "only strategy: multi_worker has workers")
    if experiment.distribution.virtual_devices and experiment.distribution.strategy != "mirrored":
        problems.add(
            Place("distribution", "virtual_devices"),
            "only strategy: mirrored splits the processor into virtual devices",
        )
    if teacher and teacher.select and not teacher.select.replacement:
        nets = sum(entry.copies for entry in teacher.members)
        if teacher.select.members > nets:
            problems.add(
                Place("teacher", "select", "members"),
                f"cannot choose {teacher.select.members} of {nets} nets without replacement",
            )
    if teacher and not student.loss:
        problems.add(Place("student", "loss"), "required with a teacher, as in {name: logit_l2}")
    if experiment.transfer and "name" in experiment.transfer.model_dump():
        problems.add(Place("transfer", "name"), "not accepted: these are changes of the arguments of `dataset`")
    if not teacher:
        for place, given in (
            (Place("transfer"), experiment.transfer is not None),
            (Place("student", "standardize_logits"), student.standardize_logits),
            (Place("student", "hard_label_weight"), student.hard_label_weight),
            (Place("student", "mixup"), student.mixup),
            (Place("baseline"), experiment.baseline),
            (Place("export", "minimum_agreement"), experiment.export.minimum_agreement),
        ):
            if given:
                problems.add(place, "needs a teacher: without one, the student is trained on the labels")
    _check_monitors(experiment, problems)


def _check_monitors(experiment: Experiment, problems: Problems) -> None:
    """Agreement is with a teacher's logits, which only a student sees."""
    for place, training in list_trainings(experiment).items():
        mimics = experiment.teacher is not None and place == Place("student", "training")
        if training.monitored_metric == "agreement" and not mimics:
            problems.add(place / "monitor", "agreement is with a teacher, but this net learns the labels")
