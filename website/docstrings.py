"""How griffe, which mkdocstrings reads the code with, is told about the docstrings of this project."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Shows the section "Example:" as code; griffe knows it in the plural only."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
