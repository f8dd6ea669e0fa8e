"""From stored values to what nets are trained on: x * scale + offset, given or from the training examples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from mimic_keras.contracts import array_digest, atomic_writer


class LinearInputs(TypedDict, total=False):
    """Inputs are x * scale + offset; by default scale is 1 and offset 0."""

    scale: float
    offset: float


@dataclass(frozen=True, eq=False)
class Scaling:
    """x * scale + offset in float32, in the graph. `scale` and `offset` are float32 [] or [values of the last axis]."""

    scale: np.ndarray
    offset: np.ndarray

    def __call__(self, values: Any) -> Any:
        """A tensor [..., C] of any dtype to float32 of the same shape."""
        import tensorflow as tf

        return tf.cast(values, tf.float32) * self.scale + self.offset

    @property
    def digest(self) -> str:
        return array_digest(self.scale, self.offset)

    @classmethod
    def of(cls, inputs: LinearInputs | None) -> Scaling:
        """The scaling that `inputs` gives; without it, a cast to float32.

        Example:
            >>> Scaling.of({"scale": 0.5, "offset": -1.0})(np.array([[0, 4]])).numpy()
            array([[-1.,  1.]], dtype=float32)
        """
        given = inputs or {}
        return cls(*(np.asarray(given.get(*each), np.float32) for each in (("scale", 1.0), ("offset", 0.0))))

    @classmethod
    def standardizing(cls, moments: np.ndarray) -> Scaling:
        """The scaling to mean 0 and deviation 1 from `moments`; a constant value becomes 0."""
        mean, deviation = moments
        scale = 1 / np.where(deviation > 0, deviation, 1.0)
        return cls(scale.astype(np.float32), (-mean * scale).astype(np.float32))


def check_inputs(inputs: LinearInputs | None, standardize: bool) -> None:
    """Raise a ValueError if both are given, or the scale is 0."""
    if inputs and standardize:
        raise ValueError(f"inputs: {inputs} with standardize: true; both scale the inputs: give one of them")
    if inputs and inputs.get("scale", 1.0) == 0:
        raise ValueError("inputs: scale must not be 0, which would make all inputs equal")


def compute_moments(chunks: Iterable[np.ndarray]) -> np.ndarray:
    """Mean and standard deviation of each index of the last axis, over all others: float64 [2, C].

    That is per feature for rows [N, C] and per channel for images [N, height, width, C]. One chunk is in memory at a
    time; their moments are merged as in Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".

    Example:
        >>> compute_moments([np.array([[1.0, 5.0]]), np.array([[3.0, 5.0]])])
        array([[2., 5.],
               [1., 0.]])
    """
    count, mean, squares = 0, np.float64(0), np.float64(0)
    for chunk in chunks:
        values = chunk.reshape(math.prod(chunk.shape[:-1]), chunk.shape[-1]).astype(np.float64)
        if len(values):
            added_mean = values.mean(0)
            difference, total = added_mean - mean, count + len(values)
            squares = squares + ((values - added_mean) ** 2).sum(0) + difference**2 * (count * len(values) / total)
            mean, count = mean + difference * (len(values) / total), total
    return np.stack([mean, np.sqrt(squares / count)])


def stored_moments(file: Path, chunks: Iterable[np.ndarray]) -> np.ndarray:
    """The moments in `file`, a .npy; computed from `chunks` if it does not exist.

    The file's name must contain a digest of what the moments are of.
    """
    if not file.exists():
        with atomic_writer(file) as stream:
            np.save(stream, compute_moments(chunks))
    return np.load(file, allow_pickle=False)
