"""A run, from top to bottom: seven stages, each given what the stages before it made."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

from mimic_keras.contracts import InputError, RunError
from mimic_keras.experiment import yaml_text
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.schema import DistributionSection, Experiment, parse_distribution
from mimic_keras.planning.plan import Plan
from mimic_keras.planning.plugins import GivenPlugin
from mimic_keras.reporting import console
from mimic_keras.stages import data, evaluation, export, formats, logits, replacing, report, student, teachers
from mimic_keras.stages.teachers import TeacherMember
from mimic_keras.stages.workspace import Unit, Workspace
from mimic_keras.storage.files import write_bytes, write_json
from mimic_keras.storage.locks import owned
from mimic_keras.storage.store import Store, note_use
from mimic_keras.training import distribution, trainer
from mimic_keras.training.machine import describe_machine
from mimic_keras.training.models import FinishedNet, float32_logits
from mimic_keras.training.stability import read_stability


@dataclass(frozen=True)
class Results:
    """What stages 1 to 5 make: everything but the report and the export."""

    data: data.Data
    members: Sequence[TeacherMember]
    teacher: logits.TeacherLogits | None
    nets: Sequence[student.Net]
    evaluation: evaluation.Evaluation
    store: Store
    stages: dict[str, dict[str, Any]]

    @property
    def all_nets(self) -> list[FinishedNet]:
        """Every net: the teacher's members, the baseline, the student."""
        return [*self.members, *self.nets]

    @property
    def stability(self) -> dict[str, dict[str, float]]:
        """{net: how stable its training was at the start}, where that is known."""
        found = {net.name: read_stability(net.folder) for net in self.all_nets if net.folder}
        return {name: each for name, each in found.items() if each}


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, the content of metrics.json, and the nets and logits behind it."""

    folder: Path
    metrics: dict[str, Any]
    results: Results


def configure_devices(source: Source) -> None:
    """Apply the process-wide settings of an experiment.

    Call before planning: TensorFlow must not have been initialised yet. The plan reports invalid settings.
    """
    if section := parse_distribution(source):
        distribution.configure(section, deterministic=source.complete.get("deterministic") is not False)


def run(plan: Plan, workspace: Workspace, runs_dir: Path, saved_models_dir: Path, replace: bool = False) -> Finished:
    """Run an experiment, reusing what is finished already.

    `replace`: whether the results and exports of another experiment of this name may be replaced.

    Raises:
        InputError: another process is running this experiment, or another experiment has this name.
        RunError: for one, the exported graph computes something else than the student.
    """
    experiment = plan.experiment
    folder = runs_dir / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    with owned(folder):
        replacing.check_run(folder, experiment, replace)
        if experiment.export.publish:
            replacing.check_export(saved_models_dir / experiment.name, experiment, replace)
        with workspace.in_use(experiment.name), console.journal(folder / "log.jsonl") as warnings:
            return _run(plan, workspace, folder, saved_models_dir, warnings)


def _run(plan: Plan, workspace: Workspace, folder: Path, saved_models_dir: Path, warnings: list[str]) -> Finished:
    """Publish last, and replace the files of an earlier run only once every net is evaluated.

    `warnings` grows with the run's; metrics.json and the report have those until then.
    """
    experiment = plan.experiment
    source = describe_given(plan) + resolve(experiment)
    environment = describe_environment(experiment.distribution)
    results = train_and_evaluate(plan, workspace, folder / "tensorboard")
    for compare in (evaluation.compare_with_teacher, evaluation.compare_with_baseline):
        if remark := compare(results.evaluation.models):
            logging.warning("%s", remark)

    metrics: dict[str, Any] = {
        "experiment": experiment.name,
        "seed": experiment.seed,
        "models": results.evaluation.models,
        "classes": results.evaluation.classes,
        "stability": results.stability,
        "stages": results.stages,
        "warnings": warnings,
        "export": None,
        "refusal": None,
    }
    write_bytes(folder / "experiment.yaml", source.encode())
    write_json(folder / "environment.json", environment)
    write_json(folder / "artifacts.json", _list_artifacts(results))
    write_json(folder / "metrics.json", metrics)
    with _stage(results.stages, results.store, "report"):
        write_report = _draw_report(folder, source, metrics, results, environment)
        write_report()
    if experiment.export.publish:
        on_validation, labels = (
            results.evaluation.models["student"]["validation"],
            results.data.split("validation").labels,
        )
        metrics["refusal"] = export.find_refusal(on_validation, labels, experiment.export)
        if not metrics["refusal"]:
            with _stage(results.stages, results.store, "export"):
                published = _publish(results, experiment, saved_models_dir)
            metrics["export"], metrics["refusal"] = published.to_json(), published.refusal
        write_json(folder / "metrics.json", metrics)
        write_report()
    return Finished(folder, metrics, results)


def _publish(results: Results, experiment: Experiment, saved_models_dir: Path) -> export.Published:
    """Publish the student, which is worth it."""
    metrics = results.evaluation.models["student"]
    student, teacher = results.nets[-1], _teacher_net(results)
    published = export.publish(student, results.data, experiment, metrics, saved_models_dir, teacher)
    results.store.counts["made" if published.made else "reused"] += 1
    return published


def _teacher_net(results: Results) -> formats.TeacherNet | None:
    """The teacher as one net; None without one, or if a member prepares the examples in its own way or is no net."""
    loads = [member.load for member in results.members if member.data is results.data and member.load]
    if results.teacher is None or len(loads) < len(results.members):
        return None
    weights = [results.teacher.weights[member.name] for member in results.members]

    def load() -> Callable[[tf.Tensor], tf.Tensor]:
        calls = [load() for load in loads]
        return lambda rows: tf.add_n(
            [weight * float32_logits(call(rows)) for weight, call in zip(weights, calls, strict=True)]
        )

    return formats.TeacherNet(load, results.evaluation.models["teacher"]["validation"].get("error_rate"))


def _draw_report(
    folder: Path, source: str, metrics: dict[str, Any], results: Results, environment: dict[str, Any]
) -> Callable[[], None]:
    """Draw the figures of report.html; returns what writes the page, with `metrics` as they are then.

    Raises:
        RunError: by either, it cannot be written; an earlier run's is removed, since the files beside it are new.
    """
    file, test = folder / "report.html", results.data.split("test")
    classes = results.data.dataset.info.class_names

    @contextlib.contextmanager
    def naming_the_file() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            file.unlink(missing_ok=True)
            raise RunError(
                f"{file} cannot be written ({type(error).__name__}: {error}); {folder / 'metrics.json'} has the "
                f"numbers; mimic-keras export {folder} publishes the student without a report"
            ) from error

    with naming_the_file():
        histories = {net.name: net.history for net in results.all_nets if net.history}
        pictures = report.draw_pictures(results.evaluation, histories, classes, test.labels)
        differences = report.picture_differences(results.evaluation, classes, test)

    def write() -> None:
        with naming_the_file():
            report.write_report(file, source, metrics, results.evaluation, pictures, differences, environment)

    return write


def train_and_evaluate(
    plan: Plan, workspace: Workspace, logs: Path | None = None, splits: Sequence[str] = evaluation.SPLITS
) -> Results:
    """Stages 1 to 5: train every net, or find it in the workspace, and evaluate it on `splits`."""
    experiment = plan.experiment
    common = {"trainer": trainer.TRAINER_VERSION, "deterministic": experiment.deterministic}
    store = workspace.open_store(common, Unit(functools.partial(train_and_evaluate, logs=logs), plan))
    train = functools.partial(_train, experiment.distribution, logs)
    stages: dict[str, dict[str, Any]] = {}
    stage = functools.partial(_stage, stages, store)

    with stage("data"), console.waiting(f"preparing the data set {plan.dataset.plugin.name}"):
        prepared, labelled = workspace.prepare(*plan.transfer), workspace.prepare(*plan.labelled)
        for name in ("train", "transfer", "validation", *splits):  # a fault of any is found before training
            (labelled if name == "train" else prepared).split(name)
        if labelled is not prepared:
            data.check_same_evaluation(labelled, prepared)
        for net in plan.nets:
            prepared.check_monitor(net.training, net.name)
    with stage("teachers"):
        library = teachers.make_members(plan.members, prepared, train, store, workspace, plan.drops_diverged)
    with stage("logits"):
        validation = logits.label_validation(library, prepared, store)
        members = logits.select_members(library, plan.select, prepared, validation)
        teacher = logits.compute_teacher_logits(members, prepared, store, validation, plan.mixup)
    with stage("student"):
        nets = student.make_nets(plan.nets, teacher, train, store, workspace)
    with stage("evaluation"):
        evaluated = evaluation.evaluate(prepared, members, teacher, nets, splits)

    return Results(prepared, members, teacher, nets, evaluated, store, stages)


def _train(section: DistributionSection, logs: Path | None, *arguments: Any, **options: Any) -> trainer.Trained:
    """Train on the devices of the experiment, which whoever trains nothing need not have."""
    return trainer.train(*arguments, strategy=distribution.make_strategy(section), logs=logs, **options)


@contextlib.contextmanager
def _stage(stages: dict[str, dict[str, Any]], store: Store, name: str) -> Iterator[None]:
    """Record how long a stage takes, and how many artefacts it makes and reuses."""
    logging.debug("stage %s", name)
    started, before = time.monotonic(), dict(store.counts)
    yield
    counts = {key: store.counts[key] - before[key] for key in store.counts}
    stages[name] = {"seconds": round(time.monotonic() - started, 3), **counts}


def republish(
    plan: Plan, run_folder: Path, workspace: Workspace, saved_models_dir: Path, replace: bool = False
) -> export.Published:
    """Export the student of a finished run, with the plan's options, `publish` aside; nothing is trained.

    `replace`: whether the version may follow one of another experiment.

    Raises:
        InputError: the run is not finished, its student is no longer in the home folder, or the exports are of another
            experiment.
        RunError: for one, the student is not worth publishing.
    """
    try:
        place = Path(json.loads((run_folder / "artifacts.json").read_text(encoding="utf-8"))["student"]["model"])
        metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))["models"]["student"]
        on_validation = metrics["validation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run_folder} is not a finished run ({error}); mimic-keras run finishes it") from error
    experiment = plan.experiment
    replacing.check_export(saved_models_dir / experiment.name, experiment, replace)
    with workspace.in_use():
        if not note_use(place):
            raise InputError(
                f"{place}, the student of {run_folder}, is missing or damaged; mimic-keras run rebuilds it"
            )
        prepared = workspace.prepare(*plan.transfer)
        if refusal := export.find_refusal(on_validation, prepared.split("validation").labels, experiment.export):
            raise RunError(f"{refusal}. The same command with --set {export.ALL_THE_SAME} publishes it all the same")
        published = export.publish(student.load(place), prepared, experiment, metrics, saved_models_dir)
        if published.refusal:
            raise RunError(published.refusal)
        return published


def collect_provenance(plan: Plan, workspace: Workspace) -> list[Any]:
    """What determines a plan's results besides its file: data, loaded models, code and the trainer's version."""
    prepared = workspace.prepare(*plan.transfer)
    others = [workspace.prepare(*use).identity for use in plan.other_uses]
    loaded = [member.teacher for member in plan.members if not member.is_trained]
    digests = [teacher.guard(teacher().source_digest) for teacher in loaded]
    return [prepared.identity, others, digests, sorted(plan.code_versions()), trainer.TRAINER_VERSION]


def _list_artifacts(results: Results) -> dict[str, dict[str, Any]]:
    """The content of artifacts.json: {"dataset": {"folder"}, net: {"model", and of a member "logits" and "weight"}}."""
    listed: dict[str, dict[str, Any]] = {"dataset": {"folder": str(results.data.folder)}}
    listed |= {net.name: {"model": str(net.folder)} if net.folder else {} for net in results.all_nets}
    if results.teacher:
        for name, folders in results.teacher.folders.items():
            listed[name]["logits"] = {split: str(folder) for split, folder in folders.items()}
            listed[name]["weight"] = results.teacher.weights[name]
    return listed


def describe_given(plan: Plan) -> str:
    """A comment for experiment.yaml that says where the components come from that no installed package has."""
    given = dict.fromkeys(part.plugin for part in plan.components() if isinstance(part.plugin, GivenPlugin))
    return "".join(f"# {plugin.kind} {plugin.name}: {plugin.describe_use()}\n" for plugin in given)


def resolve(experiment: Experiment) -> str:
    """The experiment as YAML with sections' defaults written out, except seeds that follow from the experiment's."""
    content = experiment.model_dump(exclude_none=True)
    for section in (content.get("teacher", {}), content["student"]):
        if section.get("seed") == experiment.seed:
            del section["seed"]
    return yaml_text.dump(content)


def describe_environment(section: DistributionSection) -> dict[str, Any]:
    """The content of environment.json: the machine and packages that results may depend on."""
    packages = ("mimic-keras", "tensorflow", "keras", "numpy")
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        **describe_machine(),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "replicas": distribution.count_replicas(section),
        **{name: importlib.metadata.version(name) for name in packages},
    }
