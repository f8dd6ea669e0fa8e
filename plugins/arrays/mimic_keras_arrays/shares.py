"""Divide examples into training, validation and test."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from mimic_keras.contracts import InputError

LARGEST_SEED = 2**32 - 1
HELD_OUT = ("validation", "test")


class Shares(TypedDict, total=False):
    """Which fraction of the labelled examples becomes validation, and test; the others are for training."""

    validation: float
    test: float


@dataclass(frozen=True)
class Division:
    """How the examples are divided: validation and test are given, or drawn from those given for training.

    Args:
        given: the names of what is given: "train", and any of "validation", "test" and "unlabelled".
        shares: the shares of those of "validation" and "test" that are not given.
        seed, stratify: as for `divide`.

    Raises:
        ValueError: a share is not above 0 or they leave nothing for training, the seed is out of its range, or a split
            is given and has a share, or neither.
    """

    given: Collection[str]
    shares: Mapping[str, Any]
    seed: int = 0
    stratify: bool = True

    def __post_init__(self) -> None:
        check_shares(self.shares, self.seed)
        for name in HELD_OUT:
            if (name in self.given) == (name in self.shares):
                found = "both" if name in self.given else "neither"
                raise ValueError(f"{name}: expected the split itself, or shares: {{{name}: 0.1}}, got {found}")

    def rows(self, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{split: int64 rows of its examples}, if the rows of what is given come one after the other.

        `labels` are int32, those of each, in this order, with "train" first. The transfer set is training, then what of
        "train" has no label, then "unlabelled". InputError as for `divide`.
        """
        first, places = 0, {}
        for name, of in labels.items():
            places[name] = np.arange(first, first + len(of))
            first += len(of)
        validation, test = (self.shares.get(name, 0.0) for name in HELD_OUT)
        rows = divide(labels["train"], validation, test, self.seed, self.stratify)
        rows |= {name: places[name] for name in HELD_OUT if name in places}
        unknown = np.flatnonzero(labels["train"] < 0)
        rows["transfer"] = np.concatenate([rows["train"], unknown, places.get("unlabelled", unknown[:0])])
        return rows

    def estimate_sizes(self, given: Mapping[str, int], repeats: int) -> dict[str, int]:
        """{split: examples, virtual copies included}, as if all of "train" had labels; `given`: {name: examples}."""
        sizes = {name: given.get(name) or round(given["train"] * self.shares[name]) for name in HELD_OUT}
        train = given["train"] - sum(sizes[name] for name in self.shares)
        return {**sizes, "train": train * repeats, "transfer": (train + given.get("unlabelled", 0)) * repeats}


def check_shares(shares: Mapping[str, Any], seed: int) -> None:
    """Raise a ValueError unless the shares are above 0 and leave something for training, and the seed is valid."""
    for name, share in shares.items():
        if not 0 < share < 1:
            raise ValueError(f"shares: {name} must be above 0 and below 1, got {share}")
    if sum(shares.values()) >= 1:
        given = ", ".join(f"{name}: {share}" for name, share in shares.items())
        raise ValueError(f"shares must leave examples for training: expected a sum below 1, got {given}")
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"split_seed must be from 0 to {LARGEST_SEED}, got {seed}")


def divide(
    labels: np.ndarray, validation: float, test: float, seed: int, stratify: bool = True
) -> dict[str, np.ndarray]:
    """Draw the examples of each split.

    Args:
        labels: int32 [N], -1 where unknown. Examples without a label are in none of the splits: they belong to the
            transfer set alone.
        validation: share of the labelled examples, from 0 to 1; 0 if validation examples come from elsewhere.
        test: the same for test.
        seed: from 0 to 2**32 - 1.
        stratify: give each split its share of every class, rounded by largest remainder: each count is within 1 of the
            exact share. False: only of all examples together.

    Returns:
        {"train", "validation" and "test": indices, sorted int64}.

    Raises:
        InputError: no example has a label; or training, or a split with a share above 0, would get no example.

    Example:
        >>> {name: len(ids) for name, ids in divide(np.zeros(10, np.int32), 0.2, 0.1, seed=0).items()}
        {'train': 7, 'validation': 2, 'test': 1}
    """
    if not (labels >= 0).any():
        raise InputError(f"none of the {len(labels)} training examples has a label")
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    # RandomState never changes (NumPy's compatibility policy, NEP 19); the newer generators may.
    random = np.random.RandomState(seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in shares}
    for ids in _groups(labels, stratify):
        ends = np.cumsum(_apportion(len(ids), np.array(list(shares.values())), random))
        for name, part in zip(shares, np.split(random.permutation(ids), ends[:-1]), strict=True):
            parts[name].append(part)
    found = {name: np.sort(np.concatenate([np.zeros(0, np.int64), *ids])) for name, ids in parts.items()}
    for name, ids in found.items():
        if not len(ids) and (shares[name] > 0 or name == "train"):
            raise InputError(
                f"shares: {shares[name]:g} of {int((labels >= 0).sum())} labelled examples"
                f"{', of each class,' if stratify else ''} leaves none for '{name}'; expected enough for at least one: "
                f"change the shares{', or set stratify: false' if stratify else ''}"
            )
    return found


def _groups(labels: np.ndarray, stratify: bool) -> Iterator[np.ndarray]:
    """The indices of the labelled examples, int64: of each class, or all together."""
    known = np.flatnonzero(labels >= 0)
    if stratify:
        known = known[np.argsort(labels[known], kind="stable")]
        yield from np.split(known, np.flatnonzero(np.diff(labels[known])) + 1)
    else:
        yield known


def _apportion(count: int, shares: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Whole numbers that sum to `count`, each within 1 of its share of it; equal remainders are drawn.

    Drawn, because many small classes would otherwise all give their odd example to the same split.
    """
    exact = count * shares
    whole = np.floor(np.round(exact, 9)).astype(np.int64)  # 0.1 + 0.2 is a little more than 0.3
    order = np.lexsort((random.random_sample(len(shares)), np.round(whole - exact, 9)))
    whole[order[: count - whole.sum()]] += 1
    return whole
