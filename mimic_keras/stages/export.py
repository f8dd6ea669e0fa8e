"""Stage 7: the student as a version for TF Serving, with other formats beside it, verified and then published whole."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from mimic_keras.contracts import RawSignature, RunError
from mimic_keras.experiment.formats import DEFAULT
from mimic_keras.experiment.schema import Experiment, ExportSection
from mimic_keras.serving import folding, publishing, saved_model, verification, warmup
from mimic_keras.serving.publishing import RECORD
from mimic_keras.serving.runtimes import THREADS
from mimic_keras.stages import formats
from mimic_keras.stages.data import Data
from mimic_keras.stages.formats import TeacherNet
from mimic_keras.stages.replacing import name_components
from mimic_keras.stages.student import Net
from mimic_keras.storage.files import file_digests, hash_json, write_json
from mimic_keras.storage.locks import locked
from mimic_keras.storage.store import REUSED, damaged_files
from mimic_keras.training import models
from mimic_keras.training.machine import describe_machine

EXPORT_VERSION = 2  # part of the export's key: raise it when the same student would be exported differently
ALL_THE_SAME = "export.minimum_agreement=0"  # the setting that publishes a student whatever it is worth
EXAMPLES = 64  # stored with an export, to verify it

Examples = dict[str, tuple[dict[str, np.ndarray], np.ndarray]]  # {signature: ({input: array}, the student's logits)}


@dataclass(frozen=True)
class Published:
    """A version of an export. `record` is its export.json; `made` is False if the version was there already."""

    path: Path
    version: int
    record: dict[str, Any]
    made: bool

    def to_json(self) -> dict[str, Any]:
        """As in metrics.json."""
        shown = ("signatures", "formats", "deployment")
        known = {key: self.record[key] for key in shown if key in self.record}
        return {"path": str(self.path), "version": self.version, "bytes": formats.count_bytes(self.path), **known}

    @property
    def refusal(self) -> str | None:
        """Which formats were refused, and why; None if the version has all of them."""
        formats = self.record.get("formats", {})
        refused = [f"{name}: {each['refused']}" for name, each in formats.items() if "refused" in each]
        if not refused:
            return None
        return (
            f"{self.path} is published without {'; without '.join(refused)}. Leave it out of export.formats"
            ", or accept more with export.maximum_error_increase"
        )


def find_refusal(metrics: Mapping[str, float | None], labels: np.ndarray, options: ExportSection) -> str | None:
    """Why a student is not worth publishing; None if it is: better than chance, and as close to its teacher as
    `options` ask.

    It is better than chance if its error rate is lower than that of always answering the most frequent class.

    Args:
        metrics: the student's on validation, as in metrics.json.
        labels: int [N], of validation; -1 where unknown.
    """
    if options.minimum_agreement == 0:
        return None
    known = labels[labels >= 0]
    chance = float(np.mean(known != np.bincount(known).argmax())) if known.size else 0.0
    error, agreement, least = metrics.get("error_rate"), metrics.get("agreement"), options.minimum_agreement or 0.0
    reason = None
    if error is None or not chance:
        logging.info("export: not compared with chance: validation has no error rate, or no labels of two classes")
    elif error >= chance:
        reason = f"its error rate, {error:.4f}, is no lower than that of the most frequent class alone, {chance:.4f}"
    if agreement is not None and agreement < least:
        reason = f"its agreement with the teacher, {agreement:.4f}, is below export.minimum_agreement, {least}"
    return reason and f"the student is not published: on validation, {reason}"


def publish(
    student: Net,
    data: Data,
    experiment: Experiment,
    metrics: dict[str, Any],
    base: Path,
    teacher: TeacherNet | None = None,
) -> Published:
    """Write the next version below `base / experiment.name`, unless the newest version there is this student already.

    `teacher`: whose latency is measured beside the student's, where there are other formats than the SavedModel.

    Raises:
        InputError: there can be no next version.
        RunError: the exported graph computes something else than the student, or bad requests crash it.
    """
    info = data.dataset.info
    # A student that was rebuilt by another machine or TensorFlow can have other weights under the same key.
    weights = hashlib.sha256()
    for weight in student.model.weights:
        weights.update(weight.numpy().tobytes())
    made_from = {
        "student": student.key,
        "weights": weights.hexdigest(),
        "data": data.identity,
        "classes": list(info.class_names),
    }
    key = hash_json({**made_from, **experiment.export.key_inputs(), "export": EXPORT_VERSION})
    folder = base / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".publishing.lock", "export"):
        newest = folder / str(max(publishing.list_versions(folder), default=0))
        intact = _read_record(newest)
        if intact and intact["key"] == key:
            logging.info("export: reused (%s)", newest, extra=REUSED)
            return Published(newest, int(newest.name), intact, made=False)
        raw = data.raw_signatures()
        pads = any(None in tuple(each.shape)[1:] for signature in raw.values() for each in signature.inputs.values())
        publishing.write_server_files(folder, pads)
        record: dict[str, Any] = {
            "key": key,
            "experiment": experiment.name,
            "components": name_components(experiment.model_dump()),
            "student": student.key,
            "metrics": metrics,
        }
        version = publishing.publish(
            folder, lambda hidden: _write_version(hidden, student, data, raw, experiment.export, record, teacher)
        )
    for note in record["folding"]:
        logging.info("export: %s", note)
    logging.info("export: published %s", version)
    return Published(version, int(version.name), record, made=True)


def _write_version(
    folder: Path,
    student: Net,
    data: Data,
    raw: Mapping[str, RawSignature],
    options: ExportSection,
    record: dict[str, Any],
    teacher: TeacherNet | None,
) -> None:
    """Write and verify all files of a version, and complete its `record`."""
    info = data.dataset.info
    net, notes = folding.fold(models.load(student.folder), options.absorb_bottleneck)
    signatures = saved_model.write(folder, net, info, raw)
    examples = _make_examples(student.model, data, raw)
    verification.write_examples(folder, examples)
    warmup.write(folder, record["experiment"], _warmup_requests(examples))
    record |= {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "machine": describe_machine(),
        "folding": notes,
        "tolerance": folding.rounding_tolerance(weight.shape for weight in student.model.weights),
        "multiply_adds": models.count_multiply_adds(models.inference_call(net), info.input_shape),
        "class_names": list(info.class_names),
        "signatures": signatures,
    }
    write_json(folder / RECORD, record)  # the verification reads it
    record["verified"] = verification.verify(folder)
    if options.other_formats:
        written = formats.write(folder, net, student.model, data, raw, examples, options)
        measured = formats.measure_teacher(teacher, info.input_shape, examples) if teacher else {}
        record["formats"] = written.formats
        record["deployment"] = {"threads": THREADS, "rows": {**measured, **written.deployment}}
    record["files"] = file_digests(folder, RECORD)
    write_json(folder / RECORD, record)


def _make_examples(student: keras.Model, data: Data, raw: Mapping[str, RawSignature]) -> Examples:
    """Inputs for every signature, and the logits of the student itself, before any folding.

    Raises:
        RunError: a signature prepares its examples differently from the data set.
    """
    split = data.split("validation")

    def batch(ids: np.ndarray) -> tf.Tensor:
        return split.batch(tf.constant(ids, tf.int64))

    def logits(rows: tf.Tensor) -> np.ndarray:
        return models.float32_logits(student(rows, training=False)).numpy()

    prepared = batch(np.arange(min(EXAMPLES, split.num_examples))).numpy()
    examples: Examples = {DEFAULT: ({saved_model.INPUTS: prepared}, logits(prepared))}
    for name, signature in raw.items():
        rows = signature.prepare(**{key: tf.constant(value) for key, value in signature.examples.items()})
        rows, splits = rows if isinstance(rows, tuple) else (rows, None)
        if not np.array_equal(rows.numpy(), batch(signature.ids).numpy()):
            raise RunError(f"{data.component.plugin}: {name} prepares its examples differently from the data set")
        answers = saved_model.make_outputs(tf.constant(logits(rows)), data.dataset.info.class_names, splits)
        examples[name] = dict(signature.examples), answers["logits"].numpy()
    return examples


def _warmup_requests(examples: Examples) -> list[warmup.Request]:
    """For every signature, one request with one example and one with all."""
    return [
        warmup.Request(signature, {name: value[:count] for name, value in inputs.items()})
        for signature, (inputs, _) in examples.items()
        for count in (1, EXAMPLES)
    ]


def _read_record(version: Path) -> dict[str, Any] | None:
    """The version's export.json; None unless every file it lists is there with its digest."""
    if not version.is_dir():
        return None
    damaged = damaged_files(version, RECORD)
    if damaged:
        logging.warning("export: %s is damaged (%s); publishing the next version", version, ", ".join(damaged))
        return None
    return json.loads((version / RECORD).read_text(encoding="utf-8"))
