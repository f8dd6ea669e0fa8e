"""Whether two rows of a sweep's table differ: paired over the test examples, since the cells share them.

The nets of a row are judged on the same examples, so that hard examples cancel in the difference. With d_i the share of
one row's nets that are wrong on example i, less the other's, the difference is mean(d) and its standard error
std(d) / sqrt(N), which is that of the paired bootstrap over examples; for two single nets it is that of McNemar's
table, sqrt(b + c - (b - c)^2 / N) / N (Agresti, Categorical Data Analysis, section 10.1). Nets that differ in their
seed add the variance of a mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mimic_keras.sweeping import errors
from mimic_keras.sweeping.cells import Sweep
from mimic_keras.sweeping.results import Group, group_cells
from mimic_keras.sweeping.running import Outcome

JUDGED_BY_EXAMPLE = ("error_rate", "accuracy")  # metrics that are a mean over the test examples
NOT_SHOWN = "not shown"


@dataclass(frozen=True)
class Difference:
    """By how much the error rate of some nets is above that of others, and its standard error; shares from 0 to 1."""

    mean: float
    standard_error: float

    @property
    def is_shown(self) -> bool:
        return abs(self.mean) > 0 and abs(self.mean) >= 2 * self.standard_error

    @property
    def interval(self) -> tuple[float, float]:
        """The normal interval of 95 %."""
        return self.mean - 1.96 * self.standard_error, self.mean + 1.96 * self.standard_error


def compare(these: np.ndarray, those: np.ndarray) -> Difference:
    """The difference of the error rates of two groups of nets on the same examples: bool [nets, examples] each.

    Example: two nets, of which the first is wrong on 10 examples of 100 where the second is right, and right on 3
        where it is wrong:
        >>> first, second = np.zeros((2, 1, 100), bool)
        >>> first[0, :10] = second[0, 10:13] = True
        >>> compare(first, second)
        Difference(mean=0.07, standard_error=0.03536...)
    """
    paired = these.mean(0) - those.mean(0)
    over_nets = sum(np.var(each.mean(1), ddof=1) / len(each) for each in (these, those) if len(each) > 1)
    return Difference(float(paired.mean()), math.sqrt(paired.var() / len(paired) + over_nets))


def tabulate_differences(sweep: Sweep, outcomes: Sequence[Outcome]) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of text: each row of the table against the one with the first value of an axis, and against its
    baseline. Empty for a metric that is no mean over examples, and for cells that do not share the test set."""
    if sweep.metric not in JUDGED_BY_EXAMPLE:
        return [], []
    sign = 1 if sweep.metric == "error_rate" and sweep.show == "error" else -1
    rows = []
    for label, (group, model), (other, other_model) in _pairs(sweep, outcomes):
        these, those = _stack(group, model), _stack(other, other_model)
        if these is None or those is None or these[0] != those[0]:
            continue
        found = compare(these[1], those[1])
        low, high = sorted(sign * 100 * end for end in found.interval)
        rows.append(
            {
                "comparison": label,
                f"difference in test {sweep.shown}, points": f"{sign * 100 * found.mean:+.2f}",
                "95 % interval": f"{low:+.2f} to {high:+.2f}",
                "nets": f"{len(these[1])} and {len(those[1])}",
                "verdict": (("higher" if sign * found.mean > 0 else "lower") if found.is_shown else NOT_SHOWN),
            }
        )
    return list(rows[0]) if rows else [], rows


def _pairs(sweep: Sweep, outcomes: Sequence[Outcome]) -> Iterator[tuple[str, tuple[Group, str], tuple[Group, str]]]:
    """(label, nets, nets that they are compared with)."""
    groups = group_cells(sweep, outcomes)
    for axis, values in sweep.axes.items():
        if axis == sweep.mean_over:
            continue
        for group in groups:
            others = {name: value for name, value in group.values.items() if name != axis}
            first = next((each for each in groups if each.values == {**group.values, axis: values[0]}), None)
            if first is not None and first is not group:
                place = "".join(f"{name} {value}, " for name, value in others.items())
                yield f"{place}{axis} {group.values[axis]} against {values[0]}", (group, "student"), (first, "student")
    for group in groups:
        place = "".join(f"{name} {value}, " for name, value in group.values.items())
        yield f"{place}student against baseline", (group, "student"), (group, "baseline")


def _stack(group: Group, model: str) -> tuple[str, np.ndarray] | None:
    """(digest of the labels, bool [nets, examples]); None if a net is missing, or they do not share the test set."""
    results = [result for outcome in group.outcomes for result in outcome.results]
    found = [result["errors"] for result in results if result.get("errors")]
    if not found or len(found) < len(results) or not all(each["examples"] and model in each["wrong"] for each in found):
        return None
    labels = {each["labels"] for each in found}
    return (labels.pop(), np.stack([errors.unpack(each, model) for each in found])) if len(labels) == 1 else None
