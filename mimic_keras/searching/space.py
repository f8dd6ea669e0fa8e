"""The ranges of a search, and the next point to try: keras-tuner's Gaussian process, asked without memory of its own.

A suggestion is a function of (seed, number of the trial, trials so far), so that a search that was killed goes on with
the same one. Snoek, Larochelle & Adams 2012 is what Urban et al. 2017, section 2.4, used for the same.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mimic_keras.experiment import ranges
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems, join
from mimic_keras.experiment.ranges import Place, Range
from mimic_keras.training.private_api import completed_trial

ATTEMPTS = 10
MOST_POINTS = 10_000


def of(source: Source) -> tuple[dict[Place, Range], dict[Place, Place]]:
    """{place: range} of every `{tune: ...}` of an experiment, and {place: the one whose value it has}.

    Raises:
        InputError: a range is wrong, there is none, or one is where a search can not judge it.
    """
    problems = Problems(source.problems.source)
    found = {
        place: ranges.read(content, join("", *place, "tune"), problems)
        for place, content in ranges.find(source.given, "tune")
    }
    for place in found:
        if place[0] not in ("dataset", "teacher", "student"):
            problems.add(
                join("", *place), "only what the student depends on can be searched: dataset, teacher, student"
            )
    if not found:
        problems.add("search", "nothing to search: {tune: {min: ..., max: ..., sampling: log}} in place of a value")
    if "search" not in source.given:
        problems.add("search", "required for a search, as search: {trials: 20}")
    problems.check()
    ranged = {place: item for place, item in found.items() if item}
    led = ranges.leaders(ranged, "", "tune", problems)
    problems.check()
    return {place: item for place, item in ranged.items() if led[place] == place}, led


def suggest(
    space: Mapping[Place, Range], tried: Sequence[tuple[Mapping[Place, Any], float]], seed: int, random_trials: int
) -> dict[Place, Any] | None:
    """The values of trial number `len(tried)`; None if nothing is left to try.

    The first `random_trials` are drawn; then the minimum of the lower confidence bound of a Gaussian process (Matérn
    5/2) through the scores of `tried` is taken. A trial that still runs is given there with a score that is as bad as
    any (the "constant liar" of Ginsbourger, Le Riche & Carraro 2010).
    """
    known = [dict(values) for values, _ in tried]
    for attempt in range(ATTEMPTS):
        # What the process suggests twice would be suggested for ever: a random point then.
        initial = random_trials if attempt == 0 else len(tried) + 1
        values = _suggested(space, tried, _seed(seed, len(tried), attempt), initial)
        if values not in known:
            return values
    left = [values for values in _all(space) if values not in known]
    return left[_seed(seed, len(tried)) % len(left)] if left else None


def _all(space: Mapping[Place, Range]) -> Iterator[dict[Place, Any]]:
    """Every point, if there are few enough to have been tried again and again."""
    values: list[list[Any]] = []
    for item in space.values():
        if item.choices is None and not item.is_integer:
            return
        values.append(item.choices or list(range(int(item.at(0)), int(item.at(1)) + 1)))
    if math.prod(map(len, values)) <= MOST_POINTS:
        yield from (dict(zip(space, point, strict=True)) for point in itertools.product(*values))


def _suggested(
    space: Mapping[Place, Range], tried: Sequence[tuple[Mapping[Place, Any], float]], seed: int, initial: int
) -> dict[Place, Any]:
    import keras_tuner

    names = {place: join("", *place) for place in space}
    declared = keras_tuner.HyperParameters()
    for place, item in space.items():
        if item.choices is not None:
            declared.Choice(names[place], list(range(len(item.choices))), ordered=False)
        else:
            declare = declared.Int if item.is_integer else declared.Float
            declare(names[place], item.min, item.max, sampling=item.sampling)
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        keras_tuner.Objective("score", "min"),
        max_trials=len(tried) + 1,
        num_initial_points=initial,
        seed=seed,
        hyperparameters=declared,
        allow_new_entries=False,
        tune_new_entries=False,
    )
    for number, (values, score) in enumerate(tried):
        point = declared.copy()
        for place, item in space.items():
            choices = item.choices
            point.values[names[place]] = choices.index(values[place]) if choices else values[place]
        oracle.trials[f"{number:04d}"] = completed_trial(point, f"{number:04d}", score)
    with warnings.catch_warnings():  # of a kernel's length that reaches its bound, as where a parameter does nothing
        warnings.simplefilter("ignore")
        found = oracle.populate_space(f"{len(tried):04d}")["values"]
    return {
        place: item.choices[found[names[place]]] if item.choices else item.rounded(found[names[place]])
        for place, item in space.items()
    }


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4]) % 2**31
