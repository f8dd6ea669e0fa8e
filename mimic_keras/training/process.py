"""The settings of a process that a run changes, kept for the program that the run is a part of."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import InputError
from mimic_keras.training.private_api import separate_state


@contextlib.contextmanager
def keeping_settings() -> Iterator[None]:
    """Within the block, nets are built and trained as in a new process; afterwards, what was set before is set again.

    This covers Keras' precision, image layout, names and seeds, the random generators of Python, NumPy and TensorFlow,
    deterministic operations and TF32. What TensorFlow fixes at its first computation stays: devices and threads.

    Raises:
        InputError: Keras computes with something else than TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        raise InputError(
            f"Keras computes with {keras.config.backend()} in this process; accepted: tensorflow, chosen by "
            "KERAS_BACKEND=tensorflow before Keras is imported"
        )
    floats, layout = keras.config.floatx(), keras.config.image_data_format()
    generators = random.getstate(), np.random.get_state()
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    with separate_state():
        keras.config.set_floatx("float32")
        keras.config.set_image_data_format("channels_last")
        try:
            yield
        finally:
            keras.config.set_floatx(floats)
            keras.config.set_image_data_format(layout)
            random.setstate(generators[0])
            np.random.set_state(generators[1])
            tf.config.experimental.enable_tensor_float_32_execution(tf32)
