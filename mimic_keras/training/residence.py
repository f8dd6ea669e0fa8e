"""Copies of the examples in the memory of GPUs, so that a step gathers them where it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from mimic_keras.training.batches import Batch
from mimic_keras.training.private_api import gpu_memory
from mimic_keras.training.workers import are_several

MEMORY_SHARE = 0.5  # of a GPU, for examples at most: the rest is for the net, its gradients and its activations
STAY = (tf.int32, tf.string)  # TensorFlow has no kernel that gathers these on a GPU: the host does
# What the first of several workers can send the others, as it does with the initial value of every variable.
SENT = (tf.bool, tf.float16, tf.float32, tf.float64, tf.int32, tf.int64)

# int64 [B] to a batch, in a graph.
Gather = Callable[[tf.Tensor], Batch]


def copy_to_gpus(functions: Sequence[Any], strategy: tf.distribute.Strategy) -> list[Gather]:
    """The functions, reading copies of their variables in the memory of every GPU; none if the copies do not fit.

    A variable that several functions read is copied once.

    Args:
        functions: concrete functions of ids, int64 [B], that read variables in host memory.
        strategy: the GPUs.
    """
    variables = {id(each.handle): each for function in functions for each in function.graph.variables}
    moved = {key: each for key, each in variables.items() if each.dtype not in STAY}
    if are_several(strategy):
        moved = {key: each for key, each in moved.items() if each.dtype in SENT}
    size = sum(each.shape.num_elements() * each.dtype.size for each in moved.values())
    memory = min(gpu_memory())
    if size > MEMORY_SHARE * memory:
        logging.info(
            "the examples stay in host memory: they take %.2f GB, more than %g of a GPU's %.2f GB",
            size / 1e9,
            MEMORY_SHARE,
            memory / 1e9,
        )
        return []
    logging.info("the examples are in GPU memory: %.2f GB of %.2f GB", size / 1e9, memory / 1e9)
    with strategy.scope():
        copies = {key: tf.Variable(each.value(), trainable=False) for key, each in moved.items()}
    return [_reading(function, copies) for function in functions]


def _reading(function: Any, copies: Mapping[int, tf.Variable]) -> Gather:
    """`function` with the copies of its variables in their place: {id of a variable's handle: the copy}."""
    graph, outputs = function.graph, tf.nest.flatten(function.structured_outputs)
    definition = graph.as_graph_def()

    def gather(ids: tf.Tensor) -> Batch:
        given = {function.inputs[0].name: tf.identity(ids)}
        for outer, inner in graph.captures:
            # In a replica, the handle of a copy is that of the replica's own.
            given[inner.name] = tf.identity(copies[id(outer)].handle if id(outer) in copies else outer)
        names = [output.name for output in outputs]
        found = tf.graph_util.import_graph_def(definition, given, names, name="batch")
        for tensor, output in zip(found, outputs, strict=True):
            tensor.set_shape(output.shape)
        return tf.nest.pack_sequence_as(function.structured_outputs, found)

    return gather
