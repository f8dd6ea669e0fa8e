"""A search: trials in a folder that several processes may share, each done by one of them, and again if it dies."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import keras
from absl import logging

from mimic_keras import runner
from mimic_keras.contracts import InputError, RunError
from mimic_keras.experiment import ranges
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems, join, typed
from mimic_keras.experiment.ranges import Place, Range
from mimic_keras.experiment.schema import SearchSection
from mimic_keras.planning import components, plan
from mimic_keras.reporting.console import format_value
from mimic_keras.searching import space as spaces
from mimic_keras.stages.data import Data
from mimic_keras.storage.files import hash_json, write_json
from mimic_keras.training import models
from mimic_keras.training.steps import TrainingDiverged

SECONDS_BETWEEN_LOOKS = 1.0
RUNNING, DONE, DIVERGED, IMPOSSIBLE = "running", "done", "diverged", "impossible"
SHARES = (0.5, 0.25, 0.75, 0.1, 0.9)
WORST = 1.0  # of a trial without a score, where none has one yet


@dataclass(frozen=True)
class Trial:
    """One point of a search. `score` is None unless `state` is "done"; `note` says why."""

    number: int
    values: dict[Place, Any]
    state: str
    score: float | None = None
    seconds: float = 0.0
    note: str = ""

    def named(self) -> dict[str, Any]:
        """{path in the file: value}."""
        return {join("", *place): value for place, value in self.values.items()}


@dataclass(frozen=True)
class Search:
    """An experiment with ranges, and the folder of its trials."""

    source: Source
    section: SearchSection
    space: dict[Place, Range]
    leaders: dict[Place, Place]
    folder: Path

    def experiment(self, values: Mapping[Place, Any], where: str = "") -> Source:
        """The experiment at a point; it runs alone."""
        problems = Problems(self.source.problems.source + where)
        everywhere = {place: values[leader] for place, leader in self.leaders.items()}
        given = {key: item for key, item in ranges.replaced(self.source.given, everywhere).items() if key != "search"}
        return replace(self.source, problems=problems).having(given)

    def example(self, built: dict[str, models.Cost] | None = None) -> plan.Plan:
        """The plan in the middle of every range, which stands for all where nothing is trained; elsewhere if that is
        impossible.

        Raises:
            InputError: nothing comes of the ranges at any share of `SHARES`.
        """
        first: Problems | None = None
        for share in SHARES:
            values = {place: item.at(share) for place, item in self.space.items()}
            try:
                return plan.make(self.experiment(values, ", in the middle of every range"), built)
            except Problems as error:
                first = first or error
        assert first
        raise first

    def trials(self) -> list[Trial]:
        """Those that were begun, in order."""
        return [trial for number in range(self.section.trials) if (trial := self._read(number))]

    def best(self) -> list[Trial]:
        """Those with a score, the best first."""
        scored = [trial for trial in self.trials() if trial.score is not None]
        return sorted(scored, key=lambda trial: (trial.score, trial.number))

    def work(self, home: Path, prepare: Callable[..., Data]) -> None:
        """Do trials until all are done, by this process or others.

        Raises:
            InputError: the folder holds the trials of another search, or the student has no such metric.
        """
        self._check_same(home, prepare)
        while True:
            with self._claimed() as trial:
                if trial is None and all(found.state != RUNNING for found in self.trials()):
                    return
                if trial is None:
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                    continue
                self._write(self._done(trial, home, prepare))

    def _done(self, trial: Trial, home: Path, prepare: Callable[..., Data]) -> Trial:
        started = time.monotonic()
        shown = ", ".join(f"{name} {format_value(value)}" for name, value in trial.named().items())
        logging.info("trial %d of %d: %s", trial.number + 1, self.section.trials, shown)
        keras.backend.clear_session()
        try:
            source = self.experiment(trial.values)
            given = {key: item for key, item in source.given.items() if key != "baseline"}
            found = runner.learn(plan.make(source.having(given)), home, prepare=prepare, splits=("validation",))
        except TrainingDiverged as error:
            finished = replace(trial, state=DIVERGED, note=str(error))
        except Problems as error:  # a budget that these widths leave no room for, say
            finished = replace(trial, state=IMPOSSIBLE, note=" ".join(str(error).split()))
        else:
            metrics = found.judged.models["student"]["validation"]
            if metrics.get(self.section.metric) is None:
                known = ", ".join(name for name, value in metrics.items() if value is not None)
                raise InputError(
                    f"search.metric: no '{self.section.metric}' on validation; accepted: {known or 'none'}"
                )
            finished = replace(trial, state=DONE, score=metrics[self.section.metric])
        result = finished.note if finished.score is None else f"{self.section.metric} {finished.score:.4g}"
        logging.info("trial %d of %d: %s, %s", trial.number + 1, self.section.trials, finished.state, result)
        return replace(finished, seconds=round(time.monotonic() - started, 1))

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[Trial | None]:
        """A trial that this process alone does while the block lasts; one whose process died comes before a new one."""
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
            trial = self._read(number)  # again, now that nobody else can be at it
            if trial and trial.state != RUNNING:
                lock.release()
                continue
            if trial is None:
                values = spaces.suggest(self.space, self._tried(), self.section.seed, self.section.random_trials)
                if values is None:
                    lock.release()
                    logging.info("every point of the search was tried")
                    return None
                trial = Trial(number, values, RUNNING)
                self._write(trial)
            return trial, lock
        return None

    def _tried(self) -> list[tuple[dict[Place, Any], float]]:
        found = self.trials()
        worst = max((trial.score for trial in found if trial.score is not None), default=WORST)
        return [(trial.values, worst if trial.score is None else trial.score) for trial in found]

    def _check_same(self, home: Path, prepare: Callable[..., Data]) -> None:
        """The trials of a folder have to be of one search; only their number may change."""
        given = {key: item for key, item in self.source.given.items() if key not in ("name", "export", "baseline")}
        given["search"] = {**given["search"], "trials": None, "best": None}
        choices = [item.choices for place, item in self.space.items() if place[-1] == "name" and item.choices]
        code = [components.code_of(str(choice)) for several in choices for choice in several]
        file = self.folder / "search.json"
        key = hash_json([given, code, runner.provenance(self.example(), home, prepare)])
        self._trials_folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self._trials_folder / ".lock"):
            if not file.exists() and not self.trials():
                write_json(file, {"key": key, "experiment": self.source.given})
            elif not file.exists() or _read_json(file).get("key") != key:
                raise InputError(
                    f"{self.folder} holds the trials of another search (another experiment, data or version of a "
                    "plugin); give this one another name, or remove the folder"
                )

    @property
    def _trials_folder(self) -> Path:
        return self.folder / "trials"

    def _read(self, number: int) -> Trial | None:
        file = self._trials_folder / f"{number:04d}.json"
        if not file.exists():
            return None
        content = _read_json(file)
        places = {join("", *place): place for place in self.space}
        try:
            values = {places[name]: value for name, value in content.pop("values").items()}
            return Trial(number, values, **content)
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{file} is no trial of this search ({error}); remove the folder {self.folder}") from error

    def _write(self, trial: Trial) -> None:
        content = {"values": trial.named(), "state": trial.state, "score": trial.score}
        content |= {"seconds": trial.seconds, "note": trial.note}
        write_json(self._trials_folder / f"{trial.number:04d}.json", content)


def of(source: Source, folder: Path) -> Search:
    """The search of an experiment with ranges, whose trials lie in `folder`.

    Raises:
        InputError: the ranges or the `search` section are wrong, or no experiment comes of them.
    """
    space, leaders = spaces.of(source)
    problems = Problems(source.problems.source)
    section = typed(SearchSection, source.given["search"] or {}, "search", problems)
    problems.check()
    assert section
    if section.best > section.trials:
        problems.add("search.best", f"{section.best} of {section.trials} trials")
    problems.check()
    return Search(source, section, space, leaders, folder)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} is damaged ({error}); remove it, and what it says is done again") from error
