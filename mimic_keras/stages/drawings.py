"""The figures of a run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mimic_keras.reporting import pages
from mimic_keras.reporting.tables import format_count

SCATTER_POINTS = 4000
MOST_NUMBERED, MOST_NAMED = 20, 60  # classes of a matrix that has numbers, and names
SETTLED = 1 / 2  # of a training's epochs; a curve's axis ends where the errors after them do

Histories = Mapping[str, Mapping[str, Sequence[float]]]


def _colour_of(name: str) -> str:
    return pages.MODEL_COLOURS[name.partition("/")[0]]


def draw_curves(histories: Histories, has_labels: bool = True) -> Figure:
    """Error in per cent by epoch on validation, if it has labels (solid), and on the training examples (dotted), scaled
    to the end."""
    figure = pages.new_figure(3.6)
    axes = figure.subplots()
    members = sum(name.startswith("teacher/") for name in histories)
    teacher = f"teacher's {members} members" if members > 1 else "teacher"
    top, named = 0.0, set()
    for name, history in histories.items():
        model = name.partition("/")[0]
        label = None if model in named else teacher if model == "teacher" else model
        named.add(model)
        for key, style in (("val_error_rate", "-"), ("error_rate", ":"))[not has_labels :]:
            errors = 100 * np.array(history[key], float)
            epochs = np.arange(1, len(errors) + 1)
            width = 1.0 if model == "teacher" else 1.8
            axes.plot(epochs, errors, style, color=_colour_of(name), linewidth=width, label=label)
            label = None
            settled = errors[int(SETTLED * len(errors)) :]
            top = max(top, float(np.nanmax(settled, initial=0)))
    pages.finish_axes(axes, "epoch", "error, %", whole="x")
    top = 1.1 * top or 1.0
    axes.set_ylim(-0.04 * top, top)
    pages.draw_legend(figure, axes)
    return figure


def draw_costs(models: Mapping[str, Any]) -> Figure:
    """Parameters and multiply-adds of the teacher, the baseline and the student."""
    names = [name for name in models if "/" not in name]
    figure = pages.new_figure(0.9 + 0.55 * len(names))
    for axes, key in zip(figure.subplots(2, 1), ("parameters", "multiply_adds"), strict=True):
        values = [models[name][key] for name in names]
        lengths = [value or 0 for value in values]
        bars = axes.barh(names[::-1], lengths[::-1], color=[_colour_of(name) for name in names[::-1]])
        axes.bar_label(bars, labels=[format_count(value) for value in values[::-1]], padding=3, fontsize=pages.SMALL)
        pages.finish_axes(axes, key.replace("_", "-"), "")
        axes.set(xlim=(0, 1.45 * max(1, *lengths)), xticks=[])
        axes.grid(visible=False)
    return figure


def draw_scatter(teacher: np.ndarray, student: np.ndarray) -> Figure:
    """The student's logits [N, num_classes] against the teacher's."""
    figure = pages.new_figure(pages.WIDTH)
    axes = figure.subplots()
    pairs = np.stack([teacher.ravel(), student.ravel()], 1)
    pairs = pairs[:: max(1, len(pairs) // SCATTER_POINTS)]
    axes.scatter(pairs[:, 0], pairs[:, 1], s=3, color=pages.MODEL_COLOURS["student"], alpha=0.35, rasterized=True)
    axes.axline((0, 0), slope=1, color=pages.GREY, linewidth=1)
    pages.finish_axes(axes, "teacher's logit", "student's logit")
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def count_pairs(rows: np.ndarray, columns: np.ndarray, classes: int) -> np.ndarray:
    """How often class i of `rows` is class j of `columns`, int64 [classes, classes]; both are int [N]."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts


def draw_matrix(counts: np.ndarray, names: Sequence[str], rows: str, columns: str) -> Figure:
    """A confusion matrix, coloured by the shares of each row; `rows` and `columns` name the axes."""
    size = pages.WIDTH if len(names) <= 10 else 4.6 if len(names) <= MOST_NUMBERED else 8
    figure = pages.new_figure(size, size)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
    if len(names) <= MOST_NUMBERED:
        for row, column in np.argwhere(counts > 0):
            colour = pages.ON_DARK if shares[row, column] > 0.6 else pages.ON_LIGHT
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=colour)
    axes.set(xticks=[], yticks=[])
    if len(names) <= MOST_NAMED:
        shown = [pages.literal(name) for name in names]
        is_short = max(map(len, names)) <= 2
        axes.set_xticks(range(len(names)), shown, rotation=0 if is_short else 90, fontsize=7)
        axes.set_yticks(range(len(names)), shown, fontsize=7)
    axes.set_xlabel(columns, fontsize=9)
    axes.set_ylabel(rows, fontsize=9)
    return figure
