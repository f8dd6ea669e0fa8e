"""Mappings to typed sections, reporting all problems of a file at once: place, what was given, what is accepted."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic
import typing_extensions
from pydantic.fields import FieldInfo

from mimic_keras.contracts import InputError
from mimic_keras.experiment.places import Place, contains

# Kinds of pydantic errors whose own message says more than the expected type.
SELF_EXPLANATORY = ("missing", "value_error", "too_short")
Section = typing.TypeVar("Section", bound=pydantic.BaseModel)


class Problems(InputError):
    """The problems of one file, collected with `add` and raised together with `check`.

    Example:
        >>> problems = Problems("x.yaml")
        >>> problems.add(Place("student", "training", "epochs"), "expected a value of at least 1, got -3")
        >>> print(problems)
        x.yaml: 1 problem
          student.training.epochs: expected a value of at least 1, got -3
    """

    def __init__(self, file: str):
        super().__init__(file)
        self.file = file
        self.found: dict[Place, str] = {}
        self.origins: dict[Place, Place] = {}

    def add(self, place: Place, message: str) -> None:
        """Keep the first problem of a place: a later one is usually its consequence.

        `origins` maps generated places to the place in the file that they were generated from, such as the members
        that one entry stands for.
        """
        for generated, origin in self.origins.items():
            if place.is_within(generated):
                place = origin + place[len(generated) :]
                break
        self.found.setdefault(place, message)

    def check(self) -> None:
        """Raise the problems, if there are any."""
        if self.found:
            raise self

    def __str__(self) -> str:
        lines = [f"{self.file}: {len(self.found)} problem{'s' if len(self.found) > 1 else ''}"]
        for place, message in self.found.items():
            first, *rest = f"{place}: {message}".split("\n")
            lines += [f"  {first}", *(f"    {line}" for line in rest)]
        return "\n".join(lines)


def parse_section(
    model: type[Section], mapping: Mapping, place: Place, problems: Problems, unknown: str = "unknown key"
) -> Section | None:
    """`mapping` as an instance of `model`; None, with the problems added under `place`, if it does not fit.

    `unknown` opens the message about a key that the model does not have.
    """
    try:
        # As JSON, lists may become tuples and texts paths or enumerations; nothing else is converted.
        return model.model_validate_json(json.dumps(mapping))
    except pydantic.ValidationError as error:
        for each in error.errors(include_url=False):
            inside = _place_in_data(each["loc"], mapping, each["type"])
            problems.add(*_problem(model, mapping, place, inside, each, unknown))
        return None


def _problem(
    model: type[pydantic.BaseModel], mapping: Mapping, place: Place, inside: Place, error: Any, unknown: str
) -> tuple[Place, str]:
    """(place, message) of one of pydantic's errors, which is `inside` the mapping at `place`."""
    field = _fields(model).get(str(error["loc"][0])) if error["loc"] else None
    is_given = bool(inside) and inside[0] in mapping
    if field and is_given and _has_typed_dict(field.annotation):  # no branch of a union fits: one problem, not one each
        expected = describe_type(_annotation(field))
        return place / inside[0], f"expected {expected}, got {quote(mapping[inside[0]])}"
    if error["type"] == "extra_forbidden":
        options = list_fields(_owner(model, error["loc"][:-1]))
        return place + inside, f"{unknown}.\n{suggest(str(inside[-1]), options)}"
    if len(inside) == 1 and error["type"] not in SELF_EXPLANATORY and _is_plain(model, inside[0]):
        expected = describe_type(_annotation(_fields(model)[str(inside[0])]))
        return place + inside, f"expected {expected}, got {quote(mapping[inside[0]])}"
    return place + inside, _message(error)


def suggest(word: str, options: Mapping[str, str]) -> str:
    """'Did you mean ...? Accepted: ...' for a word that is not among the options ({name: how it is shown})."""
    return f"{did_you_mean(word, options)}Accepted: {', '.join(options.values()) or 'none'}"


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """ "Did you mean 'x'? " for the nearest of the options, with a space behind it; "" if none is near.

    The same letters in another case come first, then initials, then a similar spelling.

    Example:
        >>> did_you_mean("lr", ["name", "learning_rate"]), did_you_mean("AdamW", ["adam", "adamw"])
        ("Did you mean 'learning_rate'? ", "Did you mean 'adamw'? ")
    """
    known = list(options)
    same = [option for option in known if option.lower() == word.lower()]
    initials = [option for option in known if "".join(part[:1] for part in option.split("_")) == word.lower()]
    near = same or initials or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'? " if near else ""


def list_fields(model: type[pydantic.BaseModel]) -> dict[str, str]:
    """{name: 'name: type = default'} of a model's fields."""
    shown = {}
    for field_name, field in model.model_fields.items():
        name = field.alias or field_name
        default = "" if field.is_required() else f" = {quote(field.get_default(call_default_factory=True))}"
        shown[name] = f"{name}: {describe_type(_annotation(field))}{default}"
    return shown


def quote(value: Any) -> str:
    """A value as messages quote it: short, on one line."""
    if isinstance(value, pydantic.BaseModel):
        return "{" + ", ".join(f"{key}: {quote(item)}" for key, item in value.model_dump().items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def describe_type(annotation: Any) -> str:
    """A type hint in words: 'int >= 1', 'list[int]', \"'best' | 'last'\"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe_type(arguments[0]) + "".join(_bound(item) for item in arguments[1:])
    if origin is typing.Literal:
        return " | ".join(repr(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(describe_type(item) for item in arguments))
    if origin is tuple:  # YAML has lists alone
        several = arguments[-1] is Ellipsis
        return f"list[{describe_type(arguments[0])}]" if several else f"[{', '.join(map(describe_type, arguments))}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(describe_type(item) for item in arguments)}]"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return "mapping"
    if typing_extensions.is_typeddict(annotation):
        fields = typing_extensions.get_type_hints(annotation).items()
        return "{" + ", ".join(f"{name}: {describe_type(hint)}" for name, hint in fields) + "}"
    return getattr(annotation, "__name__", str(annotation))


def _bound(constraint: Any) -> str:
    if isinstance(constraint, FieldInfo):  # of one type of a union
        return "".join(map(_bound, constraint.metadata))
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return "".join(f" {sign} {getattr(constraint, key)}" for key, sign in signs.items() if hasattr(constraint, key))


def _annotation(field: Any) -> Any:
    bounds = tuple(item for item in field.metadata if _bound(item))
    return typing.Annotated[(field.annotation, *bounds)] if bounds else field.annotation


def _fields(model: type[pydantic.BaseModel]) -> dict[str, Any]:
    """The fields by the names that the file uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _is_plain(model: type[pydantic.BaseModel], name: str | int) -> bool:
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


def _owner(model: type[pydantic.BaseModel], location: Iterable[str | int]) -> type[pydantic.BaseModel]:
    """The section that pydantic's error location ends in; it names a tagged union's branch by its tag."""
    candidates = [model]
    for part in location:
        fields = [option.model_fields[part] for option in candidates if part in option.model_fields]
        tagged = [option for option in candidates if _tag(option) == part]
        candidates = [inner for field in fields for inner in _models(field.annotation)] or tagged or candidates
    return candidates[0]


def _tag(model: type[pydantic.BaseModel]) -> Any:
    field = model.model_fields.get("name")
    return next(iter(typing.get_args(field.annotation)), None) if field else None


def _place_in_data(location: tuple, data: Any, kind: str) -> Place:
    """Pydantic's error location without the tags of unions, which pydantic adds and the file does not have."""
    place = Place()
    for index, part in enumerate(location):
        if contains(data, Place(part)):
            data = data[part]
            place /= part
        elif index == len(location) - 1 and kind == "missing":
            place /= part
    return place


def _message(error: Any) -> str:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "missing":
        return "required, but missing"
    if kind == "union_tag_invalid":
        options = {name: name for name in context["expected_tags"].replace("'", "").split(", ")}
        return f"no such name: {quote(context['tag'])}. {suggest(context['tag'], options)}"
    if kind == "union_tag_not_found":
        return f"expected a mapping with a 'name', got {quote(value)}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        as_name = f"; a name is written {{name: {value}}}" if isinstance(value, str) and value.isidentifier() else ""
        return f"expected a mapping, got {quote(value)}{as_name}"
    if kind == "value_error":
        return f"{context['error']}, got {quote(value)}"
    if kind == "too_short":
        return f"expected at least {context['min_length']} item, got {quote(value)}"
    message = error["msg"].removeprefix("Input should be ").removeprefix("a valid ").replace("array", "list")
    if message.startswith(("greater", "less")):
        message = f"a value {message}"
    return f"expected {message}, got {quote(value)}"
