"""Stage 6: report.html, one self-contained page with what was run, the results, and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mimic_keras.reporting import pages
from mimic_keras.reporting.tables import format_count, format_value
from mimic_keras.stages.evaluation import Evaluation, tabulate, tabulate_details
from mimic_keras.stages.formats import tabulate as tabulate_deployment

SCATTER_POINTS = 4000
MOST_CLASSES = 20  # in the table of classes


def write_report(
    file: Path,
    source: str,
    metrics: Mapping[str, Any],
    evaluation: Evaluation,
    histories: Mapping[str, Mapping[str, Sequence[float]]],
    class_names: Sequence[str],
    environment: Mapping[str, Any],
) -> None:
    """Write the page.

    Args:
        file: where.
        source: the resolved experiment, as YAML.
        metrics: the content of metrics.json; its `export` is None before the student is published.
        evaluation: the logits and confusions behind the numbers.
        histories: {model: {metric: value per epoch}} of the trained models.
        class_names: in the order of the logits.
        environment: the content of environment.json.
    """
    pictures: list[tuple[str, Callable[..., Figure], tuple]] = [("Cost", _draw_cost, (evaluation.models,))]
    if histories:
        pictures.insert(0, ("Error while training", _draw_curves, (histories,)))
    test = {name: values["test"] for name, values in evaluation.logits.items()}
    if "teacher" in test:
        pair = (test["teacher"], test["student"])
        pictures += [("Student against teacher, logits on test", _draw_scatter, pair)]
        names = ("teacher's class", "student's class")
        pictures += [
            ("Where student and teacher agree, on test", _draw_matrix, (_count_agreement(*pair), class_names, *names))
        ]
    for name, of_split in evaluation.confusions.items():
        for key, confusion in of_split.get("test", {}).items():
            title = f"{name}: {key.replace('_', ' ')} on test"
            pictures.append((title, _draw_matrix, (confusion.counts, confusion.names, "class", "taken for")))
    deployment = (metrics["export"] or {}).get("deployment")
    formats, measured = tabulate_deployment(deployment) if deployment else ([], [])
    pages.write_page(
        file,
        Path(__file__).with_name("report.html.jinja"),
        title=metrics["experiment"],
        source=source,
        metrics=metrics,
        models=_format_table(*tabulate(evaluation.models)),
        details=_format_table(*tabulate_details(evaluation.models)),
        classes=_format_table(*_tabulate_worst_classes(evaluation.classes)),
        hidden_classes=max(0, len(evaluation.classes) - MOST_CLASSES),
        summary=_summarise(evaluation.models),
        pictures=[(title, pages.to_svg(draw(*arguments))) for title, draw, arguments in pictures],
        environment=environment,
        formats=formats,
        deployment=[[format_value(row.get(column)) for column in formats] for row in measured],
    )


def _format_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], list[list[str]]]:
    return columns, [[format_value(row.get(column)) for column in columns] for row in rows]


def _tabulate_worst_classes(classes: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the classes on which the student errs most; of equal ones, the first come first."""
    worst = sorted(classes, key=lambda row: -(row["error_rate"]["student"] or 0))[:MOST_CLASSES]
    rows = [
        {"class": row["class"], "examples": row["examples"]}
        | {f"{model} error rate": share for model, share in row["error_rate"].items()}
        | ({"agreement": row["agreement"]} if "agreement" in row else {})
        for row in worst
    ]
    return list(rows[0]) if rows else [], rows


def _summarise(models: Mapping[str, Any]) -> str:
    """The finding in a sentence or two; of several error rates, the last is the data set's main one."""
    student = models["student"]
    error = [key for key in ("error_rate", *student["test"]) if key.endswith("error_rate")][-1]
    called = error.removesuffix("_rate").replace("_", " ")
    words = [f"The student has {student['parameters']:,} parameters"]
    if student["test"].get(error) is not None:
        words.append(f" and a test {called} of {student['test'][error]:.2%}")
    if "teacher" in models:
        teacher = models["teacher"]
        words.append(f"; it takes {_compare_cost(teacher['multiply_adds'], student['multiply_adds'])}")
        if teacher["test"].get(error) is not None:
            words.append(f" (test {called} {teacher['test'][error]:.2%})")
        words.append(f", with which it agrees on {student['test']['agreement']:.2%} of the test examples")
    if "baseline" in models and models["baseline"]["test"].get(error) is not None:
        words.append(f". Its architecture trained on the labels reaches {models['baseline']['test'][error]:.2%}")
    return "".join(words) + "."


def _compare_cost(teacher: int | None, student: int | None) -> str:
    if not teacher or not student:  # of no matrix product or convolution, or not counted: a factor says nothing
        its_teachers = "its teacher's, which are" if teacher is None else "its teacher's"
        return f"{format_count(student)} multiply-adds against {its_teachers} {format_count(teacher)}"
    factor = teacher / student
    compare = f"{factor:.1f} times fewer" if factor >= 1 else f"{1 / factor:.1f} times more"
    return f"{compare} multiply-adds than its teacher"


def _colour_of(name: str) -> str:
    return pages.MODEL_COLOURS[name.partition("/")[0]]


def _draw_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    figure = Figure((8, 4.2))
    axes = figure.subplots()
    for name, history in histories.items():
        epochs = np.arange(1, len(history["loss"]) + 1)
        member = name.startswith("teacher/")
        style: dict[str, Any] = {
            "color": _colour_of(name),
            "alpha": 0.45 if member else 1.0,
            "linewidth": 1.2 if member else 2,
        }
        axes.plot(epochs, history["val_error_rate"], label=f"{name}, validation", **style)
        axes.plot(epochs, history["error_rate"], linestyle=":", **style)
    axes.set(xlabel="epoch", ylabel="error rate", ylim=(0, None))
    axes.set_title("solid: validation; dotted: training examples", fontsize=9, loc="left")
    axes.legend(fontsize=8)
    return pages.hide_frame(figure)


def _draw_cost(models: Mapping[str, Any]) -> Figure:
    figure = Figure((8, 3.4))
    names = [name for name in models if "/" not in name]
    for axes, key in zip(figure.subplots(1, 2), ("parameters", "multiply_adds"), strict=True):
        values = [models[name][key] for name in names]
        lengths = [value or 0 for value in values]
        bars = axes.barh(names[::-1], lengths[::-1], color=[_colour_of(name) for name in names[::-1]])
        axes.bar_label(bars, labels=[format_count(value) for value in values[::-1]], padding=3, fontsize=8)
        axes.set(xlabel=key.replace("_", "-"), xlim=(0, 1.35 * max(1, *lengths)), xticks=[])
    figure.subplots_adjust(wspace=0.35)
    return pages.hide_frame(figure)


def _draw_scatter(teacher: np.ndarray, student: np.ndarray) -> Figure:
    figure = Figure((4.6, 4.6))
    axes = figure.subplots()
    pairs = np.stack([teacher.ravel(), student.ravel()], 1)
    pairs = pairs[:: max(1, len(pairs) // SCATTER_POINTS)]
    low, high = float(pairs.min()), float(pairs.max())
    axes.plot([low, high], [low, high], color="#999999", linewidth=1)
    axes.scatter(pairs[:, 0], pairs[:, 1], s=3, color=pages.MODEL_COLOURS["student"], alpha=0.35, rasterized=True)
    axes.set(xlabel="teacher's logit", ylabel="student's logit", aspect="equal")
    return pages.hide_frame(figure)


def _count_agreement(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    counts = np.zeros((teacher.shape[-1],) * 2, np.int64)
    np.add.at(counts, (teacher.argmax(-1), student.argmax(-1)), 1)
    return counts


def _draw_matrix(counts: np.ndarray, names: Sequence[str], rows: str, columns: str) -> Figure:
    size = 4.6 if len(names) <= 20 else 8
    figure = Figure((size, size))
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
    if len(names) <= 20:
        for row, column in np.argwhere(counts > 0):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=colour)
    names = [name.replace("$", r"\$") for name in names]  # Matplotlib typesets what is between two of them
    if len(names) <= 60:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel=columns, ylabel=rows)
    return figure
