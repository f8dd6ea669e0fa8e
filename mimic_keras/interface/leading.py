"""One net over several processes of TF_CONFIG: the chief runs the command, and the others train every net along.

Only trainings are common. The chief does everything else, as a run without others does, and alone holds locks and
writes; before each training it sends the others the task of a cluster's worker. On a cluster, such a task goes to all.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

from mimic_keras import runner
from mimic_keras.contracts import MimicError, RunError
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems
from mimic_keras.experiment.schema import parse_distribution
from mimic_keras.interface import bench
from mimic_keras.interface.tasks import Answer, Task
from mimic_keras.stages.workspace import NETS, Unit, Workspace
from mimic_keras.storage.store import Artifact, Store, Wanted
from mimic_keras.training.steps import TrainingDiverged
from mimic_keras.training.workers import agree, exchange, join, rank_of


def join_workers(sources: Iterable[Source]) -> tf.distribute.Strategy | None:
    """The strategy of all workers, once they are there, if an experiment is for several; None: none is.

    Only the chief returns. In the others, this trains along until the chief is done.

    Raises:
        SystemExit: the chief is done, and so is this worker.
        InputError: as of `workers.join`.
        RunError: a worker has ended, or cannot train what the chief can.
    """
    strategies = [_join(source) for source in sources]
    strategy = next(filter(None, strategies), None)
    if strategy and rank_of(strategy):
        _follow(strategy)
    return strategy


def _join(source: Source) -> tf.distribute.Strategy | None:
    section = parse_distribution(source)
    if not section or section.strategy != "multi_worker" or not section.workers:  # the plan reports what is missing
        return None
    runner.configure_devices(source)
    return join(section.workers)


def train_together(task: Task, key: str) -> Answer:
    """Train the net of an artefact's key with the other workers; the chief makes the artefact.

    Raises:
        RunError: a worker has ended, or cannot train what the others can.
        TrainingDiverged: in all workers.
    """
    strategy = _join(Source(task.given, task.complete, Problems(task.file)))
    assert strategy
    found = _find(strategy, task, key)
    if rank_of(strategy) == 0:
        return bench.make(*found)
    bench.make_along(*found)
    return Answer()


@contextlib.contextmanager
def leading(home: Path, strategy: tf.distribute.Strategy, plugins: Sequence[Path]) -> Iterator[Workspace]:
    """Within the block, the workspace of the chief; at its end the others are done. An error ends them, too: once this
    process has ended, they find out."""
    yield _Leading(home, strategy, plugins)
    exchange(strategy, b"")


class _Leading(Workspace):
    """A home folder that all workers share. After a failed training `is_broken`: the others may be anywhere in it."""

    def __init__(self, home: Path, strategy: tf.distribute.Strategy, plugins: Sequence[Path]):
        super().__init__(home)
        self.strategy, self.plugins, self.is_broken = strategy, plugins, False

    def open_store(self, common: Mapping[str, Any], unit: Unit) -> Store:
        if unit.plan.experiment.distribution.strategy != "multi_worker":
            return super().open_store(common, unit)
        return _LeadingStore(self, common, unit, self._experiment)


class _LeadingStore(Store):
    """Has the others make along what is to be trained."""

    def __init__(self, workspace: _Leading, common: Mapping[str, Any], unit: Unit, experiment: str):
        super().__init__(workspace.home, common, experiment)
        self._workspace, self._unit = workspace, unit

    def get_or_make(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        label: str,
        make: Callable[[Path], None],
        check: Callable[[], None] = lambda: None,
    ) -> Artifact:
        if kind in NETS:
            make = functools.partial(self._make_with_all, self.key(inputs), make)
        return super().get_or_make(kind, inputs, label, make, check)

    @functools.cached_property
    def _task(self) -> Task:
        return bench.describe_task(self._unit, self._workspace, self._workspace.plugins)

    def _make_with_all(self, key: str, make: Callable[[Path], None], folder: Path) -> None:
        workspace = self._workspace
        if workspace.is_broken:
            raise RunError("the workers trained a net that failed; give the same command again on every worker")
        message = pickle.dumps((self._task, key))
        workspace.is_broken = True
        exchange(workspace.strategy, message)
        agree(workspace.strategy, "")
        try:
            make(folder)
        except TrainingDiverged:  # in all of them, at the same step
            workspace.is_broken = False
            raise
        workspace.is_broken = False


def _follow(strategy: tf.distribute.Strategy) -> None:
    logging.set_verbosity(logging.WARNING)  # the chief says the rest
    while message := exchange(strategy, b"")[0]:
        task, key = pickle.loads(message)
        os.chdir(task.folder)
        with contextlib.suppress(TrainingDiverged):  # of the chief as well, which says so
            bench.make_along(*_find(strategy, task, key))
    raise SystemExit(0)


def _find(strategy: tf.distribute.Strategy, task: Task, key: str) -> tuple[Wanted, Path]:
    """As `bench.find`; a RunError if any of the workers does not find it."""
    problem = ""
    try:
        found = bench.find(task, key)
    except Exception as error:
        problem = str(error) if isinstance(error, MimicError) else f"{type(error).__name__}: {error}"
    agree(strategy, problem)
    return found
