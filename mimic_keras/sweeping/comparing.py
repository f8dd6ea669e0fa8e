"""Whether two rows of a sweep's table differ: paired over the test set, since the cells share it.

The nets of a row are judged on the same units: examples, or groups of examples that depend on each other, such as the
frames of a speaker. So what is hard for all cancels in the difference. With d_u the mean number of errors that one
row's nets make in unit u, less the other's, and n_u what they are counted in, the difference is D = sum(d) / sum(n),
and its standard error sqrt(sum((d_u - D n_u)^2)) / sum(n): that of the paired bootstrap over units, by linearisation
(Cochran, Sampling Techniques, section 6.4). Where units are examples, n_u is 1, and for two single nets this is the
standard error of McNemar's table, sqrt(b + c - (b - c)^2 / N) / N (Agresti, Categorical Data Analysis, section 10.1).
Nets that differ in their seed add the variance of a mean over seeds. Of few groups or nets the standard error is itself
uncertain: intervals are those of Student's t, with the degrees of freedom of a sum of variances (Satterthwaite 1946,
An approximate distribution of estimates of variance components).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from mimic_keras.sweeping import errors
from mimic_keras.sweeping.cells import Sweep
from mimic_keras.sweeping.results import Group, group_cells, list_distinct
from mimic_keras.sweeping.running import Outcome

NOT_SHOWN = "not shown"


@dataclass(frozen=True)
class Difference:
    """By how much the error rate of some nets is above that of others, and its standard error; shares from 0 to 1."""

    mean: float
    standard_error: float
    degrees_of_freedom: float

    @property
    def is_shown(self) -> bool:
        low, high = self.interval
        return not low <= 0 <= high and abs(self.mean) >= 2 * self.standard_error

    @property
    def interval(self) -> tuple[float, float]:
        """That of 95 %, by Student's t."""
        half = float(special.stdtrit(self.degrees_of_freedom, 0.975)) * self.standard_error
        return self.mean - half, self.mean + half


def compare(these: np.ndarray, those: np.ndarray, counts: np.ndarray) -> Difference:
    """The difference of the error rates of two groups of nets on the same units.

    `these` and `those` are errors, numbers [nets, units] each; `counts` is what they are counted in, integers [units].

    Example: two nets, of which the first is wrong on 10 examples of 100 where the second is right, and right on 3
        where it is wrong:
        >>> first, second = np.zeros((2, 1, 100), int)
        >>> first[0, :10] = second[0, 10:13] = 1
        >>> compare(first, second, np.ones(100, int))
        Difference(mean=0.07, standard_error=0.03536..., degrees_of_freedom=99.0)
    """
    total = counts.sum()
    paired = these.mean(0) - those.mean(0)
    mean = paired.sum() / total
    parts = [(len(counts), np.sum((paired - mean * counts) ** 2) / total**2)]
    parts += [(len(nets), np.var(nets.sum(1) / total, ddof=1) / len(nets)) for nets in (these, those) if len(nets) > 1]
    variance = sum(part for _, part in parts)
    doubt = sum(part**2 / (number - 1) for number, part in parts if part)
    return Difference(float(mean), math.sqrt(variance), float(variance**2 / doubt) if doubt else 1.0)


def tabulate_differences(sweep: Sweep, outcomes: Sequence[Outcome]) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of text: each row of the table against the one with the first value of an axis, and against its
    baseline. Empty for a metric whose errors are not known by example or group, and cells that share no test set."""
    sign = 1 if sweep.metric not in errors.INVERSES and sweep.show == "error" else -1
    rows = []
    for label, (group, model), (other, other_model) in _pairs(sweep, outcomes):
        these, those = _tallies(sweep.metric, group, model), _tallies(sweep.metric, other, other_model)
        if not these or not those or len({each.digest for each in (*these, *those)}) > 1:
            continue
        if len(these) == len(those) == len(these[0].counts) == 1:  # nothing there that varies
            continue
        found = compare(_stack_errors(these), _stack_errors(those), these[0].counts)
        low, high = sorted(sign * 100 * end for end in found.interval)
        digits = max(2, math.ceil(math.log10(these[0].counts.sum())) - 2)  # as many as one error more can be seen in

        def say(points: float, digits: int = digits) -> str:
            return f"{round(points, digits) + 0.0:+.{digits}f}"  # -0.0 + 0.0 is 0.0

        rows.append(
            {
                "comparison": label,
                f"difference in test {sweep.shown}, points": say(sign * 100 * found.mean),
                "95 % interval": f"{say(low)} to {say(high)}",
                "nets": f"{len(these)} and {len(those)}",
                "over": f"{len(these[0].counts):,} {these[0].units}",
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


def _tallies(metric: str, group: Group, model: str) -> list[errors.Tally]:
    """The errors of each net that counts, of several searches the means of each one's nets, as in the table; none if
    those of one are not known."""
    per_cell = [
        [errors.unpack(result["errors"], model, metric) for result in results]
        for results in list_distinct(group.outcomes, model)
    ]
    known = [[tally for tally in nets if tally] for nets in per_cell]
    if [len(nets) for nets in known] != [len(nets) for nets in per_cell]:
        return []
    if len(group.outcomes) == 1:
        return [tally for nets in known for tally in nets]
    return [replace(nets[0], errors=_stack_errors(nets).mean(0)) for nets in known]


def _stack_errors(tallies: Sequence[errors.Tally]) -> np.ndarray:
    return np.stack([tally.errors for tally in tallies])
