"""A search: trials in a folder that several processes may share; a dead process's trial is done by another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import keras
import tensorflow as tf
from absl import logging

from mimic_keras import runner
from mimic_keras.contracts import InputError
from mimic_keras.engine import WorkerDied
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.places import Place, substitute
from mimic_keras.experiment.problems import Problems, parse_section, quote
from mimic_keras.experiment.ranges import Range
from mimic_keras.experiment.schema import SearchSection
from mimic_keras.planning.plan import Costs, Plan, make_plan
from mimic_keras.planning.plugins import code_versions_of
from mimic_keras.reporting.tables import format_value
from mimic_keras.searching.space import read_space, suggest
from mimic_keras.searching.trial import (
    DIVERGED,
    DONE,
    FAILED,
    IMPOSSIBLE,
    MOST_ATTEMPTS,
    RUNNING,
    Trial,
    read_json,
    read_trial,
    write_trial,
)
from mimic_keras.stages.evaluation import EVALUATION_VERSION, check_metric
from mimic_keras.stages.workspace import Steps, Unit, Workspace, complete, settle
from mimic_keras.storage.files import hash_json, write_json
from mimic_keras.training.metrics import INCREASING
from mimic_keras.training.steps import TrainingDiverged

EXAMPLE_SHARES = (0.5, 0.25, 0.75, 0.1, 0.9)
WORST_SCORE = 1.0  # stands for a missing score while no trial has one


@dataclass(frozen=True)
class Search:
    """An experiment with ranges, and the folder of its trials. `label` begins its messages, where there are others."""

    source: Source
    section: SearchSection
    space: dict[Place, Range]
    leaders: dict[Place, Place]
    folder: Path
    label: str = ""

    def with_folder(self, folder: Path) -> Search:
        return replace(self, folder=folder)

    def source_at(self, values: Mapping[Place, Any], where: str = "") -> Source:
        """The experiment at a point, which can be run alone; `where` is added to the file's name in messages."""
        problems = Problems(self.source.problems.file + where)
        everywhere = {place: values[leader] for place, leader in self.leaders.items()}
        given = {key: item for key, item in substitute(self.source.given, everywhere).items() if key != "search"}
        return replace(self.source, problems=problems).with_given(given)

    def plan_example(self, known_costs: Costs | None = None) -> Plan:
        """The plan in the middle of every range, or at another of EXAMPLE_SHARES where the middle is impossible.

        Raises:
            InputError: no share gives a valid experiment, or no student has the metric.
        """
        first: Problems | None = None
        for share in EXAMPLE_SHARES:
            values = {place: item.at(share) for place, item in self.space.items()}
            try:
                plan = make_plan(self.source_at(values, ", in the middle of every range"), known_costs)
            except Problems as error:
                first = first or error
            else:
                check_metric(plan, self.section.metric, "search.metric", INCREASING)
                return plan
        assert first
        raise first

    def collect_provenance(self, workspace: Workspace) -> list[Any]:
        """As `runner.collect_provenance`, of all that the search may choose: of the plan in the middle, and with every
        text among the choices, which may name a plugin, a file or a data set, in its place."""
        known_costs: Costs = {}
        middle = {place: item.at(EXAMPLE_SHARES[0]) for place, item in self.space.items()}
        found = [runner.collect_provenance(self.plan_example(known_costs), workspace)]
        for place, item in self.space.items():
            for choice in item.choices or ():
                if not isinstance(choice, str):
                    continue
                found.append(code_versions_of(choice))
                with contextlib.suppress(Problems):  # values that cannot be together, as a trial finds
                    plan = make_plan(self.source_at({**middle, place: choice}), known_costs)
                    found.append(runner.collect_provenance(plan, workspace))
        return found

    def list_trials(self) -> list[Trial]:
        """The trials that were begun, in order."""
        return [trial for number in range(self.section.trials) if (trial := self._read(number))]

    def rank_trials(self) -> list[Trial]:
        """The trials with a score, the best first."""
        scored = [trial for trial in self.list_trials() if trial.score is not None]
        return sorted(scored, key=lambda trial: (trial.score, trial.number))

    def work(self, workspace: Workspace) -> None:
        """Do trials until all are done, by this process or others.

        Raises:
            InputError: the folder holds the trials of another search, or the student has no such metric.
        """
        complete(self.steps(workspace), workspace)

    def steps(self, workspace: Workspace) -> Steps[None]:
        """As `work`, but yields instead of waiting; a trial is begun when there is a slot for it."""
        self._check_same(workspace)
        under_way: list[_UnderWay] = []
        is_held_up = False  # until one of this process' trials has finished
        try:
            while True:
                for each in [each for each in under_way if each.future.done()]:
                    finished = self._finish(each.trial, each.future)
                    self._write(replace(finished, seconds=round(time.monotonic() - each.started, 1)))
                    each.lock.close()
                    under_way.remove(each)
                    is_held_up = False
                if is_held_up or not workspace.has_free_slot:
                    yield
                    continue
                others_work = self._others_work()  # now, since they may finish meanwhile
                if claimed := self._take():
                    under_way.append(claimed)  # before it starts, which may be all of it
                    claimed.future = self._start(claimed.trial, workspace)
                elif under_way or others_work or self._others_work():
                    is_held_up = bool(under_way)
                    yield
                else:
                    break
        finally:  # after an error or an interruption: the process does not die of these trials
            for each in under_way:
                self._write(replace(each.trial, attempts=each.trial.attempts - 1))
                each.lock.close()
        if self._next_number() is not None:
            logging.info("%severy point of the search has been tried", self.label and f"{self.label}: ")

    def _others_work(self) -> bool:
        """Whether trials are under way, or one that the next one follows from."""
        return any(each.state == RUNNING for each in self.list_trials()) or self._is_next_held_up()

    def _take(self) -> _UnderWay | None:
        with contextlib.ExitStack() as lock:
            trial = lock.enter_context(self._claimed())
            return _UnderWay(trial, lock.pop_all(), time.monotonic()) if trial else None

    def _start(self, trial: Trial, workspace: Workspace) -> Future[Any]:
        """Train the student at the trial's point; the future has what `_validate_student` gives, or the error."""
        started = settle(lambda: self._begin_training(trial, workspace))
        return started if started.exception() else started.result()

    def _begin_training(self, trial: Trial, workspace: Workspace) -> Future[Any]:
        point = ", ".join(f"{name} {format_value(value)}" for name, value in trial.named_values().items())
        logging.info("%s: %s", self._describe(trial.number), point)
        keras.backend.clear_session()
        source = self.source_at(trial.values)
        plan = make_plan(source.with_given({key: item for key, item in source.given.items() if key != "baseline"}))
        check_metric(plan, self.section.metric, "search.metric", INCREASING, workspace)
        return workspace.start(Unit(_validate_student, plan))

    def _finish(self, trial: Trial, future: Future[Any]) -> Trial:
        try:
            metrics, net = future.result()
            finished = replace(trial, state=DONE, score=self._score(metrics), net=net)
        except TrainingDiverged as error:
            finished = replace(trial, state=DIVERGED, note=str(error))
        except Problems as error:  # a budget that these widths leave no room for, for one
            finished = replace(trial, state=IMPOSSIBLE, note=" ".join(str(error).split()))
        except (WorkerDied, tf.errors.ResourceExhaustedError) as error:
            finished = replace(trial, state=FAILED, note=" ".join(str(error).split()))
        result = finished.note if finished.score is None else f"{self.section.metric} {finished.score:.4g}"
        logging.info("%s: %s, %s", self._describe(trial.number), finished.state, result)
        return finished

    def _score(self, metrics: Mapping[str, float | None]) -> float:
        score = metrics.get(self.section.metric)
        if score is None:
            known = ", ".join(name for name, value in metrics.items() if value is not None and name not in INCREASING)
            raise InputError(f"search.metric: no '{self.section.metric}' on validation; accepted: {known or 'none'}")
        return score

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[Trial | None]:
        """A trial that no other process does during the block; trials of dead processes come before new ones."""
        with filelock.FileLock(self._trials_folder / ".lock"):
            claim = self._claim()
        if claim is None:
            yield None
            return
        trial, lock = claim
        try:
            yield trial
        finally:
            lock.release()

    def _claim(self) -> tuple[Trial, filelock.BaseFileLock] | None:
        for number in range(self.section.trials):
            trial = self._read(number)
            if trial and trial.state != RUNNING:
                continue
            lock = filelock.FileLock(self._trials_folder / f".{number:04d}.lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            trial = self._read(number)  # again, now that no other process can change it
            if trial and trial.state != RUNNING:
                lock.release()
                continue
            if trial is None and not self._may_begin(number):
                lock.release()
                return None
            trial = self._begin(number) if trial is None else _begin_again(trial)
            if trial:
                self._write(trial)
                if trial.state == RUNNING:
                    return trial, lock
                logging.warning("%s: %s, %s", self._describe(number), trial.state, trial.note)
            lock.release()
            if trial is None:
                return None
        return None

    def _may_begin(self, number: int) -> bool:
        """Whether a trial is random, or the trials whose scores it follows from are finished."""
        followed = (self._read(each) for each in range(number - self.section.parallel_trials + 1))
        return number < self.section.random_trials or all(trial and trial.state != RUNNING for trial in followed)

    def _next_number(self) -> int | None:
        """Of the first trial that is not begun."""
        return next((number for number in range(self.section.trials) if not self._read(number)), None)

    def _is_next_held_up(self) -> bool:
        """Whether the next trial has to wait for others."""
        number = self._next_number()
        return number is not None and not self._may_begin(number)

    def _begin(self, number: int) -> Trial | None:
        """A new trial; None if no point is left. It follows from the trials before it, not from how many there are, nor
        from how many are under way: a trial whose file was removed is suggested again."""
        trials = self.list_trials()
        before = [trial for trial in trials if trial.number < number]
        followed = number - self.section.parallel_trials
        scores = {trial.number: trial.score for trial in before if trial.number <= followed}
        worst = max((score for score in scores.values() if score is not None), default=WORST_SCORE)
        tried = [(trial.values, worst if (score := scores.get(trial.number)) is None else score) for trial in before]
        later = [trial.values for trial in trials if trial.number > number]
        values = suggest(self.space, tried, self.section.seed, self.section.random_trials, later)
        return None if values is None else Trial(number, values, RUNNING)

    def _check_same(self, workspace: Workspace) -> None:
        """All trials of a folder must be of one search; only their number may change."""
        given = {key: item for key, item in self.source.given.items() if key not in ("name", "export", "baseline")}
        given["search"] = {**given["search"], "trials": None, "best": None}
        file = self.folder / "search.json"
        key = hash_json([given, self.collect_provenance(workspace), EVALUATION_VERSION])
        self._trials_folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self._trials_folder / ".lock"):
            if not file.exists() and not self.list_trials():
                write_json(file, {"key": key, "experiment": self.source.given})
            remedy = f"give this one another name, or remove the folder {self.folder}"
            if not file.exists():
                raise InputError(f"{file} is missing: its trials may be of another search; {remedy}")
            if read_json(file, remedy).get("key") != key:
                raise InputError(
                    f"{self.folder} holds the trials of another search (its experiment, data or a plugin's version "
                    "differs); give this one another name, or remove the folder"
                )

    def _describe(self, number: int) -> str:
        return f"{self.label and f'{self.label}, '}trial {number + 1} of {self.section.trials}"

    @property
    def _trials_folder(self) -> Path:
        return self.folder / "trials"

    def _file(self, number: int) -> Path:
        return self._trials_folder / f"{number:04d}.json"

    def _read(self, number: int) -> Trial | None:
        return read_trial(self._file(number), number, self.space)

    def _write(self, trial: Trial) -> None:
        write_trial(self._file(trial.number), trial)


@dataclass
class _UnderWay:
    """A trial that this process does."""

    trial: Trial
    lock: contextlib.ExitStack
    started: float
    future: Future[Any] = field(default_factory=Future)


def _validate_student(plan: Plan, workspace: Workspace) -> tuple[dict[str, float | None], str]:
    """The student's metrics on validation, and its folder within the home folder."""
    results = runner.train_and_evaluate(plan, workspace, splits=("validation",))
    folder = results.nets[-1].folder.relative_to(workspace.home)
    return results.evaluation.models["student"]["validation"], folder.as_posix()


def _begin_again(trial: Trial) -> Trial:
    """A trial whose process died, for another attempt, or failed after the last one."""
    if trial.attempts >= MOST_ATTEMPTS:
        return replace(trial, state=FAILED, note=f"its process died {MOST_ATTEMPTS} times")
    return replace(trial, attempts=trial.attempts + 1)


def open_search(source: Source, folder: Path, label: str = "") -> Search:
    """The search of an experiment with ranges, with its trials in `folder`; `label` as of `Search`.

    Raises:
        InputError: the ranges or the `search` section are invalid.
    """
    space, leaders = read_space(source)
    problems = Problems(source.problems.file)
    section = parse_section(SearchSection, source.given["search"] or {}, Place("search"), problems)
    problems.check()
    assert section
    if section.metric in INCREASING:
        message = "a search looks for the smallest value; expected a metric such as error_rate or nll, got"
        problems.add(Place("search", "metric"), f"{message} {quote(section.metric)}")
    if section.best > section.trials:
        problems.add(Place("search", "best"), f"cannot report {section.best} of {section.trials} trials")
    problems.check()
    return Search(source, section, space, leaders, folder, label)
