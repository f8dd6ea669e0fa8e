"""Stage 1: the data set, prepared and verified."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import Dataset, InputError, Split
from mimic_keras.plugins import Component


@dataclass(frozen=True, eq=False)
class Data:
    """A prepared data set. `identity` is what cache keys know of it; `seed` drives the augmentation of its splits."""

    dataset: Dataset
    identity: dict[str, Any]
    seed: int

    @functools.cache  # noqa: B019 - one object a run, and a split holds its arrays once
    def split(self, name: str) -> Split:
        return self.dataset.split(name, self.seed)


def prepare(component: Component, home: Path, seed: int) -> Data:
    """Have the data set download, verify and convert what it needs."""
    dataset = component()
    folder = home / "datasets" / component.plugin.name
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = dataset.prepare(folder)
    return Data(dataset, {"dataset": component.identity(), "fingerprint": fingerprint, "augmentation": seed}, seed)


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
