"""A YAML file, read and classified once, and the experiment in it as plain data with everything inherited filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mimic_keras.contracts import InputError
from mimic_keras.experiment import yaml_text
from mimic_keras.experiment.paths import anchor
from mimic_keras.experiment.places import Place, assign, contains, walk
from mimic_keras.experiment.problems import Problems

MOST_VALUES = 100_000
LARGEST_BITS = 64

Kind = Literal["experiment", "search", "sweep"]


@dataclass(frozen=True)
class Document:
    """A YAML file, or a mapping, as plain data. `name` is what messages call it; `text` is its content, before any
    settings.

    The `KEY=VALUE` settings of the command line are applied, except a sweep's, which `settings` keeps for its cells.
    `folder`: the file's, which paths in it are relative to; None of a mapping.
    """

    name: str
    text: str
    content: dict[str, Any]
    kind: Kind
    settings: tuple[str, ...]
    problems: Problems
    folder: Path | None = None

    def source(self) -> Source:
        """The experiment, or the experiment with ranges.

        Raises:
            InputError: the file is a sweep.
        """
        if self.kind == "sweep":
            raise InputError(f"{self.name} is a sweep, not an experiment; run it with mimic-keras sweep")
        return make_source(self.content, self.problems, folder=self.folder)


@dataclass(frozen=True)
class Source:
    """An experiment as plain data: `given` as in the file, `complete` with what sections inherit from others.

    `problems` collects everything that is found wrong with it. `folder` as of the `Document`.
    """

    given: dict[str, Any]
    complete: dict[str, Any]
    problems: Problems
    folder: Path | None = None

    def components(self) -> Iterator[tuple[str, dict[str, Any], Place]]:
        """(kind, mapping, place) of every component that can be recognised, whatever else is wrong."""
        teacher = self.complete.get("teacher")
        members = teacher.get("members") if isinstance(teacher, dict) else None
        holders: list[tuple[Any, Place, tuple[str, ...]]] = [(self.complete, Place(), ("dataset",))]
        for index, entry in enumerate(members if isinstance(members, list) else []):
            holders.append((entry, Place("teacher", "members", index), ("teacher", "dataset")))
        holders.append((self.complete.get("student"), Place("student"), ("architecture", "loss")))
        holders.append((self.complete.get("baseline"), Place("baseline"), ("architecture",)))
        for holder, place, kinds in holders:
            for kind in kinds:
                if isinstance(holder, dict) and isinstance(holder.get(kind), dict):
                    yield kind, holder[kind], place / kind

    def with_given(self, given: dict[str, Any]) -> Source:
        """The same file with other values."""
        return replace(self, given=given, complete=_complete(given))

    def drop_inherited_problems(self) -> None:
        """Drop problems that are repeated where `seed`, `student` or `dataset` is inherited."""
        found = self.problems.found
        faults = [place[1:] for place in found if place[:1] == ("student",)]
        for place in list(found):
            inside = place[1:]
            inherited = inside == ("seed",) and Place("seed") in found
            if place[:1] == ("baseline",):
                inherited = any(inside[: len(fault)] == fault or fault[: len(inside)] == inside for fault in faults)
            if place[:2] == ("teacher", "members") and place[3:4] == ("dataset",):
                inherited = place[3:] in found
            if inherited and not contains(self.given, place):
                del found[place]


def read(file: Path, settings: Sequence[str] = ()) -> Document:
    """Read a YAML 1.2 file that holds a mapping of plain data, and apply the `KEY=VALUE` settings.

    Raises:
        InputError: the file cannot be read, holds tags, duplicate keys or no mapping, or a setting is malformed.
    """
    text, content = _read_mapping(file)
    return replace(make_document(str(file), text, content, settings), folder=file.parent)


def make_document(name: str, text: str, content: dict[str, Any], settings: Sequence[str] = ()) -> Document:
    """The document of a mapping, which the settings change; `name` and `text` as in `Document`.

    Raises:
        InputError: a setting is malformed, the mapping is nested without end, or it is a sweep with a misspelt key.
    """
    is_sweep = "axes" in content  # an experiment has no such key
    if "axis" in content and not is_sweep:
        raise InputError(f"{name}: axis: unknown key; the axes of a sweep are called axes")
    kept = tuple(setting for setting in settings if is_sweep and not setting.startswith("name="))
    for setting in settings:
        if setting not in kept:
            apply_setting(content, setting)
    problems = Problems(name)
    content = to_plain(content, problems)
    kind: Kind = "sweep" if is_sweep else "search" if has_ranges(content) else "experiment"
    return Document(name, text, content, kind, kept, problems)


def has_ranges(content: Mapping[str, Any]) -> bool:
    """Whether an experiment is to be searched: it has a `search` section, or `{tune: ...}` in place of a value."""
    return "search" in content or any(isinstance(item, dict) and item.keys() == {"tune"} for _, item in walk(content))


def make_source(
    content: dict[str, Any], problems: Problems, settings: Sequence[str] = (), folder: Path | None = None
) -> Source:
    """The experiment of plain data, with settings, the environment's variables and a file of members filled in.

    `folder` is that of the `Source`.

    Raises:
        InputError: a setting is malformed.
    """
    for setting in settings:
        apply_setting(content, setting)
    given = _expand_variables(to_plain(content, problems) if settings else content, Place(), problems)
    given = _include_members(given, folder, problems)
    return Source(given, _complete(given), problems, folder)


def _read_yaml(file: Path) -> tuple[str, Any]:
    """The text of a file, and what it says."""
    try:
        text = yaml_text.read_text(file)
        return text, yaml_text.load(text)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{file}: not a YAML file: {error}") from error


def _read_mapping(file: Path) -> tuple[str, dict[str, Any]]:
    text, content = _read_yaml(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected a mapping of name, dataset, student, ...; got {type(content).__name__}")
    return text, content


def apply_setting(content: dict[str, Any], setting: str) -> None:
    """Apply one `KEY=VALUE` in place, as in `teacher.members[0].copies=3`.

    Raises:
        InputError: there is no '=', the value is not YAML, or the place does not exist and cannot be added.
    """
    key, equals, text = setting.partition("=")
    origin = f"--set {setting}"
    try:
        if not equals:
            raise ValueError("no '='")
        place = Place.parse(key)
    except ValueError as error:
        raise InputError(f"{origin}: expected KEY=VALUE, as in --set student.training.epochs=5") from error
    try:
        value = yaml_text.load(text)
    except ValueError as error:
        reason = str(error).partition("\n")[0]  # the message has the value already
        raise InputError(f"{origin}: the value is not YAML: {reason}") from error
    assign(content, place, value, origin)


def to_plain(content: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """A copy with nothing shared by aliases and keys as texts; values that YAML has and JSON does not are problems.

    Raises:
        InputError: more values than an experiment has (a few aliases of aliases can stand for billions), or nesting
            without end.
    """
    try:
        if _count_values(content, {}) > MOST_VALUES:
            raise InputError(f"{problems.file}: more than {MOST_VALUES:,} values once its aliases are filled in")
        return _copy_plain(content, Place(), problems)
    except RecursionError as error:
        raise InputError(f"{problems.file}: nested too deeply, or an alias inside its own anchor") from error
    except ValueError as error:  # a number of thousands of digits cannot be printed
        raise InputError(f"{problems.file}: {error}") from error


def _count_values(value: Any, known: dict[int, int]) -> int:
    """Values in `value`; those behind an alias count as often as it is used, but are visited once."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count_values(item, known) for item in items)
    return known[id(value)]


def _copy_plain(value: Any, place: Place, problems: Problems) -> Any:
    if isinstance(value, dict):
        return {to_key(key): _copy_plain(item, place / to_key(key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_plain(item, place / index, problems) for index, item in enumerate(value)]
    if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
        problems.add(place, f"a number of {value.bit_length()} bits; at most {LARGEST_BITS} are accepted")
        return 0
    if not isinstance(value, str | int | float | None):
        problems.add(place, f"expected a text, number, boolean, list or mapping, got {value!r}; quotes make it a text")
        return str(value)
    return value


def to_key(value: Any) -> str:
    """A value as the text that YAML writes for it where it is a key."""
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def merge(base: Any, changes: Any) -> Any:
    """`base` with `changes`, mapping by mapping; a mapping with another `name` replaces the whole component."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    if "name" in changes and changes["name"] != base.get("name"):
        return changes
    return {**base, **{key: merge(base.get(key), value) for key, value in changes.items()}}


def _expand_variables(value: Any, place: Place, problems: Problems) -> Any:
    """A copy in which `${VAR}` in texts is the environment's value."""
    if isinstance(value, dict):
        return {key: _expand_variables(item, place / key, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand_variables(item, place / index, problems) for index, item in enumerate(value)]
    if isinstance(value, str):
        for variable in re.findall(r"\$\{(\w+)\}", value):
            if variable in os.environ:
                value = value.replace("${" + variable + "}", os.environ[variable])
            else:
                problems.add(place, f"the environment has no variable {variable}")
    return value


def _include_members(given: dict[str, Any], folder: Path | None, problems: Problems) -> dict[str, Any]:
    """A copy in which the name of a file, in place of the teacher's members, is the list in that file."""
    teacher, place = given.get("teacher"), Place("teacher", "members")
    if not isinstance(teacher, dict) or not isinstance(teacher.get("members"), str):
        return given
    file = Path(anchor(teacher["members"], folder)).expanduser()
    try:
        _, members = _read_yaml(file)
    except InputError as error:
        problems.add(place, str(error))
        return given
    if not isinstance(members, list):
        problems.add(place, f"{file}: expected a list of members, got {type(members).__name__}")
        return given
    included = to_plain({"teacher": {**teacher, "members": members}}, problems)
    return {**given, **_expand_variables(included, Place(), problems)}


def _complete(given: dict[str, Any]) -> dict[str, Any]:
    """Fill in what sections inherit.

    That is the seed, the student's architecture and training in the baseline, and the data set in a member's changes.
    """
    complete = dict(given)
    for name in ("teacher", "student"):
        if isinstance(given.get(name), dict):
            complete[name] = {"seed": given.get("seed", 0), **given[name]}
    student = given.get("student")
    if isinstance(given.get("baseline"), dict) and isinstance(student, dict):
        inherited = {key: student[key] for key in ("architecture", "training") if key in student}
        complete["baseline"] = merge(inherited, given["baseline"])
    teacher = complete.get("teacher")
    if isinstance(teacher, dict) and isinstance(teacher.get("members"), list):
        members = [_inherit_dataset(entry, given.get("dataset")) for entry in teacher["members"]]
        complete["teacher"] = {**teacher, "members": members}
    return complete


def _inherit_dataset(entry: Any, dataset: Any) -> Any:
    """A member's `dataset` without a name is changes of the experiment's; with a name it is a whole one."""
    changes = entry.get("dataset") if isinstance(entry, dict) else None
    if not isinstance(changes, dict) or "name" in changes or not isinstance(dataset, dict):
        return entry
    return {**entry, "dataset": merge(dataset, changes)}
