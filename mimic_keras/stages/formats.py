"""Stage 7, the other formats: the student as files of LiteRT and ONNX, each verified and measured, or refused."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from mimic_keras.contracts import ROWS_AT_ONCE, RawSignature, RunError, Split, error_rate
from mimic_keras.experiment.formats import DEFAULT, FORMATS, SAVED_MODEL
from mimic_keras.experiment.schema import ExportSection
from mimic_keras.reporting.tables import format_bytes
from mimic_keras.serving import answering, conversion, portable, saved_model, verification
from mimic_keras.serving.portable import Example
from mimic_keras.stages.data import Data
from mimic_keras.training import models

CALIBRATION_ROWS = 300  # of the transfer set, evenly spaced: "around 100-500" (LiteRT's guide to quantisation)


@dataclass(frozen=True)
class Judge:
    """What logits on validation are judged by: the labels, int [N], and the student's own logits [N, num_classes].

    Without any label, the share of rows that get another class than the student's stands for the error rate.
    """

    labels: np.ndarray
    logits: np.ndarray

    def measure(self, logits: np.ndarray) -> dict[str, float]:
        """{"error_rate", "agreement": share of rows with the student's class, "largest_difference": from its logits}"""
        classes = self.logits.argmax(-1)
        return {
            "error_rate": error_rate(self.labels if (self.labels >= 0).any() else classes, logits),
            "agreement": float(np.mean(logits.argmax(-1) == classes)),
            "largest_difference": verification.measure_difference(logits, self.logits),
        }


@dataclass(frozen=True)
class TeacherNet:
    """The teacher, to compare the student with: `load` returns its call; its error rate is that on validation."""

    load: Callable[[], Callable[[tf.Tensor], Any]]
    error_rate: float | None


@dataclass(frozen=True)
class Written:
    """`formats` as in export.json. `deployment`: {format: {"bytes", "validation_error_rate", "milliseconds"}}."""

    formats: dict[str, Any]
    deployment: dict[str, Any]


def write(
    folder: Path,
    net: keras.Model,
    student: keras.Model,
    data: Data,
    raw: Mapping[str, RawSignature],
    examples: Mapping[str, Example],
    options: ExportSection,
) -> Written:
    """Write the student in other formats into a version's folder, beside its SavedModel.

    Args:
        folder: the version's.
        net: the student as it is exported.
        student: the student itself, before any folding.
        data: for calibration and validation.
        raw: the signatures besides `serving_default`.
        examples: of every signature.
        options: which formats, and how much they may lose.
    """
    split = data.split("validation")
    every = np.arange(split.num_examples)
    judge = Judge(split.labels, models.make_predictor(models.inference_call(student))(split, every))
    written = Written({}, {SAVED_MODEL: measure_saved_model(folder, examples)})
    written.deployment[SAVED_MODEL]["validation_error_rate"] = judge.measure(judge.logits)["error_rate"]
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch, "rows.npy")
        _write_rows(rows, split, every)
        failures = _convert(folder, Path(scratch), net, data, raw, options.other_formats)
        checker = _Checker(folder, examples, rows, failures, judge, options.maximum_error_increase)
        for name in options.other_formats:
            checker.check(name, written)
    return written


def measure_saved_model(folder: Path, examples: Mapping[str, Example]) -> dict[str, Any]:
    """{"bytes", "milliseconds"} of a SavedModel."""
    answer = answering.answer(folder, DEFAULT, examples[DEFAULT][0], is_timed=True)
    return {"bytes": count_bytes(folder), "milliseconds": answer.latency}


def count_bytes(folder: Path) -> int:
    """How large a SavedModel is: its graph and its weights."""
    files = [folder / "saved_model.pb", *(folder / "variables").iterdir()]
    return sum(file.stat().st_size for file in files)


def measure_teacher(teacher: TeacherNet, input_shape: Sequence[int], examples: Mapping[str, Example]) -> dict[str, Any]:
    """{"teacher": its row of `deployment`}, as a SavedModel of its own; {}, with a note, if it cannot be one."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            saved_model.write_for_converters(Path(folder), teacher.load(), input_shape, {})
            measured = measure_saved_model(Path(folder), examples)
        except (RunError, ValueError, AssertionError, tf.errors.OpError) as error:  # a loaded teacher may be anything
            logging.info("export: the teacher's latency is not measured: %s", str(error).partition("\n")[0])
            return {}
    return {"teacher": {**measured, "validation_error_rate": teacher.error_rate}}


def tabulate(deployment: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the table of what one would deploy: `deployment` as in export.json."""
    rows = []
    for name, measured in deployment["rows"].items():
        row = {
            "format": name,
            "validation error rate": measured["validation_error_rate"],
            "size": format_bytes(measured["bytes"]),
        }
        for count, found in measured["milliseconds"].items():
            row |= {f"ms for {count}": found["p50"], f"p99 for {count}": found["p99"]}
        rows.append(row)
    return list(rows[0]), rows


def _convert(
    folder: Path, scratch: Path, net: keras.Model, data: Data, raw: Mapping[str, RawSignature], names: Sequence[str]
) -> dict[conversion.Target, str]:
    """Write every file that the formats can express; returns why the others are missing."""
    source, calibration = scratch / "source", scratch / "calibration.npy"
    source.mkdir()
    texts = {name: key for name, each in raw.items() for key, spec in each.inputs.items() if spec.dtype == tf.string}
    numeric = {name: each for name, each in raw.items() if name not in texts}
    call = models.inference_call(net)
    saved_model.write_for_converters(source, call, data.dataset.info.input_shape, numeric, net.variables)
    transfer = data.split("transfer")
    spaced = np.linspace(0, transfer.num_examples - 1, min(CALIBRATION_ROWS, transfer.num_examples))
    _write_rows(calibration, transfer, spaced.astype(np.int64))
    targets = [
        (name, signature) for name in names for signature in (DEFAULT, *([] if FORMATS[name].is_quantized else numeric))
    ]
    failures = {(name, signature): f"its input '{key}' is text" for name in names for signature, key in texts.items()}
    return failures | conversion.convert(source, folder / portable.FOLDER, calibration, targets)


def _write_rows(file: Path, split: Split, ids: np.ndarray) -> None:
    """A .npy file of the prepared examples `ids`, written in parts: a split need not fit into memory."""
    stored = None
    for start in range(0, len(ids), ROWS_AT_ONCE):
        batch = split.batch(tf.constant(ids[start : start + ROWS_AT_ONCE], tf.int64)).numpy()
        if stored is None:
            stored = np.lib.format.open_memmap(file, "w+", np.float32, (len(ids), *batch.shape[1:]))
        stored[start : start + len(batch)] = batch


@dataclass(frozen=True)
class _Checker:
    """Verifies and measures a version's files. `rows`: a .npy file of validation. `failures`: of the conversion."""

    folder: Path
    examples: Mapping[str, Example]
    rows: Path
    failures: Mapping[conversion.Target, str]
    judge: Judge
    maximum_error_increase: float

    def check(self, name: str, written: Written) -> None:
        """Add a format to `written`; what is wrong is removed, and named there."""
        record: dict[str, Any] = {"signatures": {}, **_describe_converter(name)}
        written.formats[name] = record
        try:
            milliseconds = self._check_default(name, record)
        except RunError as error:
            logging.warning("export: %s is refused: %s", name, error)
            record |= {"refused": str(error), "signatures": {}}
            for file in (self.folder / portable.FOLDER).glob(FORMATS[name].file_name("*")):
                file.unlink()
            self._file(name, DEFAULT).unlink(missing_ok=True)
            return
        for signature in self.examples:
            if signature == DEFAULT or FORMATS[name].is_quantized:
                continue
            try:
                self._check_signature(name, signature, record)
            except RunError as error:
                logging.info("export: %s has no %s: %s", name, signature, error)
                record.setdefault("left_out", {})[signature] = str(error)
                self._file(name, signature).unlink(missing_ok=True)
        written.deployment[name] = {
            "bytes": record["signatures"][DEFAULT]["bytes"],
            "validation_error_rate": record["validation"]["error_rate"],
            "milliseconds": milliseconds,
        }

    def _check_default(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        """Check `serving_default`, also on all of validation; returns its latency."""
        answer = self._check_signature(name, DEFAULT, record, rows=self.rows)
        found = record["validation"] = self.judge.measure(answer.rows)
        before = self.judge.measure(self.judge.logits)["error_rate"]
        increase = found["error_rate"] - before
        if FORMATS[name].is_quantized and not increase <= self.maximum_error_increase:
            raise RunError(
                f"its error rate on validation is {found['error_rate']:.4f}, the student's {before:.4f}: an increase "
                f"of {increase:.4f}, and export.maximum_error_increase is {self.maximum_error_increase}"
            )
        return answer.latency

    def _check_signature(
        self, name: str, signature: str, record: dict[str, Any], rows: Path | None = None
    ) -> answering.Answer:
        if (name, signature) in self.failures:
            raise RunError(self.failures[name, signature])
        file, (inputs, logits) = self._file(name, signature), self.examples[signature]
        answer = answering.answer(file, signature, inputs, rows, is_timed=rows is not None)
        tolerance = np.inf if FORMATS[name].is_quantized else verification.TOLERANCE
        record["signatures"][signature] = {
            "file": file.relative_to(self.folder).as_posix(),
            "bytes": file.stat().st_size,
            "examples": len(logits),
            "largest_difference": portable.check(answer, logits, FORMATS[name].is_quantized, tolerance),
        }
        return answer

    def _file(self, name: str, signature: str) -> Path:
        return self.folder / portable.FOLDER / FORMATS[name].file_name(signature)


def _describe_converter(name: str) -> dict[str, Any]:
    """ONNX's files say which opset they need; LiteRT's converter is TensorFlow's, which export.json names already."""
    return {"opset": conversion.OPSET, "tf2onnx": importlib.metadata.version("tf2onnx")} if name == "onnx" else {}
