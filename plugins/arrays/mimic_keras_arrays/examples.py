"""Arrays as the four splits of a data set: in memory or memory-mapped, scaled, with virtual copies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import (
    SPLITS,
    ArraySplit,
    MappedSplit,
    RawSignature,
    array_digest,
    gather_rows,
    host_variable,
)
from mimic_keras_arrays.files import chunks
from mimic_keras_arrays.images import Copies
from mimic_keras_arrays.inputs import LinearInputs, Scaling, check_inputs, stored_moments
from mimic_keras_arrays.labels import warn_of_empty_classes
from mimic_keras_arrays.shares import Division

MAPPED_BYTES = 1 << 30  # inputs above this in total stay on the disk
SERVED_EXAMPLES = 64


@dataclass(frozen=True)
class Preparation:
    """How stored values become inputs: `inputs` or `standardize`, then the virtual `copies`.

    Raises:
        ValueError: both are given, or the scale is 0.
    """

    inputs: LinearInputs | None
    standardize: bool
    copies: Copies

    def __post_init__(self) -> None:
        check_inputs(self.inputs, self.standardize)


class Examples:
    """The examples of a data set that is prepared.

    Args:
        inputs: arrays [N_i, ...] of one dtype and row shape, one after the other. If one is a `np.memmap`, all are read
            row by row; otherwise they are held once, in host memory.
        labels: int32 [N], of all rows, -1 where unknown.
        rows: {split: rows of its examples, int64}.
        scaling: from stored values to inputs.
        copies: the virtual copies in train and transfer.
    """

    def __init__(
        self,
        inputs: Sequence[np.ndarray],
        labels: np.ndarray,
        rows: Mapping[str, np.ndarray],
        scaling: Scaling,
        copies: Copies,
    ):
        self._labels, self._rows, self._scaling, self._copies = labels, rows, scaling, copies
        self._served = gather_rows(inputs, rows["validation"][:SERVED_EXAMPLES])
        is_mapped = any(isinstance(array, np.memmap) for array in inputs)
        self._mapped = inputs if is_mapped else None
        self._held = None if is_mapped else host_variable(*inputs)

    def split(self, name: str, seed: int) -> ArraySplit:
        """One of `SPLITS`."""
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; accepted: {', '.join(SPLITS)}")
        rows, labels = self._rows[name], self._labels[self._rows[name]]
        copies = self._copies if name in ("train", "transfer") else Copies()

        def prepare(values: Any, ids: Any) -> Any:
            return copies(values, self._scaling, seed, ids // len(rows), ids % len(rows))

        def gather(rows: Any, ids: Any) -> Any:
            import tensorflow as tf

            return prepare(tf.gather(self._held, rows), ids)

        if self._mapped is None:
            return ArraySplit(rows, labels, prepare=gather, repeats=copies.copies)
        return MappedSplit(self._mapped, labels, rows=rows, prepare=prepare, repeats=copies.copies)

    def given_rows(self, name: str) -> np.ndarray:
        """As `Dataset.given_rows`."""
        return self._rows[name]

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images` for images [height, width, channels], `serve_rows` for others: values as stored."""
        import tensorflow as tf

        name = "images" if self._served.ndim == 4 else "rows"
        inputs = {name: tf.TensorSpec((None, *self._served.shape[1:]), self._served.dtype)}

        def prepare(**given: Any) -> Any:
            return self._scaling(given[name])

        ids = np.arange(len(self._served))
        return {f"serve_{name}": RawSignature(inputs, prepare, {name: self._served}, ids)}


def digest_examples(inputs: Sequence[np.ndarray], labels: np.ndarray, rows: Mapping[str, np.ndarray]) -> str:
    """The digest of the data that `Examples` takes; arrays on the disk are streamed."""
    parts = [*inputs, labels, *(rows[name] for name in SPLITS)]
    return hashlib.sha256("\n".join(map(array_digest, parts)).encode()).hexdigest()


def prepare_examples(
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    division: Division,
    preparation: Preparation,
    class_names: Sequence[str],
    data_dir: Path,
) -> tuple[Examples, str]:
    """The examples of a data set, and the digest of all that determines them.

    Args:
        parts: {"train", "validation", "test" or "unlabelled": (inputs [N, ...], labels int32 [N])}, "train" first.
        division: how they become splits.
        preparation: how stored values become inputs.
        class_names: of all classes, for a warning of those that no training example has.
        data_dir: the folder given to `Dataset.prepare`; stores the moments of `standardize`.
    """
    arrays, labels = [inputs for inputs, _ in parts.values()], np.concatenate([of for _, of in parts.values()])
    rows = division.rows({name: of for name, (_, of) in parts.items()})
    return make_examples(arrays, labels, rows, preparation, class_names, data_dir)


def make_examples(
    arrays: Sequence[np.ndarray],
    labels: np.ndarray,
    rows: Mapping[str, np.ndarray],
    preparation: Preparation,
    class_names: Sequence[str],
    data_dir: Path,
) -> tuple[Examples, str]:
    """As `prepare_examples`, where `rows` of the arrays, and of their `labels`, are divided already: {split: int64}.

    The training examples are in the first array.
    """
    content = digest_examples(arrays, labels, rows)
    scaling = Scaling.of(preparation.inputs)
    if preparation.standardize:
        moments = stored_moments(data_dir / f"moments-{content[:16]}.npy", chunks(arrays[0], rows["train"]))
        scaling = Scaling.standardizing(moments)
    warn_of_empty_classes(labels[rows["train"]], class_names)
    digest = hashlib.sha256(f"{content} {scaling.digest}".encode()).hexdigest()
    return Examples(arrays, labels, rows, scaling, preparation.copies), digest
