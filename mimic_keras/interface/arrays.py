"""A data set of arrays that are in memory already, as `distill` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import ROWS_AT_ONCE, SPLITS, ArraySplit, Dataset, DatasetInfo, InputError, array_digest

Labelled = tuple[Any, Any]


class InMemory(Dataset):
    """Examples in arrays: inputs [N, ...] of numbers, labels [N] of integers from 0.

    Args:
        splits: {"train", "validation" and "test": (inputs, labels)}.
        unlabelled: inputs that only the teacher labels, or None.
        class_names: in the order of the labels; None: "0", "1", ... up to the largest label.

    Raises:
        InputError: an array does not fit.
    """

    def __init__(
        self, splits: Mapping[str, Labelled], unlabelled: Any = None, class_names: Sequence[str] | None = None
    ):
        self.inputs: dict[str, np.ndarray] = {}
        self.labels: dict[str, np.ndarray] = {}
        for name, pair in splits.items():
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise InputError(f"{name}: expected (inputs, labels), got {type(pair).__name__}")
            self.inputs[name] = _as_inputs(name, pair[0])
            self.labels[name] = _as_labels(name, pair[1], len(self.inputs[name]))
        if unlabelled is not None:
            self.inputs["unlabelled"] = _as_inputs("unlabelled", unlabelled)
        self._check_shapes()
        self.class_names = self._name_classes(class_names)

    def _check_shapes(self) -> None:
        shape = self.inputs["train"].shape[1:]
        for name, array in self.inputs.items():
            if array.shape[1:] != shape:
                raise InputError(f"{name}: inputs of shape {array.shape[1:]}, those of train have {shape}")

    def _name_classes(self, given: Sequence[str] | None) -> tuple[str, ...]:
        largest = max(int(labels.max()) for labels in self.labels.values())
        names = tuple(given) if given is not None else tuple(map(str, range(largest + 1)))
        if largest >= len(names) or len(names) < 2:
            raise InputError(f"class_names: expected at least {max(2, largest + 1)} names, got {len(names)}")
        return names

    @property
    def info(self) -> DatasetInfo:
        sizes = {name: len(labels) for name, labels in self.labels.items()}
        sizes["transfer"] = sizes["train"] + len(self.inputs.get("unlabelled", ()))
        shape = self.inputs["train"].shape[1:]
        return DatasetInfo("arrays in memory", "1", shape, len(self.class_names), self.class_names, sizes)

    def prepare(self, data_dir: Path) -> str:
        return self.digest()

    def digest(self) -> str:
        """SHA-256 over every array."""
        return array_digest(*self.inputs.values(), *self.labels.values())

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        if name not in SPLITS:
            raise ValueError(f"expected one of {', '.join(SPLITS)}, got {name!r}")
        if name != "transfer" or "unlabelled" not in self.inputs:
            part = "train" if name == "transfer" else name
            return ArraySplit(self.inputs[part], self.labels[part])
        rows = np.concatenate([self.inputs["train"], self.inputs["unlabelled"]])
        unknown = np.full(len(self.inputs["unlabelled"]), -1, np.int32)
        return ArraySplit(rows, np.concatenate([self.labels["train"], unknown]))


def _as_inputs(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim < 2 or not len(array) or not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise InputError(f"{name}: expected inputs [examples, ...] of numbers, got {array.dtype} {list(array.shape)}")
    blocks = [array[start : start + ROWS_AT_ONCE] for start in range(0, len(array), ROWS_AT_ONCE)]
    are_finite = np.concatenate([np.isfinite(block).reshape(len(block), -1).all(-1) for block in blocks])
    if not are_finite.all():
        raise InputError(
            f"{name}: {(~are_finite).sum()} of {len(array)} rows have values that are NaN or infinite; the first is "
            f"row {are_finite.argmin()}. Fill in or remove them"
        )
    return array


def _as_labels(name: str, value: Any, examples: int) -> np.ndarray:
    array = np.asarray(value)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.shape != (examples,) or not np.issubdtype(array.dtype, np.integer):
        way = "; whole numbers of another type become integers by .astype(int)" if array.dtype.kind == "f" else ""
        way = "; one-hot labels become integers by .argmax(-1)" if array.ndim > 1 else way
        raise InputError(
            f"{name}: expected labels [{examples}] of integers, one for each input, got {array.dtype} "
            f"{list(np.shape(value))}{way}"
        )
    if (array < 0).any():
        raise InputError(f"{name}: expected labels from 0, got {array.min()}; `unlabelled` takes examples without one")
    return array.astype(np.int32)
