"""Mappings to typed arguments, with every problem of a file reported at once: its path, what came, what is accepted."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic
import typing_extensions

from mimic_keras.contracts import InputError

# Kinds of pydantic errors whose own message says more than the type that was expected.
SPOKEN_FOR = ("missing", "value_error", "too_short")
Section = typing.TypeVar("Section", bound=pydantic.BaseModel)


class Problems(InputError):
    """The problems of one file, collected with `add` and raised together with `check`.

    Example:
        >>> problems = Problems("x.yaml")
        >>> problems.add("student.training.epochs", "expected a value greater than or equal to 1, got -3")
        >>> print(problems)
        x.yaml: 1 problem
          student.training.epochs: expected a value greater than or equal to 1, got -3
    """

    def __init__(self, source: str):
        super().__init__(source)
        self.source = source
        self.found: dict[str, str] = {}
        self.places: dict[str, str] = {}

    def add(self, path: str, message: str) -> None:
        """Keep the first problem of a path: a later one is usually its consequence.

        `places` says where in the file something stands that was made of it, as the members of an entry.
        """
        for made, place in self.places.items():
            if path == made or path.startswith((f"{made}.", f"{made}[")):
                path = place + path.removeprefix(made)
                break
        self.found.setdefault(path, message)

    def check(self) -> None:
        if self.found:
            raise self

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.found)} problem{'s' if len(self.found) > 1 else ''}"]
        for path, message in self.found.items():
            first, *rest = f"{path}: {message}".split("\n")
            lines += [f"  {first}", *(f"    {line}" for line in rest)]
        return "\n".join(lines)


def typed(
    model: type[Section], mapping: Mapping, path: str, problems: Problems, unknown: str = "unknown key"
) -> Section | None:
    """`mapping` as an instance of `model`; None, with the problems added under `path`, if it does not fit."""
    try:
        # As JSON, lists can be tuples and texts paths or enumerations, and nothing else is converted.
        return model.model_validate_json(json.dumps(mapping))
    except pydantic.ValidationError as error:
        for found in error.errors(include_url=False):
            where = _in_data(found["loc"], mapping, found["type"])
            full = join(path, *where)
            field = _fields(model).get(str(found["loc"][0])) if found["loc"] else None
            if field and _has_typed_dict(field.annotation) and where:  # no branch of a union fits: one problem
                expected = describe(_annotation(field))
                problems.add(join(path, where[0]), f"expected {expected}, got {show(mapping[where[0]])}")
            elif found["type"] == "extra_forbidden":
                options = accepted(_owner(model, found["loc"][:-1]))
                problems.add(full, f"{unknown}.\n{suggest(str(where[-1]), options)}")
            elif len(where) == 1 and found["type"] not in SPOKEN_FOR and _plain(model, where[0]):
                expected = describe(_annotation(_fields(model)[str(where[0])]))
                problems.add(full, f"expected {expected}, got {show(mapping[where[0]])}")
            else:
                problems.add(full, _message(found))
        return None


def suggest(word: str, options: Mapping[str, str]) -> str:
    """'Did you mean ...? Accepted: ...' for a word that is none of the options (name: how it is shown)."""
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Accepted: {', '.join(options.values()) or 'none'}"


def accepted(model: type[pydantic.BaseModel]) -> dict[str, str]:
    """{name: 'name: type = default'} of a model's fields."""
    shown = {}
    for field_name, field in model.model_fields.items():
        name = field.alias or field_name
        default = "" if field.is_required() else f" = {show(field.get_default(call_default_factory=True))}"
        shown[name] = f"{name}: {describe(_annotation(field))}{default}"
    return shown


def join(path: str, *parts: str | int) -> str:
    """'student' and ('members', 0, 'name') to 'student.members[0].name'."""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def show(value: Any) -> str:
    """A value as it is quoted in a message: short, on one line."""
    if isinstance(value, pydantic.BaseModel):
        return "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.model_dump().items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def describe(annotation: Any) -> str:
    """A type hint in words: 'int >= 1', 'list[int]', \"'best' | 'last'\"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe(arguments[0]) + "".join(_bound(item) for item in arguments[1:])
    if origin is typing.Literal:
        return " | ".join(repr(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(describe(item) for item in arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(describe(item) for item in arguments)}]"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return "mapping"
    if typing_extensions.is_typeddict(annotation):
        fields = typing_extensions.get_type_hints(annotation).items()
        return "{" + ", ".join(f"{name}: {describe(hint)}" for name, hint in fields) + "}"
    return getattr(annotation, "__name__", str(annotation))


def _bound(constraint: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return "".join(f" {sign} {getattr(constraint, key)}" for key, sign in signs.items() if hasattr(constraint, key))


def _annotation(field: Any) -> Any:
    bounds = tuple(item for item in field.metadata if _bound(item))
    return typing.Annotated[(field.annotation, *bounds)] if bounds else field.annotation


def _fields(model: type[pydantic.BaseModel]) -> dict[str, Any]:
    """The fields by the names that the file uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _plain(model: type[pydantic.BaseModel], name: str | int) -> bool:
    field = _fields(model).get(str(name))
    return field is not None and not any(True for _ in _models(field.annotation))


def _models(annotation: Any) -> Iterable[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for item in typing.get_args(annotation):
        yield from _models(item)


def _has_typed_dict(annotation: Any) -> bool:
    options = (annotation, *typing.get_args(annotation))
    return any(typing_extensions.is_typeddict(option) for option in options)


def _owner(model: type[pydantic.BaseModel], loc: Iterable[str | int]) -> type[pydantic.BaseModel]:
    """The section that pydantic's error location ends in; in `loc`, a tagged union's branch is named by its tag."""
    candidates = [model]
    for part in loc:
        fields = [option.model_fields[part] for option in candidates if part in option.model_fields]
        tagged = [option for option in candidates if _tag(option) == part]
        candidates = [inner for field in fields for inner in _models(field.annotation)] or tagged or candidates
    return candidates[0]


def _tag(model: type[pydantic.BaseModel]) -> Any:
    field = model.model_fields.get("name")
    return next(iter(typing.get_args(field.annotation)), None) if field else None


def _in_data(loc: tuple, mapping: Any, kind: str) -> list[str | int]:
    """`loc` without the tags of unions, which pydantic adds and the file does not have."""
    where: list[str | int] = []
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        inside = (isinstance(mapping, Mapping) and part in mapping) or (
            isinstance(mapping, list) and isinstance(part, int) and part < len(mapping)
        )
        if inside:
            mapping = mapping[part]
            where.append(part)
        elif last and kind == "missing":
            where.append(part)
    return where


def _message(found: Any) -> str:
    kind, context, value = found["type"], found.get("ctx", {}), found["input"]
    if kind == "missing":
        return "required, but missing"
    if kind == "union_tag_invalid":
        options = {name: name for name in context["expected_tags"].replace("'", "").split(", ")}
        return f"no such name: {show(context['tag'])}. {suggest(context['tag'], options)}"
    if kind == "union_tag_not_found":
        return f"expected a mapping with a 'name', got {show(value)}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"expected a mapping, got {show(value)}"
    if kind == "value_error":
        return f"{context['error']}, got {show(value)}"
    if kind == "too_short":
        return f"expected at least {context['min_length']} item, got {show(value)}"
    message = found["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    if message.startswith(("greater", "less")):
        message = f"a value {message}"
    return f"expected {message}, got {show(value)}"
