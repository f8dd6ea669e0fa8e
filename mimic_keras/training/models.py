"""What the program does with any Keras model: its logits, its cost, its files, and a standardised student's head."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import Split, atomic_writer, count_parameters, logits_of
from mimic_keras.storage.files import write_json
from mimic_keras.training.private_api import (
    called_graph,
    layer_that_made,
    parallel_map_calls,
    variables_without_values,
    without_tracing_warning,
)

AFFINE_HEAD = "affine_head"
PREDICTION_BATCH = 512
OPAQUE_OPERATIONS = ("PyFunc", "PyFuncStateless", "EagerPyFunc", "XlaCallModule")  # their work is not in the graph
METADATA, NO_DATE = "metadata.json", "1980-01-01@00:00:00"  # in a .keras file

# (split, virtual ids int64 [N]) to logits, float32 [N, num_classes].
Predict: TypeAlias = Callable[[Split, np.ndarray], np.ndarray]


def float32_logits(output: Any) -> tf.Tensor:
    """The logits in an architecture's output, in float32."""
    return tf.cast(logits_of(output), tf.float32)


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether the last layer of a net of layers is a softmax, or has one as its activation.

    Example:
        >>> ends_in_softmax(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]))
        True
    """
    layer: Any = model
    while isinstance(layer, keras.Model):
        outputs: list[Any] = getattr(layer, "outputs", None) or []  # a subclass has none
        layer = layer_that_made(outputs[0]) if len(outputs) == 1 else None
    return isinstance(layer, keras.layers.Softmax) or getattr(layer, "activation", None) is keras.activations.softmax


def build_without_values(build: Callable[[], Any], otherwise: Callable[[Callable[[], Any]], Any]) -> Any:
    """What `build()` returns when variables have shapes but no values: a net of any size takes milliseconds.

    If `build` raises, because the net needs its values or is wrong, `otherwise(build)` has to build it in full.
    """
    with contextlib.suppress(Exception), variables_without_values():
        return build()
    return otherwise(build)


@dataclass(frozen=True)
class Cost:
    """`parameters`: trainable weights. `multiply_adds`: multiplications for one example in matrix products and
    convolutions; elementwise work is not counted. None: it cannot be known."""

    parameters: int | None
    multiply_adds: int | None


@dataclass(frozen=True)
class FinishedNet:
    """A net that needs no more training.

    `folder` is its artefact's, None if it was loaded from elsewhere. `history` holds its curves, {metric: one value per
    epoch}, and is empty if it was not trained here.
    """

    name: str
    key: str
    cost: Cost
    folder: Path | None
    history: dict[str, list[float]]


def measure_cost(model: keras.Model) -> Cost:
    """The cost of a model of one input."""
    multiply_adds = count_multiply_adds(inference_call(model), model.input_shape[1:])
    return Cost(count_parameters(model.trainable_weights), multiply_adds)


def count_multiply_adds(call: Callable[[tf.Tensor], Any], input_shape: Sequence[int]) -> int | None:
    """Multiply-adds of `call` on one example, float32 [1, *input_shape], counted in its graph.

    None if part of the work is outside of the graph, in Python or in a program compiled by XLA.

    Example:
        >>> count_multiply_adds(keras.Sequential([keras.Input((10,)), keras.layers.Dense(3)]), (10,))
        30
    """
    return _count_in_graph(_trace(call, input_shape).graph)


def logits_shape(call: Callable[[tf.Tensor], Any], input_shape: Sequence[int]) -> tuple[int | None, ...]:
    """The shape of `call`'s logits for one example, (1, num_classes) if it keeps the contract."""
    return tuple(logits_of(_trace(call, input_shape).structured_outputs).shape)


def _trace(call: Callable[[tf.Tensor], Any], input_shape: Sequence[int]) -> Any:
    specification = tf.TensorSpec([1, *input_shape], tf.float32)
    return tf.function(call, autograph=False).get_concrete_function(specification)


def add_counts(counts: Iterable[int | None]) -> int | None:
    """The sum; None if one of them is.

    Example:
        >>> add_counts([1, 2]), add_counts([1, None])
        (3, None)
    """
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def _count_in_graph(graph: tf.Graph) -> int | None:
    return add_counts(_count_in_operation(operation) for operation in graph.get_operations())


def _count_in_operation(operation: tf.Operation) -> int | None:
    kind = operation.type
    if kind in OPAQUE_OPERATIONS:
        return None
    if kind in ("PartitionedCall", "StatefulPartitionedCall"):
        return _count_in_graph(called_graph(operation))
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


def _size(shape: Iterable[int | None]) -> int:
    """The product of the dimensions; an unknown one is the batch, which is one example here."""
    return math.prod(1 if dimension is None else dimension for dimension in shape)


def save(folder: Path, model: keras.Model, history: dict[str, list[float]]) -> None:
    """Write `model.keras`, `history.json` (the curves) and `cost.json` into an artefact's folder.

    A value of a curve that is infinite or undefined, as a monitored metric may be, becomes null.
    """
    model.save(folder / "model.keras")
    _remove_dates(folder / "model.keras")
    curves = {name: [value if math.isfinite(value) else None for value in curve] for name, curve in history.items()}
    write_json(folder / "history.json", curves)
    write_json(folder / "cost.json", asdict(measure_cost(model)))


def _remove_dates(file: Path) -> None:
    """Rewrite a .keras file, a zip archive, so that equal models give equal bytes."""
    with zipfile.ZipFile(file) as source, atomic_writer(file) as stream, zipfile.ZipFile(stream, "w") as target:
        for name in sorted(source.namelist()):
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.file_size = source.getinfo(name).file_size  # decides whether the archive needs 64-bit sizes
            with source.open(name) as reader, target.open(entry, "w") as writer:
                if name == METADATA:
                    writer.write(json.dumps(json.load(reader) | {"date_saved": NO_DATE}).encode())
                else:
                    shutil.copyfileobj(reader, writer)


def load(folder: Path) -> keras.Model:
    """The float32 model of an artefact's folder. Code in the file is not run (Keras' safe mode)."""
    return keras.models.load_model(folder / "model.keras", compile=False)


def with_affine_head(net: keras.Model, scale: np.ndarray, offset: np.ndarray) -> keras.Model:
    """A model whose logits are the net's standardised ones times `scale` plus `offset`, both [num_classes]."""
    inputs = keras.Input(net.input_shape[1:], name="inputs")
    head = keras.layers.Rescaling(scale.tolist(), offset.tolist(), name=AFFINE_HEAD)
    return keras.Model(inputs, head(logits_of(net(inputs))), name="student")


def inference_call(model: keras.Model) -> Callable[[tf.Tensor], Any]:
    """The model's call with `training=False`, since some layers of random augmentation are active by default."""
    return functools.partial(model, training=False)


def compile_logits(call: Callable[[tf.Tensor], Any]) -> Callable[[tf.Tensor], tf.Tensor]:
    """`call`, which takes float32 [B, *input_shape], as one graph that gives its logits in float32."""
    compiled = tf.function(lambda inputs: float32_logits(call(inputs)), reduce_retracing=True, autograph=False)
    return without_tracing_warning(compiled)


def read_inputs(split: Split, ids: tf.data.Dataset) -> tf.data.Dataset:
    """The inputs of batches of ids, int64 [B], read ahead of their use."""
    return ids.map(split.batch, num_parallel_calls=parallel_map_calls()).prefetch(tf.data.AUTOTUNE)


def make_predictor(call: Callable[[tf.Tensor], Any]) -> Predict:
    """A function that returns `call`'s logits of the examples with given ids.

    It runs in batches of PREDICTION_BATCH. `call` takes float32 [B, *input_shape].
    """
    run = compile_logits(call)

    def predict(split: Split, ids: np.ndarray) -> np.ndarray:
        batches = read_inputs(split, tf.data.Dataset.from_tensor_slices(ids).batch(PREDICTION_BATCH))
        return np.concatenate([run(inputs).numpy() for inputs in batches])

    return predict
