"""One command's use of a home folder: its artefacts, data sets prepared once, and where its units are computed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mimic_keras.planning.components import Component
from mimic_keras.planning.plan import Plan
from mimic_keras.stages.data import Data, prepare
from mimic_keras.storage import locks
from mimic_keras.storage.files import hash_json
from mimic_keras.storage.store import Store

Argument = TypeVar("Argument")
NETS = ("teachers", "students")  # the kinds of artefacts that are trained
STATES = "training_state"  # how the names begin that a net's folder has for the states of its trainings


@dataclass(frozen=True)
class Unit:
    """Work on one experiment, `function(plan, workspace)`: a function of a module, or a `partial` of one, that gives
    plain data, so that another process can plan again and compute it."""

    function: Callable[[Plan, Workspace], Any]
    plan: Plan


class Workspace:
    """A home folder in use by this process, for one experiment or for many that share data; it computes one unit at a
    time.

    Example:
        >>> workspace = Workspace(Path("~/.cache/mimic_keras"))
        >>> with workspace.in_use():
        ...     data = workspace.prepare(*plan.transfer)
    """

    slots = 1  # units that are computed at the same time

    def __init__(self, home: Path):
        self.home = home.expanduser().resolve()  # once: artifacts.json is read from other working directories
        self._prepared: dict[str, dict[int, Data]] = {}
        self._experiment = ""

    @contextlib.contextmanager
    def in_use(self, experiment: str = "") -> Iterator[None]:
        """Within the block, no process prunes what was used since the block began; it is noted as used by
        `experiment`, a sweep or a search."""
        with locks.in_use(self.home):
            self._experiment = experiment
            try:
                yield
            finally:
                self._experiment = ""

    def open_store(self, common: Mapping[str, Any], unit: Unit) -> Store:
        """The artefacts of the home folder that `unit` asks for; `common` goes into every key."""
        return Store(self.home, common, self._experiment)

    def start(self, unit: Unit) -> Future[Any]:
        """Compute a unit; an error is kept for who asks for the result."""
        return settle(lambda: unit.function(unit.plan, self))

    def map(
        self, start: Callable[[Argument], Future[Any]], arguments: Iterable[Argument], at_once: int | None = None
    ) -> Iterator[tuple[Argument, Future[Any]]]:
        """Start every argument in turn; yields each with its finished future, as they finish. An error of `start` is
        kept, too.

        An argument is taken when fewer than `at_once` are under way. Here, where `start` computes at once, each is
        finished before the next one is taken.
        """
        running: dict[Future[Any], Argument] = {}
        for argument in arguments:
            started = settle(functools.partial(start, argument))
            running[started if started.exception() else started.result()] = argument
            yield from _take_finished(running, at_once)
        yield from _take_finished(running, 1)

    def prepare(self, component: Component, seed: int) -> Data:
        """The data set of `component`, prepared at the first call, whatever the `seed` of its augmentation."""
        by_seed = self._prepared.setdefault(hash_json(component.specification()), {})
        if seed not in by_seed:
            others = list(by_seed.values())
            by_seed[seed] = others[0].with_seed(seed) if others else prepare(component, self.home, seed)
        return by_seed[seed]


def settle(compute: Callable[[], Any]) -> Future[Any]:
    """A finished future with the result of `compute()`, or with its error; an interruption is not kept, but raised."""
    future: Future[Any] = Future()
    try:
        future.set_result(compute())
    except Exception as error:
        future.set_exception(error)
    return future


def _take_finished(running: dict[Future[Any], Argument], limit: int | None) -> Iterator[tuple[Argument, Future[Any]]]:
    """Take what is finished out of `running`, and wait until fewer than `limit` are left."""
    while True:
        for future in [each for each in running if each.done()]:
            yield running.pop(future), future
        if limit is None or len(running) < limit:
            return
        wait(running, return_when=FIRST_COMPLETED)
