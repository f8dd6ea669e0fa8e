"""From a SavedModel to files of LiteRT and ONNX, one signature each, in a process of its own.

`python -m mimic_keras.serving.conversion SAVED_MODEL FOLDER CALIBRATION [[format, signature], ...]` is that process: a
converter can abort its process, and numbers its names by a counter, so that only a fresh one gives the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.experiment.formats import FORMATS
from mimic_keras.serving import isolation

OPSET = 18  # of ONNX: the newest that tf2onnx 1.17 writes

Target = tuple[str, str]  # (format, signature)


def convert(source: Path, folder: Path, calibration: Path, targets: Sequence[Target]) -> dict[Target, str]:
    """Write each target's file into `folder`; returns why the others cannot be had.

    Args:
        source: of `saved_model.write_for_converters`.
        folder: it exists.
        calibration: a .npy file, float32 [N, *input_shape], from which int8 ranges are taken.
        targets: (format, signature).

    Example:
        >>> convert(Path("source"), Path("out"), Path("rows.npy"), [("onnx", "serving_default")])
        {}
    """
    failures: dict[Target, str] = {}
    while left := [target for target in targets if target not in failures]:
        try:
            found = isolation.call(__name__, source, folder, calibration, json.dumps(left))
        except isolation.ProcessError as error:
            died = [target for target in left if _name(*target) == error.died_at]
            if not died:
                raise
            failures |= dict.fromkeys(died, str(error))
        else:
            return failures | {(form, signature): reason for form, signature, reason in found}
    return failures


def _name(form: str, signature: str) -> str:
    return f"{form} of {signature}"


def _convert(
    source: Path, folder: Path, calibration: Path, targets: Sequence[Target], at: Callable[[str], None]
) -> list[tuple[str, str, str]]:
    failures = []
    for form, signature in targets:
        at(_name(form, signature))
        try:
            content = (
                _to_onnx(source, signature) if form == "onnx" else _to_litert(source, signature, form, calibration)
            )
        except Exception as error:  # the converters raise anything
            failures.append((form, signature, f"the converter says: {_shorten(error, source)}"))
        else:
            (folder / FORMATS[form].file_name(signature)).write_bytes(content)
    return failures


def _shorten(error: Exception, source: Path) -> str:
    """The operation that LiteRT lacks, or the first line; no temporary folder, so that export.json stays the same."""
    message = str(error).replace(str(source), "source").strip()
    if lacking := re.search(r"'tf\.\w+' op is neither a custom op nor a flex op", message):
        return lacking[0]
    return (message.splitlines() or [type(error).__name__])[0][:200]


def _to_litert(source: Path, signature: str, form: str, calibration: Path) -> bytes:
    """A flatbuffer of LiteRT's own operations: with `litert_int8`, weights and activations have 8 bits.

    https://ai.google.dev/edge/litert/models/post_training_quantization
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(source), signature_keys=[signature])
    if FORMATS[form].is_quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "litert_int8":
        converter.representative_dataset = lambda: _single_rows(calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def _single_rows(file: Path) -> Iterator[list[np.ndarray]]:
    for row in np.load(file, mmap_mode="r"):
        yield [np.array(row[None])]


def _to_onnx(source: Path, signature: str) -> bytes:
    """A graph whose inputs and outputs have the signature's names, with the first dimension named "batch"."""
    import tensorflow as tf
    import tf2onnx

    loaded = tf.saved_model.load(str(source))
    function = loaded.signatures[signature]
    inputs = function.structured_input_signature[1]
    specifications = [tf.TensorSpec(each.shape, each.dtype, name=name) for name, each in inputs.items()]

    @tf.function(autograph=False)
    def call(*given: tf.Tensor) -> Any:
        return function(**dict(zip(inputs, given, strict=True)))

    model, _ = tf2onnx.convert.from_function(call, input_signature=specifications, opset=OPSET)
    for value in (*model.graph.input, *model.graph.output):
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.dim_value:
                size.dim_param = "batch" if axis == 0 else f"{value.name}_{axis}"
    _number_names(model.graph, {value.name: value.name for value in (*model.graph.input, *model.graph.output)})
    return model.SerializeToString(deterministic=True)


def _number_names(graph: Any, names: dict[str, str]) -> None:
    """Name what is inside a graph by its place: tf2onnx goes through sets, whose order decides its names and which of
    equal constants it keeps. `names`: {old: new}; "" is an input that is left out."""

    def rename(name: str) -> str:
        return names.setdefault(name, f"tensor_{len(names)}") if name else ""

    for value in graph.input:
        value.name = rename(value.name)
    for node in graph.node:
        node.input[:] = map(rename, node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):  # a loop's
                _number_names(attribute.g, names)
        node.output[:] = map(rename, node.output)
        node.name = f"{node.op_type}_{rename(node.output[0])}"
    for value in (*graph.output, *graph.initializer):
        value.name = rename(value.name)
    constants = sorted(graph.initializer, key=lambda constant: int(constant.name.rpartition("_")[2]))
    del graph.initializer[:], graph.value_info[:]  # the latter are shapes that runtimes infer
    graph.initializer.extend(constants)


if __name__ == "__main__":
    saved, into, rows = (Path(argument) for argument in sys.argv[1:4])
    wanted = [(form, signature) for form, signature in json.loads(sys.argv[4])]
    isolation.run(lambda at: _convert(saved, into, rows, wanted, at))
