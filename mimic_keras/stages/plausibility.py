"""What is suspicious about a member before it labels anything: its error on validation and the scale of its inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mimic_keras.stages.data import Data
from mimic_keras.stages.teachers import TeacherMember

CAUSES = "its inputs may be scaled otherwise, or its classes ordered otherwise"
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
        more, both = (error - errors[best]) * len(known), (error + errors[best]) * len(known)
        if chance > 0 and (error >= chance or math.isclose(error, chance)):
            found[name] = f"no better than always answering the most frequent class ({chance:.4f}); {CAUSES}"
        elif error > 2 * errors[best] and more > 2 * math.sqrt(both):
            found[name] = f"more than twice that of {best} ({errors[best]:.4f})"
    return found


def find_other_scales(members: Sequence[TeacherMember]) -> Iterator[tuple[str, str]]:
    """(member, what is suspicious) of members whose own scaling suggests other inputs than validation has."""
    for member in members:
        if member.expects and _are_far(member.expects, found := _range_of(member.data)):
            expected, seen = ("{:.4g} to {:.4g}".format(*each) for each in (member.expects, found))
            yield member.name, f"its first layers suggest inputs from {expected}, but those of validation are {seen}"


def _range_of(data: Data) -> tuple[float, float]:
    rows = data.sample("validation")
    return float(rows.min()), float(rows.max())


def _are_far(expected: tuple[float, float], found: tuple[float, float]) -> bool:
    """Whether the ranges do not touch, or one is FAR times as wide as the other."""
    low, high = expected
    widths = high - low, found[1] - found[0]
    return found[1] < low or found[0] > high or max(widths) > FAR * min(widths)
