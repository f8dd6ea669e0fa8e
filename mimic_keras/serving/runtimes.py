"""A student's file of any format, run by the runtime that it is made for.

`python -m mimic_keras.serving.runtimes FILE REQUEST ANSWER SIGNATURE` answers in a process of its own.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mimic_keras.contracts import RunError
from mimic_keras.serving import isolation

if TYPE_CHECKING:
    from mimic_keras.serving.session_loader import ServedModel

THREADS = 1  # for every runtime alike; their defaults differ
BATCHES = (1, 64)  # of which the latency is measured
MOST_CALLS, LEAST_CALLS, SECONDS = 200, 20, 2.0  # for each of them
# TensorFlow has no other way to set the threads of a session that the C API opens.
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
        raise FileError(f"{file.name} cannot be loaded: {_shorten(error, file)}") from error


def _shorten(error: Exception, file: Path) -> str:
    """The first line of a message, without the file's folder: export.json is the same wherever it is written."""
    lines = str(error).replace(f"{file.parent}/", "").strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


@dataclass(frozen=True)
class Answer:
    """What a file answers in a process of its own.

    `whole`: the outputs for all examples, texts aside. `first`: for the first alone. `rows`: the logits of further
    rows, float32 [N, num_classes]. `latency`: {"1" and "64", examples in a request: {"p50" and "p99": milliseconds,
    "calls"}}.
    """

    whole: Arrays
    first: Arrays
    rows: np.ndarray
    latency: dict[str, dict[str, float]]


def answer(
    place: Path, signature: str, inputs: Mapping[str, np.ndarray], rows: Path | None = None, is_timed: bool = False
) -> Answer:
    """Run a file in a process of its own.

    Args:
        place: the folder of a SavedModel, or a file.
        signature: the one to run.
        inputs: {name: array} of the examples.
        rows: a .npy file of further rows of the input `inputs`, which are run in batches.
        is_timed: whether to measure the latency.

    Raises:
        FileError: it cannot be loaded or run, or the process died.
    """
    with tempfile.TemporaryDirectory() as folder:
        request, answered = Path(folder, "request.npz"), Path(folder, "answer.npz")
        np.savez(request, **inputs)  # type: ignore[arg-type]
        options = [str(rows or ""), "timed" if is_timed else ""]
        try:
            latency = isolation.call(__name__, place, signature, request, answered, *options, variables=VARIABLES)
        except isolation.ProcessError as error:
            raise FileError(str(error)) from error
        with np.load(answered) as stored:
            arrays = dict(stored)
    parts: dict[str, Arrays] = {"whole": {}, "first": {}}
    for name, array in arrays.items():
        part, _, output = name.partition("/")
        if output:
            parts[part][output] = array
    return Answer(parts["whole"], parts["first"], arrays["rows"], latency)


def _answer(arguments: list[str], at: Callable[[str], None]) -> dict[str, dict[str, float]]:
    place, signature, request, answered, rows, timed = arguments
    at("loading")
    runtime = load_saved_model(Path(place))[signature] if Path(place).is_dir() else load_file(Path(place))
    with np.load(request) as stored:
        inputs = dict(stored)

    def run(given: Mapping[str, np.ndarray]) -> Arrays:
        try:
            return runtime.run(given)
        except Exception as error:  # a runtime's own kinds
            raise FileError(f"{Path(place).name} cannot be run: {_shorten(error, Path(place))}") from error

    found: Arrays = {}
    for part, given in (("whole", inputs), ("first", {name: value[:1] for name, value in inputs.items()})):
        at(f"its examples, {part}")
        found |= {f"{part}/{name}": array for name, array in run(given).items() if array.dtype != object}
    at("further rows")
    logits = []
    if rows:
        source = np.load(rows, mmap_mode="r")
        for start in range(0, len(source), BATCHES[-1]):
            logits.append(run({"inputs": np.array(source[start : start + BATCHES[-1]])})["logits"])
    found["rows"] = np.concatenate(logits) if logits else np.zeros(0, np.float32)
    np.savez(answered, **found)  # type: ignore[arg-type]
    at("being timed")
    return {str(count): measure_latency(run, inputs, count) for count in BATCHES} if timed else {}


def measure_latency(
    run: Callable[[Mapping[str, np.ndarray]], Any], inputs: Mapping[str, np.ndarray], count: int
) -> dict[str, float]:
    """Milliseconds of a request of `count` examples, repeated from `inputs`: {"p50", "p99", "calls"}."""
    request = {name: np.resize(value, (count, *value.shape[1:])) for name, value in inputs.items()}
    for _ in range(3):  # memory is allocated, and kernels are chosen, by the first calls
        run(request)
    times: list[float] = []
    ends = time.perf_counter() + SECONDS
    while len(times) < LEAST_CALLS or (len(times) < MOST_CALLS and time.perf_counter() < ends):
        started = time.perf_counter()
        run(request)
        times.append(1000 * (time.perf_counter() - started))
    median, slow = np.percentile(times, [50, 99])
    return {"p50": float(f"{median:.3g}"), "p99": float(f"{slow:.3g}"), "calls": len(times)}


if __name__ == "__main__":
    isolation.run(lambda at: _answer(sys.argv[1:], at))
