"""A student's file of any format, run by the runtime that it is made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mimic_keras.contracts import RunError

if TYPE_CHECKING:
    from mimic_keras.serving.session_loader import ServedModel

THREADS = 1  # for every runtime alike; their defaults differ
# TensorFlow has no other way to set the threads of a session that the C API opens; they go before it is imported.
VARIABLES = {"TF_NUM_INTRAOP_THREADS": str(THREADS), "TF_NUM_INTEROP_THREADS": str(THREADS)}

Arrays = dict[str, np.ndarray]


class FileError(RunError):
    """A file cannot be read by its runtime, or refuses a request."""


@dataclass(frozen=True)
class Input:
    """An input of a signature. `shape` has None for any size."""

    dtype: np.dtype
    shape: tuple[int | None, ...]


class Runtime(Protocol):
    """One signature, ready to run. `inputs` {name: Input}."""

    inputs: dict[str, Input]

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The outputs of one request."""
        ...


class LiteRt:
    """https://ai.google.dev/edge/api/tflite/python/tf/lite/Interpreter; a file has one signature."""

    def __init__(self, file: Path):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(file), num_threads=THREADS)
        self._runner = self._interpreter.get_signature_runner()
        self.inputs = {
            name: Input(np.dtype(each["dtype"]), tuple(None if size < 0 else int(size) for size in _shape(each)))
            for name, each in self._runner.get_input_details().items()
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._runner(**inputs)


def _shape(details: Mapping[str, Any]) -> Any:
    return details["shape_signature"] if len(details["shape_signature"]) else details["shape"]


class Onnx:
    """https://onnxruntime.ai/docs/api/python/api_summary.html, on the processor."""

    def __init__(self, file: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = THREADS
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._outputs = [each.name for each in self._session.get_outputs()]
        self.inputs = {
            each.name: Input(
                np.dtype({"float": "float32", "double": "float64"}.get(kind := each.type[7:-1], kind)),
                tuple(size if isinstance(size, int) else None for size in each.shape),
            )
            for each in self._session.get_inputs()
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))


class SavedModel:
    """A signature of a SavedModel, in TensorFlow Serving's loader."""

    def __init__(self, served: ServedModel, signature: str):
        import tensorflow as tf

        self._served, self._signature = served, signature
        self.inputs = {
            name: Input(
                np.dtype(tf.dtypes.as_dtype(each.dtype).as_numpy_dtype),
                tuple(None if size.size < 0 else size.size for size in each.tensor_shape.dim),
            )
            for name, each in served.signatures[signature].inputs.items()
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._served.run(self._signature, inputs)


def load_saved_model(folder: Path) -> dict[str, Runtime]:
    """{signature: ready to run} of a SavedModel.

    Raises:
        FileError: TensorFlow cannot read it.
    """
    from mimic_keras.serving.session_loader import ServedModel

    try:
        served = ServedModel(folder)
    except RunError as error:
        raise FileError(f"{folder} cannot be loaded: {error}") from error
    return {signature: SavedModel(served, signature) for signature in served.signatures}


def load_file(file: Path) -> Runtime:
    """The signature of a .tflite or .onnx file, which has no other.

    Raises:
        FileError: the runtime cannot read it.

    Example:
        >>> load_file(Path("saved_models/quickstart/1/assets.extra/student.onnx")).inputs
        {'inputs': Input(dtype=dtype('float32'), shape=(None, 8, 8, 1))}
    """
    try:
        return Onnx(file) if file.suffix == ".onnx" else LiteRt(file)
    except Exception as error:  # a runtime's own kinds
        raise FileError(f"{file.name} cannot be loaded: {shorten(error, file)}") from error


def shorten(error: Exception, file: Path) -> str:
    """The first line of a message, without the file's folder: export.json is the same wherever it is written."""
    lines = str(error).replace(f"{file.parent}/", "").strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
