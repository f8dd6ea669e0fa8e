"""Messages name the options of the command line; who calls from Python reads of arguments."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

from mimic_keras.contracts import MimicError
from mimic_keras.experiment.problems import Problems

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTION = re.compile(
    r"(?<![\w-])--(?:set (?P<key>[\w.]+)=(?P<value>[\w.+-]*\w)|plugins (?P<file>\S+\.py)|(?P<name>[a-z]\w*))"
)
_COMMAND = re.compile(r"mimic-keras (?P<name>run|validate|sweep|tune|export|verify|predict)\b(?: (?P<place>\S+/\S+))?")
_SWITCHES = {"replace": "replace=True", "no_export": "export=False"}


def as_arguments(message: str) -> str:
    """The message with functions and arguments of Python in place of commands and options.

    Example:
        >>> as_arguments("give it another name, --set name=NAME, or --replace; or choose another --home")
        "give it another name, set={'name': 'NAME'}, or replace=True; or choose another home"
    """
    return _COMMAND.sub(_as_function, _OPTION.sub(_as_argument, message))


def _as_function(command: re.Match[str]) -> str:
    of = f"({command['place']!r})" if command["place"] else ""
    return f"mimic_keras.{command['name']}{of}"


def _as_argument(option: re.Match[str]) -> str:
    if option["file"]:
        return f"plugins={[option['file']]!r}"
    if option["name"]:
        return _SWITCHES.get(option["name"], option["name"])
    try:
        value = json.loads(option["value"])
    except ValueError:
        value = option["value"]
    return f"set={ {option['key']: value}!r}"


def speaks_python(function: Function) -> Function:
    """The function as Python calls it: the messages of its errors name arguments."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except Problems as error:
            error.file = as_arguments(error.file)
            error.found = {place: as_arguments(message) for place, message in error.found.items()}
            raise
        except MimicError as error:
            error.args = tuple(as_arguments(each) if isinstance(each, str) else each for each in error.args)
            raise

    return call  # type: ignore[return-value]
