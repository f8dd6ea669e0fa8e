"""Stage 1: the data set, prepared and verified."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import Confusion, Dataset, InputError, RawSignature, Split
from mimic_keras.planning.components import Component, PluginError
from mimic_keras.storage.files import file_names, hash_json
from mimic_keras.storage.locks import locked
from mimic_keras.storage.store import RECORD, set_damage_aside, write_record


@dataclass(frozen=True, eq=False)
class Data:
    """A prepared data set. `identity` is what cache keys know of it; `seed` drives the augmentation of its splits;
    `folder` is the one it prepares its data in."""

    component: Component
    dataset: Dataset
    identity: dict[str, Any]
    seed: int
    folder: Path

    @functools.cache  # noqa: B019 - one object a run, and a split holds its arrays once
    def split(self, name: str) -> Split:
        """A split whose labels are known to be labels."""
        split = self.component.guard(self.dataset.split, name, self.seed)
        classes = self.dataset.info.num_classes
        if len(split.labels) != split.num_examples or not np.all((split.labels >= -1) & (split.labels < classes)):
            raise PluginError(
                f"{self.component.plugin}: '{name}' has {len(split.labels)} labels for {split.num_examples} examples, "
                f"from {split.labels.min()} to {split.labels.max()}; expected one each, from -1 to {classes - 1}"
            )
        return split

    def raw_signatures(self) -> Mapping[str, RawSignature]:
        return self.component.guard(self.dataset.raw_signatures)

    def validation_metrics(self, logits: np.ndarray) -> dict[str, float]:
        """The data set's numbers of a model's logits on validation, float32 [examples, num_classes]."""
        found = self.evaluate({"validation": logits})["validation"]
        numbers = {name: float(value) for name, value in found.items() if not isinstance(value, Confusion)}
        return {name: value for name, value in numbers.items() if math.isfinite(value)}

    def evaluate(self, logits: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | Confusion]]:
        return self.component.guard(self.dataset.evaluate, logits)


def prepare(component: Component, home: Path, seed: int) -> Data:
    """Have the data set download, verify and convert what it needs."""
    dataset = component()
    folder = home / "datasets" / component.plugin.name
    label = f"data set {folder.name}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock"), label):
        for unfinished in folder.glob(f".{RECORD}.*.tmp"):
            unfinished.unlink()
        if (folder / RECORD).exists():
            set_damage_aside(folder, home, label)
        fingerprint = component.guard(dataset.prepare, folder)
        _record(folder, label)
    identity = {"dataset": component.identity(), "fingerprint": fingerprint, "augmentation": seed}
    return Data(component, dataset, identity, seed, folder)


def prepared_once() -> Callable[[Component, Path, int], Data]:
    """`prepare` for a process that does many experiments: the same data is prepared and held once."""
    known: dict[str, Data] = {}

    def prepared(component: Component, home: Path, seed: int) -> Data:
        key = hash_json([component.written(), str(home), seed])
        if key not in known:
            known[key] = prepare(component, home, seed)
        return known[key]

    return prepared


def _record(folder: Path, label: str) -> None:
    record = folder / RECORD
    if record.exists() and json.loads(record.read_bytes())["files"].keys() == file_names(folder):
        record.touch()
    else:
        write_record(folder, "datasets", folder.name, label, {})


def check_same_examples(data: Data, other: Data, where: str) -> None:
    """A member may prepare the examples differently; ids are the join, so they have to be the same examples.

    Raises:
        InputError: the number of examples, their virtual copies or their labels differ.
    """
    for name in ("train", "transfer", "validation", "test"):
        ours, theirs = data.split(name), other.split(name)
        if (ours.num_examples, ours.repeats) != (theirs.num_examples, theirs.repeats):
            raise InputError(
                f"{where}: '{name}' has {theirs.num_examples} examples x {theirs.repeats} copies, "
                f"but the student's data set has {ours.num_examples} x {ours.repeats}"
            )
        if not np.array_equal(ours.labels, theirs.labels):
            raise InputError(f"{where}: the labels of '{name}' differ from those of the student's data set")
