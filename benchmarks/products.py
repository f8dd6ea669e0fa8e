"""The products of a net's layers and nothing else, on tensors that are ready: what its speed is a share of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from nets import Layer

SAME = {"strides": [1, 1, 1, 1], "padding": "SAME"}


def products(layers: Sequence[Layer], batch_size: int, dtype: str, training: bool) -> Callable[[], tf.Tensor]:
    """A function that runs them, of a training step or of a forward pass, one after the other.

    It returns the sum of one element of each: what nobody reads is taken out of a graph.
    """
    weighted = [layer for layer in layers if "outputs" in layer]
    operands = [_operands(layer, batch_size, dtype) for layer in weighted]

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        total = tf.zeros([], dtype)
        for run in _in_order(weighted, operands, training):
            with tf.control_dependencies([total]):
                total += tf.reshape(run(), [-1])[0]
        return total

    return step


def _in_order(
    layers: Sequence[Layer], operands: Sequence[Sequence[tf.Variable]], training: bool
) -> Iterator[Callable[[], tf.Tensor]]:
    forward = [_product(layer, *each)[0] for layer, each in zip(layers, operands, strict=True)]
    if not training:
        return iter(forward)
    backward = [_product(layer, *each)[1:] for layer, each in zip(layers, operands, strict=True)]
    of_inputs = [[of_kernel, of_input] for of_kernel, of_input in reversed(backward[1:])]
    return itertools.chain(forward, *of_inputs, [backward[0][0]])


def _operands(layer: Layer, batch_size: int, dtype: str) -> list[tf.Variable]:
    """Inputs, kernel and gradient of the outputs."""
    if layer["kind"] == "dense":
        shapes = [[batch_size, layer["inputs"]], [layer["inputs"], layer["outputs"]], [batch_size, layer["outputs"]]]
    else:
        rows, columns, channels = layer["inputs"]
        shapes = [[batch_size, rows, columns, channels], [*layer["kernel"], channels, layer["outputs"]]]
        shapes.append([batch_size, rows, columns, layer["outputs"]])
    return [tf.Variable(tf.random.normal(shape, stddev=0.1, dtype=dtype)) for shape in shapes]


def _product(layer: Layer, inputs: tf.Variable, kernel: tf.Variable, upper: tf.Variable) -> Any:
    """The outputs, the gradient of the kernel and that of the inputs, each as a function."""
    if layer["kind"] == "dense":
        return (
            lambda: tf.matmul(inputs, kernel),
            lambda: tf.matmul(inputs, upper, transpose_a=True),
            lambda: tf.matmul(upper, kernel, transpose_b=True),
        )
    sizes = {"filter_sizes": kernel.shape, "input_sizes": inputs.shape}
    return (
        lambda: tf.nn.conv2d(inputs, kernel, 1, "SAME"),
        lambda: tf.raw_ops.Conv2DBackpropFilter(
            input=inputs, filter_sizes=sizes["filter_sizes"], out_backprop=upper, **SAME
        ),
        lambda: tf.raw_ops.Conv2DBackpropInput(
            input_sizes=sizes["input_sizes"], filter=kernel, out_backprop=upper, **SAME
        ),
    )
