"""The SavedModel that is served: signatures that check their inputs, each weight once, nothing of the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import DatasetInfo, RawSignature
from mimic_keras.experiment.formats import DEFAULT
from mimic_keras.serving import reproducible
from mimic_keras.training.models import float32_logits

INPUTS = "inputs"


def write(folder: Path, net: keras.Model, info: DatasetInfo, raw: Mapping[str, RawSignature]) -> dict[str, Any]:
    """Write `net` with `serving_default`, which takes prepared inputs, and the data set's own signatures.

    Args:
        folder: the SavedModel's; it exists.
        net: float32 [B, *input_shape] to float32 logits [B, num_classes].
        info: of the data set.
        raw: the data set's own signatures, by name.

    Returns:
        {signature: {"inputs": {name: shape}, "outputs": {name: shape}}}; -1 stands for any size.

    Example:
        >>> write(Path("saved_models/digits/1"), net, info, {})["serving_default"]["inputs"]
        {'inputs': [-1, 8, 8, 1]}
    """

    specification = {INPUTS: tf.TensorSpec((None, *info.input_shape), tf.float32)}
    traced = {DEFAULT: _trace_signature(net, info, specification, _take_prepared)}
    for name, signature in raw.items():
        traced[name] = _trace_signature(net, info, signature.inputs, signature.prepare)
    _save(folder, traced, net.variables)
    return {
        name: {
            "inputs": {key: _shape(value) for key, value in each.structured_input_signature[1].items()},
            "outputs": {key: _shape(value) for key, value in each.structured_outputs.items()},
        }
        for name, each in traced.items()
    }


def write_for_converters(
    folder: Path,
    call: Callable[[tf.Tensor], Any],
    input_shape: Sequence[int],
    raw: Mapping[str, RawSignature],
    variables: Sequence[Any] = (),
) -> None:
    """Write what other formats are made from, and a teacher's latency is measured on.

    The signatures are those of `write`, without `label` and without a check of their inputs: other formats have no
    texts, and few of them a way to test for NaN.

    Args:
        folder: the SavedModel's; it exists.
        call: float32 [B, *input_shape] to logits [B, num_classes], without training.
        input_shape: of one example.
        raw: the signatures besides `serving_default`.
        variables: of `call`, in the order in which they are written; the same net then gives the same bytes.
    """
    taken: dict[str, tuple[Mapping[str, tf.TensorSpec], Callable[..., Any]]] = {
        DEFAULT: ({INPUTS: tf.TensorSpec((None, *input_shape), tf.float32)}, _take_prepared)
    }
    taken |= {name: (each.inputs, each.prepare) for name, each in raw.items()}

    def trace(inputs: Mapping[str, tf.TensorSpec], prepare: Callable[..., Any]) -> Any:
        def answer(**given: tf.Tensor) -> dict[str, tf.Tensor]:
            rows = prepare(**given)
            rows, splits = rows if isinstance(rows, tuple) else (rows, None)
            logits = float32_logits(call(rows))
            outputs = {
                "logits": logits,
                "probabilities": tf.nn.softmax(logits),
                "class": tf.argmax(logits, -1, tf.int32),
            }
            return outputs if splits is None else _pad(outputs, splits)

        return tf.function(answer, autograph=False).get_concrete_function(**_name_inputs(inputs))

    _save(folder, {name: trace(*each) for name, each in taken.items()}, variables)


def _take_prepared(**inputs: tf.Tensor) -> tf.Tensor:
    return inputs[INPUTS]


def _save(folder: Path, traced: Mapping[str, Any], variables: Sequence[Any]) -> None:
    """Write the signatures with what their graphs read, in the order of `variables`, and nothing else."""
    module = tf.Module()
    # A server has no use for Keras' objects and random seeds.
    read = {id(item): item for each in traced.values() for item in each.variables}
    # A graph lists its variables in an order that changes from process to process.
    order = {id(item.value): place for place, item in enumerate(variables)}
    module.variables_read = sorted(read.values(), key=lambda item: (order.get(id(item), len(order)), item.name))
    tf.saved_model.save(module, str(folder), dict(traced))
    reproducible.normalize(folder)


def _trace_signature(
    net: keras.Model, info: DatasetInfo, inputs: Mapping[str, tf.TensorSpec], prepare: Callable[..., Any]
) -> Any:
    def answer(**given: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow Serving does not check shapes, and some kernels abort the server on a missing batch dimension.
        rows = prepare(**{name: tf.ensure_shape(value, inputs[name].shape) for name, value in given.items()})
        rows, splits = rows if isinstance(rows, tuple) else (rows, None)
        rows = tf.ensure_shape(rows, (None, *info.input_shape))
        # A rectifier turns NaN into 0, and the guess that follows would look like any other answer.
        are_numbers = tf.reduce_all(tf.math.is_finite(tf.reshape(rows, [tf.shape(rows)[0], -1])), -1)
        logits = tf.where(are_numbers[:, None], float32_logits(net(rows, training=False)), np.nan)
        return make_outputs(logits, info.class_names, splits)

    return tf.function(answer, autograph=False).get_concrete_function(**_name_inputs(inputs))


def _name_inputs(inputs: Mapping[str, tf.TensorSpec]) -> dict[str, tf.TensorSpec]:
    return {name: tf.TensorSpec(each.shape, each.dtype, name=name) for name, each in inputs.items()}


def make_outputs(
    logits: tf.Tensor, class_names: tuple[str, ...], splits: tf.Tensor | None = None
) -> dict[str, tf.Tensor]:
    """A signature's outputs: `logits`, `probabilities`, `class` and `label`; class -1 and label "" for NaN or infinity.

    Args:
        logits: float32 [N, num_classes].
        class_names: the labels.
        splits: int64 [B + 1]: the rows of example b are splits[b] to splits[b + 1]. With them every output is
            [B, rows, ...], padded with 0, class -1 and label "", and `row_counts`, int32 [B], counts the rows that are
            not padding.

    Example:
        >>> make_outputs(tf.constant([[0.0, 2.0]]), ("cat", "dog"))["label"].numpy().tolist()
        [b'dog']
    """
    are_numbers = tf.reduce_all(tf.math.is_finite(logits), -1)
    classes = tf.where(are_numbers, tf.argmax(logits, -1, tf.int32), -1)
    outputs = {
        "logits": logits,
        "probabilities": tf.nn.softmax(logits),
        "class": classes,
        "label": tf.gather(tf.constant(["", *class_names]), classes + 1),
    }
    return outputs if splits is None else _pad(outputs, splits)


def _pad(outputs: Mapping[str, tf.Tensor], splits: tf.Tensor) -> dict[str, tf.Tensor]:
    """Outputs of rows [N, ...] as those of examples [B, rows, ...], with `row_counts`."""
    padding = {"logits": 0.0, "probabilities": 0.0, "class": -1, "label": ""}
    padded = {
        name: tf.RaggedTensor.from_row_splits(value, splits, validate=False).to_tensor(padding[name])
        for name, value in outputs.items()
    }
    return {**padded, "row_counts": tf.cast(splits[1:] - splits[:-1], tf.int32)}


def _shape(specification: Any) -> list[int]:
    return [-1 if size is None else size for size in specification.shape]
