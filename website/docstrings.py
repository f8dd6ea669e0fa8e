"""How griffe, which mkdocstrings reads the code with, is told about the docstrings of this project."""

import re
import textwrap
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)Example:\n((?:\1 +\S.*(?:\n|\Z))+)", re.M)


class Examples(griffe.Extension):
    """Shows the section "Example:" as code: a session of Python, or a piece of an experiment file."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(_as_code, obj.docstring.value)


def _as_code(section: re.Match[str]) -> str:
    indentation, code = section[1], textwrap.dedent(section[2]).strip()
    language = "pycon" if code.startswith(">>>") else "yaml"
    return textwrap.indent(f"**Example:**\n\n```{language}\n{code}\n```\n", indentation)
