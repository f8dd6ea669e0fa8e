"""One command's use of a home folder: its artefacts, data sets prepared once, and where its units are computed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from mimic_keras.planning.components import Component
from mimic_keras.planning.plan import Plan
from mimic_keras.stages.data import Data, prepare
from mimic_keras.storage import locks
from mimic_keras.storage.files import hash_json
from mimic_keras.storage.store import Store

Result = TypeVar("Result")
# Work that yields when it can do nothing before a unit under way has finished, and returns its result.
Steps: TypeAlias = Generator[None, None, Result]
NETS = ("teachers", "students")  # the kinds of artefacts that are trained
SECONDS_BETWEEN_LOOKS = 1.0
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

    has_free_slot = True  # units are computed at once

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

    def wait(self) -> None:
        """Wait until one of the units under way has finished since the last call, or a moment if there are none: what
        another process does may have finished."""
        time.sleep(SECONDS_BETWEEN_LOOKS)

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


def complete(steps: Steps[Result], workspace: Workspace) -> Result:
    """What `steps` gives in the end; between two of them it waits for the workspace."""
    with contextlib.closing(steps):
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            workspace.wait()
