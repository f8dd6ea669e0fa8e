"""Positions in nested plain data, as `student.training.epochs` or `teacher.members[0].copies`, and the values there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mimic_keras.contracts import InputError


class Place(tuple[str | int, ...]):
    """Keys of mappings (texts) and indices of lists (integers), from the top of a file down.

    Example:
        >>> str(Place("teacher", "members", 0) / "copies")
        'teacher.members[0].copies'
    """

    __slots__ = ()

    def __new__(cls, *parts: str | int) -> Place:
        return super().__new__(cls, parts)

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place that a user writes; an index may follow a dot or stand in brackets.

        Raises:
            ValueError: a part is empty, or a bracket is not closed around an index.

        Example:
            >>> Place.parse("teacher.members.0.copies") == Place.parse("teacher.members[0].copies")
            True
        """
        parts: list[str | int] = []
        for name in text.split("."):
            match = re.fullmatch(r"([^\[\]]+)((?:\[[0-9]+\])*)", name)
            if match is None:
                raise ValueError(
                    f"'{text}' is not a place such as student.training.epochs or teacher.members[0].copies"
                )
            head, indices = match.groups()
            parts.append(int(head) if re.fullmatch("[0-9]+", head) else head)
            parts += map(int, re.findall("[0-9]+", indices))
        return cls(*parts)

    def __truediv__(self, part: str | int) -> Place:
        return Place(*self, part)

    def __add__(self, other: tuple[str | int, ...]) -> Place:  # type: ignore[override]
        return Place(*self, *other)

    def __str__(self) -> str:
        text = ""
        for part in self:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text

    @property
    def parent(self) -> Place:
        return Place(*self[:-1])

    def is_within(self, other: Place) -> bool:
        """Whether this is `other` or a place inside it."""
        return self[: len(other)] == tuple(other)


def walk(data: Any, place: Place = Place()) -> Iterator[tuple[Place, Any]]:  # noqa: B008 - a tuple does not change
    """(place, value) of `data` and of everything inside it, containers before their contents."""
    yield place, data
    if isinstance(data, Mapping | list):
        for key, item in data.items() if isinstance(data, Mapping) else enumerate(data):
            yield from walk(item, place / key)


def contains(data: Any, place: Place) -> bool:
    """Whether there is a value at `place`."""
    for part in place:
        is_index = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if not is_index and not (isinstance(data, Mapping) and part in data):
            return False
        data = data[part]
    return True


def substitute(data: Any, values: Mapping[Place, Any], place: Place = Place()) -> Any:  # noqa: B008
    """A copy of `data` with other values at some places."""
    if place in values:
        return values[place]
    if isinstance(data, Mapping):
        return {key: substitute(item, values, place / key) for key, item in data.items()}
    if isinstance(data, list):
        return [substitute(item, values, place / index) for index, item in enumerate(data)]
    return data


def assign(data: dict[str, Any], place: Place, value: Any, origin: str) -> None:
    """Set the value at `place` in place, adding mappings where they are missing.

    Setting a component's `name` to another drops its other keys: they are arguments of another plugin.

    Args:
        origin: who asks for it, for the message.

    Raises:
        InputError: the place leads through a value that is neither mapping nor list, or to an index that a list does
            not have.
    """
    target: Any = data
    for depth, part in enumerate(place):
        above = str(Place(*place[:depth])) or "the file"
        if isinstance(target, list):
            if not isinstance(part, int) or part >= len(target):
                raise InputError(f"{origin}: {above} is a list of {len(target)}, which has no '{part}'")
        elif not isinstance(target, dict):
            raise InputError(f"{origin}: {above} is {target!r}, which has no keys")
        elif isinstance(part, int):
            raise InputError(f"{origin}: {above} is a mapping, which has no index {part}")
        if depth == len(place) - 1:
            if part == "name" and depth and isinstance(target, dict) and target.get("name") != value:
                target.clear()
            target[part] = value
        else:
            target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
