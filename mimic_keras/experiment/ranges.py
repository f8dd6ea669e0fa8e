"""Ranges in place of values: `{tune: {...}}` is searched by `mimic-keras tune`; `{draw: {...}}` is drawn anew for every
copy of a teacher's member.

A range is {min, max, sampling: linear or log}, of whole numbers if both ends are whole, or {choices: [...]}. Ranges
with the same `name` share one value, such as the width of two layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from mimic_keras.experiment.file import Source
from mimic_keras.experiment.places import Place, substitute, walk
from mimic_keras.experiment.problems import Problems, parse_section
from mimic_keras.storage.files import derive_fraction, hash_json

MOST_COPIES = 10_000
SIGNIFICANT_DIGITS = 4  # of a drawn or suggested number; more would be noise that is hard to read


class Range(pydantic.BaseModel):
    """Either `min` and `max`, or `choices`. Ranges with the same `name` share one value."""

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
        """The value at the fraction `share`, from 0 to 1, of the range; whole numbers have equal shares.

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
        """`value` clipped to the range and rounded to `SIGNIFICANT_DIGITS`."""
        if self.choices is not None:
            return value
        low, high = self._ends
        value = int(value) if self.is_integer else float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return min(max(value, low), high)


def find_ranges(data: Any, keyword: Literal["tune", "draw"]) -> Iterator[tuple[Place, Any]]:
    """(place, content) of every `{keyword: content}` in `data`."""
    for place, value in walk(data):
        if isinstance(value, Mapping) and value.keys() == {keyword}:
            yield place, value[keyword]


def parse_range(content: Any, place: Place, problems: Problems) -> Range | None:
    """The range that `content` describes; None, with the problems added under `place`, if it describes none."""
    if not isinstance(content, Mapping):
        problems.add(place, f"expected {{min: ..., max: ..., sampling: log}} or {{choices: [...]}}, got {content!r}")
        return None
    parsed = parse_section(Range, content, place, problems)
    if parsed is None:
        return None
    if (parsed.choices is None) == (parsed.min is None or parsed.max is None) or (
        parsed.choices is not None and (parsed.min is not None or parsed.max is not None)
    ):
        problems.add(place, f"expected min and max, or choices; got {', '.join(content) or 'nothing'}")
    elif parsed.choices is None and not parsed.min < parsed.max:  # type: ignore[operator]
        problems.add(place, f"expected min below max, got {parsed.min} and {parsed.max}")
    elif parsed.sampling == "log" and (parsed.choices is not None or parsed.min <= 0):  # type: ignore[operator]
        problems.add(place, "sampling: log needs a min above 0")
    else:
        return parsed
    return None


def find_leaders(ranges: Mapping[Place, Range], base: Place, keyword: str, problems: Problems) -> dict[Place, Place]:
    """{place: the first place whose range has the same name, or itself}; equal names need equal ranges."""
    first: dict[str, Place] = {}
    leaders = {place: first.setdefault(item.name, place) if item.name else place for place, item in ranges.items()}
    for place, leader in leaders.items():
        if ranges[place] != ranges[leader]:
            problems.add(base + place / keyword, f"differs from {base + leader / keyword}, which has the same name")
    return leaders


def refuse_ranges(source: Source) -> None:
    """Add a problem for everything that only a search understands: a run needs one value for everything."""
    if source.given.get("search") is not None:
        source.problems.add(Place("search"), "only used by mimic-keras tune; a run does not search")
    for place, _ in find_ranges(source.given, "tune"):
        source.problems.add(place, "a range to search, where a run needs one value; mimic-keras tune searches it")


def draw_members(source: Source) -> Source:
    """Give every copy of a member with ranges an entry of its own, with values drawn for it.

    The values follow from the teacher's seed, the entry's ranges and the number of the copy: more copies leave the
    others as they are, and so does another folder of the data set.
    """
    teacher = source.complete.get("teacher")
    members = teacher.get("members") if isinstance(teacher, dict) else None
    for place, _ in find_ranges(source.given, "draw"):
        if place[:2] != ("teacher", "members") or "copies" in place:
            source.problems.add(place, "only values of a teacher's member can be drawn; {tune: ...} is searched")
    if not isinstance(teacher, dict) or not isinstance(members, list) or not any(find_ranges(members, "draw")):
        return source
    entries: list[Any] = []
    for index, entry in enumerate(members):
        place = Place("teacher", "members", index)
        for drawn in _draw_entry(entry, place, teacher.get("seed"), source.problems):
            source.problems.origins[Place("teacher", "members", len(entries))] = place
            entries.append(drawn)
    return source.with_given({**source.given, "teacher": {**source.given["teacher"], "members": entries}})


def _draw_entry(entry: Any, base: Place, seed: Any, problems: Problems) -> Iterator[Any]:
    """One entry per copy, with values drawn for it; an entry without ranges as it is."""
    ranges = {
        place: parse_range(content, base + place / "draw", problems) for place, content in find_ranges(entry, "draw")
    }
    find_leaders({place: item for place, item in ranges.items() if item}, base, "draw", problems)
    copies = entry.get("copies", 1) if isinstance(entry, dict) else 1
    if not ranges or not isinstance(copies, int) or not 0 < copies <= MOST_COPIES:
        yield substitute(entry, dict.fromkeys(ranges, 1))
        return
    one = {key: item for key, item in entry.items() if key != "copies"}
    contents = {str(place): content for place, content in find_ranges(entry, "draw")}
    for copy in range(copies):
        values = {
            place: item.at(derive_fraction(hash_json([seed, contents, copy, item.name or place]))) if item else 1
            for place, item in ranges.items()
        }
        yield substitute(one, values)
