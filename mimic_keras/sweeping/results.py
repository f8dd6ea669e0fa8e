"""A sweep's numbers as tables: one row per net in results.csv, means over seeds in table.md."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimic_keras.experiment.file import to_key
from mimic_keras.reporting.tables import format_count, to_csv
from mimic_keras.storage.files import hash_json
from mimic_keras.sweeping.axes import Value
from mimic_keras.sweeping.cells import Sweep, drop_averaged, make_row
from mimic_keras.sweeping.running import Outcome, format_score, list_scores, to_shown


@dataclass(frozen=True)
class Group:
    """Cells that differ only in `mean_over`.

    `values`: {axis: value} on the other axes. `scores`: as shown, one per cell, or of a single cell one per net that
    counts. `parameters` and `multiply_adds`: of one net (of a search, the best).
    """

    values: dict[str, Value]
    outcomes: list[Outcome]
    scores: list[float]
    parameters: int | None
    multiply_adds: int | None
    paper: dict[str, float | None]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the sample."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


def group_cells(sweep: Sweep, outcomes: Sequence[Outcome], model: str = "student", split: str = "test") -> list[Group]:
    """The groups, in the order of their first cells, with the scores of `model` on `split`."""
    members: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        members.setdefault(hash_json(drop_averaged(sweep, outcome.cell)), []).append(outcome)
    groups = []
    for cells in members.values():
        first = cells[0]
        kept = list_distinct(cells, model)
        known = [result["models"]["student"] for outcome in cells for result in outcome.results]
        planned = first.planned.plan.costs["student"]
        cost = known[0] if known else {"parameters": planned.parameters, "multiply_adds": planned.multiply_adds}
        per_cell = [scores for nets in kept if (scores := list_scores(sweep, nets, model, split))]
        # Of several searches, the mean of each one's best nets varies with the seed.
        scores = per_cell[0] if len(cells) == 1 and per_cell else [statistics.fmean(each) for each in per_cell]
        groups.append(
            Group(
                drop_averaged(sweep, first.cell),
                cells,
                scores,
                cost["parameters"],
                cost["multiply_adds"],
                first.cell.paper,
            )
        )
    return groups


def list_distinct(cells: Sequence[Outcome], model: str) -> list[list[dict[str, Any]]]:
    """The results of each cell that has any, without those whose baseline or teacher is the net of an earlier one, as a
    baseline is that has no seed of its own: that they agree to the last digit is no measure of their spread."""
    found: list[Any] = []
    kept: list[list[dict[str, Any]]] = []
    for outcome in cells:
        kept.append([])
        for result in outcome.results:
            measured = result["models"].get(model)
            if model == "student" or measured is None or measured not in found:
                kept[-1].append(result)
                found.append(measured)
    return [results for results in kept if results]


def format_mean(sweep: Sweep, group: Group) -> str:
    """The mean and, of several, the standard deviation; the states of cells that have no scores."""
    if group.mean is None:
        return " and ".join(sorted({outcome.state for outcome in group.outcomes}))
    spread = "" if group.deviation is None else f" ± {format_score(sweep, group.deviation)}"
    return f"{format_score(sweep, group.mean)}{spread}"


def convert_paper_score(sweep: Sweep, paper: Mapping[str, float | None]) -> float | None:
    """The paper's number in per cent, as error or accuracy like the sweep's own."""
    error, accuracy = paper.get("error"), paper.get("accuracy")
    if error is None and accuracy is not None:
        error = 100 - accuracy
    return None if error is None else round(to_shown(sweep, error / 100), 4)


def _format_teacher(sweep: Sweep, group: Group, paper: Mapping[str, float | None]) -> str:
    """The teacher's score, or the lowest and highest of several teachers, and the paper's in brackets."""
    kind = "accuracy" if sweep.paper and sweep.paper.accuracy is not None else "error"
    published = convert_paper_score(sweep, {kind: paper.get("teacher")})
    ends = [min(group.scores), max(group.scores)] if group.scores else []
    ours = " to ".join(dict.fromkeys(format_score(sweep, score) for score in ends))
    return " ".join(filter(None, [ours, "" if published is None else f"({published:g})"]))


def format_csv(sweep: Sweep, outcomes: Sequence[Outcome]) -> bytes:
    """One row for every net that counts and for every cell without one; error rates are from 0 to 1."""
    rows = []
    for outcome in outcomes:
        for place, result in enumerate(outcome.results or [{"models": {}}]):
            row: dict[str, Any] = {"state": outcome.state}
            if outcome.planned.search:
                row["rank"] = place + 1 if outcome.results else None
            for name in ("student", "baseline", "teacher"):
                if values := result["models"].get(name):
                    for key in ("parameters", "multiply_adds"):
                        row[f"{name} {key}"] = values[key]
                    for split in ("validation", "test", "transfer"):
                        row |= {f"{name} {split} {key}": value for key, value in values.get(split, {}).items()}
            row |= {f"paper {key}": value for key, value in outcome.cell.paper.items() if value is not None}
            row |= {"seconds": outcome.seconds, "note": " ".join(outcome.note.split())}
            rows.append(make_row(outcome.cell.values, row))
    columns = list(dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row))
    return to_csv(columns, rows)


def tabulate_groups(sweep: Sweep, outcomes: Sequence[Outcome]) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of text, one row per group; empty columns are left out."""
    rows = []
    baselines = group_cells(sweep, outcomes, "baseline")
    teachers = group_cells(sweep, outcomes, "teacher")
    for group, baseline, teacher in zip(group_cells(sweep, outcomes), baselines, teachers, strict=True):
        paper = convert_paper_score(sweep, group.paper)
        published = group.paper.get("parameters")
        rows.append(
            make_row(
                group.values,
                {
                    "parameters": format_count(group.parameters),
                    "paper's": "" if published is None else f"{published:,.0f}",
                    "multiply-adds": format_count(group.multiply_adds),
                    f"test {sweep.heading}": format_mean(sweep, group),
                    "paper": "" if paper is None else f"{paper:g}",
                    "baseline": format_mean(sweep, baseline) if baseline.scores else "",
                    "teacher": _format_teacher(sweep, teacher, group.paper),
                    "nets": str(sum(len(outcome.results) for outcome in group.outcomes)),
                },
            )
        )
    columns = dict.fromkeys(key for row in rows for key in row)
    return [key for key in columns if any(row.get(key) for row in rows)], rows


def tabulate_across(sweep: Sweep, outcomes: Sequence[Outcome]) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of the table with `columns` going across: the metric, and the paper's in brackets."""
    down = [axis for axis in sweep.axes if axis not in sweep.columns and axis != sweep.mean_over]
    groups = group_cells(sweep, outcomes)
    headings = _make_headings([{axis: group.values[axis] for axis in sweep.columns} for group in groups], down)
    rows: dict[str, dict[str, str]] = {}
    columns = dict.fromkeys(down)
    for column, group in zip(headings, groups, strict=True):
        row = rows.setdefault(
            hash_json([group.values[axis] for axis in down]), {axis: str(group.values[axis]) for axis in down}
        )
        paper = convert_paper_score(sweep, group.paper)
        row[column] = format_mean(sweep, group) + ("" if paper is None else f" ({paper:g})")
        columns[column] = None
    return list(columns), list(rows.values())


def _make_headings(places: Sequence[Mapping[str, Value]], taken: Sequence[str]) -> list[str]:
    """A heading for the values of each place, with the axes' names where it would be another's or among `taken`."""
    short = [", ".join(itertools.starmap(_format_heading, place.items())) for place in places]
    if len({*short}) == len({repr(place) for place in places}) and not {*short} & {*taken}:
        return short
    return [", ".join(f"{axis} {to_key(value)}" for axis, value in place.items()) for place in places]


def _format_heading(axis: str, value: Value) -> str:
    return f"{axis} {value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def summarise(sweep: Sweep, outcomes: Sequence[Outcome]) -> str:
    """What the numbers in the tables are, in a few sentences."""
    metric, done = sweep.metric.replace("_", " "), sum(outcome.state == "done" for outcome in outcomes)
    what = metric if sweep.show == "error" else f"accuracy (100 - {metric})"
    words = [f"Test {what}{' in per cent' if sweep.unit else ''}; {done} of {len(outcomes)} cells are done."]
    if sweep.mean_over:
        values = len(sweep.axes[sweep.mean_over])
        words.append(f"Mean ± standard deviation over {sweep.mean_over}, which has {values} value{'s' * (values > 1)}.")
    best = {each.planned.search.section.best for each in outcomes if each.planned.search}
    if best:
        nets = "the best net" if best == {1} else f"the {max(best)} best nets"
        words.append(f"A cell is a search on validation, of which {nets} count{'s' * (best == {1})}.")
        if not sweep.mean_over and best != {1}:
            words.append("Mean ± standard deviation over them.")
    if sweep.paper:
        words.append(f"The paper's numbers: {sweep.paper.source}.")
    return " ".join(words)
