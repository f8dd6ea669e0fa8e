"""What the benchmarks share: contenders that take turns in fresh processes, trainings to time, and medians."""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import keras

    from mimic_keras.training.batches import Examples

SEED = 1
LEARNING_RATE, MOMENTUM = 0.001, 0.9
VALIDATION_EXAMPLES = 64
QUIET = 0.1  # processors that others may keep busy
GB = 1e9
Figures = dict[str, list[dict[str, float]]]


def take_turns(rounds: int, contenders: Sequence[str], command: Callable[[str], list[str]]) -> Figures:
    """Run `command(contender)` in fresh processes, A B C A B C ...; returns {contender: what each round printed}."""
    figures: Figures = {contender: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            result = in_a_fresh_process(command(contender))
            print(f"round {number + 1} of {rounds}: {contender}: {result}", file=sys.stderr, flush=True)
            figures[contender].append(result)
    return figures


def in_a_fresh_process(command: list[str]) -> dict[str, float]:
    """The JSON object in the last line of the command's output; `others` in it is how many processors were busy with
    other processes meanwhile, on average."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow", **os.environ}
    started, others = time.perf_counter(), _seconds_of_others()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    others = (_seconds_of_others() - others) / (time.perf_counter() - started)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "others": max(others, 0.0)}


def _seconds_of_others() -> float:
    """Processor seconds spent on other processes than this one and its finished children; NaN without /proc."""
    statistics_file = Path("/proc/stat")
    if not statistics_file.exists():
        return math.nan
    user, nice, system = map(int, statistics_file.read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def ratio(figures: Figures, key: str, numerator: str, denominator: str) -> float:
    """The median over rounds of one contender's figure divided by another's of the same round."""
    pairs = zip(figures[numerator], figures[denominator], strict=True)
    return statistics.median(upper[key] / lower[key] for upper, lower in pairs)


def load_of_others(figures: Figures) -> str:
    """How busy other processes kept the machine, the median and the largest figure, and whether that is quiet."""
    values = [result["others"] for results in figures.values() for result in results]
    median, most = statistics.median(values), max(values)
    state = "quiet" if most <= QUIET else "not quiet"
    return (
        f"{state}: other processes kept {median:.2f} of {os.cpu_count()} processors busy (median; at most {most:.2f})"
    )


def spread(results: Sequence[dict[str, float]], key: str) -> tuple[float, float, float]:
    """Median, smallest and largest of `key` over rounds."""
    values = [result[key] for result in results]
    return statistics.median(values), min(values), max(values)


def imports(python: str, module: str) -> bool:
    """Whether an interpreter has a module."""
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def peak() -> float:
    """The peak memory of this process so far, in GB; Linux counts ru_maxrss in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def configure() -> None:
    """Configure TensorFlow as the program does unless told otherwise: deterministic."""
    from mimic_keras.experiment.schema import DistributionSection
    from mimic_keras.training import distribution

    distribution.configure(DistributionSection(), deterministic=True)


def random_examples(count: int, input_shape: tuple[int, ...], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs x and teacher logits z, float32. Small inputs: the summed loss diverges on inputs of variance 1."""
    generator = np.random.default_rng(SEED)
    inputs = 0.1 * generator.standard_normal((count, *input_shape), dtype=np.float32)
    return inputs, generator.standard_normal((count, num_classes), dtype=np.float32)


def our_epochs(
    build: Callable[[], keras.Model],
    inputs: np.ndarray,
    logits: np.ndarray,
    batch_size: int,
    epochs: int,
    **settings: Any,
) -> list[float]:
    """As `epochs_on`, for arrays in memory and a validation of 64 examples."""
    from mimic_keras.contracts import ArraySplit
    from mimic_keras.training.batches import Examples

    few = slice(VALIDATION_EXAMPLES)
    validation = Examples(ArraySplit(inputs[few], logits[few].argmax(-1)), logits[few])
    examples = Examples(ArraySplit(inputs, logits.argmax(-1)), logits)
    return epochs_on(build, examples, validation, batch_size, epochs, **settings)


def epochs_on(
    build: Callable[[], keras.Model],
    examples: Examples,
    validation: Examples,
    batch_size: int,
    epochs: int,
    learning_rate: float = LEARNING_RATE,
    precision: Literal["float32", "mixed_bfloat16"] = "float32",
) -> list[float]:
    """Seconds of each of our trainer's epochs after the first, with the validation that ends each.

    `train` takes no callbacks, so the times are read from its TensorBoard log.
    """
    import tensorflow as tf
    from mimic_keras_losses import LogitL2

    from mimic_keras.experiment.training import TrainingSection
    from mimic_keras.training.objective import Objective
    from mimic_keras.training.trainer import train

    optimizer = {"name": "sgd", "learning_rate": learning_rate, "momentum": MOMENTUM}
    settings = TrainingSection(epochs=epochs + 1, batch_size=batch_size, optimizer=optimizer, precision=precision)
    strategy, objective = tf.distribute.get_strategy(), Objective(LogitL2())
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        train(build, examples, validation, objective, settings, SEED, "ours", strategy=strategy, logs=logs)
        return np.diff([end for end, _ in losses_of_epochs(logs / "ours" / "train")]).tolist()


def losses_of_epochs(folder: Path) -> list[tuple[float, float]]:
    """(when it was written, in seconds; loss) of each epoch in a folder of TensorBoard's."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    events = [event for file in sorted(folder.iterdir()) for event in EventFileLoader(str(file)).Load()]
    values = [(event.wall_time, value) for event in events for value in event.summary.value]
    return [(end, float(make_ndarray(value.tensor))) for end, value in values if value.tag == "epoch_loss"]


def fit_epochs(
    model: keras.Model, inputs: np.ndarray, targets: np.ndarray, batch_size: int, epochs: int
) -> list[float]:
    """Seconds of each of `model.fit`'s epochs after the first, without validation."""
    import keras

    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    model.fit(inputs, targets, batch_size=batch_size, epochs=epochs + 1, callbacks=[clock], verbose=0)
    return np.diff(ends).tolist()


def repeated(run: Callable[[], Any], times: int) -> list[float]:
    """Seconds of each run of `run` after the first."""
    ends = []
    for _ in range(times + 1):
        run()
        ends.append(time.perf_counter())
    return np.diff(ends).tolist()
