"""The nets of Ba & Caruana 2014 and Urban et al. 2017: `mlp`, `bottleneck`, `conv_student` and `cnn`.

All four are one chain, [input scale] - [blocks of convolutions, a max-pooling after each] - [linear bottleneck] -
[hidden layers] - logits, of which each leaves something out. Keywords mean the same in all of them:

    hidden_units: widths of the non-linear fully connected layers.
    linear_units: width k of the linear bottleneck, a Dense layer without bias or activation (Ba & Caruana 2.3).
    filters: blocks; a number is a block of one convolution, a list one of several: [[76, 76], [126, 126]].
    kernel_size, pool_size: height and width of the filters ("same" padding) and of the non-overlapping max-pooling.
    activation: of convolutions and hidden layers; any name that Keras knows.
    dropout: a rate after every hidden layer; or a list: one rate after each pooling, then one for the hidden layers.
    input_dropout: rate on the inputs.
    weight_decay: d adds d / 2 times the squared norm of every kernel to the loss, so that its gradient has d * kernel.
    batch_normalization: between every convolution or hidden layer and its activation; synchronised over devices.
    initialization_scale: factor on the standard deviation of the initial kernels (He et al. 2015 before an activation,
        LeCun's elsewhere).
    input_scale: factor on the inputs.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


def mlp(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    hidden_units: list[int],
    activation: str = "relu",
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    weight_decay: float = 0.0,
    batch_normalization: bool = False,
    initialization_scale: float = 1.0,
    input_scale: float = 1.0,
) -> keras.Model:
    """Fully connected layers. float32 [batch, *input_shape] to float32 logits [batch, num_classes].

    Example:
        >>> mlp((15, 123), 183, hidden_units=[2000, 2000, 2000], dropout=0.5).output_shape
        (None, 183)
    """
    return _chain("mlp", **locals())


def bottleneck(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    linear_units: int,
    hidden_units: list[int],
    activation: str = "relu",
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    weight_decay: float = 0.0,
    batch_normalization: bool = False,
    initialization_scale: float = 1.0,
    input_scale: float = 1.0,
) -> keras.Model:
    """A linear layer, then hidden ones: Ba & Caruana 2014, section 2.3. Shapes as `mlp`.

    Example:
        >>> bottleneck((15, 123), 183, linear_units=250, hidden_units=[8000]).count_params()
        3933433
    """
    return _chain("bottleneck", **locals())


def conv_student(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    filters: list[int | list[int]],
    linear_units: int | None = None,
    hidden_units: list[int],
    kernel_size: int = 5,
    pool_size: int = 2,
    activation: str = "relu",
    dropout: float | list[float] = 0.0,
    input_dropout: float = 0.0,
    weight_decay: float = 0.0,
    batch_normalization: bool = False,
    initialization_scale: float = 1.0,
    input_scale: float = 1.0,
) -> keras.Model:
    """Convolutions, a linear bottleneck, hidden layers: float32 [batch, height, width, channels] to logits.

    Ba & Caruana 2014, Table 2 (128c-p-1200L-30k); Urban et al. 2017, section 2.8 (5 x 5 filters, the default here).

    Example:
        >>> conv_student((32, 32, 3), 10, filters=[128], linear_units=1200, hidden_units=[30000]).output_shape
        (None, 10)
    """
    return _chain("conv_student", **locals())


def cnn(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    filters: list[int | list[int]],
    hidden_units: list[int],
    kernel_size: int = 3,
    pool_size: int = 2,
    activation: str = "relu",
    dropout: float | list[float] = 0.0,
    input_dropout: float = 0.0,
    weight_decay: float = 0.0,
    batch_normalization: bool = False,
    initialization_scale: float = 1.0,
    input_scale: float = 1.0,
) -> keras.Model:
    """A deep convolutional net: float32 [batch, height, width, channels] to logits.

    Urban et al. 2017, section 2.7 (3 x 3 filters, the default here): filters=[[76, 76], [126, 126],
    [148, 148, 148, 148]], hidden_units=[1200, 1200] is its 76c2-mp-126c2-mp-148c4-mp-1200fc2.

    Example:
        >>> cnn((8, 8, 1), 10, filters=[[16, 16], 32], hidden_units=[64], dropout=[0.1, 0.1, 0.5]).output_shape
        (None, 10)
    """
    return _chain("cnn", linear_units=None, **locals())


def _chain(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    hidden_units: list[int],
    activation: str,
    dropout: float | list[float],
    input_dropout: float,
    weight_decay: float,
    batch_normalization: bool,
    initialization_scale: float,
    input_scale: float,
    filters: list[int | list[int]] | tuple = (),
    kernel_size: int = 1,
    pool_size: int = 1,
    linear_units: int | None = None,
) -> keras.Model:
    if filters and len(input_shape) != 3:
        raise ValueError(f"{name} convolves over [height, width, channels]; the data set's inputs are {input_shape}")
    *after_pools, after_hidden = _dropout_rates(dropout, len(filters))
    # He et al. 2015 before a rectifier (variance 2 / inputs), LeCun's variance 1 / inputs before nothing.
    common = {"kernel_regularizer": keras.regularizers.L2(weight_decay / 2) if weight_decay else None}

    def kernel(gain: float) -> dict[str, Any]:
        variance = gain * initialization_scale**2
        return {**common, "kernel_initializer": keras.initializers.VarianceScaling(variance, "fan_in")}

    def activated(x: Any, layer: type[layers.Layer], *arguments: int, **options: Any) -> Any:
        x = layer(*arguments, use_bias=not batch_normalization, **options, **kernel(2.0))(x)
        if batch_normalization:
            x = layers.BatchNormalization(synchronized=True)(x)
        return layers.Activation(activation)(x)

    def dropped(x: Any, rate: float) -> Any:
        return layers.Dropout(rate)(x) if rate else x

    inputs = x = keras.Input(input_shape, name="inputs")
    if input_scale != 1.0:
        x = layers.Rescaling(input_scale)(x)
    x = dropped(x, input_dropout)
    for block, rate in zip(filters, after_pools, strict=True):
        for width in [block] if isinstance(block, int) else block:
            x = activated(x, layers.Conv2D, width, kernel_size, padding="same")
        x = dropped(layers.MaxPooling2D(pool_size)(x), rate)
    x = layers.Flatten()(x)
    if linear_units is not None:
        x = layers.Dense(linear_units, use_bias=False, **kernel(1.0))(x)
    for width in hidden_units:
        x = dropped(activated(x, layers.Dense, width), after_hidden)
    logits = layers.Dense(num_classes, dtype="float32", name="logits", **kernel(1.0))(x)
    return keras.Model(inputs, logits, name=name)


def _dropout_rates(dropout: float | list[float], blocks: int) -> list[float]:
    """One rate per block, and the one for hidden layers last."""
    if not isinstance(dropout, list):
        return [0.0] * blocks + [dropout]
    if len(dropout) != blocks + 1:
        raise ValueError(
            f"dropout has {len(dropout)} rates; {blocks + 1} are needed: one a block, one for hidden layers"
        )
    return dropout
