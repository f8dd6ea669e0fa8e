"""Stage 6: report.html, one self-contained page with what was run, the results, figures, and how to use the student."""

from __future__ import annotations

import os
import shlex
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mimic_keras.contracts import Split
from mimic_keras.reporting import pages
from mimic_keras.reporting.pages import Picture
from mimic_keras.reporting.tables import format_bytes, format_count, format_share, format_value
from mimic_keras.stages import drawings
from mimic_keras.stages.evaluation import (
    MOST_TRANSFER_EXAMPLES,
    Evaluation,
    head,
    main_error,
    tabulate,
    tabulate_details,
)
from mimic_keras.stages.formats import tabulate as tabulate_deployment
from mimic_keras.training.metrics import is_share, log_softmax

MOST_CLASSES = 20  # in the table of classes
MOST_EXAMPLES = 12  # of the pictures on which student and teacher differ most


def draw_pictures(
    evaluation: Evaluation, histories: drawings.Histories, class_names: Sequence[str], labels: np.ndarray
) -> dict[str, list[Picture]]:
    """{heading: figures} of the page.

    Args:
        evaluation: the logits and confusions behind the numbers.
        histories: {model: {metric: value per epoch}} of the trained models.
        class_names: in the order of the logits.
        labels: of test, int [N], -1 where unknown.
    """
    test = {name: values["test"] for name, values in evaluation.logits.items()}
    pictures, confusions = list[Picture](), list[Picture]()
    if histories:
        has_labels = evaluation.models["student"]["validation"].get("error_rate") is not None
        solid = "Solid: validation; dotted" if has_labels else "Validation has no labels. Dotted"
        note = f"{solid}: training examples, while the net changes. The axis is scaled to the end."
        curves = drawings.draw_curves(histories, has_labels)
        pictures.append(Picture("Error while training", pages.to_svg(curves), note))
    pictures.append(Picture("Cost", pages.to_svg(drawings.draw_costs(evaluation.models))))
    classes = {name: logits.argmax(-1) for name, logits in test.items()}
    if (known := labels >= 0).any():
        counts = drawings.count_pairs(labels[known], classes["student"][known], len(class_names))
        confusions.append(_picture_matrix("Student against the labels, on test", counts, class_names, "label"))
    if "teacher" in test:
        scatter = drawings.draw_scatter(test["teacher"], test["student"])
        pictures.append(Picture("Student against teacher, logits on test", pages.to_svg(scatter)))
        counts = drawings.count_pairs(classes["teacher"], classes["student"], len(class_names))
        confusions.append(_picture_matrix("Student against teacher, on test", counts, class_names, "teacher's class"))
    for name, of_split in evaluation.confusions.items():
        for key, confusion in of_split.get("test", {}).items():
            title = f"{name}: {key.replace('_', ' ')} on test"
            confusions.append(_picture_matrix(title, confusion.counts, confusion.names, "class", "taken for"))
    return {"Pictures": pictures, "Confusions": confusions}


def _picture_matrix(
    title: str, counts: np.ndarray, names: Sequence[str], rows: str, columns: str = "student's class"
) -> Picture:
    drawn = pages.to_svg(drawings.draw_matrix(counts, names, rows, columns))
    return Picture(title, drawn, is_wide=len(names) > drawings.MOST_NUMBERED)


def picture_differences(evaluation: Evaluation, class_names: Sequence[str], test: Split) -> list[dict[str, str]]:
    """The test images on which the student differs most from the teacher, by KL(teacher || student): {"image": address
    of a PNG, "says": the classes}. Empty without a teacher, or if the inputs are no images."""
    if "teacher" not in evaluation.logits:
        return []
    log_p, log_q = (log_softmax(evaluation.logits[name]["test"]) for name in ("teacher", "student"))
    divergence = np.nan_to_num(np.sum(np.exp(log_p) * (log_p - log_q), -1), nan=-1)
    ids = np.argsort(-divergence, kind="stable")[:MOST_EXAMPLES]
    rows = np.asarray(test.batch(tf.constant(ids, tf.int64)))
    if rows.ndim != 4 or rows.shape[-1] not in (1, 3):
        return []

    def say(net: str, log_probabilities: np.ndarray) -> str:
        best = int(log_probabilities.argmax())
        return f"{net} {class_names[best]} ({100 * np.exp(log_probabilities[best]):.0f}\N{NO-BREAK SPACE}%)"

    found = []
    for place, row in zip(ids, rows, strict=True):
        label = [f"label {class_names[test.labels[place]]}"] if test.labels[place] >= 0 else []
        words = [*label, say("teacher", log_p[place]), say("student", log_q[place])]
        found.append({"image": pages.to_png(row), "says": f"{'; '.join(words)}. Test example {place}."})
    return found


def write_report(
    file: Path,
    source: str,
    metrics: Mapping[str, Any],
    evaluation: Evaluation,
    pictures: Mapping[str, Sequence[Picture]],
    differences: Sequence[Mapping[str, str]],
    environment: Mapping[str, Any],
) -> None:
    """Write the page.

    Args:
        file: where.
        source: the resolved experiment, as YAML.
        metrics: the content of metrics.json; its `export` is None before the student is published.
        evaluation: the logits behind the numbers.
        pictures: of `draw_pictures`.
        differences: of `picture_differences`.
        environment: the content of environment.json.
    """
    models, exported = evaluation.models, metrics["export"]
    examples = {split: len(rows) for split, rows in evaluation.logits["student"].items()}
    pages.write_page(
        file,
        Path(__file__).with_name("report.html.jinja"),
        title=metrics["experiment"],
        source=source,
        metrics=metrics,
        models=_in_per_cent(*tabulate(models), models, examples),
        details=_in_per_cent(*tabulate_details(models), models, examples),
        kinds=["member" if "/" in name else name for name in models],
        classes=_tabulate_worst_classes(evaluation.classes),
        hidden_classes=max(0, len(evaluation.classes) - MOST_CLASSES),
        summary=_summarise(models, examples["test"]),
        pictures=pictures,
        differences=differences,
        stability=[
            [name, *(format_value(found[key]) for key in ("curvature", "limit", "learning_rate"))]
            for name, found in metrics["stability"].items()
        ],
        environment=pages.format_facts(environment),
        usage=_describe_use(exported, file.parent) if exported else None,
        deployment=_tabulate_deployment(exported, examples) if exported else None,
        run=shlex.quote(str(file.parent)),
    )


def _in_per_cent(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], models: Mapping[str, Any], examples: Mapping[str, int]
) -> tuple[list[str], list[list[str]]]:
    """Headings and texts of a table of `models`: shares in per cent, everything else as it is."""
    shares = {
        head(split, key): examples.get(split, MOST_TRANSFER_EXAMPLES)
        for values in models.values()
        for split in ("validation", "test", "transfer")
        for key in values.get(split, {})
        if is_share(key)
    }
    headings = [f"{column}, %" if column in shares else column for column in columns]

    def say(column: str, value: Any) -> str:
        return format_share(value, shares[column]) if column in shares else format_value(value)

    return headings, [[say(column, row.get(column)) for column in columns] for row in rows]


def _tabulate_worst_classes(classes: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The classes on which the student errs most, in per cent; of equal ones, the first come first."""
    worst = sorted(classes, key=lambda row: -(row["error_rate"]["student"] or 0))[:MOST_CLASSES]
    if not worst:
        return [], []
    shares = [[*row["error_rate"].values(), *([row["agreement"]] if "agreement" in row else [])] for row in worst]
    rows = [
        [row["class"], format_count(row["examples"]), *(format_share(share, row["examples"]) for share in of_row)]
        for row, of_row in zip(worst, shares, strict=True)
    ]
    errors = [f"{model} error, %" for model in worst[0]["error_rate"]]
    return ["class", "examples", *errors, *(["agreement, %"] if "agreement" in worst[0] else [])], rows


def _tabulate_deployment(exported: Mapping[str, Any], examples: Mapping[str, int]) -> tuple[list[str], list[list[str]]]:
    """What one would deploy: sizes, and latencies and errors where other formats were written."""
    if "deployment" not in exported:
        return ["format", "size"], [["saved_model", format_bytes(exported["bytes"])]]
    error = "validation error rate"
    columns, rows = tabulate_deployment(exported["deployment"])
    texts = [
        [
            format_share(row.get(key), examples["validation"]) if key == error else format_value(row.get(key))
            for key in columns
        ]
        for row in rows
    ]
    return [f"{key}, %" if key == error else key for key in columns], texts


def _describe_use(exported: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the page says of a student that is published: its place, its signatures, and lines to copy."""
    path, signatures = exported["path"], exported["signatures"]
    name, inputs = next((name, each["inputs"]) for name, each in signatures.items())
    shown = ", ".join(f"{key}=tf.zeros({[abs(size) for size in shape]})" for key, shape in inputs.items())
    return {
        "path": path,
        "link": urllib.parse.quote(Path(os.path.relpath(path, folder)).as_posix()),
        "command": f"mimic-keras predict {shlex.quote(path)} examples.npy",
        "python": f"import tensorflow as tf\n\nstudent = tf.saved_model.load({path!r}).signatures[{name!r}]\n"
        f"answer = student({shown})\nprint(answer['label'], answer['probabilities'])",
        "signatures": [
            [name, ", ".join(f"{key} {shape}" for key, shape in each["inputs"].items()), ", ".join(each["outputs"])]
            for name, each in signatures.items()
        ],
    }


def _summarise(models: Mapping[str, Any], examples: int) -> str:
    """The finding in a sentence or two, on so many test examples."""
    student = models["student"]
    error = main_error(models)
    called = error.removesuffix("_rate").replace("_", " ")

    def share(model: str, metric: str) -> str:
        value = models[model]["test"].get(metric) if model in models else None
        return "" if value is None else f"{format_share(value, examples)}\N{NO-BREAK SPACE}%"

    words = [f"The student has {student['parameters']:,} parameters"]
    if own := share("student", error):
        words.append(f" and a test {called} of {own}")
    if "teacher" in models:
        words.append(f"; it takes {_compare_cost(models['teacher']['multiply_adds'], student['multiply_adds'])}")
        if teachers := share("teacher", error):
            words.append(f" (test {called} {teachers})")
        words.append(f", with which it agrees on {share('student', 'agreement')} of the test examples")
    if baselines := share("baseline", error):
        words.append(f". Its architecture trained on the labels reaches {baselines}")
        steps, its_steps = student.get("steps"), models["baseline"].get("steps")
        if steps != its_steps:  # its examples are fewer where some have no label, or its training is another
            words.append(f" in {format_count(its_steps)} steps; the student took {format_count(steps)}")
    return "".join(words) + "."


def _compare_cost(teacher: int | None, student: int | None) -> str:
    if not teacher or not student:  # of no matrix product or convolution, or not counted: a factor says nothing
        its_teachers = "its teacher's, which are" if teacher is None else "its teacher's"
        return f"{format_count(student)} multiply-adds against {its_teachers} {format_count(teacher)}"
    factor = teacher / student
    compare = f"{factor:.1f} times fewer" if factor >= 1 else f"{1 / factor:.1f} times more"
    return f"{compare} multiply-adds than its teacher"
