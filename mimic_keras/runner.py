"""A run, from top to bottom: seven stages, each given what those before it returned."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

from mimic_keras.contracts import InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.schema import DistributionSection, Experiment
from mimic_keras.planning.plan import Plan
from mimic_keras.reporting import console
from mimic_keras.stages import data, evaluation, export, logits, report, student, teachers
from mimic_keras.stages.teachers import TeacherMember
from mimic_keras.storage.files import write_bytes, write_json
from mimic_keras.storage.locks import in_use, owned
from mimic_keras.storage.store import Store, damaged_files
from mimic_keras.training import distribution, trainer
from mimic_keras.training.models import FinishedNet

RESULTS = ("metrics.json", "artifacts.json", "report.html")


@dataclass(frozen=True)
class Learned:
    """What stages 1 to 5 leave: everything but the export and the report."""

    examples: data.Data
    members: Sequence[TeacherMember]
    teacher: logits.TeacherLogits | None
    nets: Sequence[student.Net]
    judged: evaluation.Evaluation
    store: Store
    stages: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Folders:
    """Where a run reads and writes; nothing outside them is touched."""

    home: Path
    runs: Path
    saved_models: Path


def run(plan: Plan, folders: Folders) -> dict[str, Any]:
    """Run the experiment; what is finished already is reused. Returns the content of metrics.json."""
    experiment = plan.experiment
    folder = folders.runs / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    with owned(folder), in_use(folders.home):
        return _run(plan, folders, folder)


def _run(plan: Plan, folders: Folders, folder: Path) -> dict[str, Any]:
    experiment = plan.experiment
    for name in RESULTS:  # of an earlier run, which this one replaces
        (folder / name).unlink(missing_ok=True)
    source, environment = resolved(experiment), describe_environment(experiment.distribution)
    write_bytes(folder / "experiment.yaml", source.encode())
    write_json(folder / "environment.json", environment)
    with console.journal(folder / "log.jsonl"):
        found = learn(plan, folders.home, folder / "tensorboard")
        finished: list[FinishedNet] = [*found.members, *found.nets]
        with _stage(found.stages, found.store, "export"):
            published = export.publish(
                found.nets[-1],
                found.examples,
                experiment.name,
                found.judged.models["student"],
                folders.saved_models,
                experiment.export,
            )
            found.store.counts["made" if published.made else "reused"] += 1
        metrics = {
            "experiment": experiment.name,
            "seed": experiment.seed,
            "models": found.judged.models,
            "stages": found.stages,
            "export": published.summary(),
        }
        with _stage(found.stages, found.store, "report"):
            histories = {item.name: item.history for item in finished if item.history}
            classes = found.examples.dataset.info.class_names
            report.write(folder / "report.html", source, metrics, found.judged, histories, classes, environment)
        write_json(folder / "artifacts.json", _artifacts(found.examples, finished, found.teacher))
        write_json(folder / "metrics.json", metrics)
    return metrics


def learn(
    plan: Plan,
    home: Path,
    logs: Path | None = None,
    prepare: Callable[..., data.Data] = data.prepare,
    splits: Sequence[str] = evaluation.SPLITS,
) -> Learned:
    """Stages 1 to 5: the nets trained, or found in `home`, and judged on `splits`. `prepare` is stage 1."""
    experiment = plan.experiment
    strategy = distribution.make_strategy(experiment.distribution)
    store = Store(home, {"trainer": trainer.TRAINER_VERSION, "deterministic": experiment.deterministic})
    train = functools.partial(trainer.train, strategy=strategy, logs=logs)
    stages: dict[str, dict[str, Any]] = {}
    stage = functools.partial(_stage, stages, store)
    with stage("data"):
        examples = prepare(plan.dataset, home, plan.augmentation_seed)
    with stage("teachers"):
        library = teachers.make(plan.members, examples, train, store, prepare)
    with stage("logits"):
        members = logits.selected(library, plan.select, examples, store)
        teacher = logits.label(members, examples, store)
    with stage("student"):
        baseline = [student.make(plan.baseline, examples, None, train, store)] if plan.baseline else []
        nets = [*baseline, student.make(plan.student, examples, teacher, train, store)]
    with stage("evaluation"):
        judged = evaluation.evaluate(examples, members, teacher, nets, splits)
    return Learned(examples, members, teacher, nets, judged, store, stages)


def provenance(plan: Plan, home: Path, prepare: Callable[..., data.Data]) -> list[Any]:
    """What the results of a plan follow from besides the file: its data, models that it loads, code and the trainer."""
    examples = prepare(plan.dataset, home, plan.augmentation_seed)
    others = [prepare(member.dataset, home, examples.seed).identity for member in plan.members if member.dataset]
    loaded = [member.teacher for member in plan.members if not member.is_trained]
    digests = [teacher.guard(teacher().source_digest) for teacher in loaded]
    return [examples.identity, others, digests, sorted(plan.code()), trainer.TRAINER_VERSION]


def republish(plan: Plan, finished: Path, folders: Folders) -> export.Published:
    """Export the student of the finished run in `finished` again, with the plan's options; nothing is trained.

    Raises:
        InputError: the run is not finished, or its student is not in the home folder any more.
    """
    try:
        place = Path(json.loads((finished / "artifacts.json").read_text(encoding="utf-8"))["student"]["model"])
        judged = json.loads((finished / "metrics.json").read_text(encoding="utf-8"))["models"]["student"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{finished} is no finished run ({error}); mimic-keras run finishes it") from error
    if damaged_files(place):
        raise InputError(f"{place}, the student of {finished}, is missing or damaged; mimic-keras run makes it again")
    examples = data.prepare(plan.dataset, folders.home, plan.augmentation_seed)
    return export.publish(
        student.load(place), examples, plan.experiment.name, judged, folders.saved_models, plan.experiment.export
    )


def _artifacts(
    examples: data.Data, finished: Sequence[FinishedNet], teacher: logits.TeacherLogits | None
) -> dict[str, dict[str, Any]]:
    """{"dataset": {"folder": ...}, net: {"model": folder, "logits": {split: folder}, "weight": in the teacher}} of what
    lies in the home folder."""
    found: dict[str, dict[str, Any]] = {"dataset": {"folder": str(examples.folder)}}
    found |= {item.name: {"model": str(item.folder)} if item.folder else {} for item in finished}
    for name, folders in (teacher.folders if teacher else {}).items():
        found[name]["logits"] = {split: str(folder) for split, folder in folders.items()}
        found[name]["weight"] = teacher.weights[name] if teacher else 0.0
    return found


@contextlib.contextmanager
def _stage(stages: dict[str, dict[str, Any]], store: Store, name: str) -> Iterator[None]:
    """Time a stage, and count what it made and what it found."""
    logging.debug("stage %s", name)
    started, before = time.monotonic(), dict(store.counts)
    yield
    counts = {key: store.counts[key] - before[key] for key in store.counts}
    stages[name] = {"seconds": round(time.monotonic() - started, 3), **counts}


def resolved(experiment: Experiment) -> str:
    """The experiment as YAML with every default written out but seeds that are `seed`'s: that one still sets them."""
    content = experiment.model_dump(exclude_none=True)
    for section in (content.get("teacher", {}), content["student"]):
        if section.get("seed") == experiment.seed:
            del section["seed"]
    return experiment_file.written(content)


def describe_environment(section: DistributionSection) -> dict[str, Any]:
    """What a reader of the results has to know of the machine and the installed packages."""
    packages = ("mimic-keras", "tensorflow", "keras", "numpy")
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "replicas": distribution.make_strategy(section).num_replicas_in_sync,
        **{name: importlib.metadata.version(name) for name in packages},
    }
