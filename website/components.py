"""The reference of the first-party components: their documentation, and the arguments that an experiment may set."""

import inspect
import re
import tomllib
from pathlib import Path

import griffe

from mimic_keras.experiment.problems import describe_type, quote
from mimic_keras.planning.plugins import GROUPS, Plugin, installed

ROOT = Path(__file__).parent.parent
OPENING = """# Components

Every component of the first-party plugins, from its docstring and its signature. An experiment writes `{name: ...}` and
the arguments of the table beside it. `mimic-keras plugins show KIND/NAME` prints the same of any installed component.
[Write an experiment](experiments.md#built-in-components) has them all at a glance.
"""
HEADINGS = {"dataset": "Data sets", "architecture": "Architectures", "teacher": "Teachers", "loss": "Losses"}
# The docstring alone, without the name and signature that the table has.
DOCSTRING = """::: {target}
    options: {{show_root_heading: false, show_root_toc_entry: false, show_signature: false, members: false,
      show_docstring_parameters: false, show_bases: false, merge_init_into_class: false}}
"""


def write() -> str:
    """The page, as Markdown."""
    ours = read_distributions()
    parts = [OPENING]
    for kind in GROUPS:
        plugins = [plugin for plugin in installed(kind).values() if plugin.distribution in ours]
        parts += [f"## {HEADINGS[kind]}\n", *map(format_component, plugins)]
    return "\n".join(parts)


def read_distributions() -> set[str]:
    """The names of the first-party plugins."""
    files = (ROOT / "plugins").glob("*/pyproject.toml")
    return {tomllib.loads(file.read_text())["project"]["name"] for file in files}


def format_component(plugin: Plugin) -> str:
    """The section of a component, as Markdown."""
    target = plugin.target
    heading = f"### {plugin.name} {{ #{plugin.kind}-{plugin.name} }}\n\n*{plugin.kind}* of `{plugin.distribution}`\n"
    docstring = DOCSTRING.format(target=f"{target.__module__}.{target.__qualname__}")
    return "\n".join([heading, docstring, format_arguments(plugin)])


def format_arguments(plugin: Plugin) -> str:
    """The table of the arguments that an experiment may set."""
    meanings = read_meanings(plugin)
    rows = [
        f"| `{name}` | {as_code(describe_type(hint))} | "
        f"{'required' if default is inspect.Parameter.empty else as_code(quote(default))} | {meanings.get(name, '')} |"
        for name, (hint, default) in plugin.parameters().items()
    ]
    columns = ["| argument | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*columns, *rows, ""]) if rows else "No arguments.\n"


def read_meanings(plugin: Plugin) -> dict[str, str]:
    """{argument: what the docstring says of it}, where a line may be of several, as "copies, mirror: ..."."""
    docstring = griffe.Docstring(inspect.getdoc(plugin.target) or "")
    return {
        name: re.sub(r"\bNone\b", "null", " ".join(item.description.split())).replace("|", r"\|")
        for section in griffe.parse_google(docstring, warnings=False)
        if section.kind is griffe.DocstringSectionKind.parameters
        for item in section.value
        for name in item.name.split(", ")
    }


def as_code(text: str) -> str:
    return f"`{text}`"
