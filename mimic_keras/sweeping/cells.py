"""A sweep's file, and the experiments it stands for, its cells: one for every combination of its axes' values."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from mimic_keras.contracts import InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.problems import Problems, show, typed
from mimic_keras.experiment.schema import Section, folder_name
from mimic_keras.storage.files import hash_json
from mimic_keras.sweeping.axes import AXIS, OTHERWISE, Value, is_key_of, references, resolved, says_something

LONGEST_NAME = 80
MOST_CELLS = 10_000


class Figure(Section):
    """`x`: parameters, multiply_adds, teacher (its metric), epoch (the metric on validation), or an axis. `series`: the
    axis whose values are lines. `models`: whose metric is drawn. `lines`: those drawn as a level."""

    x: str
    series: str | None = None
    title: str | None = None
    models: tuple[Literal["student", "baseline"], ...] = ("student",)
    lines: tuple[Literal["teacher"], ...] = ()
    log: bool = True


class Paper(Section):
    """What the paper has for every cell: `error` or `accuracy` in per cent, `teacher` (its error or accuracy) and
    `parameters`; null where it has none."""

    source: str
    error: Any = None
    accuracy: Any = None
    teacher: Any = None
    parameters: Any = None


class Sweep(Section):
    """A sweep's file.

    `experiment` is one written out, or the file of one beside this; `set` has leaves of it, as `--set`, which stay as
    they are in cells for whose value nothing is named. Cells that differ in `mean_over` alone are averaged. `metric` is
    the data set's, on test; `show` says which way it is shown. `columns` are the axes that go across the table.
    """

    name: Annotated[str, pydantic.AfterValidator(folder_name)]
    axes: Annotated[dict[str, Annotated[list[Value], Field(min_length=1)]], Field(min_length=1)]
    experiment: Any
    set: dict[str, Any] = Field(default_factory=dict)
    exclude: tuple[dict[str, Value | list[Value]], ...] = ()
    mean_over: str | None = None
    metric: str = "error_rate"
    show: Literal["error", "accuracy"] = "error"
    columns: tuple[str, ...] = ()
    paper: Paper | None = None
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One experiment. `values` {axis: value}; `name` is its folder's; `paper` {what: number} as the sweep's."""

    name: str
    values: dict[str, Value]
    source: Source
    paper: dict[str, float | None]

    def __str__(self) -> str:
        return ", ".join(f"{axis} {value}" for axis, value in self.values.items())


def kept(sweep: Sweep, cell: Cell) -> dict[str, Value]:
    """The values of a cell on the axes that are not averaged over."""
    return {axis: value for axis, value in cell.values.items() if axis != sweep.mean_over}


def row_of(values: Mapping[str, Value], measured: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table: the cell's values, then what was measured, which is marked where an axis has its name."""
    marked = {f"{name} (measured)" if name in values else name: value for name, value in measured.items()}
    return {**{axis: str(value) for axis, value in values.items()}, **marked}


def is_sweep(content: Mapping[str, Any]) -> bool:
    """Whether the content of a file is a sweep and no experiment."""
    return "axes" in content


def read(file: Path, overrides: Sequence[str] = ()) -> tuple[Sweep, list[Cell]]:
    """The sweep of a file and its cells, with the `key=value` overrides in every cell.

    Raises:
        InputError: the file is no sweep; every problem at once. What is wrong with the experiments is found later.
    """
    content = experiment_file.read_plain(file)
    if not is_sweep(content):
        raise InputError(f"{file} is no sweep: it has no axes. An experiment is run by mimic-keras run")
    names = [override for override in overrides if override.startswith("name=")]
    for override in names:
        experiment_file.override_leaf(content, override)
    overrides = [override for override in overrides if override not in names]
    problems = Problems(str(file))
    sweep = typed(Sweep, content, "", problems)
    problems.check()
    assert sweep
    _check_sense(sweep, content, problems)
    problems.check()
    cells: list[Cell] = []
    for values in _combinations(sweep):
        cells.append(_cell(sweep, file, values, overrides, problems))
        problems.check()
    if not cells:
        raise InputError(f"{file}: exclude leaves no cell")
    _check_axes_change_something(sweep, cells, problems)
    problems.check()
    return sweep, cells


def _check_axes_change_something(sweep: Sweep, cells: Sequence[Cell], problems: Problems) -> None:
    """Cells that are one experiment would be given a spread of 0."""
    made = [hash_json({key: item for key, item in cell.source.given.items() if key != "name"}) for cell in cells]
    for axis in sweep.axes:
        experiments: dict[str, set[str]] = {}
        for cell, experiment in zip(cells, made, strict=True):
            others = hash_json({key: value for key, value in cell.values.items() if key != axis})
            experiments.setdefault(others, set()).add(experiment)
        if len(cells) > len(experiments) and all(len(several) == 1 for several in experiments.values()):
            problems.add(f"axes.{axis}", f"changes nothing; {{axis: {axis}}} stands for its value where it should")


def _combinations(sweep: Sweep) -> Iterator[dict[str, Value]]:
    for combination in itertools.product(*sweep.axes.values()):
        values = dict(zip(sweep.axes, combination, strict=True))
        if not any(_matches(values, rule) for rule in sweep.exclude):
            yield values


def _matches(values: Mapping[str, Value], rule: Mapping[str, Value | list[Value]]) -> bool:
    return all(_among(values[axis], wanted) for axis, wanted in rule.items())


def _among(value: Value, wanted: Value | list[Value]) -> bool:
    """As YAML has them: true is not 1."""
    several = wanted if isinstance(wanted, list) else [wanted]
    return experiment_file.key_of(value) in [experiment_file.key_of(each) for each in several]


def _cell(sweep: Sweep, file: Path, values: dict[str, Value], overrides: Sequence[str], problems: Problems) -> Cell:
    def of_cell(value: Any, path: str) -> Any:
        return resolved(value, values, path, problems)

    experiment = of_cell(sweep.experiment, "experiment")
    settings = {key: of_cell(value, f"set.{key}") for key, value in sweep.set.items() if says_something(value, values)}
    paper = sweep.paper.model_dump(exclude={"source"}) if sweep.paper else {}
    paper = {key: of_cell(value, f"paper.{key}") for key, value in paper.items()}
    for key, value in paper.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            problems.add(f"paper.{key}", f"expected a number or null, got {show(value)}")
    problems.check()
    if isinstance(experiment, str):
        try:
            base = experiment_file.read_plain(file.parent / experiment)
        except InputError as error:
            raise InputError(f"{file}: experiment: {error}") from error
        experiment = resolved(base, values, experiment, problems)
        problems.check()
    if not isinstance(experiment, dict):
        raise InputError(f"{file}: experiment: expected a mapping or the name of a file, got {show(experiment)}")
    for key, value in settings.items():
        experiment_file.set_leaf(experiment, key, value, f"{file}: set")
    name = _name(values)
    where = f"{file}, the cell {', '.join(f'{axis} {value}' for axis, value in values.items())}"
    source = experiment_file.of_raw({**experiment, "name": name}, where, overrides)
    return Cell(name, values, source, paper)


def _check_sense(sweep: Sweep, content: Any, problems: Problems) -> None:
    """That every axis that is named exists, and every value."""
    named: list[tuple[str, Sequence[str | None]]] = [("columns", sweep.columns)]
    named += [("mean_over", [sweep.mean_over] if sweep.mean_over else [])]
    named += [
        (f"figures[{index}].series", [item.series] * bool(item.series)) for index, item in enumerate(sweep.figures)
    ]
    for path, axes in named:
        for axis in axes:
            if axis not in sweep.axes:
                problems.add(path, f"no axis {show(axis)}; accepted: {', '.join(sweep.axes)}")
    if sweep.paper and sweep.paper.error is not None and sweep.paper.accuracy is not None:
        problems.add("paper", "error and accuracy; one of them says both")
    if sweep.mean_over in sweep.columns:
        problems.add("columns", f"{show(sweep.mean_over)} is what is averaged over")
    for index, figure in enumerate(sweep.figures):
        if sweep.mean_over and sweep.mean_over in (figure.x, figure.series):
            problems.add(f"figures[{index}]", f"{show(sweep.mean_over)} is what is averaged over")
        known = ("parameters", "multiply_adds", "teacher", "epoch", *sweep.axes)
        if figure.x not in known:
            problems.add(f"figures[{index}].x", f"no such quantity: {show(figure.x)}; accepted: {', '.join(known)}")
    for index, rule in enumerate(sweep.exclude):
        for axis, wanted in rule.items():
            if axis not in sweep.axes:
                problems.add(f"exclude[{index}]", f"no axis {show(axis)}; accepted: {', '.join(sweep.axes)}")
                continue
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if not _among(value, sweep.axes[axis]):
                    problems.add(f"exclude[{index}].{axis}", f"the axis has no {show(value)}: {show(sweep.axes[axis])}")
    for path, item in references(content, ""):
        wanted = [key for key in item if key not in (AXIS, OTHERWISE)]
        options = sweep.axes.get(item[AXIS])
        unknown = [key for key in wanted if options and not any(is_key_of(str(key), value) for value in options)]
        if unknown:
            problems.add(path, f"the axis '{item[AXIS]}' has no {show(unknown[0])}: {show(sweep.axes[item[AXIS]])}")
    count = 1
    for axis, values in sweep.axes.items():
        count *= len(values)
        if len(values) != len({experiment_file.key_of(value) for value in values}):
            problems.add(f"axes.{axis}", "the same value twice")
    if count > MOST_CELLS:
        problems.add("axes", f"{count:,} combinations; at most {MOST_CELLS:,}")


def _name(values: Mapping[str, Value]) -> str:
    """A folder's name of the values, which is another's for no other values."""
    words = [re.sub(r"[^A-Za-z0-9.]+", "_", experiment_file.key_of(value)).strip("_.") for value in values.values()]
    digest = hashlib.sha256(repr(dict(values)).encode()).hexdigest()[:6]
    return f"{'-'.join(word or 'none' for word in words)[:LONGEST_NAME].lstrip('-')}-{digest}"


def with_problems_together(file: str, cells: Sequence[Cell], make: Callable[[Cell], Any]) -> list[Any]:
    """`make` of every cell; what is wrong with several is said once.

    Raises:
        InputError: with every problem, and how many cells have it.
    """
    made, found = [], dict[tuple[str, str], list[Cell]]()
    for cell in cells:
        try:
            made.append(make(cell))
        except Problems as error:
            for path, message in error.found.items():
                found.setdefault((path, message), []).append(cell)
        except InputError as error:
            found.setdefault(("", str(error)), []).append(cell)
    if found:
        problems = Problems(file)
        for (path, message), those in found.items():
            who = f"cell {those[0]}" if len(those) == 1 else f"{len(those)} of {len(cells)} cells, the first {those[0]}"
            problems.add(f"{path} [{who}]".strip(), message)
        raise problems
    return made
