"""Pooling over windows of rows and columns: the largest value, the mean, or one drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import keras
from keras import layers, ops

Pooling = Literal["max", "average", "stochastic"]


def make_pooling(pooling: Pooling, size: int, stride: int | None) -> Callable[[], layers.Layer]:
    """A function that makes one more pooling layer; `stride` is the distance of the windows, by default their size.

    Windows that would leave the image are left out.

    Raises:
        ValueError: there is no such pooling.

    Example:
        >>> make_pooling("max", 3, 2)()(keras.Input((32, 32, 8))).shape
        (None, 15, 15, 8)
    """
    makers = {"max": layers.MaxPooling2D, "average": layers.AveragePooling2D, "stochastic": StochasticPooling2D}
    if pooling not in makers:
        raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {pooling!r}")
    return lambda: makers[pooling](size, stride)


@keras.saving.register_keras_serializable("mimic_keras_architectures")
class StochasticPooling2D(layers.Layer):
    """Zeiler & Fergus 2013, "Stochastic Pooling for Regularization of Deep Convolutional Neural Networks".

    In training, every window gives one of its values, drawn with a probability in proportion to the value (equations 4
    and 5); otherwise the mean of its values weighted by these probabilities (equation 6). A window of zeros gives 0.
    Values must not be negative, as after a rectifier.

    Args:
        pool_size: height and width of the windows.
        strides: distance of the windows; None: `pool_size`.

    Example:
        >>> layer = StochasticPooling2D(2)
        >>> layer(np.array([[3.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 2, 1)).numpy().ravel().tolist()
        [2.5]
    """

    def __init__(self, pool_size: int = 2, strides: int | None = None, **options: Any):
        super().__init__(**options)
        self.pool_size, self.strides = pool_size, strides or pool_size
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x: Any, training: bool = False) -> Any:
        """float [B, height, width, channels] to [B, windows down, windows across, channels]."""
        windows = extract_windows(x, self.pool_size, self.strides)
        if not training:
            total = ops.sum(windows, axis=3)
            return ops.sum(windows * windows, axis=3) / ops.where(total > 0, total, ops.ones_like(total))
        # The value at which the running sum of the window passes a random share of its total.
        sums = ops.cumsum(windows, axis=3)
        share = keras.random.uniform(ops.shape(sums[:, :, :, -1:]), dtype=sums.dtype, seed=self.seed_generator)
        drawn = ops.argmax(ops.cast(sums > share * sums[:, :, :, -1:], "int32"), axis=3)
        chosen = ops.one_hot(drawn, self.pool_size**2, axis=3, dtype=windows.dtype)
        return ops.sum(windows * ops.stop_gradient(chosen), axis=3)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        sizes = (None if size is None else (size - self.pool_size) // self.strides + 1 for size in input_shape[1:3])
        return (input_shape[0], *sizes, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pool_size": self.pool_size, "strides": self.strides}


def extract_windows(x: Any, size: int, stride: int) -> Any:
    """[B, height, width, channels] to [B, rows, columns, size * size, channels]: the windows within the image."""
    rows, columns = (length - size + 1 for length in x.shape[1:3])
    shifted = [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size)]
    return ops.stack(shifted, axis=3)
