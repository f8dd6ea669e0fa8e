"""A command's use of a Ray cluster: this process, the driver, plans, holds every lock and finishes every artefact."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from absl import logging

from mimic_keras import engine
from mimic_keras.contracts import RunError
from mimic_keras.engine import Engine
from mimic_keras.interface import worker
from mimic_keras.interface.bench import describe_task
from mimic_keras.interface.tasks import Answer, Missing, Task
from mimic_keras.interface.units import Followed, Units
from mimic_keras.reporting import console
from mimic_keras.stages.workspace import NETS, Unit, Workspace
from mimic_keras.storage.locks import locked
from mimic_keras.storage.store import Artifact, Store, Wanted, experiments_of, note_experiment

MOST_THREADS = 10_000  # each waits for one task or artefact


@contextlib.contextmanager
def connected(home: Path, address: str, resources: engine.Resources, plugins: Sequence[Path]) -> Iterator[Workspace]:
    """Within the block, a workspace whose units the cluster at `address` computes; `plugins` are files that the
    workers read, too. Afterwards what is still under way is stopped.

    Raises:
        InputError: as of `engine.connected`.
    """
    with ThreadPoolExecutor(MOST_THREADS) as threads, engine.connected(address, resources) as connection:
        page = f"; Ray's dashboard: http://{connection.dashboard}" if connection.dashboard else ""
        logging.info("cluster: %d tasks at the same time%s", connection.slots, page)
        shown = Units(connection.find_places)
        with console.live_table(shown.tabulate):
            yield _Cluster(home, connection, threads, plugins, shown)


class _Cluster(Workspace):
    """A home folder that all machines of a cluster share.

    A unit goes to a worker, which computes it, or answers which artefacts it is missing. Each of those is made by a
    task of its own, once, whoever else waits for it; then the unit is sent again. What waits occupies a thread of this
    process and nothing of the cluster.
    """

    def __init__(
        self, home: Path, connection: Engine, threads: ThreadPoolExecutor, plugins: Sequence[Path], shown: Units
    ):
        super().__init__(home)
        self._engine, self._threads, self._plugins, self._units = connection, threads, plugins, shown
        self._guard, self._made = threading.Lock(), dict[str, Future[Artifact]]()
        self._under_way: set[Future[Any]] = set()  # also those whose end `wait` has not told

    @property
    def has_free_slot(self) -> bool:  # type: ignore[override]
        return sum(not future.done() for future in self._under_way) < self._engine.slots

    def open_store(self, common: Mapping[str, Any], unit: Unit) -> Store:
        return _ClusterStore(self.home, common, lambda wanted: self._make(self._describe(unit), common, wanted))

    def start(self, unit: Unit) -> Future[Any]:
        future = self._threads.submit(self._compute, self._describe(unit))
        self._under_way.add(future)
        return future

    def wait(self) -> None:
        if not self._under_way:
            return super().wait()
        self._under_way = wait(self._under_way, return_when=FIRST_COMPLETED).not_done

    def _describe(self, unit: Unit) -> Task:
        return describe_task(unit, self, self._plugins)

    def _compute(self, task: Task) -> Any:
        with self._units.follow(f"evaluation, {task.file}") as (number, unit):
            return self._compute_once_there(task, number, unit)

    def _compute_once_there(self, task: Task, number: int, unit: Followed) -> Any:
        asked: list[Missing] = []
        while (answer := self._call(number, task)).missing:
            if again := [each.label for each in answer.missing if each in asked]:
                raise RunError(
                    f"{', '.join(again)}: made, but no worker finds it; all machines have to share {self.home}"
                )
            asked += answer.missing
            wanted = [(each.common, Wanted(each.kind, each.inputs, each.label, _refuse)) for each in answer.missing]
            made = [self._make(task, common, each) for common, each in wanted]
            unit.wait_for([each.label for each in answer.missing])
            for each in made:
                each.result()
            unit.wait_for([])
        for folder in answer.used:
            self._note_experiment(folder)
        return answer.value

    def _note_experiment(self, folder: Path) -> None:
        """Note who uses an artefact, maybe of another experiment; here, under a lock, which workers do not take."""
        if self._experiment not in experiments_of(folder.parent, folder.name):
            with locked(folder.with_name(f".{folder.name}.lock"), folder.name):
                note_experiment(folder, self._experiment)

    def _make(self, task: Task, common: Mapping[str, Any], wanted: Wanted) -> Future[Artifact]:
        """The artefact, which only the first who asks has made. The worker checks that its inputs are unchanged."""
        store = Store(self.home, common, self._experiment)
        key = store.key(wanted.inputs)

        def make(folder: Path) -> None:
            with self._units.follow(f"{wanted.label}, {key}") as (number, _):
                if task.workers and wanted.kind in NETS:
                    self._take(self._engine.gang(number, worker.compute_together, task.workers, task, key))
                else:
                    self._call(number, task, key)

        with self._guard:
            if key not in self._made:
                self._made[key] = self._threads.submit(
                    store.get_or_make, wanted.kind, wanted.inputs, wanted.label, make
                )
            return self._made[key]

    def _call(self, number: int, task: Task, assigned: str | None = None) -> Answer:
        answer: Answer = self._engine.call(number, worker.compute, task, assigned)
        return self._take(answer)

    def _take(self, answer: Answer) -> Answer:
        for message in answer.messages:
            logging.get_absl_logger().handle(message)
        if answer.error:
            raise answer.error
        return answer


class _ClusterStore(Store):
    """The artefacts of a unit that the driver itself goes through: a cluster makes what is missing, all at once."""

    def __init__(self, home: Path, common: Mapping[str, Any], make: Callable[[Wanted], Future[Artifact]]):
        super().__init__(home, common)
        self._make = make

    def get_or_make_all(self, wanted: Iterable[Wanted]) -> Iterator[Artifact]:
        for future in [self._make(each) for each in wanted]:
            artifact = future.result()
            self.counts["made" if artifact.made else "reused"] += 1
            yield artifact


def _refuse(folder: Path) -> None:
    raise AssertionError("only a worker makes artefacts")
