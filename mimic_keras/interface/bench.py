"""What a worker does with a task: plan again, compare the code, compute, or make one artefact in its unfinished folder.

The driver holds every lock and finishes every artefact.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import pickle
import queue
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

import keras
from absl import logging as absl_logging

from mimic_keras import runner
from mimic_keras.contracts import InputError, MimicError, RunError
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems
from mimic_keras.interface.tasks import Answer, Missing, Task
from mimic_keras.planning.components import Component
from mimic_keras.planning.plan import Costs, Plan, make_plan
from mimic_keras.stages.data import Data
from mimic_keras.stages.workspace import STATES, Unit, Workspace
from mimic_keras.storage import locks
from mimic_keras.storage.files import hash_json
from mimic_keras.storage.store import Artifact, Store, Wanted, fill, locate, note_use

PACKAGES = ("mimic-keras", "tensorflow", "keras", "numpy")


def describe_code(plan: Plan) -> tuple[str, ...]:
    """What carries a plan out: packages with their versions, plugins with versions and digests."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return (*packages, *sorted(plan.code_versions()))


def describe_task(unit: Unit, workspace: Workspace, plugins: Sequence[Path]) -> Task:
    """What a worker is sent. The data is prepared first: here, under a lock, which workers do not take."""
    plan, source = unit.plan, unit.plan.source
    uses = (plan.transfer, plan.labelled, *plan.other_uses)
    return Task(
        pickle.dumps(unit.function),
        source.given,
        source.complete,
        source.problems.file,
        describe_code(plan),
        tuple(hash_json(workspace.prepare(*use).identity) for use in uses),
        workspace.home,
        tuple(file.resolve() for file in plugins),
        Path.cwd(),
    )


def compute(task: Task, assigned: str | None) -> Answer:
    """`worker.compute`, within its session.

    Raises:
        InputError: this worker would compute something else than the driver.
    """
    if assigned:
        return make(*find(task, assigned))
    plan, bench = _begin(task)
    try:
        with _messages() as messages, locks.held_elsewhere():
            value = task.compute(plan, bench)
    except _Waiting as waiting:
        return Answer(missing=waiting.missing)
    return Answer(value, tuple(bench.used), messages=messages.take())


def find(task: Task, assigned: str) -> tuple[Wanted, Path]:
    """The artefact of this key that the task's unit asks for, and its unfinished folder, which the driver has made.

    Raises:
        InputError: as of `compute`.
        RunError: the folder is not there, or the unit does not ask for the artefact.
    """
    plan, bench = _begin(task, assigned)
    host = socket.gethostname()
    try:
        with locks.held_elsewhere():
            task.compute(plan, bench)
    except _Found as found:
        partial = locate(task.home, found.wanted.kind, assigned)[1]
        if partial.is_dir():
            return found.wanted, partial
        raise RunError(f"{partial} is not there on {host}: --home has to be a folder that all machines share") from None
    except _Waiting:
        pass
    raise RunError(f"the worker on {host} does not come to what the driver asks it for")


def make(wanted: Wanted, partial: Path) -> Answer:
    """Make an artefact in its unfinished folder; nothing but what was logged is to be answered."""
    with _messages() as messages, locks.held_elsewhere():
        fill(partial, wanted.make, wanted.check)
    return Answer(messages=messages.take())


def make_along(wanted: Wanted, partial: Path) -> None:
    """Make an artefact that another worker, the chief, makes in `partial`; from there comes the state of the training.
    Nothing else is read there, and what is made here is not kept."""
    with tempfile.TemporaryDirectory() as folder, locks.held_elsewhere():
        for state in partial.glob(f"{STATES}*"):
            (Path(folder) / state.name).symlink_to(state)
        fill(Path(folder), wanted.make, wanted.check)


def _begin(task: Task, assigned: str | None = None) -> tuple[Plan, _Bench]:
    keras.backend.clear_session()
    source = Source(task.given, task.complete, Problems(task.file))
    runner.configure_devices(source)
    bench = _open_bench(task.home, task.code)
    plan = _plan_again(source, task.code, bench.costs)
    bench.data, bench.used, bench.assigned = task.data, set(), assigned
    return plan, bench


def _plan_again(source: Source, code: tuple[str, ...], costs: Costs) -> Plan:
    host = socket.gethostname()
    try:
        plan = make_plan(source, costs)
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


class _Found(Exception):
    """The unit asks for the assigned artefact; what it would do with it is not this task's."""

    def __init__(self, wanted: Wanted):
        super().__init__(wanted)
        self.wanted = wanted


class _Messages(QueueHandler):
    """Keeps what is logged, for the driver to log."""

    queue: queue.SimpleQueue[logging.LogRecord]

    def __init__(self) -> None:
        super().__init__(queue.SimpleQueue())

    def take(self) -> list[logging.LogRecord]:
        return [self.queue.get() for _ in range(self.queue.qsize())]


@contextlib.contextmanager
def _messages() -> Iterator[_Messages]:
    """What is logged within the block."""
    messages, logger = _Messages(), absl_logging.get_absl_logger()
    logger.addHandler(messages)
    try:
        yield messages
    finally:
        logger.removeHandler(messages)


class _Bench(Workspace):
    """The home folder as a worker uses it, with the data sets that it holds from task to task.

    `whole`: finished artefacts that this process has compared with their records; `costs`: of nets that it has built to
    plan. Of a task: `data` hashes the driver's data sets, `used` are folders of artefacts, and `assigned` is the key of
    what to make.
    """

    def __init__(self, home: Path):
        super().__init__(home)
        self.whole: set[Path] = set()
        self.costs: Costs = {}
        self.data: tuple[str, ...] = ()
        self.used: set[Path] = set()
        self.assigned: str | None = None

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
    """Gives what is finished, ends at what is assigned, and asks the driver for the rest."""

    def __init__(self, bench: _Bench, common: Mapping[str, Any]):
        super().__init__(bench.home, common)
        self._bench = bench

    def get_or_make_all(self, wanted: Iterable[Wanted]) -> Iterator[Artifact]:
        pairs = [(self.key(each.inputs), each) for each in wanted]
        for key, each in pairs:
            if key == self._bench.assigned:
                raise _Found(each)
        missing = [(key, each) for key, each in pairs if not self._is_whole(each.kind, key)]
        if missing:
            raise _Waiting(tuple(Missing(self.common, each.kind, each.inputs, each.label) for _, each in missing))
        for key, each in pairs:
            folder = locate(self.home, each.kind, key)[0]
            self._bench.used.add(folder)
            yield Artifact(folder, key, made=False)

    def _is_whole(self, kind: str, key: str) -> bool:
        folder = locate(self.home, kind, key)[0]
        if folder not in self._bench.whole and note_use(folder):
            self._bench.whole.add(folder)
        return folder in self._bench.whole
