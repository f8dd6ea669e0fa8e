"""A Keras model as the program handles it: its logits, cost and file, and a standardised student's affine head."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import Split
from mimic_keras.storage.files import write_json

AFFINE_HEAD = "affine_head"
PREDICTION_BATCH = 512


def logits_of(output: Any) -> tf.Tensor:
    """The logits of an architecture's output, which is a tensor or a dict with "logits"; always float32."""
    return tf.cast(output["logits"] if isinstance(output, dict) else output, tf.float32)


def parameters(model: keras.Model) -> int:
    """Number of trainable weights."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def sketched(build: Callable[[], Any], otherwise: Callable[[Callable[[], Any]], Any]) -> Any:
    """What `build()` returns, its variables having shapes and no values: a net of any size in milliseconds.

    A net that needs its values, or is wrong, is left to `otherwise(build)`, which builds it in full.
    """
    with contextlib.suppress(Exception), keras.StatelessScope(initialize_variables=False):
        return build()
    return otherwise(build)


@dataclass(frozen=True)
class Cost:
    """Of one example: `parameters` counts trainable weights; `multiply_adds` the multiplications of matrix products
    and convolutions (elementwise work is not counted)."""

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Finished:
    """A net that needs no more training. `folder` is its artefact's, None if it was loaded from elsewhere; `history`
    {metric: value per epoch} holds its curves, and is empty if it was not trained here."""

    name: str
    key: str
    cost: Cost
    folder: Path | None
    history: dict[str, list[float]]


def multiply_adds(call: Callable[[tf.Tensor], Any], input_shape: Sequence[int]) -> int:
    """Multiply-adds of `call` on one example [1, *input_shape].

    Example:
        >>> multiply_adds(keras.Sequential([keras.Input((10,)), keras.layers.Dense(3)]), (10,))
        30
    """
    return _graph_cost(_traced(call, input_shape).graph)


def logits_shape(call: Callable[[tf.Tensor], Any], input_shape: Sequence[int]) -> tuple[int | None, ...]:
    """The shape of `call`'s logits for one example, (1, num_classes) if it keeps the contract."""
    outputs = _traced(call, input_shape).structured_outputs
    return tuple((outputs["logits"] if isinstance(outputs, dict) else outputs).shape)


def _traced(call: Callable[[tf.Tensor], Any], input_shape: Sequence[int]) -> Any:
    specification = tf.TensorSpec([1, *input_shape], tf.float32)
    return tf.function(call, autograph=False).get_concrete_function(specification)


def _graph_cost(graph: Any) -> int:
    return sum(_operation_cost(operation) for operation in graph.get_operations())


def _operation_cost(operation: tf.Operation) -> int:
    kind = operation.type
    if kind in ("PartitionedCall", "StatefulPartitionedCall"):
        return _graph_cost(operation.graph._get_function(operation.get_attr("f").name).graph)  # no public way in
    if kind in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        left, right = (operand.shape for operand in operation.inputs[:2])
        names = ("transpose_a", "transpose_b") if kind == "MatMul" else ("adj_x", "adj_y")
        left_last, right_last = -1 - operation.get_attr(names[0]), -2 + operation.get_attr(names[1])
        return _size(operation.outputs[0].shape) * (left[left_last] or right[right_last] or 1)
    if kind in ("Conv2D", "Conv3D"):
        return _size(operation.outputs[0].shape) * _size(operation.inputs[1].shape[:-1])
    if kind == "DepthwiseConv2dNative":
        return _size(operation.outputs[0].shape) * _size(operation.inputs[1].shape[:2])
    if kind == "Einsum":
        terms = operation.get_attr("equation").decode().partition("->")[0].split(",")
        operands = zip(terms, operation.inputs, strict=True)
        return _size({axis: size for term, x in operands for axis, size in zip(term, x.shape, strict=True)}.values())
    return 0


def _size(shape: Any) -> int:
    """Product of the dimensions; an unknown one is the batch's, which is one example here."""
    return math.prod(1 if dimension is None else dimension for dimension in shape)


def save(folder: Path, model: keras.Model, history: dict[str, list[float]]) -> None:
    """Write `model.keras`, `history.json` (the curves) and `cost.json` into an artefact's folder."""
    model.save(folder / "model.keras")
    write_json(folder / "history.json", history)
    write_json(folder / "cost.json", asdict(cost(model)))


def cost(model: keras.Model) -> Cost:
    return Cost(parameters(model), multiply_adds(inference(model), model.input_shape[1:]))


def load(folder: Path) -> keras.Model:
    """The model of an artefact's folder, in float32; code inside the file is not run (Keras' safe mode)."""
    return keras.models.load_model(folder / "model.keras", compile=False)


def with_affine_head(net: keras.Model, scale: np.ndarray, offset: np.ndarray) -> keras.Model:
    """A model whose logits are `net`'s times `scale` plus `offset` (both [num_classes]): real logits again."""
    inputs = keras.Input(net.input_shape[1:], name="inputs")
    head = keras.layers.Rescaling(scale.tolist(), offset.tolist(), name=AFFINE_HEAD)
    outputs = net(inputs)
    return keras.Model(inputs, head(outputs["logits"] if isinstance(outputs, dict) else outputs), name="student")


def inference(model: keras.Model) -> Callable[[tf.Tensor], Any]:
    """The model's call as in use: layers that are random in training alone are told so; some are random by default."""
    return functools.partial(model, training=False)


def predictor(call: Callable[[tf.Tensor], Any]) -> Callable[[Split, np.ndarray], np.ndarray]:
    """A function of (split, virtual ids int64 [N]) to float32 logits [N, num_classes], in large batches."""
    run = tf.function(lambda inputs: logits_of(call(inputs)), reduce_retracing=True, autograph=False)

    def predict(split: Split, ids: np.ndarray) -> np.ndarray:
        batches = tf.data.Dataset.from_tensor_slices(ids).batch(PREDICTION_BATCH)
        batches = batches.map(split.batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
        return np.concatenate([run(inputs).numpy() for inputs in batches])

    return predict
