"""What the functions of the Python interface return: tables, files, and nets that can be called."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimic_keras.contracts import ArraySplit, InputError, RunError

if TYPE_CHECKING:
    import keras
    import numpy as np
    import pandas

    from mimic_keras.planning.plan import Plan
    from mimic_keras.runner import Finished
    from mimic_keras.training.models import Cost


@dataclass(frozen=True)
class Table:
    """Rows of a title, {column: value}; a column without a value is missing from its row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a pandas.DataFrame, the first column as its index; pandas has to be installed."""
        import pandas

        return pandas.DataFrame(self.rows, columns=list(self.columns)).set_index(self.columns[0])

    def __str__(self) -> str:
        from mimic_keras.reporting import console

        return console.format_table(self.title, self.columns, self.rows)

    def _repr_html_(self) -> str:
        from mimic_keras.reporting.tables import format_value

        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = [row([format_value(each.get(column)) for column in self.columns], "td") for each in self.rows]
        return f"<table><caption>{html.escape(self.title)}</caption>{row(self.columns, 'th')}{''.join(body)}</table>"


@dataclass(frozen=True, repr=False)
class RunResult(Table):
    """A finished run: a table of every model, and the models.

    `metrics` is the content of metrics.json. `folder` has the run's files. `address` is where `publish_to` has the
    version.

    Example:
        >>> result.metrics["models"]["student"]["test"]["error_rate"]
        0.0514
        >>> result.student(images[:2]).shape
        (2, 10)
    """

    finished: Finished
    address: str | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        return self.finished.metrics

    @property
    def folder(self) -> Path:
        return self.finished.folder

    @property
    def report(self) -> Path:
        """The page with the results and figures."""
        return self.folder / "report.html"

    @property
    def export(self) -> Path | None:
        """The folder of the version that was published; None if nothing was."""
        published = self.metrics["export"]
        return Path(published["path"]) if published else None

    @property
    def deployment(self) -> Table | None:
        """Error, size and latency of the student in each format; None if it was not published in others."""
        from mimic_keras.stages.formats import tabulate

        if deployment := (self.metrics["export"] or {}).get("deployment"):
            return Table(f"one request, milliseconds on {deployment['threads']} thread", *tabulate(deployment))
        return None

    @property
    def student_model(self) -> keras.Model:
        """The student; it gives logits."""
        return self.finished.results.nets[-1].model

    def student(self, inputs: Any) -> np.ndarray:
        """The student's logits, float32 [batch, num_classes], of prepared inputs [batch, *input_shape]."""
        return _predict(self._student, inputs)

    @functools.cached_property
    def _student(self) -> Any:
        """Compiled once: TensorFlow warns of a program that compiles the same again and again."""
        from mimic_keras.training import models

        return models.make_predictor(models.inference_call(self.student_model))

    def teacher(self, inputs: Any) -> np.ndarray:
        """The weighted mean of the members' logits, float32 [batch, num_classes], of inputs as the student takes them.

        Raises:
            InputError: there is no teacher, or a member prepares the examples in its own way, or is stored predictions.
        """
        results = self.finished.results
        if not results.teacher:
            raise InputError(f"{self.title}: it has no teacher")
        if own := [member.name for member in results.members if member.data is not results.data]:
            raise InputError(
                f"{', '.join(own)}: takes inputs of its own data set; logits(split) has the teacher's logits"
            )
        weights = results.teacher.weights
        parts = ((weights[name], functools.partial(predict, "inputs")) for name, predict in self._members.items())
        return sum(weight * _predict(predict, inputs) for weight, predict in parts)  # type: ignore[return-value]

    @functools.cached_property
    def _members(self) -> dict[str, Any]:
        return {member.name: member.predictor() for member in self.finished.results.members}

    def logits(self, split: str) -> dict[str, np.ndarray]:
        """{model: float32 [examples, num_classes]} on "validation" or "test"; of "transfer", the teacher's alone.

        Raises:
            InputError: there is no such split.
        """
        results = self.finished.results
        if split == "transfer" and results.teacher:
            return {"teacher": results.teacher.transfer.numpy()}
        found = {name: values[split] for name, values in results.evaluation.logits.items() if split in values}
        if not found:
            raise InputError(f"logits: expected 'validation', 'test' or, with a teacher, 'transfer', got {split!r}")
        return found

    def __repr__(self) -> str:
        return f"RunResult({self.title!r}, {self.folder})"


class NotPublishedError(RunError):
    """The student of a finished run, or one of its formats, is not published, or not where `publish_to` says;
    everything else is written.

    `result` is the run's, with all numbers and models; `refusal` says what is not published, and why.

    Example:
        >>> try:
        ...     result = mimic_keras.distill(...)
        ... except mimic_keras.NotPublishedError as error:
        ...     result = error.result
    """

    def __init__(self, result: RunResult, refusal: str):
        self.result, self.refusal = result, refusal
        again = 'The same call with "export.minimum_agreement": 0 in set publishes it all the same'
        remedy = "" if result.export else f". {again}"
        super().__init__(f"{self.refusal}. Everything else is in {result.folder}{remedy}")


@dataclass(frozen=True)
class PlanResult(Table):
    """A checked experiment: what its nets cost. `lines` say what the run would do; `plans` has one for each cell."""

    lines: Sequence[str]
    plans: Sequence[Plan]

    @property
    def costs(self) -> Mapping[str, Cost]:
        """{net: cost} of the first plan."""
        return self.plans[0].costs


@dataclass(frozen=True)
class SweepResult(Table):
    """A table of every group of cells. `failed`: {cell: reason}."""

    folder: Path
    failed: Mapping[str, str]
    cells: int

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def check(self) -> None:
        """Raise RunError if a cell failed."""
        if self.failed:
            notes = "".join(f"\n  {cell}: {note}" for cell, note in self.failed.items())
            raise RunError(f"{len(self.failed)} of {self.cells} cells failed; the same command tries them again{notes}")


@dataclass(frozen=True)
class TuneResult(Table):
    """A table of every trial, the best first. `best`: best.yaml, the best experiment; None if no trial has a score."""

    folder: Path
    best: Path | None

    @property
    def report(self) -> Path:
        return self.folder / "search.html"

    def check(self) -> None:
        """Raise RunError if no trial has a score."""
        if self.best is None:
            raise RunError("no trial has a score; the page shows the reason for each")


@dataclass(frozen=True)
class ExportResult:
    """A version of an export. `made` is False if the newest version was this student already; `address` is where
    `publish_to` has it."""

    path: Path
    made: bool
    address: str | None = None


@dataclass(frozen=True)
class VerifyResult(Table):
    """A table of the signatures of an export that is right; `others`: of its files in other formats, if it has any."""

    warmup_requests: int
    others: Table | None = None


def _predict(predict: Any, inputs: Any) -> np.ndarray:
    """What `predict(split, virtual ids)` says of inputs that are no data set's."""
    import numpy as np

    split = ArraySplit(np.asarray(inputs, np.float32))
    return predict(split, np.arange(split.num_examples))
