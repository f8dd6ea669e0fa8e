"""Rows of arrays as the four splits of a data set: in memory or memory-mapped, scaled, with virtual copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from mimic_keras.contracts import (
    SPLITS,
    ArraySplit,
    MappedSplit,
    RawSignature,
    array_digest,
    gather_rows,
    host_variable,
)
from mimic_keras_arrays.images import Copies
from mimic_keras_arrays.inputs import LinearInputs, Scaling, stored_moments

MAPPED_BYTES = 1 << 30  # inputs above this in total stay on the disk
SERVED_EXAMPLES = 64


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


def make_scaling(
    values: LinearInputs | None, standardize: bool, content: str, train: Iterable[np.ndarray], data_dir: Path
) -> Scaling:
    """The scaling that the experiment asks for.

    Args:
        values: `inputs` of the experiment.
        standardize: take it from the training examples; computed once for each `content`, and kept in `data_dir`.
        content: the digest of the examples.
        train: the training examples, in pieces [n, ...].
        data_dir: the folder given to `Dataset.prepare`.
    """
    if not standardize:
        return Scaling.of(values)
    return Scaling.standardizing(stored_moments(data_dir / f"moments-{content[:16]}.npy", train))


def warn_of_large_inputs(dtype: np.dtype, scaling: Scaling) -> None:
    """Log that stored integers, as pixels from 0 to 255, are used as they are."""
    if dtype.kind in "iu" and np.all(scaling.scale == 1):
        logging.warning(
            "the inputs are %s and are not scaled, but nets learn badly from large numbers; for pixels from 0 to 255, "
            "set inputs: {scale: 0.00392156862745098}, or standardize: true",
            dtype,
        )
