"""What a file of a student answers, and how fast, in a process of its own.

`python -m mimic_keras.serving.answering FILE SIGNATURE REQUEST ANSWER ROWS TIMED` is that process.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.serving import isolation, runtimes
from mimic_keras.serving.runtimes import Arrays, FileError, shorten

BATCHES = (1, 64)  # of which the latency is measured
MOST_CALLS, LEAST_CALLS, SECONDS = 200, 20, 2.0  # for each of them


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
        arguments = (place, signature, request, answered, str(rows or ""), "timed" if is_timed else "")
        try:
            latency = isolation.call(__name__, *arguments, variables=runtimes.VARIABLES)
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
    place, (signature, request, answered, rows, timed) = Path(arguments[0]), arguments[1:]
    at("loading")
    runtime = runtimes.load_saved_model(place)[signature] if place.is_dir() else runtimes.load_file(place)
    with np.load(request) as stored:
        inputs = dict(stored)

    def run(given: Mapping[str, np.ndarray]) -> Arrays:
        try:
            return runtime.run(given)
        except Exception as error:  # a runtime's own kinds
            raise FileError(f"{place.name} cannot be run: {shorten(error, place)}") from error

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
