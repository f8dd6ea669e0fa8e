"""A sweep's run: every cell, in turn unless a cluster computes them; finished ones are left as they are, and a failure
does not stop the rest."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import keras
from absl import logging

from mimic_keras import runner
from mimic_keras.contracts import MimicError, RunError
from mimic_keras.experiment import yaml_text
from mimic_keras.experiment.file import has_ranges
from mimic_keras.planning.locations import anchor_paths
from mimic_keras.planning.plan import Costs, Plan, make_plan
from mimic_keras.reporting import console
from mimic_keras.searching import page as search_page
from mimic_keras.searching.trials import Search, open_search
from mimic_keras.stages.evaluation import EVALUATION_VERSION, check_metric
from mimic_keras.stages.replacing import CELLS, check_sweep
from mimic_keras.stages.workspace import Steps, Unit, Workspace
from mimic_keras.storage.files import hash_json, write_bytes, write_json
from mimic_keras.storage.locks import owned
from mimic_keras.sweeping import errors
from mimic_keras.sweeping.cells import Cell, Sweep, collect_problems, make_row

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its checked plan. With ranges it has a `search`, and `plan` is an example of it."""

    cell: Cell
    plan: Plan
    search: Search | None

    @property
    def trainings(self) -> int:
        """How many students the cell trains."""
        return self.search.section.trials if self.search else 1


@dataclass(frozen=True)
class Outcome:
    """The state of a cell, and its results.

    `results` holds one mapping for each net that counts (of a search, for each of its best): {"models": as in
    metrics.json, "history": the student's curves, "errors": as of `errors.pack`}.
    """

    planned: PlannedCell
    state: str = WAITING
    results: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""

    @property
    def cell(self) -> Cell:
        return self.planned.cell


def plan_cells(file: str, cells: Sequence[Cell], folder: Path) -> list[PlannedCell]:
    """Check the experiment of every cell, building each kind of net once.

    Raises:
        InputError: a `Problems` with everything that does not fit.
    """
    return collect_problems(file, cells, functools.partial(_plan_cell, folder=folder, known_costs={}))


def _plan_cell(cell: Cell, folder: Path, known_costs: Costs) -> PlannedCell:
    if not has_ranges(cell.source.given):
        return PlannedCell(cell, make_plan(cell.source, known_costs), None)
    search = open_search(cell.source, folder / CELLS / cell.name, str(cell))
    return PlannedCell(cell, search.plan_example(known_costs), search)


def check_sweep_metric(
    sweep: Sweep, cells: Sequence[PlannedCell], place: str, workspace: Workspace | None = None
) -> None:
    """As `check_metric`, of a cell with a teacher, if one has: its students have all the metrics there are."""
    plan = next((each.plan for each in cells if each.plan.members), cells[0].plan)
    check_metric(plan, sweep.metric, place, workspace=workspace)


def run_cells(
    sweep: Sweep, cells: Sequence[PlannedCell], folder: Path, workspace: Workspace
) -> Iterator[list[Outcome]]:
    """Run every cell; yields all outcomes after each cell.

    Raises:
        InputError: another process is running this sweep, the folder holds the results of an experiment, or the
            students have no such metric.
    """
    outcomes = [Outcome(each) for each in cells]
    folder.mkdir(parents=True, exist_ok=True)
    journal, table = (
        console.brief(folder / "log.jsonl"),
        console.live_table(lambda: _tabulate_progress(sweep, outcomes)),
    )
    check_sweep(folder)
    with owned(folder), workspace.in_use(sweep.name), journal, table:
        check_sweep_metric(sweep, cells, "metric", workspace)
        for page in (
            folder / "report.html",
            *folder.glob("figure_*.svg"),
        ):  # of an earlier run, which this one replaces
            page.unlink(missing_ok=True)
        under_way = {index: _steps(sweep, planned, folder, workspace) for index, planned in enumerate(cells)}
        try:
            while under_way:
                for index, steps in list(under_way.items()):
                    if outcomes[index].state == WAITING:
                        outcomes[index] = replace(outcomes[index], state=RUNNING)
                        logging.info("cell %d of %d, %s", index + 1, len(cells), cells[index].cell)
                    try:
                        next(steps)
                    except StopIteration as end:
                        outcomes[index] = end.value
                        del under_way[index]
                        shown = _describe_outcome(sweep, outcomes[index])
                        logging.info("cell %d of %d, %s: %s", index + 1, len(cells), cells[index].cell, shown)
                        yield list(outcomes)
                if under_way:
                    workspace.wait()
        finally:
            for steps in under_way.values():
                steps.close()


def _steps(sweep: Sweep, planned: PlannedCell, folder: Path, workspace: Workspace) -> Steps[Outcome]:
    """The outcome of a cell."""
    began = time.monotonic()
    try:
        results, seconds = yield from _find_results(planned, folder, workspace)
        _check_results(sweep, results)
    except Exception as error:  # no failure may stop the other cells
        logging.warning("%s failed: %s", planned.cell, error)
        name = "" if isinstance(error, MimicError) else f"{type(error).__name__}: "
        return Outcome(planned, FAILED, seconds=round(time.monotonic() - began, 1), note=f"{name}{error}")
    return Outcome(planned, DONE, results, seconds)


def _find_results(
    planned: PlannedCell, folder: Path, workspace: Workspace
) -> Steps[tuple[list[dict[str, Any]], float]]:
    """The results of a cell and the seconds they took: those of an earlier run, or new ones, which are written."""
    began = time.monotonic()
    keras.backend.clear_session()
    file, source = folder / CELLS / planned.cell.name / "results.json", planned.cell.source
    given = {key: item for key, item in source.complete.items() if key not in ("name", "export")}
    of_search = planned.search and planned.search.collect_provenance(workspace)
    key = hash_json([given, of_search or runner.collect_provenance(planned.plan, workspace), EVALUATION_VERSION])
    if stored := _read_results(file, key):
        return stored["results"], stored["seconds"]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file.with_name("experiment.yaml"), yaml_text.dump(anchor_paths(source).given).encode())
    plans = [planned.plan]
    if planned.search:
        plans = yield from _finish_search(planned.search, workspace)
    futures = [workspace.start(Unit(_evaluate, plan)) for plan in plans]
    while not all(future.done() for future in futures):
        yield
    results = [result for future in futures for result in future.result()]
    seconds = round(time.monotonic() - began, 1)
    write_json(file, {"key": key, "axes": planned.cell.values, "results": results, "seconds": seconds})
    return results, seconds


def _check_results(sweep: Sweep, results: Sequence[dict[str, Any]]) -> None:
    for result in results:
        metrics = result["models"]["student"]["test"]
        if metrics.get(sweep.metric) is None:
            known = ", ".join(name for name, value in metrics.items() if value is not None)
            raise RunError(f"metric: no {sweep.metric!r} on test; there is: {known}")


def _finish_search(search: Search, workspace: Workspace) -> Steps[list[Plan]]:
    """Run a cell's search; the plans of its best trials."""
    yield from search.steps(workspace)
    search_page.write_page(search, workspace.home)
    best = search.rank_trials()[: search.section.best]
    if not best:
        raise RunError("no trial of the search has a score")
    return [make_plan(search.source_at(trial.values)) for trial in best]


def _evaluate(plan: Plan, workspace: Workspace) -> list[dict[str, Any]]:
    results = runner.train_and_evaluate(plan, workspace)
    test = {name: of_split["test"] for name, of_split in results.evaluation.logits.items()}
    rates = {name: of_split["test"] for name, of_split in results.evaluation.rates.items()}
    wrong = errors.pack(results.data.split("test").labels, test, rates)
    return [{"models": results.evaluation.models, "history": results.nets[-1].history, "errors": wrong}]


def _read_results(file: Path, key: str) -> dict[str, Any] | None:
    """The results of an earlier run, if they are of the same experiment, data and code."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logging.warning("%s is damaged (%s); the cell is evaluated again", file, error)
        return None
    return content if isinstance(content, dict) and content.get("key") == key else None


def list_scores(
    sweep: Sweep, results: Sequence[Mapping[str, Any]], model: str = "student", split: str = "test"
) -> list[float]:
    """The sweep's metric for each of a cell's results, as shown."""
    values = [result["models"].get(model, {}).get(split, {}).get(sweep.metric) for result in results]
    return [to_shown(sweep, value) for value in values if value is not None]


def to_shown(sweep: Sweep, value: float) -> float:
    """A share from 0 to 1 in per cent, an error rate as error or accuracy; another metric as it is."""
    return (100 if sweep.unit else 1) * (value if sweep.show == "error" else 1 - value)


def format_score(sweep: Sweep, score: float) -> str:
    """A number as it is shown: per cent with two digits behind the point, all else with three significant ones."""
    return f"{score:.2f}" if sweep.unit else f"{score:.3g}"


def _describe_outcome(sweep: Sweep, outcome: Outcome) -> str:
    if outcome.state != DONE:
        return outcome.state
    mean = fmean(list_scores(sweep, outcome.results))
    return " ".join(filter(None, [sweep.shown, format_score(sweep, mean), sweep.unit, f"in {outcome.seconds:.0f} s"]))


def _tabulate_progress(sweep: Sweep, outcomes: Sequence[Outcome]) -> tuple[list[str], list[dict[str, Any]], int]:
    """Columns, rows, and the index of the row that is running."""
    rows = [
        make_row(
            each.cell.values,
            {
                "state": each.state,
                "parameters": each.planned.plan.costs["student"].parameters,
                f"test {sweep.heading}": fmean(list_scores(sweep, each.results)) if each.results else None,
                "seconds": round(each.seconds) or None,
            },
        )
        for each in outcomes
    ]
    current = next((index for index, each in enumerate(outcomes) if each.state == RUNNING), len(rows) - 1)
    return list(rows[0]), rows, current
