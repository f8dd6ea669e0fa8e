"""Numbers that judge a model by its logits: against the labels, class by class, and against the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mimic_keras.contracts import ROWS_AT_ONCE, error_rate

TOP = 5
CALIBRATION_BINS = 15  # as in Guo et al. 2017, section 4

INCREASING = ("accuracy", f"top_{TOP}_accuracy", "agreement")  # the larger the better; of all others, the smaller
OF_THE_TRAINER = ("loss", "error_rate", "agreement")  # after every epoch, of any data set
OF_EVERY_DATASET = ("error_rate", "accuracy", "nll", "calibration_error")
FIDELITY = ("agreement", "kl", "logit_mse")  # where there is a teacher


def is_error_rate(metric: str) -> bool:
    """Whether it is a share of errors, of examples or, by its name, of a data set's own units, such as phones."""
    return metric.endswith("error_rate")


def is_share(metric: str) -> bool:
    """Whether it is from 0 to 1 and shown in per cent; any other, also of a data set's own, is shown as it is."""
    return is_error_rate(metric) or metric in (*INCREASING, "calibration_error")


def list_metrics(num_classes: int, has_teacher: bool) -> list[str]:
    """The names of the metrics that every data set has of a student."""
    top = [f"top_{TOP}_accuracy"] if num_classes > TOP else []
    return [*OF_EVERY_DATASET, *top, *(FIDELITY if has_teacher else ())]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log(softmax(logits)) over the last axis, [..., num_classes], in float64; finite for any finite logits.

    Example:
        >>> np.exp(log_softmax(np.array([[0.0, np.log(3.0)], [1e4, 1e4]]))).round(6).tolist()
        [[0.25, 0.75], [0.5, 0.5]]
    """
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def measure_performance(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """How well a model's logits predict the labels; every value is NaN if no label is known.

    `error_rate` and `accuracy`: shares of the labelled examples whose largest logit is not the label's, and is.
    `top_5_accuracy`, only of more than five classes: share whose label has one of the five largest logits.
    `nll`: mean negative log-likelihood of the label under the softmax, in nats.
    `calibration_error`: expected calibration error of the softmax, see `expected_calibration_error`.

    Args:
        labels: int [N], -1 where unknown.
        logits: float [N, num_classes].

    Example:
        >>> found = measure_performance(np.array([0, 1, -1]), np.log([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]]))
        >>> {name: round(value, 4) for name, value in found.items()}
        {'error_rate': 0.5, 'accuracy': 0.5, 'nll': 0.5697, 'calibration_error': 0.4}
    """
    known = labels >= 0
    labels, logits = labels[known], logits[known]
    error = error_rate(labels, logits)
    found = {"error_rate": error, "accuracy": 1 - error}
    has_top = logits.shape[-1] > TOP
    if not len(labels) or not np.isfinite(logits).all():
        nothing = (*([f"top_{TOP}_accuracy"] if has_top else []), "nll", "calibration_error")
        return found | dict.fromkeys(nothing, float("nan"))
    blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(labels), ROWS_AT_ONCE)]
    parts = [_judge_block(labels[block], logits[block]) for block in blocks]
    ranks, likelihoods, confidences = (np.concatenate(each) for each in zip(*parts, strict=True))
    if has_top:
        found[f"top_{TOP}_accuracy"] = float(np.mean(ranks < TOP))
    is_right = logits.argmax(-1) == labels
    found["nll"] = -float(np.mean(likelihoods))
    return found | {"calibration_error": expected_calibration_error(confidences, is_right)}


def _judge_block(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row: how many classes come before the label, its log-likelihood, and the largest probability.

    Of equal logits, the first class comes first, as with argmax.
    """
    rows = np.arange(len(labels))
    own = logits[rows, labels][:, None]
    is_before = (logits > own) | ((logits == own) & (np.arange(logits.shape[-1]) < labels[:, None]))
    log_p = log_softmax(logits)
    return is_before.sum(-1), log_p[rows, labels], np.exp(log_p.max(-1))


def expected_calibration_error(confidences: np.ndarray, is_right: np.ndarray) -> float:
    """Guo et al. 2017, "On calibration of modern neural networks", equation 3, with 15 bins of equal width.

    The mean over examples of |accuracy - mean confidence| of the example's bin; bin m holds the confidences above
    (m - 1) / 15 and up to m / 15.

    Args:
        confidences: float [N], the probability of the predicted class, above 0 and at most 1; N is at least 1.
        is_right: bool [N], whether the predicted class is the label.

    Example:
        >>> expected_calibration_error(np.array([0.9, 0.9, 0.6]), np.array([True, False, True])).__round__(4)
        0.4
    """
    bins = np.clip(np.ceil(confidences * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bins, is_right - confidences)).sum() / len(confidences))


def measure_fidelity(teacher: np.ndarray, student: np.ndarray) -> dict[str, float]:
    """How closely a model's logits [N, num_classes] follow the teacher's.

    `agreement`: share of examples that get the teacher's class. `kl`: mean KL(teacher || student), in nats.
    `logit_mse`: mean squared difference per logit.
    """
    z, s = teacher.astype(np.float64), student.astype(np.float64)
    log_p, log_q = log_softmax(z), log_softmax(s)
    return {
        "agreement": float(np.mean(z.argmax(-1) == s.argmax(-1))),
        "kl": float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), -1))),
        "logit_mse": float(np.mean((z - s) ** 2)),
    }


def count_by_class(
    class_names: Sequence[str], labels: np.ndarray, logits: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """One row per class: {"class": its name, "examples": how many, "error_rate": {model: share}, "agreement": share}.

    `agreement`, of the student with the teacher, is there if both are. The shares of a class without examples are None.

    Args:
        class_names: in the order of the logits.
        labels: int [N], -1 where unknown.
        logits: {model: float [N, num_classes]}.

    Example:
        >>> count_by_class(["a", "b"], np.array([0, 0]), {"student": np.array([[1.0, 0.0], [0.0, 1.0]])})[0]
        {'class': 'a', 'examples': 2, 'error_rate': {'student': 0.5}}
    """
    known = labels >= 0
    labels, size = labels[known], len(class_names)
    predicted = {model: values.argmax(-1)[known] for model, values in logits.items()}
    examples = np.bincount(labels, minlength=size)

    def shares(is_counted: np.ndarray) -> list[float | None]:
        counts = np.bincount(labels[is_counted], minlength=size)
        return [int(count) / int(of) if of else None for count, of in zip(counts, examples, strict=True)]

    errors = {model: shares(classes != labels) for model, classes in predicted.items()}
    rows: list[dict[str, Any]] = [
        {"class": name, "examples": int(count), "error_rate": {model: errors[model][place] for model in errors}}
        for place, (name, count) in enumerate(zip(class_names, examples, strict=True))
    ]
    if {"teacher", "student"} <= predicted.keys():
        for row, share in zip(rows, shares(predicted["teacher"] == predicted["student"]), strict=True):
            row["agreement"] = share
    return rows
