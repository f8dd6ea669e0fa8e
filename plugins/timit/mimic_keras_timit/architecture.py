"""`timit_cnn`: the acoustic model that convolves along frequency, teacher of Ba & Caruana 2014, Table 1."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from mimic_keras_timit.features import FEATURES, MEL_BINS, STATICS


def timit_cnn(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    filters: list[int | list[int]],
    hidden_units: list[int],
    kernel_size: int = 8,
    pool_size: int = 3,
    activation: str = "relu",
    dropout: float | list[float] = 0.0,
    weight_decay: float = 0.0,
    batch_normalization: bool = False,
) -> keras.Model:
    """Convolutions along the 40 mel bins, max-pooling along them, then fully connected layers.

    Static, first and second derivatives of the 15 frames are the 45 channels of the first convolution; the energies'
    45 values join behind the last pooling (Abdel-Hamid et al. 2013, "Exploring convolutional neural network structures
    and optimization techniques for speech recognition", with weights shared over all frequencies; Deng et al. 2013).

    Args:
        input_shape: (frames, 123).
        num_classes: of the logits.
        filters: blocks; a number is a block of one convolution, a list one of several. One pooling after each block.
        hidden_units: widths of the fully connected layers.
        kernel_size: mel bins that a filter spans ("valid" padding).
        pool_size: bins that are pooled, without overlap; the outer pools are smaller where it does not divide the bins.
        activation: of convolutions and hidden layers; any name that Keras knows.
        dropout: a rate after every hidden layer; or a list: one rate after each pooling, then one for hidden layers.
        weight_decay: d adds d / 2 times the squared norm of every kernel to the loss.
        batch_normalization: between every convolution or hidden layer and its activation.

    Returns:
        float32 [batch, frames, 123] to float32 logits [batch, num_classes].

    Raises:
        ValueError: the inputs are not [frames, 123], or `dropout` does not have one rate more than there are blocks.

    Example:
        >>> timit_cnn((15, 123), 183, filters=[200], hidden_units=[2000, 2000, 2000]).count_params()
        12934383
    """
    if len(input_shape) != 2 or input_shape[1] != FEATURES:
        raise ValueError(f"timit_cnn takes [frames, {FEATURES}]; the data set's inputs are {input_shape}")
    rates = dropout if isinstance(dropout, list) else [0.0] * len(filters) + [dropout]
    if len(rates) != len(filters) + 1:
        raise ValueError(
            f"dropout has {len(rates)} rates; {len(filters) + 1} are needed: one a block, one for hidden layers"
        )
    *after_pools, after_hidden = rates

    def kernel(gain: float) -> dict[str, Any]:
        return {
            "kernel_initializer": keras.initializers.VarianceScaling(gain, "fan_in"),
            "kernel_regularizer": keras.regularizers.L2(weight_decay / 2) if weight_decay else None,
        }

    def activated(x: Any, layer: type[layers.Layer], *arguments: int) -> Any:
        x = layer(*arguments, use_bias=not batch_normalization, **kernel(2.0))(x)
        if batch_normalization:
            x = layers.BatchNormalization(synchronized=True)(x)
        return layers.Activation(activation)(x)

    def dropped(x: Any, rate: float) -> Any:
        return layers.Dropout(rate)(x) if rate else x

    frames = input_shape[0]
    inputs = keras.Input(input_shape, name="inputs")
    by_kind = layers.Permute((3, 1, 2))(layers.Reshape((frames, FEATURES // STATICS, STATICS))(inputs))
    channels = layers.Reshape((STATICS, -1))(by_kind)  # [batch, mel bins and energy, frames x kinds]
    x = layers.Cropping1D((0, STATICS - MEL_BINS))(channels)
    for block, rate in zip(filters, after_pools, strict=True):
        for width in [block] if isinstance(block, int) else block:
            x = activated(x, layers.Conv1D, width, kernel_size)
        x = dropped(layers.MaxPooling1D(pool_size, padding="same")(x), rate)
    energies = layers.Flatten()(layers.Cropping1D((MEL_BINS, 0))(channels))
    x = layers.Concatenate()([layers.Flatten()(x), energies])
    for width in hidden_units:
        x = dropped(activated(x, layers.Dense, width), after_hidden)
    logits = layers.Dense(num_classes, dtype="float32", name="logits", **kernel(1.0))(x)
    return keras.Model(inputs, logits, name="timit_cnn")
