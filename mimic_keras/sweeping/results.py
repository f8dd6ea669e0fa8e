"""A sweep's numbers as tables: one row a cell in results.csv, means over seeds in table.md."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimic_keras.storage.files import hash_json
from mimic_keras.sweeping.axes import Value
from mimic_keras.sweeping.cells import Sweep, kept, row_of
from mimic_keras.sweeping.running import Outcome, scores, shown_as


@dataclass(frozen=True)
class Group:
    """Cells that differ in `mean_over` alone. `values` {axis: value} of the others; `scores` in per cent, of every cell
    (of a single one: of every net of it that counts); `parameters` and `multiply_adds` of one (of a search: its best).
    """

    values: dict[str, Value]
    outcomes: list[Outcome]
    scores: list[float]
    parameters: int
    multiply_adds: int
    paper: dict[str, float | None]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """Of the sample."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    def __str__(self) -> str:
        if self.mean is None:
            states = {outcome.state for outcome in self.outcomes}
            return " and ".join(sorted(states))
        return f"{self.mean:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")


def groups(sweep: Sweep, outcomes: Sequence[Outcome], model: str = "student") -> list[Group]:
    """In the order of the cells."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(hash_json(kept(sweep, outcome.cell)), []).append(outcome)
    made = []
    for those in found.values():
        first = those[0]
        known = [result["models"]["student"] for outcome in those for result in outcome.results]
        planned = first.planned.plan.costs["student"]
        cost = known[0] if known else {"parameters": planned.parameters, "multiply_adds": planned.multiply_adds}
        of_cells = [of_cell for outcome in those if (of_cell := scores(sweep, outcome, model))]
        # Of several searches, what varies with the seed is the mean of each one's best.
        values = of_cells[0] if len(those) == 1 and of_cells else [statistics.fmean(of_cell) for of_cell in of_cells]
        made.append(
            Group(kept(sweep, first.cell), those, values, cost["parameters"], cost["multiply_adds"], first.cell.paper)
        )
    return made


def paper_score(sweep: Sweep, paper: Mapping[str, float | None]) -> float | None:
    """The paper's number the way the sweep shows its own, in per cent."""
    error, accuracy = paper.get("error"), paper.get("accuracy")
    if error is None and accuracy is not None:
        error = 100 - accuracy
    return None if error is None else round(shown_as(sweep, error / 100), 4)


def _teacher(sweep: Sweep, group: Group, paper: Mapping[str, float | None]) -> str:
    """The teacher's score, or the first and last of several's, and the paper's in brackets."""
    kind = "accuracy" if sweep.paper and sweep.paper.accuracy is not None else "error"
    published = paper_score(sweep, {kind: paper.get("teacher")})
    ours = (
        " to ".join(f"{score:.2f}" for score in sorted({min(group.scores), max(group.scores)})) if group.scores else ""
    )
    return " ".join(filter(None, [ours, "" if published is None else f"({published:g})"]))


def comma_separated(sweep: Sweep, outcomes: Sequence[Outcome]) -> str:
    """One row for every net that counts, and for every cell without one; error rates from 0 to 1."""
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
                    for split in ("validation", "test"):
                        row |= {f"{name} {split} {key}": value for key, value in values[split].items()}
            row |= {f"paper {key}": value for key, value in outcome.cell.paper.items() if value is not None}
            row |= {"seconds": outcome.seconds, "note": " ".join(outcome.note.split())}
            rows.append(row_of(outcome.cell.values, row))
    columns = list(dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def columns_and_rows(sweep: Sweep, outcomes: Sequence[Outcome]) -> tuple[list[str], list[dict[str, str]]]:
    """A row for every group, everything as text; columns that would be empty are left out."""
    rows = []
    baselines = groups(sweep, outcomes, "baseline")
    teachers = groups(sweep, outcomes, "teacher")
    for group, baseline, teacher in zip(groups(sweep, outcomes), baselines, teachers, strict=True):
        paper = paper_score(sweep, group.paper)
        published = group.paper.get("parameters")
        rows.append(
            row_of(
                group.values,
                {
                    "parameters": f"{group.parameters:,}",
                    "paper's": "" if published is None else f"{published:,.0f}",
                    "multiply-adds": f"{group.multiply_adds:,}",
                    f"test {sweep.show}, %": str(group),
                    "paper": "" if paper is None else f"{paper:g}",
                    "baseline": str(baseline) if baseline.scores else "",
                    "teacher": _teacher(sweep, teacher, group.paper),
                    "nets": str(sum(len(outcome.results) for outcome in group.outcomes)),
                },
            )
        )
    found = dict.fromkeys(key for row in rows for key in row)
    return [key for key in found if any(row.get(key) for row in rows)], rows


def across(sweep: Sweep, outcomes: Sequence[Outcome]) -> tuple[list[str], list[dict[str, str]]]:
    """The table with `columns` going across: the metric, and the paper's in brackets."""
    down = [axis for axis in sweep.axes if axis not in sweep.columns and axis != sweep.mean_over]
    rows: dict[str, dict[str, str]] = {}
    columns = dict.fromkeys(down)
    for group in groups(sweep, outcomes):
        row = rows.setdefault(
            hash_json([group.values[axis] for axis in down]), {axis: str(group.values[axis]) for axis in down}
        )
        column = ", ".join(_with_unit(axis, group.values[axis]) for axis in sweep.columns)
        paper = paper_score(sweep, group.paper)
        row[column] = str(group) + ("" if paper is None else f" ({paper:g})")
        columns[column] = None
    return list(columns), list(rows.values())


def _with_unit(axis: str, value: Value) -> str:
    return f"{axis} {value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def markdown(sweep: Sweep, outcomes: Sequence[Outcome]) -> str:
    """The tables of table.md."""
    lines = [f"# {sweep.name}", "", sentence(sweep, outcomes), ""]
    tables = [across(sweep, outcomes)] if sweep.columns else []
    for columns, rows in [*tables, columns_and_rows(sweep, outcomes)]:
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell_text(row.get(column, "")) for column in columns) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _cell_text(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def sentence(sweep: Sweep, outcomes: Sequence[Outcome]) -> str:
    """What the numbers are."""
    metric, done = sweep.metric.replace("_", " "), sum(outcome.state == "done" for outcome in outcomes)
    what = metric if sweep.show == "error" else f"accuracy (100 - {metric})"
    words = [f"Test {what} in per cent; {done} of {len(outcomes)} cells are done."]
    if sweep.mean_over:
        words.append(f"Mean ± standard deviation over {sweep.mean_over}.")
    best = {each.planned.search.section.best for each in outcomes if each.planned.search}
    if best:
        nets = "the best net" if best == {1} else f"the {max(best)} best nets"
        words.append(f"A cell is a search on validation, of which {nets} count{'s' * (best == {1})}.")
        if not sweep.mean_over and best != {1}:
            words.append("Mean ± standard deviation over them.")
    if sweep.paper:
        words.append(f"The paper's numbers: {sweep.paper.source}.")
    return " ".join(words)
