"""`timit_cnn`: the acoustic model that convolves along frequency, the teacher of Ba & Caruana 2014, Table 1."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import layers
from mimic_keras_architectures.chain import Chain, Initialization, add_dropout, dropout_rates

from mimic_keras_timit.features import FEATURES, MEL_BINS, STATICS


def timit_cnn(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    filters: list[int | list[int]],
    hidden_units: list[int],
    kernel_size: int = 8,
    pool_size: int = 3,
    pool_stride: int | None = None,
    weight_sharing: Literal["full", "limited"] = "full",
    activation: str = "relu",
    dropout: float | list[float] = 0.0,
    weight_decay: float = 0.0,
    batch_normalization: bool = False,
    initialization: Initialization = "glorot",
) -> keras.Model:
    """Convolutions along the 40 mel bins, max-pooling along them, then fully connected layers.

    The values, first and second derivatives of the 15 frames are the 45 channels of the first convolution; the energy's
    45 values join after the last pooling (Abdel-Hamid et al. 2013, "Exploring convolutional neural network structures
    and optimization techniques for speech recognition"; Deng et al. 2013).

    Args:
        input_shape: (frames, 123).
        num_classes: number of logits.
        filters, hidden_units, activation, dropout, weight_decay, batch_normalization, initialization: as in
            mimic_keras_architectures.
        kernel_size: mel bins that a filter spans ("valid" padding).
        pool_size, pool_stride: places of a filter per pool, and the distance of the pools; None: `pool_size`, without
            overlap. The outer pools are smaller where they do not fit.
        weight_sharing: "full": a filter is the same at all frequencies. "limited": every pool has filters of its own
            (Abdel-Hamid et al. 2013, section 3.2), which allows one convolution only; only whole pools.

    Returns:
        float32 [batch, frames, 123] to float32 logits [batch, num_classes].

    Raises:
        ValueError: the inputs are not [frames, 123], `dropout` is a list without exactly one rate more than blocks, or
            limited sharing is asked of several convolutions.

    Example:
        >>> timit_cnn((15, 123), 183, filters=[200], hidden_units=[2000, 2000, 2000]).count_params()
        12934383
    """
    if len(input_shape) != 2 or input_shape[1] != FEATURES:
        raise ValueError(f"timit_cnn takes [frames, {FEATURES}]; the data set's inputs are {input_shape}")
    after_pooling, after_hidden = dropout_rates(dropout, len(filters))
    chain = Chain(activation, weight_decay, batch_normalization, initialization)
    frames = input_shape[0]
    inputs = keras.Input(input_shape, name="inputs")
    by_kind = layers.Permute((3, 1, 2))(layers.Reshape((frames, FEATURES // STATICS, STATICS))(inputs))
    channels = layers.Reshape((STATICS, -1))(by_kind)  # [batch, mel bins and energy, frames x kinds]
    x = layers.Cropping1D((0, STATICS - MEL_BINS))(channels)
    stride = pool_stride or pool_size
    if weight_sharing == "limited":
        x = _add_limited(chain, x, filters, kernel_size, pool_size, stride)
        x = add_dropout(x, *after_pooling)
    else:
        x = chain.add_blocks(
            x,
            filters,
            after_pooling,
            lambda width, **options: layers.Conv1D(width, kernel_size, **options),
            lambda: layers.MaxPooling1D(pool_size, stride, padding="same"),
        )
    energies = layers.Flatten()(layers.Cropping1D((MEL_BINS, 0))(channels))
    x = layers.Concatenate()([layers.Flatten()(x), energies])
    x = chain.add_hidden(x, hidden_units, after_hidden)
    return keras.Model(inputs, chain.add_logits(x, num_classes), name="timit_cnn")


def _add_limited(chain: Chain, x: Any, filters: list[int | list[int]], kernel: int, pool: int, stride: int) -> Any:
    """One convolution and max-pooling in which every pool has filters of its own: [B, pools, filters]."""
    match filters:
        case [int(width)] | [[int(width)]]:
            pass
        case _:
            raise ValueError(f"weight_sharing: limited takes one convolution, as filters: [200]; got {filters}")
    bins, span = x.shape[1], kernel + pool - 1
    pools = []
    for start in range(0, bins - span + 1, stride):
        part = layers.Cropping1D((start, bins - span - start))(x)
        pools.append(
            chain.add_blocks(
                part,
                [width],
                [0.0],
                lambda count, **options: layers.Conv1D(count, kernel, **options),
                lambda: layers.MaxPooling1D(pool),
            )
        )
    return layers.Concatenate(axis=1)(pools) if len(pools) > 1 else pools[0]
