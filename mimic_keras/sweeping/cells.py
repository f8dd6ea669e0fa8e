"""A sweep's file and its cells: one experiment for every combination of the axes' values."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field

from mimic_keras.contracts import InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.file import Document, Source, make_source, to_key
from mimic_keras.experiment.places import Place, assign, walk
from mimic_keras.experiment.problems import Problems, parse_section, quote
from mimic_keras.experiment.schema import check_folder_name
from mimic_keras.experiment.sections import Section
from mimic_keras.storage.files import hash_json
from mimic_keras.sweeping.axes import (
    AXIS,
    OTHERWISE,
    Value,
    has_value,
    is_key_of,
    is_reference,
    resolve_references,
)
from mimic_keras.training.metrics import is_error_rate, is_share

LONGEST_NAME = 80
MOST_CELLS = 10_000
QUANTITIES = ("parameters", "multiply_adds", "teacher", "epoch")  # that a figure's x may be, besides axes
Made = TypeVar("Made")


class Figure(Section):
    """A figure of a sweep.

    `x`: parameters, multiply_adds, teacher (its metric), epoch (the metric on validation), or an axis. `series`: the
    axis with one line per value. `models`: whose metric is drawn; `lines`: whose metric is drawn as a horizontal line.
    `split`: what the metric is of; the paper's numbers are of test.
    """

    x: str
    series: str | None = None
    split: Literal["test", "validation"] = "test"
    title: str | None = None
    models: tuple[Literal["student", "baseline"], ...] = ("student",)
    lines: tuple[Literal["teacher"], ...] = ()
    log: bool = True


class Paper(Section):
    """The paper's numbers for every cell: `error` or `accuracy` in per cent, `teacher` (its error or accuracy) and
    `parameters`; null where the paper has none."""

    source: str
    error: Any = None
    accuracy: Any = None
    teacher: Any = None
    parameters: Any = None


class Sweep(Section):
    """A sweep's file.

    `experiment` is an experiment, or the name of an experiment's file in the same folder. `set` changes values of it,
    as `--set` does; a cell for which a reference names nothing keeps the experiment's own value. Cells that differ only
    in `mean_over` are averaged. `metric` is any on test; `show` is how an error rate is shown. `columns` are the axes
    that go across the table.
    """

    name: Annotated[str, pydantic.AfterValidator(check_folder_name)]
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

    @property
    def is_error(self) -> bool:
        """Whether the metric is an error rate, which may be shown as accuracy."""
        return is_error_rate(self.metric)

    @property
    def shown(self) -> str:
        """What tables and figures show, without split and unit: "error", "phone accuracy" or the metric's name."""
        return (self.metric.replace("error_rate", self.show) if self.is_error else self.metric).replace("_", " ")

    @property
    def unit(self) -> str:
        """Of the numbers that are shown: "%", or "" for metrics that are no shares."""
        return "%" if is_share(self.metric) else ""

    @property
    def heading(self) -> str:
        return ", ".join(filter(None, [self.shown, self.unit]))


@dataclass(frozen=True)
class Cell:
    """One experiment. `values`: {axis: value}; `name`: of its folder; `paper`: the paper's numbers."""

    name: str
    values: dict[str, Value]
    source: Source
    paper: dict[str, float | None]

    def __str__(self) -> str:
        return ", ".join(f"{axis} {value}" for axis, value in self.values.items())


def drop_averaged(sweep: Sweep, cell: Cell) -> dict[str, Value]:
    """The values of a cell without the axis that is averaged over."""
    return {axis: value for axis, value in cell.values.items() if axis != sweep.mean_over}


def make_row(values: Mapping[str, Value], measured: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table: the cell's values, then measurements; a measurement with the name of an axis is marked."""
    marked = {f"{name} (measured)" if name in values else name: value for name, value in measured.items()}
    return {**{axis: str(value) for axis, value in values.items()}, **marked}


def make_cells(document: Document) -> tuple[Sweep, list[Cell]]:
    """The sweep of a file, and its cells. Problems of the experiments themselves are found when they are planned.

    Raises:
        InputError: a `Problems` with everything that is wrong with the sweep.
    """
    problems = document.problems
    for setting in document.settings:
        if (key := re.split(r"[.=]", setting)[0]) in Sweep.model_fields:
            raise InputError(
                f"--set {setting}: it changes the experiment of every cell, and {key} is the sweep's: {document.name}"
            )
    sweep = parse_section(Sweep, document.content, Place(), problems)
    problems.check()
    assert sweep
    _check_axes(sweep, document.content, problems)
    problems.check()
    bases: dict[str, dict[str, Any]] = {}
    cells: list[Cell] = []
    for values in _combine_axes(sweep):
        cells.append(_make_cell(sweep, document, values, bases))
        problems.check()
    if not cells:
        raise InputError(f"{document.name}: exclude leaves no cell")
    _check_effects(sweep, cells, document.settings, problems)
    problems.check()
    return sweep, cells


def _check_effects(sweep: Sweep, cells: Sequence[Cell], settings: Sequence[str], problems: Problems) -> None:
    """Refuse an axis that changes nothing: equal cells would show a spread of 0."""
    experiments = [hash_json({key: item for key, item in cell.source.given.items() if key != "name"}) for cell in cells]
    for axis in sweep.axes:
        groups: dict[str, set[str]] = {}
        for cell, experiment in zip(cells, experiments, strict=True):
            others = hash_json({key: value for key, value in cell.values.items() if key != axis})
            groups.setdefault(others, set()).add(experiment)
        if len(cells) > len(groups) and all(len(group) == 1 for group in groups.values()):
            overridden = f"; or --set overrides it: {', '.join(settings)}" if settings else ""
            message = f"changes nothing; put {{axis: {axis}}} where its value belongs{overridden}"
            problems.add(Place("axes", axis), message)


def _combine_axes(sweep: Sweep) -> Iterator[dict[str, Value]]:
    """{axis: value} of every combination that is not excluded."""
    for combination in itertools.product(*sweep.axes.values()):
        values = dict(zip(sweep.axes, combination, strict=True))
        if not any(_matches(values, rule) for rule in sweep.exclude):
            yield values


def _matches(values: Mapping[str, Value], rule: Mapping[str, Value | list[Value]]) -> bool:
    return all(_is_among(values[axis], wanted) for axis, wanted in rule.items())


def _is_among(value: Value, wanted: Value | list[Value]) -> bool:
    """Compare as YAML does, where true is not 1."""
    several = wanted if isinstance(wanted, list) else [wanted]
    return to_key(value) in [to_key(each) for each in several]


def _make_cell(sweep: Sweep, document: Document, values: dict[str, Value], bases: dict[str, dict[str, Any]]) -> Cell:
    """The cell of these values. `bases` {file name: content} keeps files of experiments, so that each is read once."""
    problems = document.problems

    def resolve(value: Any, place: Place) -> Any:
        return resolve_references(value, values, place, problems)

    experiment = resolve(sweep.experiment, Place("experiment"))
    settings = {key: resolve(value, Place("set", key)) for key, value in sweep.set.items() if has_value(value, values)}
    numbers = sweep.paper.model_dump(exclude={"source"}) if sweep.paper else {}
    paper = {key: resolve(value, Place("paper", key)) for key, value in numbers.items()}
    for key, value in paper.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            problems.add(Place("paper", key), f"expected a number or null, got {quote(value)}")
    problems.check()
    folder = document.folder
    if isinstance(experiment, str):
        folder = (Path(document.name).parent / experiment).parent
        if experiment not in bases:
            bases[experiment] = _read_base(document.name, experiment)
        experiment = resolve(bases[experiment], Place(experiment))
        problems.check()
    if not isinstance(experiment, dict):
        raise InputError(
            f"{document.name}: experiment: expected a mapping or the name of a file, got {quote(experiment)}"
        )
    for key, value in settings.items():
        try:
            assign(experiment, Place.parse(key), value, f"{document.name}: set")
        except ValueError as error:
            raise InputError(f"{document.name}: set: {error}") from error
    name = _name_folder(values)
    cell = ", ".join(f"{axis} {value}" for axis, value in values.items())
    scratch = Problems(f"{document.name}, the cell {cell}")
    source = make_source({**experiment, "name": name}, scratch, document.settings, folder)
    return Cell(name, values, source, paper)


def _read_base(sweep_file: str, name: str) -> dict[str, Any]:
    try:
        base = experiment_file.read(Path(sweep_file).parent / name)
        base.problems.check()
    except InputError as error:
        raise InputError(f"{sweep_file}: experiment: {error}") from error
    return base.content


def _check_axes(sweep: Sweep, content: Mapping[str, Any], problems: Problems) -> None:
    """Check that every axis and every value that is named exists, and that the axes' values differ."""
    for axis, values in sweep.axes.items():
        if len(values) != len({to_key(value) for value in values}):
            problems.add(Place("axes", axis), "the same value twice")
    count = math.prod(len(values) for values in sweep.axes.values())
    if count > MOST_CELLS:
        problems.add(Place("axes"), f"{count:,} combinations; at most {MOST_CELLS:,} are accepted")
    _check_table(sweep, problems)
    for index, figure in enumerate(sweep.figures):
        _check_figure(sweep, figure, Place("figures", index), problems)
    for index, rule in enumerate(sweep.exclude):
        _check_exclusion(sweep, rule, Place("exclude", index), problems)
    for place, reference in walk(content):  # a file of its own may be other sweeps' too, and name values of theirs
        if is_reference(reference) and (options := sweep.axes.get(reference[AXIS])):
            _check_reference(reference, options, place, problems)


def _check_known(sweep: Sweep, axis: str, place: Place, problems: Problems) -> None:
    if axis not in sweep.axes:
        problems.add(place, f"no axis {quote(axis)}; accepted: {', '.join(sweep.axes)}")


def _check_table(sweep: Sweep, problems: Problems) -> None:
    for axis in sweep.columns:
        _check_known(sweep, axis, Place("columns"), problems)
    if sweep.mean_over:
        _check_known(sweep, sweep.mean_over, Place("mean_over"), problems)
    if sweep.mean_over in sweep.columns:
        problems.add(Place("columns"), f"{quote(sweep.mean_over)} is averaged over")
    if sweep.show == "accuracy" and not sweep.is_error:
        problems.add(Place("show"), f"only an error rate is shown as accuracy, not the metric {quote(sweep.metric)}")
    if sweep.paper and not sweep.is_error and sweep.paper.model_fields_set - {"source", "parameters"}:
        problems.add(Place("paper"), f"its error, accuracy and teacher need an error rate, not {quote(sweep.metric)}")
    if sweep.paper and sweep.paper.error is not None and sweep.paper.accuracy is not None:
        problems.add(Place("paper"), "both error and accuracy; one of them is enough")


def _check_figure(sweep: Sweep, figure: Figure, place: Place, problems: Problems) -> None:
    if figure.series:
        _check_known(sweep, figure.series, place / "series", problems)
    if sweep.mean_over and sweep.mean_over in (figure.x, figure.series):
        problems.add(place, f"{quote(sweep.mean_over)} is averaged over")
    if figure.x == "epoch" and "split" in figure.model_fields_set:
        problems.add(place / "split", "curves by epoch are always on validation; leave it out")
    known = (*QUANTITIES, *sweep.axes)
    if figure.x not in known:
        problems.add(place / "x", f"no such quantity: {quote(figure.x)}; accepted: {', '.join(known)}")


def _check_exclusion(sweep: Sweep, rule: Mapping[str, Value | list[Value]], place: Place, problems: Problems) -> None:
    for axis, wanted in rule.items():
        if axis not in sweep.axes:
            _check_known(sweep, axis, place, problems)
            continue
        for value in wanted if isinstance(wanted, list) else [wanted]:
            if not _is_among(value, sweep.axes[axis]):
                problems.add(place / axis, f"the axis has no {quote(value)}: {quote(sweep.axes[axis])}")


def _check_reference(reference: Mapping[str, Any], options: Sequence[Value], place: Place, problems: Problems) -> None:
    for key in reference:
        if key not in (AXIS, OTHERWISE) and not any(is_key_of(key, value) for value in options):
            problems.add(place, f"the axis '{reference[AXIS]}' has no {quote(key)}: {quote(options)}")


def _name_folder(values: Mapping[str, Value]) -> str:
    """A name for the cell's folder, unique to its values."""
    words = [re.sub(r"[^A-Za-z0-9.]+", "_", to_key(value)).strip("_.") for value in values.values()]
    digest = hashlib.sha256(repr(dict(values)).encode()).hexdigest()[:6]
    return f"{'-'.join(word or 'none' for word in words)[:LONGEST_NAME].lstrip('-')}-{digest}"


def collect_problems(file: str, cells: Sequence[Cell], make: Callable[[Cell], Made]) -> list[Made]:
    """`make` applied to every cell; a problem that several cells have is reported once.

    Raises:
        InputError: a `Problems` with every problem, and how many cells have it.
    """
    made, affected = [], dict[tuple[Place, str], list[Cell]]()
    for cell in cells:
        try:
            made.append(make(cell))
        except Problems as error:
            for place, message in error.found.items():
                affected.setdefault((place, message), []).append(cell)
        except InputError as error:
            affected.setdefault((Place(), str(error)), []).append(cell)
    problems = Problems(file)
    for (place, message), failing in affected.items():
        label = f"cell {failing[0]}"
        if len(failing) > 1:
            label = f"{len(failing)} of {len(cells)} cells, the first {failing[0]}"
        problems.add(Place(f"{place} [{label}]".strip()), message)
    problems.check()
    return made
