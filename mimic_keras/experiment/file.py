"""The experiment file as plain data: read, overridden, with the environment and what sections inherit filled in."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mimic_keras.contracts import InputError
from mimic_keras.experiment.problems import Problems, join

LARGEST_FILE = 1_000_000
MOST_VALUES = 100_000
LARGEST_BITS = 64


@dataclass(frozen=True)
class Source:
    """An experiment file as plain data: `given` as written (with the overrides), `complete` with what sections inherit.

    `problems` collects everything that is found wrong with it.
    """

    given: dict[str, Any]
    complete: dict[str, Any]
    problems: Problems

    def components(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """(kind, mapping, path) of every component that can be recognised, whatever else is wrong."""
        teacher = self.complete.get("teacher")
        members = teacher.get("members") if isinstance(teacher, dict) else None
        places: list[tuple[str, Any, str, str]] = [("dataset", self.complete, "dataset", "")]
        for index, entry in enumerate(members if isinstance(members, list) else []):
            places += [(kind, entry, kind, f"teacher.members[{index}]") for kind in ("teacher", "dataset")]
        for section, kinds in (("student", ("architecture", "loss")), ("baseline", ("architecture",))):
            places += [(kind, self.complete.get(section), kind, section) for kind in kinds]
        for kind, holder, key, path in places:
            if isinstance(holder, dict) and isinstance(holder.get(key), dict):
                yield kind, holder[key], join(path, key)

    def having(self, given: dict[str, Any]) -> Source:
        """The same file with other values."""
        return Source(given, _complete(given), self.problems)

    def drop_inherited(self) -> None:
        """A fault of `seed` or `student` shows again where it is inherited: keep what the file itself says there."""
        found = self.problems.found
        faults = [path.removeprefix("student").lstrip(".") for path in found if path.partition(".")[0] == "student"]
        for path in list(found):
            section, _, rest = path.partition(".")
            inherited = rest == "seed" and "seed" in found
            if section == "baseline":
                inherited = any(rest.startswith(fault) or fault.startswith(rest) for fault in faults)
            if inherited and not _is_given(self.given, path):
                del found[path]


def read(file: Path, overrides: Sequence[str] = ()) -> Source:
    """Read an experiment, apply the `key=value` overrides, fill in the environment and what sections inherit.

    Raises:
        InputError: the file can not be read or is no YAML mapping, or an override is malformed.
    """
    return of_raw(read_yaml(file), str(file), overrides)


def of_raw(raw: dict[str, Any], file: str, overrides: Sequence[str] = ()) -> Source:
    """As `read`, of what stands in a file already read."""
    for override in overrides:
        override_leaf(raw, override)
    problems = Problems(file)
    try:
        check_size(raw, file)
        given = _expand(raw, "", problems)
    except RecursionError as error:
        raise InputError(f"{file}: nested too deeply, or an alias inside of what it stands for") from error
    except ValueError as error:  # a number of thousands of digits can not be shown
        raise InputError(f"{file}: {error}") from error
    return Source(given, _complete(given), problems)


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML 1.2 file that holds a mapping of plain data; tags and duplicate keys are refused."""
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise InputError(f"{file}: larger than {LARGEST_FILE:,} bytes, which is no experiment")
        raw = _parsed(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: the experiment can not be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{file}: not a YAML file: {error}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{file}: expected a mapping of name, dataset, student, ...; got {type(raw).__name__}")
    return raw


def _parsed(text: str) -> Any:
    """A YAML 1.2 document of plain data.

    Raises:
        ValueError: it is none; in one line.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except Exception as error:  # a key that is a mapping is a TypeError to the library, for one
        raise ValueError(" ".join(str(error).split("\n\n")[0].split())) from error


def override_leaf(raw: dict[str, Any], override: str) -> None:
    """Apply one `a.b.0.c=value` in place; setting a component's `name` to another drops its other keys.

    Raises:
        InputError: no '=', no YAML value, or a path through something that is neither mapping nor list.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: expected KEY=VALUE, as in --set student.training.epochs=5")
    try:
        value = _parsed(text)
    except ValueError as error:
        raise InputError(f"--set {override}: the value is not YAML: {error}") from error
    set_leaf(raw, key, value, f"--set {override}")


def set_leaf(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the leaf `a.b.0.c` in place; setting a component's `name` to another drops its other keys.

    Raises:
        InputError: a path through something that is neither mapping nor list; `where` says who asked.
    """
    parts = key.split(".")
    target: Any = raw
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(target, list):
            if not part.isdecimal() or int(part) >= len(target):
                raise InputError(f"{where}: '{part}' is no index of a list of {len(target)}")
            index: Any = int(part)
        elif isinstance(target, dict):
            index = part
        else:
            raise InputError(f"{where}: '{'.'.join(parts[:depth])}' is {target!r}, which has no keys")
        if not last:
            target = target.setdefault(index, {}) if isinstance(target, dict) else target[index]
        else:
            if part == "name" and depth and isinstance(target, dict) and target.get("name") != value:
                target.clear()
            target[index] = value


def check_size(raw: Any, file: str) -> None:
    """
    Raises:
        InputError: more values than an experiment has, as a few aliases of aliases can stand for.
        RecursionError: an alias inside of what it stands for.
    """
    if _count(raw, {}) > MOST_VALUES:
        raise InputError(f"{file}: more than {MOST_VALUES:,} values once its aliases are filled in")


def written(content: Mapping[str, Any]) -> str:
    """Plain data as YAML, which `read` gives back."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def read_plain(file: Path) -> dict[str, Any]:
    """As `read_yaml`, with nothing shared by aliases, and the keys of mappings as texts."""
    content = read_yaml(file)
    try:
        check_size(content, str(file))
        return _plain(content)
    except RecursionError as error:
        raise InputError(f"{file}: nested too deeply, or an alias inside of what it stands for") from error
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key_of(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"expected texts, numbers, booleans, lists and mappings, got {value!r}; quotes make it a text")
    return value


def key_of(value: Any) -> str:
    """A value as the text that YAML has for it where it is a key."""
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or value is True or value is False
        else str(value)
    )


def merge(base: Any, changes: Any) -> Any:
    """`base` with `changes`, mapping by mapping; a mapping of another `name` replaces the whole component."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    if "name" in changes and changes["name"] != base.get("name"):
        return changes
    return {**base, **{key: merge(base.get(key), value) for key, value in changes.items()}}


def _count(value: Any, known: dict[int, int]) -> int:
    """Values in `value`, those behind an alias as often as it is used, each looked at once."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 1 + sum(
            _count(item, known) for item in (value.values() if isinstance(value, dict) else value)
        )
    return known[id(value)]


def _expand(value: Any, path: str, problems: Problems) -> Any:
    """`${VAR}` in texts becomes the environment's value; what is no plain data (a date, a set) is a problem."""
    if isinstance(value, dict):
        return {str(key): _expand(item, join(path, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, join(path, index), problems) for index, item in enumerate(value)]
    if isinstance(value, str):
        for variable in re.findall(r"\$\{(\w+)\}", value):
            if variable in os.environ:
                value = value.replace("${" + variable + "}", os.environ[variable])
            else:
                problems.add(path, f"the environment has no variable {variable}")
    elif isinstance(value, int) and value.bit_length() > LARGEST_BITS:
        problems.add(path, f"a number of {value.bit_length()} bits, the largest has {LARGEST_BITS}")
        return 0
    elif not isinstance(value, int | float | None):
        problems.add(path, f"expected a text, number, boolean, list or mapping, got {value!r}; quotes make it a text")
        return str(value)
    return value


def _complete(raw: dict[str, Any]) -> dict[str, Any]:
    """Fill in what other sections give: the seeds, and the student's architecture and training in the baseline."""
    complete = dict(raw)
    for name in ("teacher", "student"):
        if isinstance(raw.get(name), dict):
            complete[name] = {"seed": raw.get("seed", 0), **raw[name]}
    student = raw.get("student")
    if isinstance(raw.get("baseline"), dict) and isinstance(student, dict):
        inherited = {key: student[key] for key in ("architecture", "training") if key in student}
        complete["baseline"] = merge(inherited, raw["baseline"])
    return complete


def _is_given(raw: Any, path: str) -> bool:
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(raw, list) and part.isdecimal() and int(part) < len(raw):
            raw = raw[int(part)]
        elif isinstance(raw, dict) and part in raw:
            raw = raw[part]
        else:
            return False
    return True
