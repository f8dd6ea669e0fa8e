"""`{fit_parameters: N}` in place of a width: the width with which the net has about N parameters.

In place of a list of widths, `{fit_parameters: N, ratios: [2, 1]}` scales them together. Widths are found by building
nets without values, which takes milliseconds at any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from mimic_keras.contracts import DatasetInfo, InputError, MimicError, count_parameters
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.places import Place, substitute, walk
from mimic_keras.experiment.problems import Problems, parse_section, quote
from mimic_keras.experiment.sections import Positive, Rate, Section
from mimic_keras.planning import components, preflight
from mimic_keras.planning.components import Component
from mimic_keras.training import models

KEYWORD = "fit_parameters"
LARGEST_WIDTH = 2**31


class Budget(Section):
    """`ratios` replace a list of widths: the widest takes every whole number, the others follow."""

    fit_parameters: Positive
    ratios: Annotated[list[Rate], Field(min_length=1)] | None = None

    def widths(self, width: int) -> int | list[int]:
        """What replaces the budget when the (widest) layer has `width` units.

        Example:
            >>> Budget(fit_parameters=1000, ratios=[2.0, 1.0]).widths(7)
            [7, 4]
        """
        if self.ratios is None:
            return width
        widest = max(self.ratios)
        return [max(1, math.floor(ratio / widest * width + 0.5)) for ratio in self.ratios]


def solve_budgets(source: Source) -> Source:
    """The experiment with widths in place of budgets; a budget that another problem makes unsolvable becomes 1."""
    complete = source.complete
    infos: dict[str, DatasetInfo | None] = {}
    for spec, base, dataset in list(_list_architectures(source)):
        budgets = {
            place: content for place, content in walk(spec) if isinstance(content, Mapping) and KEYWORD in content
        }
        for place, content in budgets.items():
            width: int | list[int] = [1] if "ratios" in content else 1
            budget = parse_section(Budget, content, base + place, source.problems) if len(budgets) == 1 else None
            if len(budgets) > 1:
                message = f"{KEYWORD} stands {len(budgets)} times in one net, but it can fit only one width"
                source.problems.add(base + place, message)
            elif budget:
                key = quote(dataset)
                if key not in infos:
                    infos[key] = _read_info(dataset)
                width = budget.widths(1)
                if info := infos[key]:
                    given = substitute(spec, {place: width})
                    width = _solve(given, place, budget, info, base, source.problems)
            complete = substitute(complete, {base + place: width})
    return replace(source, complete=complete)


def fit_width(count: Callable[[int], int], budget: int) -> int:
    """The width of at least 1 whose `count` is nearest to `budget`; of two equally near, the smaller.

    `count` must not decrease. A net's parameters are quadratic in a width, so three small widths usually suffice.

    Raises:
        InputError: even the narrowest net has more parameters, or no width comes near.

    Example:
        >>> fit_width(lambda width: width * (width + 1), 100)
        9
    """
    narrowest = count(1)
    if narrowest > budget:
        raise InputError(f"{budget:,} parameters are too few: the narrowest net, of width 1, has {narrowest:,}")
    low, step = _guess_width(narrowest, count(2), count(3), budget), 1
    if count(low) > budget:
        while low > 1 and count(low) > budget:
            low, step = max(1, low - step), 2 * step
        step = step // 2 or 1
    else:
        while count(low + step) <= budget:
            low, step = low + step, 2 * step
            if low > LARGEST_WIDTH:
                raise InputError(f"no width gives {budget:,} parameters: {low:,} gives {count(low):,}")
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    return low if budget - count(low) <= count(high) - budget else high


def _guess_width(first: int, second: int, third: int, budget: int) -> int:
    """The width at which the parabola through the counts of widths 1, 2 and 3 reaches `budget`, rounded down."""
    curvature = (third - 2 * second + first) / 2
    slope = second - first - 3 * curvature
    constant = first - slope - curvature
    if curvature > 0:
        root = (-slope + math.sqrt(max(0.0, slope**2 - 4 * curvature * (constant - budget)))) / (2 * curvature)
    else:
        root = (budget - constant) / slope if slope > 0 else 1.0
    return int(min(max(root, 1), LARGEST_WIDTH))


def _solve(
    spec: Mapping[str, Any], place: Place, budget: Budget, info: DatasetInfo, base: Place, problems: Problems
) -> int | list[int]:
    scratch = Problems(problems.file)  # binding the experiment finds and reports the same problems again
    component = components.bind("architecture", spec, base, scratch)
    if component is None:
        if message := scratch.found.get(base + place):
            hint = f"{KEYWORD} replaces a width, or with ratios: [1, 1] a list of widths"
            problems.add(base + place, f"{message}; {hint}")
        return budget.widths(1)
    counts: dict[int, int] = {}

    def count(width: int) -> int:
        if width not in counts:
            arguments = substitute(component.arguments, {place: budget.widths(width)})
            counts[width] = count_net(replace(component, arguments=arguments), info)
        return counts[width]

    try:
        return budget.widths(fit_width(count, budget.fit_parameters))
    except MimicError as error:
        problems.add(base + place, str(error))
        return budget.widths(1)


def count_net(component: Component, info: DatasetInfo) -> int:
    """Trainable weights of a net, which is built without values."""
    return models.build_without_values(
        lambda: count_parameters(component(info.input_shape, info.num_classes).trainable_weights), lambda build: build()
    )


def _list_architectures(source: Source) -> Iterator[tuple[dict[str, Any], Place, Any]]:
    """(mapping, place, mapping of its data set) of every architecture, including those inside teachers."""
    datasets = {place.parent: spec for kind, spec, place in source.components() if kind == "dataset"}
    for kind, spec, place in source.components():
        dataset = datasets.get(place.parent, source.complete.get("dataset"))
        if kind == "architecture":
            yield spec, place, dataset
        elif kind == "teacher":
            for key, item in spec.items():
                if isinstance(item, dict) and "name" in item:
                    yield item, place / key, dataset


def _read_info(dataset: Any) -> DatasetInfo | None:
    scratch = Problems("")
    place = Place("dataset")
    component = components.bind("dataset", dataset, place, scratch) if isinstance(dataset, dict) else None
    return preflight.read_dataset_info(component, place, scratch) if component else None
