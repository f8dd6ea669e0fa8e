"""The nets of Ba & Caruana 2014 and Urban et al. 2017: `mlp`, `bottleneck`, `conv_student` and `cnn`.

All four are one chain with some parts left out: [input scale] - [blocks of convolutions, a pooling after each] -
[locally connected layers] - [linear bottleneck] - [hidden layers] - logits. Arguments mean the same in all of them:

    hidden_units: widths of the fully connected layers with an activation.
    linear_units: width k of the linear bottleneck, a Dense layer without bias or activation (Ba & Caruana 2.3).
    filters: blocks; a number is a block of one convolution, a list a block of several: [[76, 76], [126, 126]].
    local_filters, local_kernel_size: widths of the locally connected layers, convolutions whose filters differ from
        place to place ("valid" padding), and height and width of their filters.
    kernel_size: height and width of the filters ("same" padding).
    pool_size, pool_stride: height and width of the windows of a pooling, and their distance (None: pool_size, so that
        they do not overlap). Windows that would leave the image are left out.
    pooling: "max", "average", or "stochastic" (Zeiler & Fergus 2013).
    activation: of convolutions and hidden layers; any Keras activation name.
    dropout: the rate after every hidden layer; or a list: one rate after each pooling, then one for hidden layers.
    input_dropout: the rate on the inputs.
    weight_decay: d adds d / 2 times the squared norm of every kernel to the loss, so that its gradient has d * kernel.
    batch_normalization: between every convolution or hidden layer and its activation; synchronised over devices.
    initialization: of the kernels. "glorot", Keras' own: uniform, variance 2 / (inputs + outputs) (Glorot & Bengio
        2010, as in Urban 6.1). "he": truncated normal, variance 2 / inputs before an activation (He et al. 2015) and
        1 / inputs elsewhere.
    initialization_scale: factor on the standard deviation of the initial kernels.
    input_scale: factor on the inputs.
    separable: every convolution but the first is a depthwise one and a pointwise one, as in MobileNet (Howard et al.
        2017, sections 3.1 and 3.2), of about kernel_size ** 2 times fewer multiply-adds.
    output_base_width: B: the last layer learns as that of a net with B units before it, meant to let one learning
        rate serve nets of several widths: the largest curvature of the loss grows with the width H of that layer's
        inputs. They are multiplied by sqrt(B / H), and its initial kernel is divided by it; an export folds the factor
        away.

The nets of `existing` are models that somebody else defined.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from mimic_keras_architectures.chain import Chain, Initialization, add_dropout, dropout_rates
from mimic_keras_architectures.pooling import Pooling, make_pooling


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
    initialization: Initialization = "glorot",
    initialization_scale: float = 1.0,
    input_scale: float = 1.0,
    output_base_width: int | None = None,
) -> keras.Model:
    """Fully connected layers. float32 [batch, *input_shape] to float32 logits [batch, num_classes].

    Example:
        >>> mlp((15, 123), 183, hidden_units=[2000, 2000, 2000], dropout=0.5).output_shape
        (None, 183)
    """
    return _build_chain("mlp", **locals())


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
    initialization: Initialization = "glorot",
    initialization_scale: float = 1.0,
    input_scale: float = 1.0,
    output_base_width: int | None = None,
) -> keras.Model:
    """A linear layer, then hidden layers: Ba & Caruana 2014, section 2.3. Shapes as in `mlp`.

    Example:
        >>> bottleneck((15, 123), 183, linear_units=250, hidden_units=[8000]).count_params()
        3933433
    """
    return _build_chain("bottleneck", **locals())


def conv_student(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    filters: list[int | list[int]],
    linear_units: int | None = None,
    hidden_units: list[int],
    kernel_size: int = 5,
    pool_size: int = 2,
    pool_stride: int | None = None,
    pooling: Pooling = "max",
    activation: str = "relu",
    dropout: float | list[float] = 0.0,
    input_dropout: float = 0.0,
    weight_decay: float = 0.0,
    batch_normalization: bool = False,
    initialization: Initialization = "glorot",
    initialization_scale: float = 1.0,
    input_scale: float = 1.0,
    output_base_width: int | None = None,
    separable: bool = False,
) -> keras.Model:
    """Convolutions, a linear bottleneck, hidden layers: float32 [batch, height, width, channels] to logits.

    Ba & Caruana 2014, Table 2 (128c-p-1200L-30k); Urban et al. 2017, section 2.8 (5 x 5 filters, the default, in 6.2).

    Example:
        >>> conv_student((32, 32, 3), 10, filters=[128], linear_units=1200, hidden_units=[30000]).output_shape
        (None, 10)
    """
    return _build_chain("conv_student", **locals())


def cnn(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    filters: list[int | list[int]],
    local_filters: list[int] | None = None,
    hidden_units: list[int],
    kernel_size: int = 3,
    local_kernel_size: int = 3,
    pool_size: int = 2,
    pool_stride: int | None = None,
    pooling: Pooling = "max",
    activation: str = "relu",
    dropout: float | list[float] = 0.0,
    input_dropout: float = 0.0,
    weight_decay: float = 0.0,
    batch_normalization: bool = False,
    initialization: Initialization = "glorot",
    initialization_scale: float = 1.0,
    input_scale: float = 1.0,
    output_base_width: int | None = None,
    separable: bool = False,
) -> keras.Model:
    """A deep convolutional net: float32 [batch, height, width, channels] to logits.

    Urban et al. 2017, section 2.7 (3 x 3 filters, the default here: 6.1): filters=[[76, 76], [126, 126],
    [148, 148, 148, 148]], hidden_units=[1200, 1200] is its 76c2-mp-126c2-mp-148c4-mp-1200fc2.

    filters=[64, 64, 64], local_filters=[16], hidden_units=[] is 64c-p-64c-p-64c-p-16lc of Hinton et al. 2012
    ("Improving neural networks by preventing co-adaptation of feature detectors"), in Ba & Caruana 2014, Table 2.

    Example:
        >>> cnn((8, 8, 1), 10, filters=[[16, 16], 32], hidden_units=[64], dropout=[0.1, 0.1, 0.5]).output_shape
        (None, 10)
    """
    return _build_chain("cnn", linear_units=None, **locals())


def _build_chain(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    hidden_units: list[int],
    activation: str,
    dropout: float | list[float],
    input_dropout: float,
    weight_decay: float,
    batch_normalization: bool,
    initialization: Initialization,
    initialization_scale: float,
    input_scale: float,
    output_base_width: int | None,
    filters: list[int | list[int]] | tuple[()] = (),
    kernel_size: int = 1,
    pool_size: int = 1,
    pool_stride: int | None = None,
    pooling: Pooling = "max",
    local_filters: list[int] | None = None,
    local_kernel_size: int = 1,
    linear_units: int | None = None,
    separable: bool = False,
) -> keras.Model:
    if filters and len(input_shape) != 3:
        raise ValueError(f"{name} convolves over [height, width, channels]; the data set's inputs are {input_shape}")
    after_pooling, after_hidden = dropout_rates(dropout, len(filters))
    chain = Chain(activation, weight_decay, batch_normalization, initialization, initialization_scale)
    inputs = x = keras.Input(input_shape, name="inputs")
    if input_scale != 1.0:
        x = layers.Rescaling(input_scale)(x)
    x = add_dropout(x, input_dropout)
    kinds = itertools.chain([_convolution], itertools.repeat(_separable_convolution if separable else _convolution))
    x = chain.add_blocks(
        x,
        filters,
        after_pooling,
        lambda width, **options: next(kinds)(width, kernel_size, **options),
        make_pooling(pooling, pool_size, pool_stride),
    )
    x = chain.add_local(x, local_filters or [], local_kernel_size, after_hidden)
    x = layers.Flatten()(x)
    if linear_units is not None:
        x = chain.add_linear(x, linear_units)
    x = chain.add_hidden(x, hidden_units, after_hidden)
    return keras.Model(inputs, chain.add_logits(x, num_classes, output_base_width), name=name)


def _convolution(width: int, kernel_size: int, **options: Any) -> Callable[[Any], Any]:
    return layers.Conv2D(width, kernel_size, padding="same", **options)


def _separable_convolution(width: int, kernel_size: int, **options: Any) -> Callable[[Any], Any]:
    """A filter for each channel, then a layer that mixes the channels; nothing is between the two."""

    def convolve(x: Any) -> Any:
        # Keras counts all channels as inputs of a depthwise kernel; each output has kernel_size ** 2 of one channel.
        initializer = keras.initializers.VarianceScaling(x.shape[-1], "fan_in")
        regularizer = options["kernel_regularizer"]
        kernel = {"depthwise_initializer": initializer, "depthwise_regularizer": regularizer}
        x = layers.DepthwiseConv2D(kernel_size, padding="same", use_bias=False, **kernel)(x)
        return layers.Conv2D(width, 1, **options)(x)

    return convolve
