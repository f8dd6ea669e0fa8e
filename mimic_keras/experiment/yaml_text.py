"""Files of YAML 1.2 as plain data, and plain data as their text; merge keys are refused."""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node
from ruamel.yaml.representer import SafeRepresenter

from mimic_keras.contracts import InputError

LARGEST_FILE = 1_000_000
LONGEST_QUOTE = 100  # characters of a line in a message
MERGE_KEY = "tag:yaml.org,2002:merge"
# The library writes these without quotes and does not read them back: "?%", ":%", "? a" within braces, "\x85".
UNSAFE_TEXT = re.compile(r"[?:-]|.*[^\x20-\x7e]", re.DOTALL)


def read_text(file: Path) -> str:
    """The text of a file.

    Raises:
        InputError: it is too large, or not a regular file.
        OSError, ValueError: it cannot be read, or is not UTF-8.
    """
    if not stat.S_ISREG(file.stat().st_mode):  # a device may never end, and a pipe cannot be read by a second command
        raise InputError(f"{file}: not a regular file")
    with file.open("rb") as stream:
        content = stream.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise InputError(f"{file}: larger than {LARGEST_FILE:,} bytes, too large for an experiment")
    return content.decode("utf-8")


def load(text: str) -> Any:
    """A YAML 1.2 document of plain data, without merge keys.

    Raises:
        ValueError: it is not one; the message has the place and the line itself, where the library knows them.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except MarkedYAMLError as error:
        raise ValueError(_describe_fault(error, text)) from error
    except Exception as error:  # a mapping as a key, for one, is a TypeError to the library
        raise ValueError(" ".join(str(error).split("\n\n")[0].split())) from error


def _describe_fault(error: MarkedYAMLError, text: str) -> str:
    """Line and column of a fault, what it is, and the line itself with a mark below the place."""
    mark = error.problem_mark or error.context_mark
    reason = " ".join(": ".join(filter(None, [error.context, error.problem])).split())
    if mark is None:
        return reason
    lines = text.splitlines() or [""]
    row = min(mark.line, len(lines) - 1)  # the end of the text may be on a line of its own
    column = mark.column if row == mark.line else len(lines[row])
    shown, start = lines[row], max(0, column - LONGEST_QUOTE // 2)
    quoted = shown[start : start + LONGEST_QUOTE].replace("\t", " ")
    return f"line {row + 1}, column {column + 1}: {reason}\n  {quoted}\n  {' ' * (column - start)}^"


def dump(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """Plain data as the text of a YAML file, which `load` reads back."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = None
    yaml.width = LARGEST_FILE  # where the library breaks a long text, it loses spaces and backslashes
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


class _Constructor(SafeConstructor):
    """Refuses merge keys: a few merges of merges stand for billions of values before any can be counted."""

    def flatten_mapping(self, node: MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == MERGE_KEY:
                raise ConstructorError(
                    problem='a merge key "<<", which is not supported: write the keys out, or quote it if it is a text',
                    problem_mark=key.start_mark,
                )


class _Representer(SafeRepresenter):
    """Puts texts in quotes that are not read back without."""

    def represent_str(self, data: str) -> Node:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if UNSAFE_TEXT.match(data) else None)


_Representer.add_representer(str, _Representer.represent_str)
