"""A sweep's page: its tables and figures, with the paper's numbers beside ours."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from mimic_keras.reporting import pages
from mimic_keras.reporting.tables import to_markdown
from mimic_keras.storage.files import write_bytes
from mimic_keras.sweeping import comparing, results
from mimic_keras.sweeping.cells import QUANTITIES, Sweep
from mimic_keras.sweeping.cells import Figure as FigureSection
from mimic_keras.sweeping.results import Group
from mimic_keras.sweeping.running import FAILED, Outcome, list_scores, to_shown

MARKERS = "osD^vP*X<>"
LABELS = {"multiply_adds": "multiply-adds"}  # of an x-axis whose quantity is written in another way


def write_page(
    sweep: Sweep, outcomes: Sequence[Outcome], folder: Path, source: str, environment: dict[str, Any]
) -> None:
    """Write table.md, results.csv, figure_1.svg and so on, and report.html into the sweep's folder."""
    write_tables(sweep, outcomes, folder)
    columns, differences = comparing.tabulate_differences(sweep, outcomes)
    shown = [(_choose_metric(sweep, figure, outcomes), figure) for figure in sweep.figures]
    drawn = [(figure.title or _make_title(of, figure), _draw_figure(of, figure, outcomes)) for of, figure in shown]
    pictures = [pages.Picture(title, pages.to_svg(drawing)) for title, drawing in drawn if drawing]
    for number, picture in enumerate(pictures, 1):
        write_bytes(folder / f"figure_{number}.svg", picture.svg.encode())
    pages.write_page(
        folder / "report.html",
        Path(__file__).with_name("sweep.html.jinja"),
        title=sweep.name,
        summary=results.summarise(sweep, outcomes),
        tables=[_as_lists(*table) for table in _tabulate(sweep, outcomes)],
        differences=_as_lists(columns, differences),
        is_single=any("1" in row["nets"].split(" and ") for row in differences),
        pictures=pictures,
        has_paper=sweep.paper is not None,
        failures=[(str(each.cell), each.note) for each in outcomes if each.state == FAILED],
        source=source,
        environment=pages.format_facts(environment),
        seconds=sum(each.seconds for each in outcomes),
    )


def write_tables(sweep: Sweep, outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write results.csv and table.md."""
    write_bytes(folder / "results.csv", results.format_csv(sweep, outcomes))
    lines = [f"# {sweep.name}", "", results.summarise(sweep, outcomes), ""]
    for table in [*_tabulate(sweep, outcomes), comparing.tabulate_differences(sweep, outcomes)]:
        lines += [*to_markdown(*table), ""] if table[1] else []
    write_bytes(folder / "table.md", "\n".join(lines).encode())


def _tabulate(sweep: Sweep, outcomes: Sequence[Outcome]) -> list[tuple[list[str], list[dict[str, str]]]]:
    """Columns and rows of the tables of scores."""
    across = [results.tabulate_across(sweep, outcomes)] if sweep.columns else []
    return [*across, results.tabulate_groups(sweep, outcomes)]


def _as_lists(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> tuple[Sequence[str], list[list[str]]]:
    return columns, [[row.get(column, "") for column in columns] for row in rows]


def _make_title(sweep: Sweep, figure: FigureSection) -> str:
    what = f"{figure.split.capitalize()} {sweep.shown} against {_make_label(sweep, figure)}"
    return what if figure.x != "epoch" else f"Validation {sweep.shown} while training"


def _make_label(sweep: Sweep, figure: FigureSection) -> str:
    is_teacher = figure.x == "teacher"
    return f"teacher's {figure.split} {sweep.shown}" if is_teacher else LABELS.get(figure.x, figure.x)


def _choose_metric(sweep: Sweep, figure: FigureSection, outcomes: Sequence[Outcome]) -> Sweep:
    """The sweep with the metric that the figure shows: by epoch the error rate, unless `evaluate_every` has its own."""
    histories = [result["history"] for outcome in outcomes for result in outcome.results]
    if figure.x != "epoch" or any(f"judged_{sweep.metric}" in history for history in histories):
        return sweep
    return sweep.model_copy(update={"metric": "error_rate"})


def _draw_figure(sweep: Sweep, figure: FigureSection, outcomes: Sequence[Outcome]) -> Figure | None:
    done = [outcome for outcome in outcomes if outcome.results]
    if not done:
        return None
    drawing = pages.new_figure(3.4)
    axes = drawing.subplots()
    split = "validation" if figure.x == "epoch" else figure.split
    is_whole = figure.x == "epoch" or (not figure.log and _is_whole(sweep.axes.get(figure.x, ())))
    label = _make_label(sweep, figure)
    pages.finish_axes(axes, label, f"{split} {sweep.heading}", whole="x" if is_whole else "")
    if figure.x == "epoch":
        _draw_curves(sweep, figure, done, axes)
    else:
        _draw_points(sweep, figure, done, axes)
    pages.draw_legend(drawing, axes, columns=1)
    return drawing


def _is_whole(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _group_series(sweep: Sweep, figure: FigureSection, groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """The groups of each value of the series and, against an axis, of the axes that have no other place."""
    is_axis = figure.x in sweep.axes and figure.x not in QUANTITIES
    rest = [axis for axis in sweep.axes if axis not in (figure.x, figure.series, sweep.mean_over)] if is_axis else []
    found: dict[str, list[Group]] = {}
    for group in groups:
        words = [str(group.values[figure.series])] if figure.series else []
        label = pages.literal(", ".join([*words, *(f"{axis} {group.values[axis]}" for axis in rest)]))
        found.setdefault(label, []).append(group)
    return list(found.items())


def _draw_points(sweep: Sweep, figure: FigureSection, done: Sequence[Outcome], axes: Any) -> None:
    styles = itertools.cycle(zip(pages.PALETTE, MARKERS, strict=True))
    places = [x for group in results.group_cells(sweep, done) if (x := _x_of(sweep, figure, group)) is not None]
    names = list(dict.fromkeys(map(str, places))) if any(isinstance(place, str) for place in places) else []
    if names:
        axes.set_xticks(
            range(len(names)), [pages.literal(name) for name in names], rotation=30, ha="right", fontsize=pages.SMALL
        )
    for model in figure.models:
        for name, groups in _group_series(sweep, figure, results.group_cells(sweep, done, model, figure.split)):
            points = [(_x_of(sweep, figure, group), group) for group in groups if group.scores]
            points = [(place, group) for place, group in points if place is not None]
            points = [(names.index(str(place)) if names else place, group) for place, group in points]
            label = ", ".join(filter(None, [name, model if len(figure.models) > 1 or not name else ""]))
            if points:
                style = "none" if names else "-"
                ordered = sorted(points, key=lambda point: point[0])
                is_published = model == "student" and figure.split == "test"
                _draw_line(sweep, axes, ordered, label, *next(styles), style, is_published)
    if figure.lines:
        _draw_levels(sweep, figure, done, axes)
    if figure.x == "teacher":
        low, high = axes.get_xlim()
        axes.axline((low, low), (high, high), color="#999999", linewidth=1, linestyle=":", label="as the teacher")
    elif figure.log and places and not names and min(places) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        thousands = EngFormatter(sep="")
        axes.xaxis.set_major_formatter(lambda value, _: thousands(value) if value >= 1000 else f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_line(
    sweep: Sweep,
    axes: Any,
    points: Sequence[tuple[float, Group]],
    label: str,
    colour: str,
    marker: str,
    linestyle: str,
    is_published: bool,
) -> None:
    """The mean of every group with its spread; hollow, the paper's, whose numbers are of the student on test."""
    places, groups = zip(*points, strict=True)
    style = {"color": colour, "marker": marker, "markersize": 5, "capsize": 3, "linestyle": linestyle}
    spreads = np.transpose([_spread_of(group) for group in groups])
    axes.errorbar(places, [group.mean for group in groups], yerr=spreads, label=label, **style)
    papers = [(place, results.convert_paper_score(sweep, group.paper)) for place, group in points]
    known = [(place, score) for place, score in papers if score is not None and is_published]
    if known:
        hollow = {"facecolors": "none", "edgecolors": colour, "marker": marker, "s": 40}
        axes.scatter(*zip(*known, strict=True), **hollow, label=f"{label}, paper")


def _x_of(sweep: Sweep, figure: FigureSection, group: Group) -> Any:
    """None: multiply-adds that are not counted."""
    if figure.x in ("parameters", "multiply_adds"):
        return getattr(group, figure.x)
    if figure.x == "teacher":
        found = [result for outcome in group.outcomes for result in outcome.results]
        known = list_scores(sweep, found, "teacher", figure.split)
        return float(np.mean(known)) if known else float("nan")
    value = group.values.get(figure.x)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _spread_of(group: Group) -> tuple[float, float]:
    """How far the bar goes down and up from the mean: the standard deviation, or to the ends of a search's best."""
    assert group.mean is not None
    if len(group.outcomes) == 1 and len(group.scores) > 1:
        ends = group.mean - min(group.scores), max(group.scores) - group.mean
        return max(0.0, ends[0]), max(0.0, ends[1])  # the mean of equal numbers may be another one
    return (group.deviation or 0.0,) * 2


def _draw_levels(sweep: Sweep, figure: FigureSection, done: Sequence[Outcome], axes: Any) -> None:
    """The teachers, once each; those of as many nets, as other seeds are, look alike and share a label."""
    found = set()
    for outcome in done:
        for result in outcome.results:
            teacher = result["models"].get("teacher")
            if teacher and (error := teacher[figure.split].get(sweep.metric)) is not None:
                found.add((teacher["members"], error))
    styles = itertools.cycle(["--", "-.", ":"])
    for members, alike in itertools.groupby(sorted(found), key=lambda each: each[0]):
        line = {"color": "#333333", "linewidth": 1, "linestyle": next(styles)}
        label = f"teacher ({members} nets)" if members > 1 else "teacher (1 net)"
        for _, error in alike:
            axes.axhline(to_shown(sweep, error), label=label, **line)
            label = "_"  # as matplotlib marks what has no place in the legend


def _draw_curves(sweep: Sweep, figure: FigureSection, done: Sequence[Outcome], axes: Any) -> None:
    """The metric on validation by epoch.

    One colour for each series, one line style for each group in it: thin for every net, thick for their mean. The axis
    is scaled to the second half of the training.
    """
    settled: list[float] = []
    for colour, (name, groups) in zip(
        itertools.cycle(pages.PALETTE), _group_series(sweep, figure, results.group_cells(sweep, done)), strict=False
    ):
        for style, group in zip(itertools.cycle(["-", "--", ":", "-."]), groups, strict=False):
            curves = [
                curve for outcome in group.outcomes for result in outcome.results if (curve := _curve_of(sweep, result))
            ]
            rest = [f"{axis} {value}" for axis, value in group.values.items() if axis != figure.series]
            label = (
                ", ".join(
                    filter(None, [name and f"{pages.literal(str(figure.series))} {name}", *map(pages.literal, rest)])
                )
                or "student"
            )
            line = {"color": colour, "linestyle": style}
            several = len(curves) > 1
            has_mean = several and len({tuple(epochs) for epochs, _ in curves}) == 1
            for place, (epochs, values) in enumerate(curves):
                settled += values[len(values) // 2 :]
                axes.plot(
                    epochs,
                    values,
                    **line,
                    linewidth=0.7 if several else 1.6,
                    alpha=0.5 if several else 1,
                    label=None if has_mean or place else label,
                )
            if has_mean:
                mean = np.mean([values for _, values in curves], 0)
                axes.plot(curves[0][0], mean, **line, linewidth=1.8, label=f"{label}, mean of {len(curves)}")
    if settled:
        low, high = min(settled), max(settled)
        room = 0.15 * (high - low) or 1.0
        axes.set_ylim(low - room, high + room)


def _curve_of(sweep: Sweep, result: Mapping[str, Any]) -> tuple[list[int], list[float]] | None:
    """The epochs, and what is drawn of them; none of a validation split without labels."""
    history = result["history"]
    if judged := history.get(f"judged_{sweep.metric}"):
        epochs, values = [int(epoch) for epoch in history[f"judged_{sweep.metric}_epoch"]], judged
    elif sweep.metric == "error_rate" and result["models"]["student"]["validation"].get("error_rate") is not None:
        values = history.get("val_error_rate", [])
        epochs = [*range(1, len(values) + 1)]
    else:
        return None
    return (epochs, [to_shown(sweep, value) for value in values]) if values else None
