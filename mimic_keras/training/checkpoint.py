"""The whole state of a training in one file, from which it is resumed to the bits of an uninterrupted one.

The order of the examples follows from the seed and the step, so the state is variables and a few numbers: weights, the
seeds of random layers, the optimizer, the callbacks, and the running means of an unfinished pass.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from absl import logging

from mimic_keras.contracts import RunError, atomic_writer
from mimic_keras.training.workers import gather, rank_of

if TYPE_CHECKING:
    from mimic_keras.training.steps import Trainer

# Without `checkpoint_every` a state is written once this many seconds, and this many times what the last one took, have
# passed since: that is under 2 % of the time, and no more than that much work is ever lost.
SECONDS_BETWEEN = 1.0
TIMES_THE_COST = 60
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ARRAYS = "arrays of their own"  # in place of a callback's list of arrays, which are entries of the file


class Checkpoint(keras.callbacks.Callback):
    """Writes the state of a training to `file`, and restores it.

    Args:
        file: a zip file with `state.json` and one .npy entry for each array.
        callbacks: those whose attributes, named in their `state`, are part of the state.
        every: steps between states; None: by time.

    It has to be the last callback, since the others must be done with an epoch when it writes. Of several workers, the
    chief alone writes, and all read; they vote after every call on whether to write and to stop.
    """

    def __init__(self, file: Path, callbacks: Sequence[keras.callbacks.Callback], every: int | None):
        super().__init__()
        self.file, self.callbacks, self.every = file, callbacks, every
        self.epoch, self.saved_step, self.saved_at, self.cost = 0, 0, time.monotonic(), 0.0
        self._metrics: list[np.ndarray] = []
        self._stop: int | None = None

    def restore(self, trainer: Trainer) -> int:
        """Put the state of `file`, if it exists, into `trainer` and the callbacks; returns the epoch to resume with.

        A damaged file, or one of another net or version of the program, is logged and removed, and the epoch is 0.

        Raises:
            OSError: the file exists but cannot be read, so nothing is known about it; it stays.
        """
        try:
            source = _Source(str(self.file))
        except FileNotFoundError:
            return 0
        with io.BufferedReader(source) as stream:
            try:
                archive = zipfile.ZipFile(stream)
                state = self._check(trainer, archive)
            except MemoryError:  # says nothing about the file
                raise
            except Exception as error:  # what is damaged decides which: of zlib or NumPy, a RuntimeError, an OSError
                if source.failure:
                    raise source.failure from error
                logging.warning("%s is damaged (%s); training starts from the beginning", self.file, error)
                self.file.unlink()
                return 0
            self._take(trainer, archive, state)
        logging.info("training resumed at step %d", self.saved_step)
        return self.epoch

    def _check(self, trainer: Trainer, archive: zipfile.ZipFile) -> dict[str, Any]:
        """The state but its arrays, once every array is known to be whole and to have its place.

        Raises:
            Exception: the file is damaged, or of something else; any kind.
        """
        if broken := archive.testzip():
            raise ValueError(f"{broken} does not have its checksum")
        state = json.loads(archive.read("state.json"))
        shapes = [_read_shape(archive, name) for name in _entries(archive, "variables")]
        if shapes != [tuple(item.shape) for item in trainer.state_variables]:
            raise ValueError("its variables do not fit the net")
        metrics = _entries(archive, "metrics")
        is_older = metrics and len(metrics) != len(_metric_variables(trainer))
        if is_older or [list(values) for values in state["callbacks"]] != [list(each.state) for each in self.callbacks]:
            raise ValueError("another version of the program wrote it")
        return state

    def _take(self, trainer: Trainer, archive: zipfile.ZipFile, state: dict[str, Any]) -> None:
        """Variable by variable: a net's state may be twice as large as the net."""
        for variable, name in zip(trainer.state_variables, _entries(archive, "variables"), strict=True):
            variable.assign(_read_array(archive, name))
        for place, (callback, values) in enumerate(zip(self.callbacks, state["callbacks"], strict=True)):
            for name, value in values.items():
                setattr(callback, name, _read_arrays(archive, f"callback_{place}_{name}") if value == ARRAYS else value)
        self._metrics, self.epoch, self.saved_step = _read_arrays(archive, "metrics"), state["epoch"], state["step"]

    def check_same_step(self, trainer: Trainer) -> None:
        """Raise RunError if the workers resume at different steps."""
        steps = gather(trainer.distribute_strategy, [self.saved_step])[:, 0].astype(int).tolist()
        if len({*steps}) > 1:
            raise RunError(
                f"the workers resume at steps {steps}, so they do not read the same {self.file.name}: --home has to be "
                "a folder that all of them share"
            )

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Within the block, the first Ctrl-C, SIGTERM or SIGHUP waits until the running step is done and the state
        written, and is sent again then; the second takes effect at once. Ignored signals stay ignored. Does nothing
        outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self._stop = number
            release()

        def release() -> None:
            for number, handler in handlers.items():
                signal.signal(number, handler)

        handlers: dict[int, Any] = {}
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: a handler that is not Python's
                handlers[number] = signal.signal(number, note)
        try:
            yield
        finally:
            release()
        self._send_again()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        for variables, values in zip(_metric_variables(self.model), self._metrics, strict=False):
            for variable, value in zip(variables, self._own_share(np.atleast_1d(values), len(variables)), strict=True):
                variable.assign(value)
        self._metrics = []

    def _own_share(self, values: np.ndarray, count: int) -> np.ndarray:
        """The values of this process' `count` devices among those of all; if it is another number of devices that
        resumes, the first has the sum."""
        strategy = self.model.distribute_strategy
        if len(values) != strategy.num_replicas_in_sync:
            values = np.append(values.sum(), np.zeros(strategy.num_replicas_in_sync - 1))
        return values[rank_of(strategy) * count :][:count]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._write_if_due(is_in_pass=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch = self.params["epochs"] if self.model.stop_training else epoch + 1
        self._write_if_due(is_in_pass=False)

    def _write_if_due(self, is_in_pass: bool) -> None:
        """With the running means of an unfinished pass, if it is in one."""
        strategy = self.model.distribute_strategy
        is_chief = rank_of(strategy) == 0
        step, now = int(self.model.optimizer.iterations.numpy()), time.monotonic()
        if self.every:
            # Also at the end of an epoch whose last step wrote a state, which does not have the validation yet.
            due = step // self.every > self.saved_step // self.every or (step == self.saved_step and not is_in_pass)
        else:
            due = is_chief and now - self.saved_at > max(SECONDS_BETWEEN, TIMES_THE_COST * self.cost)
        due, stop = (gather(strategy, [due, self._stop is not None]).max(axis=0) > 0).tolist()
        if due or stop:
            metrics = _metric_values(self.model) if is_in_pass else []
            if is_chief:
                self._write(step, metrics)
            self.saved_step, self.saved_at = step, time.monotonic()
            self.cost = self.saved_at - now
        if stop:
            gather(strategy, [])  # no worker ends before the chief has written
            self._stop_with_the_others()

    def _stop_with_the_others(self) -> None:
        if self._stop is None:  # the signal came to another worker
            signal.raise_signal(signal.SIGTERM)
        if self._stop is None:
            raise RunError("another worker was told to stop, and this one ignores signals")
        self._send_again()

    def _send_again(self) -> None:
        """Have the signal that came, if one did, do what it would have done: its own handler is back in place."""
        number, self._stop = self._stop, None
        if number is not None:
            signal.raise_signal(number)

    def _write(self, step: int, metrics: Sequence[np.ndarray]) -> None:
        variables = [item.numpy() for item in self.model.state_variables]
        if not all(np.isfinite(array).all() for array in variables):
            return  # the next step's loss will be infinite or NaN: the last good state stays
        arrays = [(f"variables_{place:05d}", array) for place, array in enumerate(variables)]
        arrays += [(f"metrics_{place:05d}", value) for place, value in enumerate(metrics)]
        callbacks, of_callbacks = self._callback_states()
        state = {"epoch": self.epoch, "step": step, "callbacks": callbacks}
        with atomic_writer(self.file) as stream, zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("state.json", json.dumps(state, default=float))
            for name, value in [*arrays, *of_callbacks]:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)

    def _callback_states(self) -> tuple[list[dict[str, Any]], list[tuple[str, np.ndarray]]]:
        """({attribute: value} of each callback, the entries of the arrays among the values)."""
        states, arrays = [], []
        for place, callback in enumerate(self.callbacks):
            values = {name: getattr(callback, name) for name in callback.state}
            for name, value in values.items():
                if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
                    arrays += [(f"callback_{place}_{name}_{index:05d}", array) for index, array in enumerate(value)]
                    values[name] = ARRAYS
            states.append(values)
        return states, arrays


class _Source(io.FileIO):
    """A file that keeps the error of a failed read, which zipfile may take for damage: nothing is known of the rest."""

    failure: OSError | None = None

    def readinto(self, buffer: Any) -> int | None:
        return self._noting(super().readinto, buffer)

    def readall(self) -> bytes:
        return self._noting(super().readall)

    def _noting(self, read: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except OSError as error:
            error.filename = error.filename or self.name  # a failed read does not know its file
            self.failure = error
            raise


def _entries(archive: zipfile.ZipFile, of: str) -> list[str]:
    """The names of the arrays of a list, in its order."""
    return sorted(name for name in archive.namelist() if name.endswith(".npy") and name.rpartition("_")[0] == of)


def _read_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as entry:
        np.lib.format.read_magic(entry)
        return np.lib.format.read_array_header_1_0(entry)[0]


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)


def _read_arrays(archive: zipfile.ZipFile, of: str) -> list[np.ndarray]:
    return [_read_array(archive, name) for name in _entries(archive, of)]


def _metric_variables(trainer: Trainer) -> list[tuple[Any, ...]]:
    """Of every metric's variable, those of this process' devices: their sum could not be divided among them again."""
    local = trainer.distribute_strategy.experimental_local_results
    return [local(item.value) for metric in trainer.metrics for item in metric.variables]


def _metric_values(trainer: Trainer) -> list[np.ndarray]:
    """Of every metric's variable, the values of all devices of all workers, in their order."""
    own = np.array([[part.numpy() for part in parts] for parts in _metric_variables(trainer)], np.float32)
    of_workers = gather(trainer.distribute_strategy, own.ravel().tolist()).reshape(-1, *own.shape)
    return list(np.concatenate(of_workers.astype(np.float32), axis=1))
