"""The results of a search: search.html, trials.csv, and best.yaml, the experiment at the best point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mimic_keras.experiment.file import to_yaml
from mimic_keras.experiment.ranges import Range
from mimic_keras.reporting import pages
from mimic_keras.reporting.tables import format_value, to_csv
from mimic_keras.searching.trial import Trial
from mimic_keras.searching.trials import Search
from mimic_keras.storage.files import write_bytes


def write_page(search: Search) -> None:
    """Write the three files into the search's folder."""
    columns, rows = tabulate_trials(search)
    write_bytes(search.folder / "trials.csv", to_csv(columns, rows))
    best = search.rank_trials()
    text = ""
    if best:
        given = search.source_at(best[0].values).given
        named = {**given, "name": f"{str(given['name'])[:90]}_best"}
        count, metric = len(search.list_trials()), search.section.metric
        header = f"# The best of {count} trials: {metric} {best[0].score} on validation.\n"
        text = header + to_yaml(named)
        write_bytes(search.folder / "best.yaml", text.encode())
    pictures = [("History", pages.to_svg(_draw_history(search)))]
    for place, item in search.space.items():
        pictures.append((str(place), pages.to_svg(_draw_response(search, str(place), item))))
    pages.write_page(
        search.folder / "search.html",
        Path(__file__).with_name("search.html.jinja"),
        title=search.source.given["name"],
        summary=_summarise(search, best),
        columns=columns,
        rows=[[format_value(row.get(column)) for column in columns] for row in rows],
        best=best[0].number if best else None,
        pictures=pictures,
        source=text,
    )


def tabulate_trials(search: Search) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of every trial, in order."""
    rows = [
        {"trial": trial.number, "state": trial.state, search.section.metric: trial.score}
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
    metric = search.section.metric.replace("_", " ")
    count = len(search.list_trials())
    return f"{count} trials, evaluated on validation only. Best {metric}: {best[0].score:.4g}; median: {middle:.4g}."


def _draw_history(search: Search) -> Figure:
    figure = Figure((8, 3.6))
    axes = figure.subplots()
    scored = [(trial.number + 1, trial.score) for trial in search.list_trials() if trial.score is not None]
    failed = [trial.number + 1 for trial in search.list_trials() if trial.score is None]
    if scored:
        numbers, scores = np.array(scored).T
        axes.scatter(numbers, scores, s=18, color=pages.GREY, label="trial")
        axes.step(
            numbers, np.minimum.accumulate(scores), where="post", color=pages.GREEN, linewidth=2, label="best so far"
        )
    for number in failed:
        axes.axvline(number, color=pages.ORANGE, linewidth=1, linestyle=":")
    axes.axvline(search.section.random_trials + 0.5, color="#cccccc", linewidth=1)
    note = "grey line: end of the random trials" + ("; dotted: a trial without a score" if failed else "")
    axes.set_title(note, fontsize=9, loc="left")
    axes.set(xlabel="trial", ylabel=f"{search.section.metric.replace('_', ' ')} on validation")
    if scored:
        axes.legend(fontsize=8)
    return pages.hide_frame(figure)


def _draw_response(search: Search, name: str, item: Range) -> Figure:
    figure = Figure((4, 3.2))
    axes = figure.subplots()
    points = [(trial.named_values()[name], trial.score or 0.0, trial.number) for trial in search.rank_trials()[::-1]]
    values = [item.choices.index(value) if item.choices else value for value, _, _ in points]
    drawn = axes.scatter(values, [score for _, score, _ in points], c=[n for *_, n in points], cmap="viridis", s=18)
    if points:
        axes.scatter(values[-1:], [points[-1][1]], s=70, facecolors="none", edgecolors=pages.GREEN, linewidths=2)
        figure.colorbar(drawn, label="trial", ax=axes)
    if item.choices:
        axes.set_xticks(range(len(item.choices)), [pages.literal(str(choice)) for choice in item.choices])
    if item.sampling == "log":
        axes.set_xscale("log")
    axes.set(xlabel=pages.literal(name.rpartition("architecture.")[2]), ylabel="on validation")
    return pages.hide_frame(figure)
