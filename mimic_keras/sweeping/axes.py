"""References to a cell's values in a sweep's file: `{axis: NAME}` is the cell's value on that axis; `{axis: NAME,
VALUE: x, otherwise: y}` is what stands behind that value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from mimic_keras.experiment.file import to_key
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems, quote

AXIS, OTHERWISE = "axis", "otherwise"


def _check_is_single(value: Any) -> Any:
    """For one message, where the union below would give one for each of its types."""
    if isinstance(value, list | dict):
        raise ValueError("expected a text, a number, true, false or null")
    return value


Value = Annotated[str | int | float | bool | None, pydantic.BeforeValidator(_check_is_single)]


def is_reference(value: Any) -> bool:
    """Whether `value` is a reference, not a component, which may have an argument called `axis` beside its `name`."""
    return isinstance(value, dict) and isinstance(value.get(AXIS), str) and "name" not in value


def resolve_references(value: Any, values: Mapping[str, Value], place: Place, problems: Problems) -> Any:
    """A copy of `value` with every reference replaced by what it stands for in the cell of these `values`."""
    if is_reference(value):
        axis = value[AXIS]
        if axis not in values:
            problems.add(place / AXIS, f"no axis {quote(axis)}; accepted: {', '.join(values)}")
            return None
        if len(value) == 1:
            return values[axis]
        key = _find_key(value, values[axis])
        if key not in value:
            problems.add(place, f"nothing for {quote(values[axis])} on the axis '{axis}', and no '{OTHERWISE}'")
        return resolve_references(value.get(key), values, place / key, problems)
    if isinstance(value, dict):
        return {key: resolve_references(item, values, place / key, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve_references(item, values, place / index, problems) for index, item in enumerate(value)]
    return value


def has_value(reference: Any, values: Mapping[str, Value]) -> bool:
    """False where a reference, or one nested in it, names nothing for this cell: the experiment's own value stays."""
    if not is_reference(reference) or reference[AXIS] not in values or len(reference) == 1:
        return True
    key = _find_key(reference, values[reference[AXIS]])
    return key in reference and has_value(reference[key], values)


def _find_key(reference: Mapping[str, Any], value: Value) -> str:
    """The reference's key for this value of its axis, or else `otherwise`, which it need not have."""
    return next((key for key in reference if key != AXIS and is_key_of(key, value)), OTHERWISE)


def is_key_of(key: str, value: Value) -> bool:
    """Whether `key` is the text of `value`: keys of mappings are texts once a file is plain data."""
    return key == to_key(value)
