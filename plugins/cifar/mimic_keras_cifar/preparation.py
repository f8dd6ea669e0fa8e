"""uint8 images to the float32 inputs of the papers: per-image standardisation, or contrast normalisation and ZCA."""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from absl import logging

from mimic_keras.contracts import atomic_writer, host_variable

Fitted = TypeVar("Fitted")
# The constants of pylearn2's CIFAR-10 script (Goodfellow et al. 2013, "Maxout networks"); Ba & Caruana give none.
CONTRAST = 55.0
EIGENVALUE_BIAS = 0.1
IMAGES_AT_ONCE = 2048
BLOCK = 64  # rows of a product
SUM = 384  # terms of a product's sums


def standardize(images: Any) -> Any:
    """uint8 [B, height, width, channels] to float32: each image minus its mean, divided by its standard deviation.

    The deviation is at least 1 / sqrt(number of values), as in `tf.image.per_image_standardization`, so that an image
    of one colour becomes 0.
    """
    import tensorflow as tf

    # Integer sums are exact in any order, so that an image has the same bits in every batch.
    values = int(np.prod(images.shape[1:]))
    integers = tf.cast(images, tf.int32)
    total = tf.cast(tf.reduce_sum(integers, [1, 2, 3]), tf.int64)
    squares = tf.cast(tf.reduce_sum(integers * integers, [1, 2, 3]), tf.int64)
    mean = tf.cast(total, tf.float64) / values
    variance = tf.maximum(tf.cast(values * squares - total * total, tf.float64) / values**2, 1 / values)

    def per_image(statistic: Any) -> Any:
        return tf.cast(statistic, tf.float32)[:, None, None, None]

    return (tf.cast(images, tf.float32) - per_image(mean)) * per_image(tf.math.rsqrt(variance))


@dataclass(frozen=True, eq=False)
class Whitening:
    """Global contrast normalisation, each image's deviations from its mean scaled to a norm of 55, then ZCA:
    (x - mean) E (D + 0.1)^-1/2 E' with E and D the eigenvectors and eigenvalues of the training images' covariance.

    `mean` float32 [values], `matrix` float32 [values, values].
    """

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, images: Any) -> Any:
        """uint8 [B, height, width, channels] to float32 of the same shape."""
        import tensorflow as tf

        values = len(self.mean)
        mean, matrix = self._variables
        flat = tf.reshape(standardize(images), [-1, values]) * np.float32(CONTRAST / np.sqrt(values)) - mean
        # A product's order of summation depends on its number of rows and, where sums are long, on the threads that
        # share it: blocks of one size and short sums always give the same bits.
        count = tf.shape(flat)[0]
        blocks = tf.reshape(tf.pad(flat, [[0, -count % BLOCK], [0, 0]]), [-1, BLOCK, values])

        def whiten(block: Any) -> Any:
            parts = [slice(start, start + SUM) for start in range(0, values, SUM)]
            return functools.reduce(operator.add, (block[:, part] @ matrix[part] for part in parts))

        return tf.reshape(tf.reshape(tf.map_fn(whiten, blocks), [-1, values])[:count], tf.shape(images))

    @functools.cached_property
    def _variables(self) -> tuple[Any, Any]:
        return host_variable(self.mean), host_variable(self.matrix)

    @classmethod
    def of(cls, images: np.ndarray, rows: np.ndarray, folder: Path) -> Whitening:
        """The whitening of `images[rows]`, computed once and kept in `folder`."""
        version = 1  # to raise when `fit` changes
        digest = hashlib.sha256(f"{version} {CONTRAST} {EIGENVALUE_BIAS} {images.shape[1:]}".encode())
        digest.update(images[rows].data)
        return keep_fitted(cls, folder / f"zca-{digest.hexdigest()}.npz", lambda: cls.fit(images, rows))

    @classmethod
    def fit(cls, images: np.ndarray, rows: np.ndarray) -> Whitening:
        """Computed in float64, a few images at a time."""
        values = int(np.prod(images.shape[1:]))
        total, products = np.zeros(values), np.zeros([values, values])
        for start in range(0, len(rows), IMAGES_AT_ONCE):
            some = images[rows[start : start + IMAGES_AT_ONCE]].reshape(-1, values).astype(np.float64)
            some -= some.mean(1, keepdims=True)
            some *= CONTRAST / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1.0)
            total += some.sum(0)
            products += some.T @ some
        mean = total / len(rows)
        eigenvalues, vectors = np.linalg.eigh(products / len(rows) - np.outer(mean, mean))
        matrix = (vectors / np.sqrt(eigenvalues + EIGENVALUE_BIAS)) @ vectors.T
        return cls(mean.astype(np.float32), matrix.astype(np.float32))


def keep_fitted(kind: type[Fitted], file: Path, fit: Callable[[], Fitted]) -> Fitted:
    """A dataclass of arrays that `file`, a .npz, holds; if it is missing or damaged, it is fitted and written there.

    Example:
        >>> keep_fitted(Whitening, Path("zca.npz"), lambda: Whitening.fit(images, rows))
        Whitening(mean=array(...), matrix=array(...))
    """
    try:
        with np.load(file) as stored:  # a zip file, whose checksums NumPy verifies
            return kind(**stored)
    except FileNotFoundError:
        pass
    except Exception as error:  # NumPy raises anything here, depending on the file's content
        logging.warning("%s is damaged (%s); it is rebuilt", file, error)
    fitted = fit()
    with atomic_writer(file) as stream:
        np.savez(stream, **asdict(fitted))  # type: ignore[call-overload]
    return fitted
