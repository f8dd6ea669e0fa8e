"""What a search leaves: search.html, trials.csv, and best.yaml, the experiment at the best point."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.problems import join
from mimic_keras.experiment.ranges import Range
from mimic_keras.reporting import pages
from mimic_keras.reporting.console import format_value
from mimic_keras.searching.trials import Search, Trial
from mimic_keras.storage.files import write_bytes

COLOUR, FAINT = "#2f7d4f", "#9aa5ad"


def write(search: Search) -> None:
    """Write the three files into the search's folder."""
    columns, rows = table(search)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(search.folder / "trials.csv", stream.getvalue().encode())
    best = search.best()
    text = ""
    if best:
        given = search.experiment(best[0].values).given
        named = {**given, "name": f"{str(given['name'])[:90]}_best"}
        shown = f"# The best of {len(search.trials())} trials: {search.section.metric} {best[0].score} on validation.\n"
        text = shown + experiment_file.written(named)
        write_bytes(search.folder / "best.yaml", text.encode())
    pictures = [("History", pages.picture(_history(search)))]
    for place, item in search.space.items():
        pictures.append((join("", *place), pages.picture(_response(search, join("", *place), item))))
    pages.write(
        search.folder / "search.html",
        Path(__file__).with_name("search.html.jinja"),
        title=search.source.given["name"],
        summary=_summary(search, best),
        columns=columns,
        rows=[[format_value(row.get(column)) for column in columns] for row in rows],
        best=best[0].number if best else None,
        pictures=pictures,
        source=text,
    )


def table(search: Search) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of every trial, in order."""
    rows = [
        {"trial": trial.number, "state": trial.state, search.section.metric: trial.score}
        | trial.named()
        | {"seconds": trial.seconds, "note": trial.note}
        for trial in search.trials()
    ]
    names = [join("", *place) for place in search.space]
    return ["trial", "state", search.section.metric, *names, "seconds", "note"], rows


def _summary(search: Search, best: list[Trial]) -> str:
    if not best:
        return "No trial has a score."
    middle = float(np.median([trial.score for trial in best]))
    return (
        f"{len(search.trials())} trials, judged on validation alone. Best {search.section.metric.replace('_', ' ')}: "
        f"{best[0].score:.4g}; median: {middle:.4g}."
    )


def _history(search: Search) -> Figure:
    figure = Figure((8, 3.6))
    axes = figure.subplots()
    scored = [(trial.number + 1, trial.score) for trial in search.trials() if trial.score is not None]
    failed = [trial.number + 1 for trial in search.trials() if trial.score is None]
    if scored:
        numbers, scores = np.array(scored).T
        axes.scatter(numbers, scores, s=18, color=FAINT, label="trial")
        axes.step(numbers, np.minimum.accumulate(scores), where="post", color=COLOUR, linewidth=2, label="best so far")
    for number in failed:
        axes.axvline(number, color="#b0682f", linewidth=1, linestyle=":")
    axes.axvline(search.section.random_trials + 0.5, color="#cccccc", linewidth=1)
    note = "grey line: end of the random trials" + ("; dotted: a trial without a score" if failed else "")
    axes.set_title(note, fontsize=9, loc="left")
    axes.set(xlabel="trial", ylabel=f"{search.section.metric.replace('_', ' ')} on validation")
    if scored:
        axes.legend(fontsize=8)
    return pages.tidy(figure)


def _response(search: Search, name: str, item: Range) -> Figure:
    figure = Figure((4, 3.2))
    axes = figure.subplots()
    found = [(trial.named()[name], trial.score or 0.0, trial.number) for trial in search.best()[::-1]]
    values = [item.choices.index(value) if item.choices else value for value, _, _ in found]
    drawn = axes.scatter(values, [score for _, score, _ in found], c=[n for *_, n in found], cmap="viridis", s=18)
    if found:
        axes.scatter(values[-1:], [found[-1][1]], s=70, facecolors="none", edgecolors=COLOUR, linewidths=2)
        figure.colorbar(drawn, label="trial", ax=axes)
    if item.choices:
        axes.set_xticks(range(len(item.choices)), [str(choice) for choice in item.choices])
    if item.sampling == "log":
        axes.set_xscale("log")
    axes.set(xlabel=name.rpartition("architecture.")[2], ylabel="on validation")
    return pages.tidy(figure)
