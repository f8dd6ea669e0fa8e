"""Stage 6: the student as a SavedModel version that TF Serving reads, published whole, once, and never overwritten."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from mimic_keras import models
from mimic_keras.artifacts import damaged_files, file_digests, hash_json, locked, sync_folder, sync_tree, write_json
from mimic_keras.contracts import RunError
from mimic_keras.stages.data import Data
from mimic_keras.stages.student import Net

EXPORT_VERSION = 1  # part of the export's key: raise it when the same student would be exported differently
TOLERANCE = 1e-5  # largest difference to the student, as a share of the logits' spread
CHECKED_EXAMPLES = 256
RECORD = "export.json"


@dataclass(frozen=True)
class Published:
    """`signatures` {name: {"inputs": {name: shape}, "outputs": {name: shape}}}; `made` is False if it was there."""

    path: Path
    version: int
    signatures: dict[str, Any]
    made: bool

    def summary(self) -> dict[str, Any]:
        """As in metrics.json."""
        return {"path": str(self.path), "version": self.version, "signatures": self.signatures}


def publish(student: Net, data: Data, experiment: str, metrics: dict[str, Any], base: Path) -> Published:
    """Write the next version below `base / experiment`, unless the newest version there is this very student.

    Raises:
        RunError: the exported graph does not compute what the student computes.
    """
    info = data.dataset.info
    # A student that was made again can have other weights under the same key: another machine, another TensorFlow.
    weights = hashlib.sha256(b"".join(weight.tobytes() for weight in student.model.get_weights())).hexdigest()
    key = hash_json(
        {"student": student.key, "weights": weights, "classes": list(info.class_names), "export": EXPORT_VERSION}
    )
    folder = base / experiment
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".publishing.lock", "export"):
        for abandoned in folder.glob(".partial-*"):
            shutil.rmtree(abandoned)
        newest = max(_versions(folder), default=0)
        found = _whole_record(folder / str(newest))
        if found and found["key"] == key:
            logging.info("export: reused (%s)", folder / str(newest))
            return Published(folder / str(newest), newest, found["signatures"], made=False)
        return _publish_next(student, data, experiment, metrics, folder, newest + 1, key)


def _publish_next(
    student: Net, data: Data, experiment: str, metrics: dict[str, Any], folder: Path, version: int, key: str
) -> Published:
    info = data.dataset.info
    hidden = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    hidden.chmod(0o755)  # mkdtemp's folder is its owner's alone, and the server is another user
    try:
        folding, signatures = _write(student, info.input_shape, hidden)
        difference = _difference(student.model, hidden, data)
        record = {
            "key": key,
            "experiment": experiment,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "student": student.key,
            "tensorflow": tf.__version__,
            "folding": folding,
            "largest_difference": difference,
            "class_names": list(info.class_names),
            "signatures": signatures,
            "metrics": metrics,
            "files": file_digests(hidden),
        }
        write_json(hidden / RECORD, record)
        sync_tree(hidden)
        hidden.rename(folder / str(version))  # fails, rather than overwrites, where the version exists
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    logging.info("export: published %s (%s)", folder / str(version), folding)
    return Published(folder / str(version), version, signatures, made=True)


def _versions(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()]


def _whole_record(version: Path) -> dict[str, Any] | None:
    """The version's export.json, if every file it lists is there with its digest."""
    if not version.is_dir():
        return None
    damaged = damaged_files(version, RECORD)
    if damaged:
        logging.warning("export: %s is damaged (%s); the next version is published", version, ", ".join(damaged))
        return None
    return json.loads((version / RECORD).read_text(encoding="utf-8"))


def _write(student: Net, input_shape: tuple[int, ...], folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the SavedModel; returns how the head was folded, and the signatures."""
    net, folding = models.without_affine_head(models.load(student.folder))
    shape = (None, *input_shape)

    def serving_default(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        # TF Serving does not check shapes, and some kernels abort the server on a missing batch dimension.
        logits = models.logits_of(net(tf.ensure_shape(inputs, shape), training=False))
        probabilities = tf.nn.softmax(logits)
        return {"logits": logits, "probabilities": probabilities, "class": tf.argmax(logits, -1, tf.int32)}

    archive = keras.export.ExportArchive()
    specification = tf.TensorSpec(shape, tf.float32, name="inputs")
    archive.add_endpoint("serving_default", serving_default, input_signature=[specification])
    archive.write_out(str(folder), verbose=False)
    classes = [-1, int(models.logits_shape(net, input_shape)[-1] or 0)]
    outputs = {"logits": classes, "probabilities": classes, "class": [-1]}
    return folding, {"serving_default": {"inputs": {"inputs": [-1, *input_shape]}, "outputs": outputs}}


def _difference(student: keras.Model, folder: Path, data: Data) -> float:
    """Largest difference of the exported logits to the student's, as a share of their spread."""
    split = data.split("validation")
    inputs = split.batch(tf.range(min(CHECKED_EXAMPLES, split.num_examples), dtype=tf.int64))
    expected = models.logits_of(student(inputs, training=False)).numpy()
    # Nothing may stay mapped or open of a folder that is about to be renamed: load, run, forget.
    exported = tf.saved_model.load(str(folder)).signatures["serving_default"](inputs=inputs)["logits"].numpy()
    difference = float(np.abs(exported - expected).max() / max(expected.std(), 1e-30))
    if not difference <= TOLERANCE:
        raise RunError(f"the exported logits differ from the student's by {difference:.2g} of their spread")
    return difference
