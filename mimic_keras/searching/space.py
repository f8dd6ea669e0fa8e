"""The ranges of a search, and the next point to try, from keras-tuner's Gaussian process without its own memory.

A suggestion is a function of (seed, number of the trial, trials before it), so that a killed search resumes with the
same suggestion. Urban et al. 2017, section 2.4, used Snoek, Larochelle & Adams 2012 for the same purpose.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mimic_keras.experiment import ranges
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.experiment.ranges import Range
from mimic_keras.storage.files import derive_seed
from mimic_keras.training.private_api import completed_trial

SEARCHED = ("dataset", "transfer", "teacher", "student")
ATTEMPTS = 10
MOST_POINTS = 10_000


def read_space(source: Source) -> tuple[dict[Place, Range], dict[Place, Place]]:
    """({place: range}, {place: leader}) of every `{tune: ...}` in an experiment.

    Ranges of one name have one leader, whose value they all take; the first mapping holds leaders only.

    Raises:
        InputError: a range is invalid, there is none, or one stands where a search cannot judge it.
    """
    problems = Problems(source.problems.file)
    parsed = {
        place: ranges.parse_range(content, place / "tune", problems)
        for place, content in ranges.find_ranges(source.given, "tune")
    }
    for place in parsed:
        if place[0] not in SEARCHED:
            problems.add(place, f"cannot be searched: the student depends only on {', '.join(SEARCHED)}")
    search = Place("search")
    if not parsed:
        problems.add(search, "nothing to search: {tune: {min: ..., max: ..., sampling: log}} in place of a value")
    if "search" not in source.given:
        problems.add(search, "required for a search, as in search: {trials: 20}")
    problems.check()
    space = {place: item for place, item in parsed.items() if item}
    leaders = ranges.find_leaders(space, Place(), "tune", problems)
    problems.check()
    return {place: item for place, item in space.items() if leaders[place] == place}, leaders


def suggest(
    space: Mapping[Place, Range],
    tried: Sequence[tuple[Mapping[Place, Any], float]],
    seed: int,
    random_trials: int,
    later: Sequence[Mapping[Place, Any]] = (),
) -> dict[Place, Any] | None:
    """The values of trial number `len(tried)`; None if no point is left to try.

    `later`: the values of trials with higher numbers, which are not suggested and change nothing else.

    The first `random_trials` points are random; the others minimise the lower confidence bound of a Gaussian process
    (Matérn 5/2) through the scores of `tried`. A trial whose score is not used yet counts there with the worst one
    (the "constant liar" of Ginsbourger, Le Riche & Carraro 2010).
    """
    known = [dict(values) for values, _ in tried]
    for attempt in range(ATTEMPTS):
        # A point that the process suggests twice would be suggested for ever: take a random one instead.
        initial = random_trials if attempt == 0 else len(tried) + 1
        values = _ask_process(space, tried, _point_seed(seed, len(tried), attempt), initial)
        if values not in known and values not in later:
            return values
    unknown = [values for values in _list_points(space) if values not in known]
    for left in (unknown, [values for values in unknown if values not in later]):
        if left and (values := left[_point_seed(seed, len(tried)) % len(left)]) not in later:
            return values
    return None


def _list_points(space: Mapping[Place, Range]) -> Iterator[dict[Place, Any]]:
    """Every point of a discrete space, if there are at most MOST_POINTS."""
    values: list[list[Any]] = []
    for item in space.values():
        if item.choices is None and not item.is_integer:
            return
        values.append(item.choices or list(range(int(item.at(0)), int(item.at(1)) + 1)))
    if math.prod(map(len, values)) <= MOST_POINTS:
        yield from (dict(zip(space, point, strict=True)) for point in itertools.product(*values))


def _ask_process(
    space: Mapping[Place, Range], tried: Sequence[tuple[Mapping[Place, Any], float]], seed: int, initial: int
) -> dict[Place, Any]:
    import keras_tuner

    names = {place: str(place) for place in space}
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
    with warnings.catch_warnings():  # a kernel length at its bound, as for a parameter without effect
        warnings.simplefilter("ignore")
        found = oracle.populate_space(f"{len(tried):04d}")["values"]
    return {
        place: item.choices[found[names[place]]] if item.choices else item.rounded(found[names[place]])
        for place, item in space.items()
    }


def _point_seed(*parts: int) -> int:
    return derive_seed(repr(parts))
