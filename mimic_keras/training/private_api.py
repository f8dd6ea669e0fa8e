"""Every private name of Keras, TensorFlow and keras-tuner that the program uses; no other module uses one.

tests/test_private_api.py fails on a release that lacks one of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    import keras_tuner
    import tensorflow as tf
    from keras_tuner.engine.trial import Trial


class AlreadyBuilt:
    """A base, before `keras.Model`, of a model whose variables all exist before `fit`.

    Under a distribution strategy, `fit` averages the devices' parts of the first batch and builds the model with the
    result, which fails where the parts differ in size.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Do nothing."""


@contextlib.contextmanager
def variables_without_values() -> Iterator[None]:
    """Within the block, variables are made with shapes but never get values.

    Keras notes them to give them values when the next symbolic call ends, which would take the memory that the block is
    there to save; so the note is dropped.
    """
    from keras.src.backend.common import global_state

    noted = list(global_state.get_global_attribute("uninitialized_variables") or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute("uninitialized_variables", noted)


def parallel_map_calls() -> int | None:
    """`num_parallel_calls` of a map over a split's batches: None, serial, where operations are deterministic.

    TensorFlow then makes a map serial that reads variables, as a split's does, and logs an error if it was to be
    parallel.
    """
    import tensorflow as tf
    from tensorflow.python.framework import config

    return None if config.is_op_determinism_enabled() else tf.data.AUTOTUNE


def without_tracing_warning(function: Any) -> Any:
    """A `tf.function` whose line of source makes one for every net, which TensorFlow takes for needless tracing."""
    function._omit_frequent_tracing_warning = True
    return function


@contextlib.contextmanager
def separate_state() -> Iterator[None]:
    """Within the block, Keras counts names, draws seeds and chooses precision as in a new process, and TensorFlow may
    be given a seed and made deterministic; afterwards all are as before.

    TensorFlow has no public function that makes operations non-deterministic again, nor one that returns the seed.
    """
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context
    from tensorflow.python.framework import config

    names = [name for name in ("GLOBAL_STATE_TRACKER", "GLOBAL_SETTINGS_TRACKER") if hasattr(global_state, name)]
    trackers = {name: getattr(global_state, name) for name in names}
    eager, is_deterministic = context.context(), config.is_op_determinism_enabled()
    seed, generator = eager._seed, getattr(eager, "_rng", None)  # none until a seed is set
    for name in names:
        setattr(global_state, name, threading.local())
    config.disable_op_determinism()
    try:
        yield
    finally:
        for name, tracker in trackers.items():
            setattr(global_state, name, tracker)
        (config.enable_op_determinism if is_deterministic else config.disable_op_determinism)()
        eager._seed, eager._rng = seed, generator


def layers_read_by(layer: keras.layers.Layer) -> list[list[str]]:
    """The names of the layers whose outputs `layer` reads, one list for each time it was called.

    Example:
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2)])
        >>> layers_read_by(net.layers[1])
        [['a']]
    """
    return [[parent.operation.name for parent in node.parent_nodes] for node in layer._inbound_nodes]


def layer_that_made(tensor: Any) -> Any:
    """The layer that produced a symbolic tensor; None for anything else."""
    return getattr(getattr(tensor, "_keras_history", None), "operation", None)


def called_graph(operation: tf.Operation) -> tf.Graph:
    """The graph of the function that a `PartitionedCall` or `StatefulPartitionedCall` operation calls."""
    return operation.graph._get_function(operation.get_attr("f").name).graph


def is_onednn_enabled() -> bool | None:
    """Whether TensorFlow uses oneDNN's kernels: by processor, or as TF_ENABLE_ONEDNN_OPTS says; None: unknown."""
    import tensorflow as tf

    library = ctypes.CDLL(str(Path(tf.sysconfig.get_lib()) / "libtensorflow_framework.so.2"))
    function = getattr(library, "_ZN10tensorflow12IsMKLEnabledEv", None)  # tensorflow::IsMKLEnabled()
    if function is None:
        return None
    function.restype = ctypes.c_bool
    return bool(function())


def gpu_memory() -> list[int]:
    """The bytes of every GPU that TensorFlow may use; none without GPUs. There is no public function for it."""
    from tensorflow.python.client import device_lib

    return [device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU"]


def completed_trial(hyperparameters: keras_tuner.HyperParameters, trial_id: str, score: float) -> Trial:
    """A trial of keras-tuner with its score, as an oracle keeps it. Imports keras-tuner."""
    from keras_tuner.engine.trial import Trial, TrialStatus

    trial = Trial(hyperparameters, trial_id, TrialStatus.COMPLETED)
    trial.score = score
    return trial
