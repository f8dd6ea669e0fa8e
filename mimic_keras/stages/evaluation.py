"""Stage 5: every model evaluated on validation and test, and how closely it follows the teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from mimic_keras.contracts import Confusion, GroupedRate, InputError
from mimic_keras.experiment.problems import suggest
from mimic_keras.planning.plan import Plan
from mimic_keras.planning.preflight import has_own_metrics
from mimic_keras.reporting.tables import format_count
from mimic_keras.stages.data import Data
from mimic_keras.stages.logits import TeacherLogits
from mimic_keras.stages.student import Net
from mimic_keras.stages.teachers import TeacherMember
from mimic_keras.stages.workspace import Workspace
from mimic_keras.training.metrics import FIDELITY, count_by_class, list_metrics, measure_fidelity
from mimic_keras.training.models import Cost, Predict, add_counts, inference_call, make_predictor

SPLITS: tuple[str, ...] = ("validation", "test")
EVALUATION_VERSION = 3  # part of the key of a sweep's results: raise it when a model would get other metrics
LEAST_AGREEMENT = 0.5
MOST_TRANSFER_EXAMPLES = 10_000  # of the transfer set, for fidelity: one pass over all of it could take hours


@dataclass(frozen=True)
class Evaluation:
    """`models` and `classes` as in metrics.json. For the report, `logits` {model: {split: float32 [examples,
    num_classes]}} and `confusions` {model: {split: {name: Confusion}}}; for a sweep, `rates` {model: {split: {metric:
    GroupedRate}}}."""

    models: dict[str, dict[str, Any]]
    classes: list[dict[str, Any]]
    logits: dict[str, dict[str, np.ndarray]]
    confusions: dict[str, dict[str, dict[str, Confusion]]]
    rates: dict[str, dict[str, dict[str, GroupedRate]]]


def evaluate(
    data: Data,
    members: Sequence[TeacherMember],
    teacher: TeacherLogits | None,
    nets: Sequence[Net],
    splits: Sequence[str] = SPLITS,
) -> Evaluation:
    """Evaluate the teacher, its members and the nets on `splits`; a search must not see the test set."""
    costs, logits = _gather_teacher(members, teacher, splits)
    predictors = {net.name: make_predictor(inference_call(net.model)) for net in nets}
    for net in nets:
        costs[net.name] = net.cost
        logits[net.name] = {
            split: predictors[net.name](data.split(split), np.arange(data.split(split).num_examples))
            for split in splits
        }
    described: dict[str, dict[str, Any]] = {
        "teacher": {"members": len(members)},
        **{member.name: {"source": member.source} for member in members},
        **{net.name: {"steps": net.steps} for net in nets},
    }
    results: dict[str, dict[str, Any]] = {}
    confusions: dict[str, dict[str, dict[str, Confusion]]] = {}
    rates: dict[str, dict[str, dict[str, GroupedRate]]] = {}
    for name, of_split in logits.items():
        results[name] = asdict(costs[name]) | described[name]
        measure = data.evaluate if name in predictors else data.evaluate_once
        for split, metrics in measure(of_split).items():
            tables = {key: value for key, value in metrics.items() if isinstance(value, Confusion)}
            confusions.setdefault(name, {})[split] = tables
            grouped = {key: value for key, value in metrics.items() if isinstance(value, GroupedRate)}
            rates.setdefault(name, {})[split] = grouped
            numbers = {key: float(value) for key, value in metrics.items() if not isinstance(value, Confusion)}
            if name != "teacher" and teacher:
                numbers |= measure_fidelity(logits["teacher"][split], of_split[split])
            results[name][split] = _defined(numbers)
    for name, predict in predictors.items():
        if teacher:
            results[name]["transfer"] = _defined(_measure_on_transfer(data, teacher, predict))
    return Evaluation(results, _tabulate_classes(data, logits), logits, confusions, rates)


def _gather_teacher(
    members: Sequence[TeacherMember], teacher: TeacherLogits | None, splits: Sequence[str]
) -> tuple[dict[str, Cost], dict[str, dict[str, np.ndarray]]]:
    """The costs and the logits of the teacher and its members; of none without a teacher."""
    if not teacher:
        return {}, {}
    costs = {member.name: member.cost for member in members}
    total = Cost(
        add_counts(cost.parameters for cost in costs.values()),
        add_counts(cost.multiply_adds for cost in costs.values()),
    )
    found = {"teacher": teacher.mean} | teacher.members
    logits = {name: {split: of_split[split] for split in splits} for name, of_split in found.items()}
    return {"teacher": total} | costs, logits


def _defined(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which has no NaN: None in place of what is undefined."""
    return {key: value if math.isfinite(value) else None for key, value in numbers.items()}


def _measure_on_transfer(data: Data, teacher: TeacherLogits, predict: Predict) -> dict[str, float]:
    """Fidelity where it was learnt (Stanton et al. 2021), on at most MOST_TRANSFER_EXAMPLES evenly spaced originals."""
    split = data.split("transfer")
    count = min(split.num_examples, MOST_TRANSFER_EXAMPLES)
    ids = np.linspace(0, split.num_examples - 1, count).astype(np.int64)  # virtual copy 0
    return measure_fidelity(tf.gather(teacher.transfer, ids).numpy(), predict(split, ids))


def _tabulate_classes(data: Data, logits: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Errors by class on test, of all models but the members; empty without labels, and in a search."""
    of_test = {name: of_split["test"] for name, of_split in logits.items() if "test" in of_split and "/" not in name}
    if not of_test or not (data.split("test").labels >= 0).any():
        return []
    return count_by_class(data.dataset.info.class_names, data.split("test").labels, of_test)


def check_metric(
    plan: Plan, name: str, place: str, refused: Sequence[str] = (), workspace: Workspace | None = None
) -> None:
    """Raise InputError, which opens with `place`, if no student of the plan has the metric.

    A data set may have metrics of its own, whose names are known once it is read: not without a workspace. `refused`:
    what the message does not offer.
    """
    known = [each for each in list_metrics(plan.info.num_classes, bool(plan.members)) if each not in refused]
    if name in known:
        return
    if not has_own_metrics(plan.transfer.dataset):
        raise InputError(f"{place}: no metric {name!r}. {suggest(name, {each: each for each in known})}")
    if workspace:
        workspace.prepare(*plan.transfer).check_metric(name, place, known, refused)


def main_error(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The error rate that counts; of several, the last is the data set's main one."""
    return [key for key in ("error_rate", *models["student"]["test"]) if key.endswith("error_rate")][-1]


def compare_with_teacher(models: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What to say if the student has learnt little of its teacher: on validation it agrees on less than half.

    Example:
        >>> compare_with_teacher({"student": {"validation": {"agreement": 0.14}}})
        'the student agrees with its teacher on only 14.0 % of validation: it has learnt little of it'
    """
    agreement = models["student"]["validation"].get("agreement")
    if agreement is None or agreement >= LEAST_AGREEMENT:
        return None
    share = f"{100 * agreement:.1f} %"
    return f"the student agrees with its teacher on only {share} of validation: it has learnt little of it"


def compare_with_baseline(models: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What to say if the student errs more on test than its baseline, its architecture trained on the labels.

    Example:
        >>> compare_with_baseline({"student": {"test": {"error_rate": 0.2}}, "baseline": {"test": {"error_rate": 0.1}}})
        'the student errs more on test than its baseline: error rate 0.2000 against 0.1000; mimicry did not help here'
    """
    key = main_error(models)
    own, baseline = (models.get(name, {}).get("test", {}).get(key) for name in ("student", "baseline"))
    if own is None or baseline is None or own <= baseline:
        return None
    rates = f"{key.replace('_', ' ')} {own:.4f} against {baseline:.4f}"
    return f"the student errs more on test than its baseline: {rates}; mimicry did not help here"


def tabulate(models: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the table at the end of a run: costs, errors, and fidelity on test."""
    rows = []
    for name, values in models.items():
        counts = {key.replace("_", "-"): format_count(values[key]) for key in ("parameters", "multiply_adds")}
        row = {"model": name, **counts}
        for split in SPLITS:
            hidden = DETAILS if split == "test" else (*DETAILS, *FIDELITY)
            row |= {head(split, key): value for key, value in values[split].items() if key not in hidden}
        row |= {key: values[key] for key in ("source",) if key in values}
        rows.append(row)
    return list(dict.fromkeys(key for row in rows for key in row)), rows


def tabulate_details(models: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the report's second table: probabilities on test, and fidelity on the transfer set."""
    rows = []
    for name, values in models.items():
        row = {"model": name} | {head("test", key): values["test"][key] for key in DETAILS if key in values["test"]}
        rows.append(row | {head("transfer", key): value for key, value in values.get("transfer", {}).items()})
    return list(dict.fromkeys(key for row in rows for key in row)), rows


DETAILS = ("accuracy", "top_5_accuracy", "nll", "calibration_error")


def head(split: str, metric: str) -> str:
    """The heading of a metric's column."""
    return f"{split} {metric.replace('_', ' ')}"
