"""The results of a search: search.html, trials.csv, best.yaml, the experiment at the best point, and members.yaml, the
nets of its trials as members of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mimic_keras.experiment import yaml_text
from mimic_keras.experiment.ranges import Range
from mimic_keras.planning.locations import anchor_paths
from mimic_keras.reporting import pages
from mimic_keras.reporting.tables import format_value, to_csv
from mimic_keras.searching.trial import Trial
from mimic_keras.searching.trials import Search
from mimic_keras.storage.files import write_bytes
from mimic_keras.training.metrics import is_share

MOST_LETTERS = 24  # of a choice beside an axis


def write_page(search: Search, home: Path) -> None:
    """Write the four files into the search's folder; `home` has the nets of its trials."""
    columns, rows = tabulate_trials(search)
    write_bytes(search.folder / "trials.csv", to_csv(columns, rows))
    best = search.rank_trials()
    text = ""
    if best:
        given = anchor_paths(search.source_at(best[0].values)).given
        named = {**given, "name": f"{str(given['name'])[:90]}_best"}
        count, metric = len(search.list_trials()), search.section.metric
        header = f"# The best of {count} trials: {metric} {best[0].score} on validation.\n"
        text = header + yaml_text.dump(named)
        write_bytes(search.folder / "best.yaml", text.encode())
        write_bytes(search.folder / "members.yaml", _list_members(search, best, home).encode())
    labels = shorten_places([str(place) for place in search.space])
    pictures = [pages.Picture("History", pages.to_svg(_draw_history(search)), _explain_history(search))]
    for place, item in search.space.items():
        drawn = _draw_response(search, str(place), labels[str(place)], item)
        pictures.append(pages.Picture(labels[str(place)], pages.to_svg(drawn)))
    pages.write_page(
        search.folder / "search.html",
        Path(__file__).with_name("search.html.jinja"),
        title=search.source.given["name"],
        summary=_summarise(search, best),
        columns=[
            f"{column}, %" if is_shown_in_per_cent(search, column) else labels.get(column, column) for column in columns
        ],
        rows=[[_format_cell(search, column, row.get(column)) for column in columns] for row in rows],
        kinds=["student" if best and row["trial"] == best[0].number + 1 else "" for row in rows],
        places=labels,
        pictures=pictures,
        source=text,
        has_log=(search.folder / "log.jsonl").exists(),  # a sweep's cell has none of its own
    )


def _list_members(search: Search, ranked: Sequence[Trial], home: Path) -> str:
    """The text of members.yaml: every net that a trial has, once, the best first."""
    nets = [*dict.fromkeys(home / trial.net / "model.keras" for trial in ranked if trial.net)]  # widths may be the same
    header = f"# The nets of {len(nets)} trials, the lowest {search.section.metric} on validation first.\n"
    return header + yaml_text.dump([{"teacher": {"name": "keras_file", "path": str(net)}} for net in nets])


def shorten_places(places: Sequence[str]) -> dict[str, str]:
    """{place: its last parts, as many as tell it from the others}; of components called "name", one part more.

    Example:
        >>> shorten_places(["student.loss.name", "student.training.epochs"])
        {'student.loss.name': 'loss.name', 'student.training.epochs': 'epochs'}
    """
    found = {}
    for place in places:
        parts = place.split(".")
        for count in range(1 + (parts[-1] == "name"), len(parts) + 1):
            short = ".".join(parts[-count:])
            if sum(each == short or each.endswith(f".{short}") for each in places) == 1:
                break
        found[place] = short
    return found


def is_shown_in_per_cent(search: Search, column: str) -> bool:
    return column == search.section.metric and is_share(column)


def _format_cell(search: Search, column: str, value: Any) -> str:
    return _format_score(search, value) if column == search.section.metric else format_value(value)


def _format_score(search: Search, score: float | None) -> str:
    """As the page shows it: a share in per cent, without the sign."""
    if score is None or not is_share(search.section.metric):
        return format_value(score)
    return f"{100 * score:.2f}"


def tabulate_trials(search: Search) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of every trial, in order; the first is trial 1."""
    rows = [
        {"trial": trial.number + 1, "state": trial.state, search.section.metric: trial.score}
        | trial.named_values()
        | {"seconds": trial.seconds, "note": trial.note}
        for trial in search.list_trials()
    ]
    names = [str(place) for place in search.space]
    return ["trial", "state", search.section.metric, *names, "seconds", "note"], rows


def _summarise(search: Search, best: list[Trial]) -> str:
    if not best:
        return "No trial has a score."
    middle = float(np.median([trial.score for trial in best]))
    metric, unit = search.section.metric, "\N{NO-BREAK SPACE}%" * is_share(search.section.metric)
    numbers = f"{_format_score(search, best[0].score)}{unit}, of trial {best[0].number + 1}"
    median = f"{_format_score(search, middle)}{unit}"
    count = len(search.list_trials())
    return (
        f"{count} trials, evaluated on validation only. Best {metric.replace('_', ' ')}: {numbers}; median: {median}."
    )


def _explain_history(search: Search) -> str:
    note = f"Grey line: the first {search.section.random_trials} trials are drawn at random."
    return note + " Dotted: a trial without a score." * any(trial.score is None for trial in search.list_trials())


def _heading(search: Search) -> str:
    return search.section.metric.replace("_", " ") + ", %" * is_share(search.section.metric)


def _scale(search: Search) -> int:
    return 100 if is_share(search.section.metric) else 1


def _shorten(text: str) -> str:
    """The end of a long text, since that tells one path from another."""
    return text if len(text) <= MOST_LETTERS else f"…{text[1 - MOST_LETTERS :]}"


def _draw_history(search: Search) -> Figure:
    figure = pages.new_figure(2.9)
    axes = figure.subplots()
    trials = search.list_trials()
    scored = [(trial.number + 1, _scale(search) * trial.score) for trial in trials if trial.score is not None]
    pages.finish_axes(axes, "trial", f"validation {_heading(search)}", whole="x")
    if scored:
        numbers, scores = np.array(scored).T
        axes.scatter(numbers, scores, s=18, color=pages.GREY, label="trial")
        lowest = np.minimum.accumulate(scores)
        axes.step(numbers, lowest, where="post", color=pages.GREEN, linewidth=2, label="best so far")
    for trial in trials:
        if trial.score is None:
            axes.axvline(trial.number + 1, color=pages.ORANGE, linewidth=1, linestyle=":")
    axes.axvline(search.section.random_trials + 0.5, color=pages.GREY, linewidth=1)
    pages.draw_legend(figure, axes)
    return figure


def _draw_response(search: Search, name: str, label: str, item: Range) -> Figure:
    figure = pages.new_figure(2.9)
    axes = figure.subplots()
    trials = [trial for trial in search.rank_trials()[::-1] if trial.score is not None]
    values = [trial.named_values()[name] for trial in trials]
    values = [item.choices.index(value) for value in values] if item.choices else values
    scores = [_scale(search) * (trial.score or 0) for trial in trials]
    is_whole = not item.choices and all(isinstance(value, int) for value in values) and item.sampling != "log"
    pages.finish_axes(axes, label, f"validation {_heading(search)}", whole="x" if is_whole else "")
    if trials:
        numbers = [trial.number + 1 for trial in trials]
        drawn = axes.scatter(values, scores, c=numbers, cmap="viridis", s=18)
        axes.scatter(values[-1:], scores[-1:], s=70, facecolors="none", edgecolors=pages.GREEN, linewidths=2)
        bar = figure.colorbar(drawn, ax=axes, ticks=MaxNLocator(nbins=5, integer=True))
        bar.set_label("trial", fontsize=9)
        bar.ax.tick_params(labelsize=pages.SMALL)
    if item.choices:
        names = [pages.literal(_shorten(str(choice))) for choice in item.choices]
        angle, end = (30, "right") if max(map(len, names)) > MOST_LETTERS // 2 else (0, "center")
        axes.set_xticks(range(len(names)), names, fontsize=pages.SMALL, rotation=angle, ha=end)
        axes.set_xlim(-0.5, len(names) - 0.5)
    if item.sampling == "log":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return figure
