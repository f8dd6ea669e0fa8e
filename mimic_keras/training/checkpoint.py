"""A training that was stopped goes on: its whole state in one file, from which the bits of an uninterrupted run follow.

The order of the data follows from the seed and the step, so the state is variables and a few numbers: weights, the
seeds of random layers, the optimizer, the callbacks, and the running means of a pass that was not finished.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from mimic_keras.storage.files import atomic_writer

# Without `checkpoint_every` a state is written when this many seconds, and this many times what the last one took,
# have passed since: under 2 % of the time, and never more than that is lost.
SECONDS_BETWEEN = 1.0
TIMES_THE_COST = 60


class Checkpoint(keras.callbacks.Callback):
    """Writes the state of a training to `file`, and reads it.

    Comes last in the list of callbacks, when the others are done with an epoch. `others` are those whose attributes
    named in their `state` are part of it.
    """

    def __init__(self, file: Path, others: Sequence[keras.callbacks.Callback], every: int | None):
        super().__init__()
        self.file, self.others, self.every = file, others, every
        self.epoch, self.saved_step, self.saved_at, self.cost = 0, 0, time.monotonic(), 0.0
        self._metrics: list[np.ndarray] = []
        self._stop: int | None = None

    def restore(self, trainer: Any) -> int:
        """Put the state of `file`, if there is one, into `trainer` and the callbacks; returns the epoch to go on with.

        A damaged file is removed, and the training begins anew.
        """
        if not self.file.exists():
            return 0
        try:
            state, arrays = _read(self.file)
            variables = _variables(trainer)
            if [array.shape for array in arrays["variables"]] != [tuple(item.shape) for item in variables]:
                raise ValueError("its variables are not those of the net")
            if [list(values) for values in state["callbacks"]] != [list(each.state) for each in self.others]:
                raise ValueError("it is of another version of the program")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logging.warning("%s is damaged (%s); the training begins anew", self.file, error)
            self.file.unlink()
            return 0
        for variable, array in zip(variables, arrays["variables"], strict=True):
            variable.assign(array)
        for place, (callback, values) in enumerate(zip(self.others, state["callbacks"], strict=True)):
            for name, value in values.items():
                setattr(callback, name, arrays[f"callback_{place}_{name}"] if value == ARRAYS else value)
        self._metrics, self.epoch, self.saved_step = arrays["metrics"], state["epoch"], state["step"]
        logging.info("goes on at step %d", state["step"])
        return state["epoch"]

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within the block, the first Ctrl-C or SIGTERM has the state written after the running step, and is raised
        then; the second is raised at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._handlers: dict[int, Any] = {}

        def note(number: int, frame: FrameType | None) -> None:
            self._stop = number
            release()

        def release() -> None:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, note)
        try:
            yield
        finally:
            release()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        for variable, value in zip(_metric_variables(self.model), self._metrics, strict=False):
            variable.assign(value)
        self._metrics = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._maybe_write([variable.numpy() for variable in _metric_variables(self.model)])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch = self.params["epochs"] if self.model.stop_training else epoch + 1
        self._maybe_write([])

    def _maybe_write(self, metrics: Sequence[np.ndarray]) -> None:
        step, now = int(self.model.optimizer.iterations.numpy()), time.monotonic()
        if self.every:
            # Also at an epoch's end behind a state of its last step, which does not know the validation yet.
            due = step // self.every > self.saved_step // self.every or (step == self.saved_step and not metrics)
        else:
            due = now - self.saved_at > max(SECONDS_BETWEEN, TIMES_THE_COST * self.cost)
        if due or self._stop is not None:
            self._write(step, metrics)
            self.saved_step, self.saved_at = step, time.monotonic()
            self.cost = self.saved_at - now
        if self._stop is not None:
            self._handlers[self._stop](self._stop, None)

    def _write(self, step: int, metrics: Sequence[np.ndarray]) -> None:
        variables = [item.numpy() for item in _variables(self.model)]
        if not all(np.isfinite(array).all() for array in variables):
            return  # the next step's loss will be infinite or NaN: the last good state stays
        callbacks: list[dict[str, Any]] = []
        arrays = [(f"variables_{place:05d}", array) for place, array in enumerate(variables)]
        arrays += [(f"metrics_{place:05d}", value) for place, value in enumerate(metrics)]
        for place, callback in enumerate(self.others):
            values = {name: getattr(callback, name) for name in callback.state}
            for name, value in values.items():
                if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
                    arrays += [(f"callback_{place}_{name}_{index:05d}", array) for index, array in enumerate(value)]
                    values[name] = ARRAYS
            callbacks.append(values)
        state = {"epoch": self.epoch, "step": step, "callbacks": callbacks}
        with atomic_writer(self.file) as stream, zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("state.json", json.dumps(state, default=float))
            for name, value in arrays:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)


ARRAYS = "arrays of their own"


def _read(file: Path) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """The state, and its arrays by what they are of; the zip file's checksums are verified."""
    arrays: dict[str, list[np.ndarray]] = {"variables": [], "metrics": []}
    with zipfile.ZipFile(file) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".npy"):
                with archive.open(name) as entry:
                    array = np.lib.format.read_array(entry, allow_pickle=False)
                    if entry.read(1):  # reads to the end, where the checksum is compared
                        raise ValueError(f"{name} is longer than its header says")
                arrays.setdefault(name.rpartition("_")[0], []).append(array)
        return json.loads(archive.read("state.json")), arrays


def _variables(trainer: Any) -> list[Any]:
    """All of the net's, the seeds of random layers included, and the optimizer's."""
    return [*trainer.net.variables, *trainer.optimizer.variables]


def _metric_variables(trainer: Any) -> list[tf.Variable]:
    """Every device's own, since their sum could not be shared out again."""
    local = trainer.distribute_strategy.experimental_local_results
    return [part for metric in trainer.metrics for item in metric.variables for part in local(item.value)]
