"""`{fit_parameters: N}` in place of a width: the width with which the net has about N parameters.

In place of a list of widths, `{fit_parameters: N, ratios: [2, 1]}` scales them together. A width is found by building
nets without giving them values, which takes milliseconds at any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from mimic_keras.contracts import DatasetInfo, InputError, RunError
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems, join, show, typed
from mimic_keras.experiment.ranges import Place, replaced
from mimic_keras.experiment.schema import Positive, Rate, Section
from mimic_keras.planning import components, preflight
from mimic_keras.planning.components import Component
from mimic_keras.training import models

WORD = "fit_parameters"
LARGEST_WIDTH = 2**31


class Budget(Section):
    """`ratios` stand where a list of widths is wanted: the widest takes every whole number, the others follow."""

    fit_parameters: Positive
    ratios: Annotated[list[Rate], Field(min_length=1)] | None = None

    def widths(self, width: int) -> int | list[int]:
        """What takes the budget's place when the (widest) layer has `width` units.

        Example:
            >>> Budget(fit_parameters=1000, ratios=[2.0, 1.0]).widths(7)
            [7, 4]
        """
        if self.ratios is None:
            return width
        widest = max(self.ratios)
        return [max(1, math.floor(ratio / widest * width + 0.5)) for ratio in self.ratios]


def solved(source: Source) -> Source:
    """The experiment with widths in place of budgets. What can not be solved for another problem's sake is 1."""
    complete, infos = source.complete, {}
    for spec, path, dataset in list(_architectures(source)):
        found = list(_find(spec))
        for place, content in found:
            where, rest = join(path, *place), dict.fromkeys((other for other, _ in found if other != place), 1)
            budget = typed(Budget, content, where, source.problems)
            width: int | list[int] = [1] if "ratios" in content else 1
            if len(found) > 1:
                source.problems.add(where, f"{WORD} stands {len(found)} times in one net; one of its widths can fit")
            elif budget:
                key = show(dataset)
                if key not in infos:
                    infos[key] = _info(dataset)
                width = budget.widths(1)
                if info := infos[key]:
                    given = replaced(spec, {**rest, place: width})
                    width = _solved(given, place, budget, info, where, path, source.problems)
            complete = replaced(complete, {(*_place(path), *place): width})
    return replace(source, complete=complete)


def fitted(count: Callable[[int], int], budget: int) -> int:
    """The width of at least 1 whose `count`, which must not fall, is nearest to `budget`; of two the smaller.

    A net's parameters are quadratic in a width, so that three small ones usually tell it.

    Raises:
        InputError: even the narrowest net has more, or no width comes near; says what is nearest.

    Example:
        >>> fitted(lambda width: width * (width + 1), 100)
        9
    """
    narrowest = count(1)
    if narrowest > budget:
        raise InputError(f"{budget:,} parameters are too few: a width of 1 makes {narrowest:,}, the nearest possible")
    low, step = _root(narrowest, count(2), count(3), budget), 1
    if count(low) > budget:
        while low > 1 and count(low) > budget:
            low, step = max(1, low - step), 2 * step
        step = step // 2 or 1
    else:
        while count(low + step) <= budget:
            low, step = low + step, 2 * step
            if low > LARGEST_WIDTH:
                raise InputError(f"no width makes {budget:,} parameters: {low:,} makes {count(low):,}")
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    return low if budget - count(low) <= count(high) - budget else high


def _root(first: int, second: int, third: int, budget: int) -> int:
    """The width at which the parabola through the counts of widths 1, 2 and 3 reaches `budget`, rounded down."""
    curvature = (third - 2 * second + first) / 2
    slope = second - first - 3 * curvature
    constant = first - slope - curvature
    if curvature > 0:
        root = (-slope + math.sqrt(max(0.0, slope**2 - 4 * curvature * (constant - budget)))) / (2 * curvature)
    else:
        root = (budget - constant) / slope if slope > 0 else 1.0
    return int(min(max(root, 1), LARGEST_WIDTH))


def _solved(
    spec: Mapping[str, Any], place: Place, budget: Budget, info: DatasetInfo, where: str, path: str, problems: Problems
) -> int | list[int]:
    scratch = Problems(problems.source)  # the same are found again, and reported, when the experiment is bound
    component = components.bind("architecture", spec, path, scratch)
    if component is None:
        if where in scratch.found:
            problems.add(
                where, f"{scratch.found[where]}; {WORD} takes the place of a width; of a list: with ratios: [1, 1]"
            )
        return budget.widths(1)
    counts: dict[int, int] = {}

    def count(width: int) -> int:
        if width not in counts:
            arguments = replaced(component.arguments, {place: budget.widths(width)})
            counts[width] = parameters(replace(component, arguments=arguments), info)
        return counts[width]

    try:
        return budget.widths(fitted(count, budget.fit_parameters))
    except (InputError, RunError) as error:
        problems.add(where, str(error))
        return budget.widths(1)


def parameters(component: Component, info: DatasetInfo) -> int:
    """Trainable weights of a net that is built without giving them values."""
    return models.build_without_values(
        lambda: models.count_parameters(component(info.input_shape, info.num_classes)), lambda build: build()
    )


def _find(value: Any, place: Place = ()) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    if isinstance(value, Mapping) and WORD in value:
        yield place, value
    elif isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _find(item, (*place, key))


def _architectures(source: Source) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """(mapping, path, its data set's mapping) of every architecture, those inside of teachers included."""
    entries = {path.rpartition(".")[0]: spec for kind, spec, path in source.components() if kind == "dataset"}
    for kind, spec, path in source.components():
        dataset = entries.get(path.rpartition(".")[0], source.complete.get("dataset"))
        if kind == "architecture":
            yield spec, path, dataset
        elif kind == "teacher":
            for key, item in spec.items():
                if isinstance(item, dict) and "name" in item:
                    yield item, join(path, key), dataset


def _info(dataset: Any) -> DatasetInfo | None:
    scratch = Problems("")
    component = components.bind("dataset", dataset, "dataset", scratch) if isinstance(dataset, dict) else None
    return preflight.dataset_info(component, "dataset", scratch) if component else None


def _place(path: str) -> Place:
    """'teacher.members[0].teacher' to ('teacher', 'members', 0, 'teacher')."""
    parts = path.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdecimal() else part for part in parts)
