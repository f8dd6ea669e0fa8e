"""A sweep's run: every cell in turn, what is finished already left as it is; one that fails stops no other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
from absl import logging

from mimic_keras import runner
from mimic_keras.contracts import RunError
from mimic_keras.experiment.file import written
from mimic_keras.experiment.ranges import find
from mimic_keras.planning import plan
from mimic_keras.planning.plan import Plan
from mimic_keras.reporting import console
from mimic_keras.searching import page as search_page
from mimic_keras.searching import trials
from mimic_keras.searching.trials import Search
from mimic_keras.stages.data import Data, prepared_once
from mimic_keras.storage.files import hash_json, write_bytes, write_json
from mimic_keras.storage.locks import in_use, owned
from mimic_keras.sweeping.cells import Cell, Sweep, row_of
from mimic_keras.training.models import Cost

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass(frozen=True)
class Planned:
    """A cell whose experiment was checked and whose nets were built; `search` if it has ranges, and `plan` is then
    that of their middle."""

    cell: Cell
    plan: Plan
    search: Search | None

    @property
    def trainings(self) -> int:
        """How many students it trains."""
        return self.search.section.trials if self.search else 1


@dataclass(frozen=True)
class Outcome:
    """What came of a cell. `results` holds, for each net that counts (one; of a search its best), {"models": as in
    metrics.json, "history": the student's curves}."""

    planned: Planned
    state: str = WAITING
    results: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""

    @property
    def cell(self) -> Cell:
        return self.planned.cell


def planned(cell: Cell, folder: Path, built: dict[str, Cost]) -> Planned:
    """Check a cell's experiment and build its nets, but for those in `built`.

    Raises:
        InputError: a `Problems` with everything that does not fit.
    """
    given = cell.source.given
    if "search" not in given and not any(True for _ in find(given, "tune")):
        return Planned(cell, plan.make(cell.source, built), None)
    search = trials.of(cell.source, folder / "cells" / cell.name)
    return Planned(cell, search.example(built), search)


def run(
    sweep: Sweep, cells: Sequence[Planned], folder: Path, home: Path, write: Callable[[Sequence[Outcome]], None]
) -> list[Outcome]:
    """Run every cell; `write` is given all outcomes whenever another cell is done.

    Raises:
        InputError: another process runs this sweep.
    """
    outcomes = [Outcome(each) for each in cells]
    folder.mkdir(parents=True, exist_ok=True)
    prepare = prepared_once()
    journal, table = console.brief(folder / "log.jsonl"), console.live_table(lambda: _live(sweep, outcomes))
    with owned(folder), in_use(home), journal, table:
        for page in (
            folder / "report.html",
            *folder.glob("figure_*.svg"),
        ):  # of an earlier run, which this one replaces
            page.unlink(missing_ok=True)
        for place, each in enumerate(cells):
            outcomes[place] = replace(outcomes[place], state=RUNNING)
            outcomes[place] = _outcome(sweep, each, folder, home, prepare)
            logging.info("cell %d of %d, %s: %s", place + 1, len(cells), each.cell, _shown(sweep, outcomes[place]))
            write(outcomes)
    return outcomes


def _outcome(sweep: Sweep, each: Planned, folder: Path, home: Path, prepare: Callable[..., Data]) -> Outcome:
    started = time.monotonic()
    file = folder / "cells" / each.cell.name / "results.json"
    keras.backend.clear_session()
    try:
        given = {key: item for key, item in each.cell.source.complete.items() if key not in ("name", "export")}
        key = hash_json([given, runner.provenance(each.plan, home, prepare)])
        if found := _found(file, key):
            _check_metric(sweep, found["results"])
            return Outcome(each, DONE, found["results"], found["seconds"])
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file.with_name("experiment.yaml"), written(each.cell.source.given).encode())
        results = [_result(made, home, prepare) for made in _nets(each, home, prepare)]
        seconds = round(time.monotonic() - started, 1)
        write_json(file, {"key": key, "axes": each.cell.values, "results": results, "seconds": seconds})
        _check_metric(sweep, results)
    except Exception as error:  # whatever it is, the other cells are none the worse
        logging.warning("%s failed: %s", each.cell, error)
        name = "" if type(error).__module__.startswith("mimic_keras.") else f"{type(error).__name__}: "
        return Outcome(each, FAILED, seconds=round(time.monotonic() - started, 1), note=f"{name}{error}")
    return Outcome(each, DONE, results, seconds)


def _check_metric(sweep: Sweep, results: Sequence[dict[str, Any]]) -> None:
    for result in results:
        metrics = result["models"]["student"]["test"]
        if metrics.get(sweep.metric) is None:
            known = ", ".join(name for name, value in metrics.items() if value is not None)
            raise RunError(f"metric: no {sweep.metric!r} on test; there is: {known}")


def _nets(each: Planned, home: Path, prepare: Callable[..., Data]) -> list[Plan]:
    """The experiments that count: the cell's own, or the best of its search."""
    if each.search is None:
        return [each.plan]
    each.search.work(home, prepare)
    search_page.write(each.search)
    best = each.search.best()[: each.search.section.best]
    if not best:
        raise RunError("no trial of the search has a score")
    return [plan.make(each.search.experiment(trial.values)) for trial in best]


def _result(made: Plan, home: Path, prepare: Callable[..., Data]) -> dict[str, Any]:
    found = runner.learn(made, home, prepare=prepare)
    return {"models": found.judged.models, "history": found.nets[-1].history}


def _found(file: Path, key: str) -> dict[str, Any] | None:
    """The results of an earlier run, if they are of the same experiment, data and code."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logging.warning("%s is damaged (%s); the cell is judged again", file, error)
        return None
    return content if content.get("key") == key else None


def scores(sweep: Sweep, outcome: Outcome, model: str = "student") -> list[float]:
    """The sweep's metric on test, of each net of a cell that counts; as it is shown, in per cent."""
    found = [result["models"].get(model, {}).get("test", {}).get(sweep.metric) for result in outcome.results]
    return [shown_as(sweep, score) for score in found if score is not None]


def shown_as(sweep: Sweep, error: float) -> float:
    return 100 * (error if sweep.show == "error" else 1 - error)


def _shown(sweep: Sweep, outcome: Outcome) -> str:
    if outcome.state != DONE:
        return outcome.state
    return f"{sweep.show} {sum(scores(sweep, outcome)) / len(outcome.results):.2f} % in {outcome.seconds:.0f} s"


def _live(sweep: Sweep, outcomes: Sequence[Outcome]) -> tuple[list[str], list[dict[str, Any]], int]:
    """Columns, rows, and the row that is at work."""
    rows = [
        row_of(
            each.cell.values,
            {
                "state": each.state,
                "parameters": each.planned.plan.costs["student"].parameters,
                f"test {sweep.show} %": sum(scores(sweep, each)) / len(each.results) if each.results else None,
                "seconds": round(each.seconds) or None,
            },
        )
        for each in outcomes
    ]
    at = next((place for place, each in enumerate(outcomes) if each.state == RUNNING), len(rows) - 1)
    return list(rows[0]), rows, at
