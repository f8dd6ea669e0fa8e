"""The reference of the experiment file: every section with its keys, types and defaults, from the schema."""

import inspect
import re
import typing
from collections.abc import Iterator, Mapping

import pydantic
from pydantic.fields import FieldInfo

from mimic_keras.experiment.problems import describe_type, quote
from mimic_keras.experiment.ranges import Range
from mimic_keras.experiment.schema import BaselineSection, ComponentSpec, Experiment, StudentSection, TeacherSection
from mimic_keras.sweeping.cells import Sweep
from website.components import as_code

Model = type[pydantic.BaseModel]
OPENING = """# Experiment file

Every key that a file may have, from the program's schema. [Write an experiment](experiments.md) explains them on an
example; [sweeps](sweeps.md) and [searches](searching.md) have files of their own. A *component* is
`{name: ..., argument: ...}`; [Components](components.md) has the names and arguments.
"""
NOTES = {
    "experiment": "The file of an experiment; with ranges and `search`, of a search.",
    "range": "What stands behind `tune` or `draw` in place of a value.",
    "baseline": "Both keys may be left out, and so may any key inside them: the student's is taken.",
}
# Keys that the schema requires and the program fills in where the file has none.
INHERITED: dict[tuple[Model, str], str] = {
    (TeacherSection, "seed"): "the experiment's",
    (StudentSection, "seed"): "the experiment's",
    (BaselineSection, "architecture"): "the student's",
    (BaselineSection, "training"): "the student's",
}


def write() -> str:
    """The page, as Markdown."""
    sections = collect_sections({"experiment": Experiment, "sweep": Sweep, "range": Range})
    return "\n".join([OPENING, *(format_section(model, sections) for model in sections)])


def collect_sections(roots: Mapping[str, Model]) -> dict[Model, str]:
    """{section: its heading} of the roots and of every section inside them, the outer ones first."""
    sections: dict[Model, str] = {}
    waiting = [(model, name) for name, model in roots.items()]
    while waiting:
        model, name = waiting.pop(0)
        if model in sections:
            continue
        sections[model] = name
        for key, field in model.model_fields.items():
            for option in find_models(field.annotation):
                waiting.append((option, f"{key}: {tag}" if (tag := find_tag(option)) else key))
    return sections


def find_models(annotation: object) -> Iterator[Model]:
    """Every section in a type hint; a component is none."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel) and annotation is not ComponentSpec:
        yield annotation
    for item in typing.get_args(annotation):
        yield from find_models(item)


def find_tag(model: Model) -> str | None:
    """The `name` that chooses a section among several, as `sgd` among the optimizers."""
    field = model.model_fields.get("name")
    options = typing.get_args(field.annotation) if field else ()
    return options[0] if options and isinstance(options[0], str) else None


def format_section(model: Model, sections: Mapping[Model, str]) -> str:
    """A section with its docstring and its table of keys, as Markdown."""
    name = sections[model]
    text, meanings = split_docstring(model)
    rows = [
        [f"`{key}`", format_type(field, sections), format_default(model, key, field), meanings.get(key, "")]
        for key, field in model.model_fields.items()
    ]
    columns = ["key", "type", "default", "meaning"][: 4 if meanings else 3]
    table = "\n".join(f"| {' | '.join(row[: len(columns)])} |" for row in [columns, ["---"] * 4, *rows])
    parts = [f"## {name} {{ #{to_anchor(name)} }}", NOTES.get(name), text, table if rows else ""]
    return "\n\n".join(filter(None, parts)) + "\n"


def split_docstring(model: Model) -> tuple[str, dict[str, str]]:
    """A section's docstring without what it says of single keys, as "`epochs`: passes", and {key: that}."""
    text = re.sub(r"\bNone\b", "null", inspect.cleandoc(model.__doc__ or ""))
    keys = "|".join(model.model_fields)
    opening, *found = re.split(rf"`({keys})`: ", text)
    meanings = {
        key: " ".join(meaning.split()).rstrip(";") for key, meaning in zip(found[::2], found[1::2], strict=True)
    }
    return opening.strip(), {key: meaning.replace("|", r"\|") for key, meaning in meanings.items()}


def format_type(field: FieldInfo, sections: Mapping[Model, str]) -> str:
    """The type of a key: links to its sections, or the words of the program's messages."""
    if models := dict.fromkeys(find_models(field.annotation)):
        links = [f"[{find_tag(model) or sections[model]}](#{to_anchor(sections[model])})" for model in models]
        return ("list of " if typing.get_origin(field.annotation) in (list, tuple) else "") + ", ".join(links)
    if ComponentSpec in (field.annotation, *typing.get_args(field.annotation)):
        return "[component](components.md)"
    bounds = tuple(field.metadata)
    return as_code(describe_type(typing.Annotated[(field.annotation, *bounds)] if bounds else field.annotation))


def format_default(model: Model, key: str, field: FieldInfo) -> str:
    if (model, key) in INHERITED:
        return INHERITED[model, key]
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return "its defaults" if isinstance(default, pydantic.BaseModel) else as_code(quote(default))


def to_anchor(name: str) -> str:
    return name.replace(": ", "-")
