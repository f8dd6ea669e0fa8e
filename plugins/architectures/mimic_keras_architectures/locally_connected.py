"""A locally connected layer: a convolution whose filters differ from place to place. Keras 3 has none."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from mimic_keras_architectures.pooling import extract_windows


@keras.saving.register_keras_serializable("mimic_keras_architectures")
class LocallyConnected2D(layers.Layer):
    """`filters` outputs at every place, each from the `kernel_size` x `kernel_size` window around it; "same" padding.

    Args:
        filters: outputs at a place.
        kernel_size: height and width of the windows.
        use_bias: whether every output has a bias of its own.
        kernel_initializer: a `VarianceScaling`; its fans are those of a convolution with these filters.
        kernel_regularizer: as in Keras.

    Example:
        >>> layer = LocallyConnected2D(16, 3)
        >>> layer(np.zeros([1, 2, 2, 64])).shape, layer.count_params()
        (TensorShape([1, 2, 2, 16]), 36928)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.filters, self.kernel_size, self.use_bias = filters, kernel_size, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tuple) -> None:
        _, rows, columns, _ = self.compute_output_shape(input_shape)
        shape = (rows, columns, self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        # Keras takes all leading dimensions for the window's: as if an output were a sum over all places.
        scaling = self.kernel_initializer
        initializer = keras.initializers.VarianceScaling(
            scaling.scale * rows * columns, scaling.mode, scaling.distribution, scaling.seed
        )
        self.kernel = self.add_weight(
            name="kernel", shape=shape, initializer=initializer, regularizer=self.kernel_regularizer
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(rows, columns, self.filters), initializer="zeros")

    def call(self, x: Any) -> Any:
        """float [B, height, width, channels] to [B, height, width, filters]."""
        before, after = (self.kernel_size - 1) // 2, self.kernel_size // 2
        padded = ops.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])
        windows = extract_windows(padded, self.kernel_size, 1)
        rows, columns, height, width, channels, filters = self.kernel.shape
        kernel = ops.reshape(self.kernel, (rows, columns, height * width, channels, filters))
        outputs = ops.einsum("brcwi,rcwio->brco", windows, kernel)
        return outputs + self.bias if self.use_bias else outputs

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
