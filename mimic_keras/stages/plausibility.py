"""What is suspicious about a member before it labels anything: its error on validation, its inputs, its classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mimic_keras.stages.data import Data
from mimic_keras.stages.teachers import TeacherMember

CAUSES = (
    "its inputs may be scaled otherwise (its entry can have its own, as dataset: {inputs: {scale: 1}}), or its classes "
    "ordered otherwise"
)
MOST_CLASSES = 1000  # of which the best order is found in a second
FAR = 10  # times narrower or wider than expected; photographs that are merely dark or pale are within it


def find_poor_members(labels: np.ndarray, errors: Mapping[str, float]) -> dict[str, str]:
    """{member: what is suspicious} of the members at chance, and of those twice as wrong as the best.

    At chance is an error rate no lower than that of always answering the most frequent class. Twice as wrong is also
    more errors than the best member's by over two standard deviations (of two Poisson counts), so that a handful of
    examples is no reason.

    Args:
        labels: int [N] of validation, -1 where unknown; at least one is known.
        errors: {member: error rate on validation}.

    Example:
        >>> list(find_poor_members(np.array([0, 0, 1]), {"teacher/0": 0.0, "teacher/1": 1 / 3}))
        ['teacher/1']
    """
    known = labels[labels >= 0]
    chance = 1 - np.bincount(known).max() / len(known)
    best = min(errors, key=lambda name: errors[name])
    found = {}
    for name, error in errors.items():
        if chance > 0 and (error >= chance or math.isclose(error, chance)):
            found[name] = f"no better than always answering the most frequent class ({chance:.4f}); {CAUSES}"
        elif is_far_more(error, errors[best], len(known)):
            found[name] = f"more than twice that of {best} ({errors[best]:.4f}); of a net from elsewhere, {CAUSES}"
    return found


def find_other_order(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> tuple[list[int], float] | None:
    """Classes in the order of a member's outputs, if another order than the data set's makes it far better.

    The order, the best assignment of outputs to classes, is found on a random half of validation. It is believed only
    if the error rate on the other half is less than half, by the rule of `find_poor_members`.

    Args:
        labels: int [N] of validation, -1 where unknown.
        predicted: int [N], the member's output with the largest logit.

    Returns:
        (the class of each output, the error rate on all of validation with them); None if no order is far better, or
        there are over 1,000 classes.

    Example:
        >>> labels = np.arange(60) % 3
        >>> find_other_order(labels, (labels + 1) % 3, num_classes=3)
        ([2, 0, 1], 0.0)
    """
    if num_classes > MOST_CLASSES:
        return None
    labels, predicted = labels[labels >= 0], predicted[labels >= 0]
    half = np.random.RandomState(0).permutation(len(labels)) < len(labels) // 2
    judged = labels[~half], predicted[~half]
    order = _match(labels[half], predicted[half], num_classes)
    if not is_far_more(np.mean(judged[1] != judged[0]), np.mean(order[judged[1]] != judged[0]), len(judged[0])):
        return None
    order = _match(labels, predicted, num_classes)
    return order.tolist(), float(np.mean(order[predicted] != labels))


def _match(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """The class of each output, int [num_classes], that makes most predictions right."""
    from scipy.optimize import linear_sum_assignment  # seldom needed

    counts = np.zeros([num_classes, num_classes], np.int64)
    np.add.at(counts, (predicted, labels), 1)
    return linear_sum_assignment(counts, maximize=True)[1]


def is_far_more(error: float, other: float, count: int) -> bool:
    """Whether an error rate on `count` examples is over twice another, and more than chance explains."""
    return error > 2 * other and (error - other) * count > 2 * math.sqrt((error + other) * count)


def find_other_scales(members: Sequence[TeacherMember]) -> Iterator[tuple[str, str]]:
    """(member, what is suspicious) of members whose own scaling suggests other inputs than validation has."""
    for member in members:
        if member.expects and _are_far(member.expects, found := _range_of(member.data)):
            expected, seen = ("{:.4g} to {:.4g}".format(*each) for each in (member.expects, found))
            reason = f"its first layers suggest inputs from {expected}, but those of validation are {seen}"
            yield member.name, f"{reason}; its entry can have inputs of its own, as dataset: {{inputs: {{scale: 1}}}}"


def _range_of(data: Data) -> tuple[float, float]:
    rows = data.sample("validation")
    return float(rows.min()), float(rows.max())


def _are_far(expected: tuple[float, float], found: tuple[float, float]) -> bool:
    """Whether the ranges do not touch, or one is FAR times as wide as the other."""
    low, high = expected
    widths = high - low, found[1] - found[0]
    return found[1] < low or found[0] > high or max(widths) > FAR * min(widths)
