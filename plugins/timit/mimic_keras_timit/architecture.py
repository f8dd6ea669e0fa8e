"""`timit_cnn`: the acoustic model that convolves along frequency, the teacher of Ba & Caruana 2014, Table 1."""

from __future__ import annotations

import keras
from keras import layers
from mimic_keras_architectures.chain import Chain, dropout_rates

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

    The values, first and second derivatives of the 15 frames are the 45 channels of the first convolution; the energy's
    45 values join after the last pooling (Abdel-Hamid et al. 2013, "Exploring convolutional neural network structures
    and optimization techniques for speech recognition", with weights shared over all frequencies; Deng et al. 2013).

    Args:
        input_shape: (frames, 123).
        num_classes: number of logits.
        filters, hidden_units, activation, dropout, weight_decay, batch_normalization: as in mimic_keras_architectures.
        kernel_size: mel bins that a filter spans ("valid" padding).
        pool_size: mel bins per pool, without overlap; the outer pools are smaller where it does not divide the bins.

    Returns:
        float32 [batch, frames, 123] to float32 logits [batch, num_classes].

    Raises:
        ValueError: the inputs are not [frames, 123], or `dropout` is a list without exactly one rate more than blocks.

    Example:
        >>> timit_cnn((15, 123), 183, filters=[200], hidden_units=[2000, 2000, 2000]).count_params()
        12934383
    """
    if len(input_shape) != 2 or input_shape[1] != FEATURES:
        raise ValueError(f"timit_cnn takes [frames, {FEATURES}]; the data set's inputs are {input_shape}")
    after_pooling, after_hidden = dropout_rates(dropout, len(filters))
    chain = Chain(activation, weight_decay, batch_normalization)
    frames = input_shape[0]
    inputs = keras.Input(input_shape, name="inputs")
    by_kind = layers.Permute((3, 1, 2))(layers.Reshape((frames, FEATURES // STATICS, STATICS))(inputs))
    channels = layers.Reshape((STATICS, -1))(by_kind)  # [batch, mel bins and energy, frames x kinds]
    x = layers.Cropping1D((0, STATICS - MEL_BINS))(channels)
    x = chain.add_blocks(
        x,
        filters,
        after_pooling,
        lambda width, **options: layers.Conv1D(width, kernel_size, **options),
        lambda: layers.MaxPooling1D(pool_size, padding="same"),
    )
    energies = layers.Flatten()(layers.Cropping1D((MEL_BINS, 0))(channels))
    x = layers.Concatenate()([layers.Flatten()(x), energies])
    x = chain.add_hidden(x, hidden_units, after_hidden)
    return keras.Model(inputs, chain.add_logits(x, num_classes), name="timit_cnn")
