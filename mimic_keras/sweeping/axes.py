"""What stands in a sweep's file for a cell's values: `{axis: NAME}` for the cell's value on that axis, `{axis: NAME,
VALUE: x, OTHER: y}` for what stands behind that value, or behind `otherwise`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.problems import Problems, join, show

Value = str | int | float | bool | None
AXIS, OTHERWISE = "axis", "otherwise"


def _is_reference(value: Any) -> bool:
    """A component may have an argument of this name, beside its own `name`."""
    return isinstance(value, dict) and isinstance(value.get(AXIS), str) and "name" not in value


def resolved(value: Any, values: Mapping[str, Value], path: str, problems: Problems) -> Any:
    """A copy of `value` with what stands for the cell's values replaced by them."""
    if _is_reference(value):
        axis = value[AXIS]
        if axis not in values:
            problems.add(join(path, AXIS), f"no axis {show(axis)}; accepted: {', '.join(values)}")
            return None
        if len(value) == 1:
            return values[axis]
        for key, item in value.items():
            if key != AXIS and is_key_of(key, values[axis]):
                return resolved(item, values, join(path, key), problems)
        if OTHERWISE not in value:
            problems.add(path, f"nothing for {show(values[axis])} on the axis '{axis}', and no '{OTHERWISE}'")
        return resolved(value.get(OTHERWISE), values, join(path, OTHERWISE), problems)
    if isinstance(value, dict):
        return {key: resolved(item, values, join(path, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, values, join(path, index), problems) for index, item in enumerate(value)]
    return value


def says_something(value: Any, values: Mapping[str, Value]) -> bool:
    """False for a leaf of `set` that names no value for this cell: the experiment's own stays."""
    if not _is_reference(value) or value[AXIS] not in values or len(value) == 1:
        return True
    return OTHERWISE in value or any(is_key_of(key, values[value[AXIS]]) for key in value)


def is_key_of(key: str, value: Value) -> bool:
    """Keys of a mapping are texts once the file is plain data."""
    return key == experiment_file.key_of(value)


def references(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if _is_reference(value):
            yield path, value
        for key, item in value.items():
            yield from references(item, join(path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from references(item, join(path, index))
