"""What a worker does with a task: plan again, compare the code, compute, or make one artefact in its unfinished folder.

The driver holds every lock and finishes every artefact.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import queue
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any, NoReturn

import keras
from absl import logging as absl_logging

from mimic_keras import runner
from mimic_keras.contracts import InputError, MimicError, RunError
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems
from mimic_keras.interface.tasks import Answer, Missing, Task
from mimic_keras.planning.components import Component
from mimic_keras.planning.plan import Plan, make_plan
from mimic_keras.stages.data import Data
from mimic_keras.stages.workspace import Unit, Workspace
from mimic_keras.storage import locks
from mimic_keras.storage.files import hash_json
from mimic_keras.storage.store import Artifact, Store, Wanted, fill, locate, note_use

PACKAGES = ("mimic-keras", "tensorflow", "keras", "numpy")


def describe_code(plan: Plan) -> tuple[str, ...]:
    """What carries a plan out: packages with their versions, plugins with versions and digests."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return (*packages, *sorted(plan.code_versions()))


def compute(task: Task, assigned: str | None) -> Answer:
    """`worker.compute`, within its session.

    Raises:
        InputError: this worker would compute something else than the driver.
    """
    keras.backend.clear_session()
    source = Source(task.given, task.complete, Problems(task.file))
    runner.configure_devices(source)
    plan = _plan_again(source, task.code)
    bench, messages, logger = _open_bench(task.home, task.code), _Messages(), absl_logging.get_absl_logger()
    bench.data, bench.used, bench.assigned, bench.on_assigned = task.data, set(), assigned, messages.take
    logger.addHandler(messages)
    try:
        with locks.held_elsewhere():
            value = task.function(plan, bench)
    except _Waiting as waiting:
        answer = Answer(missing=waiting.missing)
    except _Made:
        return Answer(messages=messages.take())
    else:
        answer = Answer(value, tuple(bench.used), messages=messages.take())
    finally:
        logger.removeHandler(messages)
    if assigned:
        raise RunError(f"the worker on {socket.gethostname()} does not come to what the driver asks it for")
    return answer


def _plan_again(source: Source, code: tuple[str, ...]) -> Plan:
    host = socket.gethostname()
    try:
        plan = make_plan(source)
    except MimicError as error:
        raise InputError(f"the worker on {host} cannot plan what the driver can: {error}") from error
    own = describe_code(plan)
    if own != code:
        here, there = (", ".join(sorted({*one} - {*other})) or "nothing" for one, other in ((own, code), (code, own)))
        raise InputError(
            f"the worker on {host} has other code than the driver: it has {here} where the driver has {there}; "
            "install the same on every machine, and start the cluster again"
        )
    return plan


class _Waiting(Exception):
    """Artefacts are missing, which the driver has to have made first."""

    def __init__(self, missing: tuple[Missing, ...]):
        super().__init__(missing)
        self.missing = missing


class _Made(Exception):
    """The assigned artefact is made; what the unit would do with it is not this task's."""


class _Messages(QueueHandler):
    """Keeps what is logged, for the driver to log."""

    queue: queue.SimpleQueue[logging.LogRecord]

    def __init__(self) -> None:
        super().__init__(queue.SimpleQueue())

    def take(self) -> list[logging.LogRecord]:
        return [self.queue.get() for _ in range(self.queue.qsize())]


class _Bench(Workspace):
    """The home folder as a worker uses it, with the data sets that it holds from task to task.

    `whole`: finished artefacts that this process has compared with their records. Of a task: `data` hashes the driver's
    data sets, `used` are folders of artefacts, `assigned` is the key of what to make, and `on_assigned` is called
    before it is made.
    """

    def __init__(self, home: Path):
        super().__init__(home)
        self.whole: set[Path] = set()
        self.data: tuple[str, ...] = ()
        self.used: set[Path] = set()
        self.assigned: str | None = None
        self.on_assigned: Callable[[], Any] = lambda: None

    def prepare(self, component: Component, seed: int) -> Data:
        data = super().prepare(component, seed)
        if hash_json(data.identity) not in self.data:
            host, name = socket.gethostname(), component.plugin.name
            raise InputError(f"the worker on {host} has other data of '{name}' than the driver")
        return data

    def open_store(self, common: Mapping[str, Any], unit: Unit) -> Store:
        return _BenchStore(self, common)


@functools.cache
def _open_bench(home: Path, code: tuple[str, ...]) -> _Bench:
    return _Bench(home)


class _BenchStore(Store):
    """Gives what is finished, makes what is assigned, and asks the driver for the rest."""

    def __init__(self, bench: _Bench, common: Mapping[str, Any]):
        super().__init__(bench.home, common)
        self._bench = bench

    def get_or_make_all(self, wanted: Iterable[Wanted]) -> Iterator[Artifact]:
        pairs = [(self.key(each.inputs), each) for each in wanted]
        for key, each in pairs:
            if key == self._bench.assigned:
                self._fill(each, locate(self.home, each.kind, key)[1])
        missing = [(key, each) for key, each in pairs if not self._is_whole(each.kind, key)]
        if missing:
            raise _Waiting(tuple(Missing(self.common, each.kind, each.inputs, each.label) for _, each in missing))
        for key, each in pairs:
            folder = locate(self.home, each.kind, key)[0]
            self._bench.used.add(folder)
            yield Artifact(folder, key, made=False)

    def _fill(self, wanted: Wanted, partial: Path) -> NoReturn:
        if not partial.is_dir():  # the driver has made it
            host = socket.gethostname()
            raise RunError(f"{partial} is not there on {host}: --home has to be a folder that all machines share")
        self._bench.on_assigned()
        fill(partial, wanted.make, wanted.check)
        raise _Made

    def _is_whole(self, kind: str, key: str) -> bool:
        folder = locate(self.home, kind, key)[0]
        if folder not in self._bench.whole and note_use(folder):
            self._bench.whole.add(folder)
        return folder in self._bench.whole
