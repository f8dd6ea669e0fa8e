"""Single-layer features: filters that k-means finds in whitened patches (Coates, Ng & Lee 2011), as a preparation."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import host_variable
from mimic_keras_cifar.preparation import keep_fitted

# Their constants, for pixels from 0 to 255; the stride of the patches is 1.
PATCH = 6
PATCHES = 400_000  # of which the filters are found
CONTRAST_BIAS = 10.0  # is added to a patch's variance
EIGENVALUE_BIAS = 0.1
VARIANCE_BIAS = 0.01  # is added to a feature's variance
IMAGES_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class SingleLayer:
    """The features of an image, 4 for each filter.

    Every patch of 6 x 6 pixels is normalised (its mean subtracted, divided by its deviation) and whitened. Its
    activation of filter k is max(0, the mean distance to all filters - the distance to k), the "triangle" of section
    3.2.2. Activations are summed over the four quadrants of the image (3.3), and each sum is standardised with its mean
    and deviation over the training images.

    Float32, for patches of P numbers and K filters: `mean` [P] and `whitening` [P, P] of patches, `filters` [K, P],
    `feature_mean` and `feature_deviation` [4 K].
    """

    mean: np.ndarray
    whitening: np.ndarray
    filters: np.ndarray
    feature_mean: np.ndarray
    feature_deviation: np.ndarray

    def __call__(self, images: Any) -> Any:
        """uint8 [B, height, width, channels] to float32 [B, 4 K]: top left, top right, bottom left, bottom right."""
        import tensorflow as tf

        *_, feature_mean, feature_deviation = self._variables
        # Products of one size: an image has the same bits in every batch.
        sums = tf.map_fn(self._sum_quadrants, images, fn_output_signature=tf.float32)
        return (sums - feature_mean) / feature_deviation

    def _sum_quadrants(self, image: Any) -> Any:
        import tensorflow as tf

        mean, whitening, filters, *_ = self._variables
        channels = image.shape[-1]
        windows = tf.image.extract_patches(
            tf.cast(image, tf.float32)[None], [1, PATCH, PATCH, 1], [1, 1, 1, 1], [1, 1, 1, 1], "VALID"
        )[0]
        down, right, _ = windows.shape
        patches = tf.reshape(windows, [-1, PATCH * PATCH * channels])
        patches -= tf.reduce_mean(patches, 1, keepdims=True)
        patches *= tf.math.rsqrt(tf.reduce_mean(tf.square(patches), 1, keepdims=True) + CONTRAST_BIAS)
        patches = (patches - mean) @ whitening
        squares = tf.reduce_sum(tf.square(patches), 1, keepdims=True) + tf.reduce_sum(tf.square(filters), 1)
        distances = tf.sqrt(tf.maximum(squares - 2 * tf.matmul(patches, filters, transpose_b=True), 0.0))
        activations = tf.nn.relu(tf.reduce_mean(distances, 1, keepdims=True) - distances)
        activations = tf.reshape(activations, [down, right, -1])
        rows, columns = [(down + 1) // 2, down // 2], [(right + 1) // 2, right // 2]
        quadrants = [part for half in tf.split(activations, rows) for part in tf.split(half, columns, 1)]
        return tf.concat([tf.reduce_sum(part, [0, 1]) for part in quadrants], 0)

    @functools.cached_property
    def _variables(self) -> tuple[Any, ...]:
        return tuple(host_variable(value) for value in asdict(self).values())

    @classmethod
    def of(cls, images: np.ndarray, rows: np.ndarray, filters: int, folder: Path) -> SingleLayer:
        """The features of `images[rows]` with so many filters, found once and kept in `folder`."""
        version = 1  # to raise when `fit` changes
        digest = hashlib.sha256(f"{version} {filters} {PATCHES} {images.shape[1:]}".encode())
        digest.update(images[rows].data)
        file = folder / f"single-layer-{digest.hexdigest()}.npz"
        return keep_fitted(cls, file, lambda: cls.fit(images, rows, filters))

    @classmethod
    def fit(cls, images: np.ndarray, rows: np.ndarray, filters: int) -> SingleLayer:
        """Whitening in float64; k-means by scikit-learn's mini-batches; the features' statistics in float64."""
        from sklearn.cluster import MiniBatchKMeans

        patches = normalise(draw_patches(images, rows, PATCHES))
        mean, whitening = fit_whitening(patches)
        means = MiniBatchKMeans(filters, batch_size=max(filters, 10_000), n_init=1, max_iter=50, random_state=0)
        means.fit((patches - mean) @ whitening)
        unknown = np.zeros(4 * filters, np.float32), np.ones(4 * filters, np.float32)
        features = cls(
            mean.astype(np.float32), whitening.astype(np.float32), means.cluster_centers_.astype(np.float32), *unknown
        )
        total, squares = np.zeros(4 * filters), np.zeros(4 * filters)
        for start in range(0, len(rows), IMAGES_AT_ONCE):
            some = np.asarray(features(images[rows[start : start + IMAGES_AT_ONCE]]), np.float64)
            total += some.sum(0)
            squares += (some**2).sum(0)
        average = total / len(rows)
        deviation = np.sqrt(squares / len(rows) - average**2 + VARIANCE_BIAS)
        return replace(
            features, feature_mean=average.astype(np.float32), feature_deviation=deviation.astype(np.float32)
        )


def draw_patches(images: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """`count` patches from anywhere in any of `images[rows]`: float64 [count, 6 * 6 * channels], row by row."""
    random = np.random.RandomState(0)  # never changes: NEP 19
    owners = rows[random.randint(0, len(rows), count)]
    tops, lefts = (random.randint(0, side - PATCH + 1, count) for side in images.shape[1:3])
    windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    return np.moveaxis(windows[owners, tops, lefts], 1, -1).reshape(count, -1).astype(np.float64)


def normalise(patches: np.ndarray) -> np.ndarray:
    """Each patch minus its mean, divided by the root of its variance + 10."""
    patches = patches - patches.mean(1, keepdims=True)
    return patches / np.sqrt(patches.var(1, keepdims=True) + CONTRAST_BIAS)


def fit_whitening(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [P] of patches [N, P], and E (D + 0.1)^-1/2 E', E and D of their covariance."""
    eigenvalues, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    return patches.mean(0), (vectors / np.sqrt(eigenvalues + EIGENVALUE_BIAS)) @ vectors.T
