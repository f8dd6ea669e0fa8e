"""Stage 1: the data set, prepared and verified."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mimic_keras.contracts import (
    Confusion,
    Dataset,
    GroupedRate,
    InputError,
    MimicError,
    RawSignature,
    RunError,
    Split,
    array_digest,
)
from mimic_keras.experiment.problems import suggest
from mimic_keras.experiment.training import TrainingSection
from mimic_keras.planning.components import Component
from mimic_keras.planning.plugins import PluginError
from mimic_keras.storage.files import LEFTOVER, file_digest, file_names, remove_leftovers, stamp_files
from mimic_keras.storage.locks import locked
from mimic_keras.storage.store import RECORD, move_damage_aside, read_record, write_claim, write_record
from mimic_keras.training.metrics import OF_THE_TRAINER, measure_performance

MOST_NAMED = 10  # classes in a warning
LARGE = 10.0  # few standardised values are beyond
MOST_CHECKED = 256  # examples of a split whose inputs are looked at before anything is trained

NOT_KEPT = "what needs it is not kept. Run again"


@dataclass
class FilesRead:
    """The files that a data set was prepared from, and those that were prepared, to notice when they change.

    `originals`: stamps of the files at the data set's locations. `prepared`: {file: its stamps and its digest}.
    """

    originals: list[Any]
    prepared: dict[Path, tuple[list[Any], str]]

    def are_prepared_unchanged(self) -> bool:
        return all(
            stamp_files([file]) == stamps or (file.is_file() and file_digest(file) == digest)
            for file, (stamps, digest) in self.prepared.items()
        )


@dataclass(frozen=True, eq=False)
class Data:
    """A prepared data set.

    `identity` goes into cache keys; `seed` drives the augmentation of the splits; `folder` holds the prepared files;
    `files` are watched for changes.
    """

    component: Component
    dataset: Dataset
    identity: dict[str, Any]
    seed: int
    folder: Path
    files: FilesRead = field(default_factory=lambda: FilesRead([], {}))
    _evaluated: dict[Any, Any] = field(default_factory=dict, init=False)

    def with_seed(self, seed: int) -> Data:
        """The same data with other virtual copies."""
        return replace(self, seed=seed, identity={**self.identity, "augmentation": seed})

    @functools.cache  # noqa: B019 - one object a process, so that a split holds its arrays once
    def split(self, name: str) -> Split:
        """A split, after checking its labels and that a few of its examples, evenly spread, are finite numbers."""
        split = self.component.guard(self.dataset.split, name, self.seed)
        if not split.num_examples:
            raise PluginError(f"{self.component.plugin}: '{name}' has no examples; every split needs at least one")
        classes = self.dataset.info.num_classes
        if len(split.labels) != split.num_examples or not np.all((split.labels >= -1) & (split.labels < classes)):
            raise PluginError(
                f"{self.component.plugin}: '{name}' has {len(split.labels)} labels for {split.num_examples} examples, "
                f"from {split.labels.min()} to {split.labels.max()}; expected one each, from -1 to {classes - 1}"
            )
        ids, rows = self._sample(split)
        self._check_finite(name, ids, rows)
        if name == "train":
            self._warn_of_missing_classes(split)
            self._warn_of_large_inputs(rows)
        self.check_unchanged()  # it may have read files that `prepare` has not seen
        return split

    def sample(self, name: str) -> np.ndarray:
        """At most 256 examples of a split, evenly spaced: float32 [examples, *input_shape]."""
        return self._sample(self.split(name))[1]

    def _sample(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        ids = np.linspace(0, split.num_examples - 1, min(split.num_examples, MOST_CHECKED)).astype(np.int64)
        return ids, np.asarray(self.component.guard(split.batch, tf.constant(ids)))

    def _check_finite(self, name: str, ids: np.ndarray, rows: np.ndarray) -> None:
        are_finite = np.isfinite(rows.reshape(len(ids), -1)).all(-1)
        if not are_finite.all():
            raise PluginError(
                f"{self.component.plugin}: '{name}' has inputs that are NaN or infinite, in {(~are_finite).sum()} of "
                f"{len(ids)} examples checked; the first has id {ids[~are_finite][0]}"
            )

    def _warn_of_missing_classes(self, train: Split) -> None:
        """Once a process, since a split is. Without any label, a teacher that was loaded knows the classes."""
        info, seen = self.dataset.info, np.unique(train.labels)
        missing = [name for place, name in enumerate(info.class_names) if place not in seen]
        if missing and seen.max() >= 0:
            shown = ", ".join(missing[:MOST_NAMED]) + (", ..." if len(missing) > MOST_NAMED else "")
            logging.warning(
                "data set %s: %d of %d classes have no example in 'train': %s",
                self.component.plugin.name,
                len(missing),
                info.num_classes,
                shown,
            )

    def _warn_of_large_inputs(self, rows: np.ndarray) -> None:
        """Of at least one number in a hundred, so that the outliers of a table are no reason."""
        if np.quantile(np.abs(rows), 0.99) > LARGE:
            logging.warning(
                "data set %s: the inputs are from %.4g to %.4g. Nets learn badly from large numbers, and models from "
                "elsewhere expect those that they learnt from; for pixels from 0 to 255, set inputs: "
                "{scale: 0.00392156862745098}, or divide the arrays by 255",
                self.component.plugin.name,
                rows.min(),
                rows.max(),
            )

    def check_unchanged(self) -> None:
        """Raise RunError if the data set's code or data is no longer what `identity` says.

        Data is prepared again only if a file was touched.
        """
        self.component.check_unchanged()
        label = f"data set {self.folder.name}"
        if not self.files.are_prepared_unchanged():
            raise RunError(f"{label}: a file in {self.folder} was changed after it was read; {NOT_KEPT}")
        if stamp_files(self.component.paths()) == self.files.originals:
            return
        try:
            again = prepare(self.component, self.folder.parents[1], self.seed)
        except MimicError as error:
            raise RunError(
                f"{label}: its data was changed after it was read, and cannot be read again: {error}"
            ) from error
        if again.identity != self.identity:
            raise RunError(f"{label}: its data was changed after it was read; {NOT_KEPT}")
        self.files.originals = again.files.originals

    def raw_signatures(self) -> Mapping[str, RawSignature]:
        return self.component.guard(self.dataset.raw_signatures)

    def validation_metrics(self, logits: np.ndarray) -> dict[str, float]:
        """The finite metrics of a model's logits on validation, float32 [examples, num_classes]."""
        metrics = self.evaluate({"validation": logits})["validation"]
        numbers = {name: float(value) for name, value in metrics.items() if not isinstance(value, Confusion)}
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    def check_monitor(self, training: TrainingSection, net: str) -> None:
        """Raise InputError, before the net is trained, if what it is judged by is no metric of the data set."""
        name = training.monitored_metric
        if name is not None and name not in OF_THE_TRAINER:
            self.check_metric(name, f"{net}: monitor", OF_THE_TRAINER)

    def check_metric(self, name: str, place: str, others: Sequence[str] = (), refused: Sequence[str] = ()) -> None:
        """Raise InputError, which opens with `place`, if `name` is no metric of the data set and none of `others`.

        `refused`: metrics that the message does not offer.
        """
        accepted = {each: each for each in (*others, *self._metric_names()) if each not in refused}
        if name not in accepted:
            raise InputError(f"{place}: no metric {name!r} on validation. {suggest(name, accepted)}")

    @functools.cache  # noqa: B019
    def _metric_names(self) -> list[str]:
        logits = np.zeros([self.split("validation").num_examples, self.dataset.info.num_classes], np.float32)
        metrics = self.evaluate({"validation": logits})["validation"]
        return [name for name, value in metrics.items() if not isinstance(value, Confusion)]

    def evaluate(self, logits: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | GroupedRate | Confusion]]:
        """{split: metrics} of a model's logits: those of every data set, then the data set's own."""
        own = self.component.guard(self.dataset.evaluate, logits)
        return {name: measure_performance(self.split(name).labels, logits[name]) | own[name] for name in logits}

    def evaluate_once(self, logits: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | GroupedRate | Confusion]]:
        """As `evaluate`, remembered: for teachers, which the cells of a sweep share. To decode the speech of a teacher
        and its members takes longer than to train a small student."""
        key = tuple((name, array_digest(values)) for name, values in logits.items())
        if key not in self._evaluated:
            self._evaluated[key] = self.evaluate(logits)
        return self._evaluated[key]


def prepare(component: Component, home: Path, seed: int) -> Data:
    """Have the data set download, verify and convert what it needs.

    Raises:
        InputError: the home folder has a folder of the data set's name that mimic-keras did not make.
    """
    dataset = component()
    folder = home / "datasets" / component.plugin.name
    originals = stamp_files(component.paths())  # before they are read
    label = f"data set {folder.name}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock"), label):
        folder.mkdir(exist_ok=True)  # not before: a prune that held the lock may have removed it
        _claim(folder, home, label)
        remove_leftovers(folder)
        try:
            fingerprint = component.guard(dataset.prepare, folder)
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
        _write_record(folder, label)
        prepared = {
            folder / name: (stamp_files([folder / name]), digest)
            for name, digest in (read_record(folder) or {})["files"].items()
        }
    identity = {"dataset": component.key_inputs(), "fingerprint": fingerprint, "augmentation": seed}
    return Data(component, dataset, identity, seed, folder, FilesRead(originals, prepared))


def _claim(folder: Path, home: Path, label: str) -> None:
    """Move damage aside, and mark a new folder as ours: only what has a record is ever removed or moved.

    Raises:
        InputError: there are files but no record.
    """
    record = folder / RECORD
    if not record.exists() and any(not LEFTOVER.fullmatch(path.name) for path in folder.iterdir()):
        raise InputError(
            f"{folder} holds files that mimic-keras did not put there (it has no {RECORD}); "
            "remove the folder, or choose another --home"
        )
    is_claim = "files" not in (read_record(folder) or {"files": {}})
    if not record.exists() or (not is_claim and move_damage_aside(folder, home, label)):
        write_claim(folder, "datasets", folder.name, label)


def _write_record(folder: Path, label: str) -> None:
    """Record the prepared files with their digests, or note their use if they are the recorded ones."""
    record = read_record(folder) or {}
    if "files" in record and record["files"].keys() == file_names(folder):
        (folder / RECORD).touch()
    else:
        write_record(folder, "datasets", folder.name, label, {})


def check_same_evaluation(labelled: Data, transfer: Data) -> None:
    """The transfer set's arguments may change what is learnt, but not what nets are judged by.

    Raises:
        InputError: validation or test have other examples.
    """
    for name in ("validation", "test"):
        ours, theirs = labelled.split(name), transfer.split(name)
        if not (
            np.array_equal(ours.labels, theirs.labels) and np.array_equal(labelled.sample(name), transfer.sample(name))
        ):
            raise InputError(f"transfer: it changes the examples of '{name}'; they must be those of `dataset`")


def check_same_examples(data: Data, other: Data, where: str) -> None:
    """A member may prepare the examples differently, but ids must mean the same examples in both data sets.

    Raises:
        InputError: the number of examples, their virtual copies or their labels differ.
    """
    for name in ("transfer", "validation", "test"):
        ours, theirs = data.split(name), other.split(name)
        if (ours.num_examples, ours.repeats) != (theirs.num_examples, theirs.repeats):
            raise InputError(
                f"{where}: '{name}' has {theirs.num_examples} examples x {theirs.repeats} copies, "
                f"but the student's data set has {ours.num_examples} x {ours.repeats}"
            )
        if not np.array_equal(ours.labels, theirs.labels):
            raise InputError(f"{where}: the labels of '{name}' differ from those of the student's data set")
