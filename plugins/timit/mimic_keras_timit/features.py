"""The features of Ba & Caruana 2014, section 3: 123 numbers per frame and windows of 15 frames, in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from mimic_keras_timit.audio import SAMPLE_RATE

FRAME_LENGTH = 400  # samples: 25 ms
FRAME_SHIFT = 160  # samples: 10 ms
MEL_BINS = 40
STATICS = MEL_BINS + 1  # with energy
FEATURES = 3 * STATICS  # with first and second derivatives
CONTEXT = 7  # frames on either side
WINDOW = 2 * CONTEXT + 1
# The paper specifies no more than the above. As in HTK and python_speech_features: 512-point transform, derivatives by
# regression over two frames on either side. Ours: no pre-emphasis; filters from 0 to 8,000 Hz.
TRANSFORM_LENGTH = 512
DERIVATIVE_REACH = 2
# The energy of one quantisation step of int16 samples, so that digital silence has a logarithm.
SMALLEST_ENERGY = 1.0


def num_frames(samples: int) -> int:
    """Number of whole frames in this many samples."""
    return max(0, 1 + (samples - FRAME_LENGTH) // FRAME_SHIFT)


def frame_centres(frames: int) -> np.ndarray:
    """The middle sample of each frame, int64 [frames]."""
    return np.arange(frames, dtype=np.int64) * FRAME_SHIFT + FRAME_LENGTH // 2


def extract(samples: Any) -> Any:
    """One utterance's int16 samples [N], or floats in the same scale, to float32 [num_frames(N), 123].

    Columns: 40 logarithmic mel energies and the logarithm of the frame's energy, then their first and their second
    derivatives. Computed in float64, because quiet bins next to loud ones would lose precision.

    Example:
        >>> extract(tf.zeros([16_000], tf.int16)).shape
        TensorShape([98, 123])
    """
    import tensorflow as tf

    frames = tf.signal.frame(tf.cast(samples, tf.float64), FRAME_LENGTH, FRAME_SHIFT)
    window = tf.signal.hamming_window(FRAME_LENGTH, periodic=False, dtype=tf.float64)
    padded = tf.pad(frames * window, [[0, 0], [0, TRANSFORM_LENGTH - FRAME_LENGTH]])  # rfft cannot pad an empty tensor
    power = tf.abs(tf.signal.rfft(padded)) ** 2
    energy = tf.reduce_sum(frames**2, -1, keepdims=True)
    statics = tf.math.log(tf.maximum(tf.concat([power @ mel_filters(), energy], -1), SMALLEST_ENERGY))
    first = _derivative(statics)
    return tf.cast(tf.concat([statics, first, _derivative(first)], -1), tf.float32)


def mel_filters() -> Any:
    """Triangular mel filters, float64 [257, 40]: the same as in `tfio.audio.melscale`, which only has float32."""
    import tensorflow as tf

    bins = TRANSFORM_LENGTH // 2 + 1
    return tf.signal.linear_to_mel_weight_matrix(MEL_BINS, bins, SAMPLE_RATE, 0.0, SAMPLE_RATE / 2, tf.float64)


def _derivative(values: Any) -> Any:
    """The slope of a line through five frames (HTK Book, eq. 5.16), with the first and last frame repeated."""
    import tensorflow as tf

    count = tf.shape(values)[0]
    places = tf.range(count)

    def shifted(by: int) -> Any:
        return tf.gather(values, tf.clip_by_value(places + by, 0, count - 1))

    reach = range(1, DERIVATIVE_REACH + 1)
    return tf.add_n([step * (shifted(step) - shifted(-step)) for step in reach]) / (2 * sum(step**2 for step in reach))


def gather_windows(frames: Any, first: Any, last: Any, places: Any) -> Any:
    """The 15 frames around each of `places`, with an utterance's first and last frame repeated beyond its ends.

    Args:
        frames: all utterances, float32 [N, 123].
        first, last: the bounds of each frame's utterance, int32 [N].
        places: the frames in the middle, int64 [B].

    Returns:
        float32 [B, 15, 123].
    """
    import tensorflow as tf

    around = tf.cast(places, tf.int32)[:, None] + tf.range(-CONTEXT, CONTEXT + 1)
    inside = tf.clip_by_value(around, tf.gather(first, places)[:, None], tf.gather(last, places)[:, None])
    return tf.gather(frames, inside)
