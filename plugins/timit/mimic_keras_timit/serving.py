"""Sound to windows in a served graph, with the functions that prepared the training data."""

from __future__ import annotations

from typing import Any

import numpy as np

from mimic_keras.contracts import RawSignature
from mimic_keras_timit import features
from mimic_keras_timit.preparation import normalise

LARGEST_SAMPLE = 32_768.0  # float samples are int16 ones divided by this


def signatures(
    mean: np.ndarray, deviation: np.ndarray, pcm: np.ndarray, lengths: np.ndarray, ids: np.ndarray
) -> dict[str, RawSignature]:
    """`serve_pcm16` and `serve_waveform`.

    Args:
        mean, deviation: of the training set's features, float64 [123].
        pcm: padded examples, int16 [B, samples].
        lengths: samples of each example, int32 [B].
        ids: validation ids of the examples' frames, int64.
    """
    import tensorflow as tf

    def prepare(samples: Any, lengths: Any) -> tuple[Any, Any]:
        return _prepare_windows(samples, lengths, mean, deviation)

    def specifications(name: str, dtype: Any) -> dict[str, Any]:
        return {name: tf.TensorSpec((None, None), dtype), "lengths": tf.TensorSpec((None,), tf.int32)}

    waveform = (pcm / LARGEST_SAMPLE).astype(np.float32)
    return {
        "serve_pcm16": RawSignature(
            specifications("pcm", tf.int16),
            lambda pcm, lengths: prepare(pcm, lengths),
            {"pcm": pcm, "lengths": lengths},
            ids,
        ),
        "serve_waveform": RawSignature(
            specifications("waveform", tf.float32),
            lambda waveform, lengths: prepare(waveform * LARGEST_SAMPLE, lengths),
            {"waveform": waveform, "lengths": lengths},
            ids,
        ),
    }


def _prepare_windows(samples: Any, lengths: Any, mean: np.ndarray, deviation: np.ndarray) -> tuple[Any, Any]:
    """Samples [B, S] and lengths int32 [B] to the windows of all utterances, float32 [frames, 15, 123], and row splits.

    Rows splits[b] to splits[b + 1] (int64 [B + 1]) are the frames of utterance b.
    """
    import tensorflow as tf

    checks = [
        tf.debugging.assert_equal(tf.shape(samples)[0], tf.shape(lengths)[0], "one length for each utterance"),
        tf.debugging.assert_non_negative(lengths, "lengths are numbers of samples"),
        tf.debugging.assert_less_equal(lengths, tf.shape(samples)[1], "lengths do not exceed the padded sound"),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        samples, lengths = tf.identity(samples), tf.identity(lengths)
    ragged = tf.map_fn(
        lambda each: features.extract(each[0][: each[1]]),
        (samples, lengths),
        fn_output_signature=tf.RaggedTensorSpec((None, features.FEATURES), tf.float32, 0, tf.int64),
    )
    splits, frames = ragged.row_splits, tf.reshape(ragged.values, [-1, features.FEATURES])
    frames = tf.cast(normalise(tf.cast(frames, tf.float64), mean, deviation), tf.float32)
    counts = splits[1:] - splits[:-1]
    first, last = (tf.cast(tf.repeat(bound, counts), tf.int32) for bound in (splits[:-1], splits[1:] - 1))
    places = tf.range(splits[-1], dtype=tf.int64)
    return features.gather_windows(frames, first, last, places), splits
