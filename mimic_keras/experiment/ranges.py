"""Ranges in place of values: `{tune: {...}}` is searched by `mimic-keras tune`, `{draw: {...}}` is drawn anew for every
copy of a member of the teacher.

A range is {min, max, sampling: linear or log}, of whole numbers if both ends are, or {choices: [...]}. Ranges with the
same `name` have the same value, as two layers of one width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems, join, typed
from mimic_keras.storage.files import hash_json

DIGITS = 4  # of a number that is drawn or searched: more would say nothing and be hard to read

Place = tuple[str | int, ...]


class Range(pydantic.BaseModel):
    """Either `min` and `max`, or `choices`. What has the same `name` has the same value."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str | None = None
    min: int | float | None = None
    max: int | float | None = None
    sampling: Literal["linear", "log"] = "linear"
    choices: Annotated[list[str | int | float | bool], Field(min_length=2)] | None = None

    @property
    def is_integer(self) -> bool:
        return isinstance(self.min, int) and isinstance(self.max, int)

    @property
    def _ends(self) -> tuple[float, float]:
        if self.min is None or self.max is None:
            raise ValueError("choices have no ends")
        return self.min, self.max

    def at(self, share: float) -> Any:
        """The value at `share`, from 0 to 1, of the range; whole numbers have equal parts of it.

        Example:
            >>> Range(min=0.001, max=0.1, sampling="log").at(0.5)
            0.01
        """
        if self.choices is not None:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        low, high = self._ends
        high += self.is_integer
        value = low + share * (high - low) if self.sampling == "linear" else low * (high / low) ** share
        return self.rounded(math.floor(value) if self.is_integer else value)

    def rounded(self, value: Any) -> Any:
        """`value` within the range, in as many digits as are kept."""
        if self.choices is not None:
            return value
        low, high = self._ends
        value = int(value) if self.is_integer else float(f"{value:.{DIGITS}g}")
        return min(max(value, low), high)


def find(value: Any, word: str, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """(place, what stands behind `word`) of every mapping below `value` that has the key `word` alone."""
    if isinstance(value, Mapping) and set(value) == {word}:
        yield place, value[word]
    elif isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from find(item, word, (*place, key))


def read(content: Any, path: str, problems: Problems) -> Range | None:
    """The range of a mapping; None, with the problems added under `path`, if it is none."""
    if not isinstance(content, Mapping):
        problems.add(path, f"expected {{min: ..., max: ..., sampling: log}} or {{choices: [...]}}, got {content!r}")
        return None
    found = typed(Range, content, path, problems)
    if found is None:
        return None
    if (found.choices is None) == (found.min is None or found.max is None) or (
        found.choices is not None and (found.min is not None or found.max is not None)
    ):
        problems.add(path, f"expected min and max, or choices; got {', '.join(content) or 'nothing'}")
    elif found.choices is None and not found.min < found.max:  # type: ignore[operator]
        problems.add(path, f"expected min below max, got {found.min} and {found.max}")
    elif found.sampling == "log" and (found.choices is not None or found.min <= 0):  # type: ignore[operator]
        problems.add(path, "sampling: log needs a min above 0")
    else:
        return found
    return None


def replaced(value: Any, values: Mapping[Place, Any], place: Place = ()) -> Any:
    """A copy of plain data with other values at some places."""
    if place in values:
        return values[place]
    if isinstance(value, Mapping):
        return {key: replaced(item, values, (*place, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, values, (*place, index)) for index, item in enumerate(value)]
    return value


def leaders(found: Mapping[Place, Range], path: str, word: str, problems: Problems) -> dict[Place, Place]:
    """{place: the first place whose range has the same name, or itself}; the same name has to be the same range."""
    first: dict[str, Place] = {}
    led = {place: first.setdefault(item.name, place) if item.name else place for place, item in found.items()}
    for place, leader in led.items():
        if found[place] != found[leader]:
            problems.add(join(path, *place, word), f"another range than {join(path, *leader)}, which has the same name")
    return led


def refuse_searched(source: Source) -> None:
    """A run has one value for everything."""
    if source.given.get("search") is not None:
        source.problems.add("search", "only mimic-keras tune searches; a run has no use for it")
    for place, _ in find(source.given, "tune"):
        source.problems.add(join("", *place), "a range to search; mimic-keras tune searches it, a run needs one value")


def drawn(source: Source) -> Source:
    """Every copy of an entry of the teacher's with ranges becomes an entry of its own, with values of its own.

    They follow from the teacher's seed, what the entry says and the number of the copy: more copies leave the others
    as they are.
    """
    teacher = source.complete.get("teacher")
    members = teacher.get("members") if isinstance(teacher, dict) else None
    for place, _ in find(source.given, "draw"):
        if place[:2] != ("teacher", "members") or "copies" in place:
            source.problems.add(join("", *place), "only what a member of the teacher is can be drawn; tune: searches")
    if not isinstance(members, list) or not any(True for _ in find(members, "draw")):
        return source
    entries: list[Any] = []
    assert isinstance(teacher, dict)
    for index, entry in enumerate(members):
        path = f"teacher.members[{index}]"
        found = {
            place: read(content, join(path, *place, "draw"), source.problems) for place, content in find(entry, "draw")
        }
        leaders({place: item for place, item in found.items() if item}, path, "draw", source.problems)
        copies = entry.get("copies", 1) if isinstance(entry, dict) else 1
        if not found or not isinstance(copies, int) or not 0 < copies <= 10_000:
            copies = 0
        for copy in range(copies):
            source.problems.places[f"teacher.members[{len(entries)}]"] = path
            one = {key: item for key, item in entry.items() if key != "copies"}
            values = {
                place: item.at(_share([teacher.get("seed"), one, copy, item.name or place])) if item else 1
                for place, item in found.items()
            }
            entries.append(replaced(one, values))
        if not copies:
            source.problems.places[f"teacher.members[{len(entries)}]"] = path
            entries.append(replaced(entry, dict.fromkeys(found, 1)))
    return source.having({**source.given, "teacher": {**source.given["teacher"], "members": entries}})


def _share(content: Any) -> float:
    """A number from 0 to 1 that follows from plain data."""
    digest = hashlib.sha256(hash_json(content).encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53
