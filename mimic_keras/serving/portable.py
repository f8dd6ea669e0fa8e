"""Whether the files of the other formats answer as their student does, each in its own runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import InputError
from mimic_keras.experiment.formats import FORMATS, SAVED_MODEL, describe_missing
from mimic_keras.serving import answering, runtimes, verification
from mimic_keras.serving.answering import Answer
from mimic_keras.serving.runtimes import Runtime
from mimic_keras.serving.verification import VerificationError

FOLDER = "assets.extra"  # of a version: TensorFlow Serving passes over what is in it
# Kernels for 8 bits round differently on another processor, by far less than the quantisation itself does.
QUANTIZED_SLACK = 2.0

Example = tuple[Mapping[str, np.ndarray], np.ndarray]  # ({input: array}, the student's logits)


def check(answer: Answer, logits: np.ndarray, is_quantized: bool, tolerance: float = verification.TOLERANCE) -> float:
    """The largest difference of a file's logits from the student's, as a share of their spread.

    Args:
        answer: the file's to the examples, of which there is at least one.
        logits: the student's, float32 [B, num_classes], or [B, rows, num_classes] where examples have rows.
        is_quantized: then probabilities and classes need not follow from the logits to the last digit.
        tolerance: the largest difference that passes.

    Raises:
        VerificationError: an answer has another shape, or differs by more.
    """
    differences = []
    for outputs in (answer.whole, answer.first):
        found = outputs["logits"]
        expected = logits[: len(found), : found.shape[1]] if "row_counts" in outputs else logits[: len(found)]
        if not is_quantized:
            differences.append(verification.compare(outputs, expected, None))
        elif found.shape != expected.shape:
            raise VerificationError(f"logits of shape {list(found.shape)}, expected {list(expected.shape)}")
        else:
            differences.append(verification.measure_difference(found, expected))
    if not max(differences) <= tolerance:
        raise VerificationError(
            f"its logits differ from the student's by {max(differences):.2g} of their spread; at most {tolerance:.2g} "
            "is accepted"
        )
    return max(differences)


def load(folder: Path, record: Mapping[str, Any], name: str) -> dict[str, Runtime]:
    """{signature: ready to run} of a version in one of its formats; `record` is the content of its export.json.

    Raises:
        InputError: it has no such format, or the format's runtime is not installed.
        FileError: the runtime cannot read it.
    """
    if name == SAVED_MODEL:
        return runtimes.load_saved_model(folder)
    formats = {key: each["signatures"] for key, each in record.get("formats", {}).items() if each["signatures"]}
    if name not in formats:
        raise InputError(f"{folder} has no {name}; it has {', '.join([SAVED_MODEL, *formats])}")
    check_installed([name])
    return {signature: runtimes.load_file(folder / each["file"]) for signature, each in formats[name].items()}


def verify(folder: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Verify the files of a version's other formats, each in a process of its own.

    Args:
        folder: the version's.
        record: the content of its export.json.

    Returns:
        [{"format", "signature", "largest difference"}]

    Raises:
        InputError: the runtime of a format is not installed.
        VerificationError: a file cannot be loaded, or answers differently from the student.
    """
    rows = []
    examples = verification.read_examples(folder)
    for name, form in record.get("formats", {}).items():
        for signature, recorded in form["signatures"].items():
            inputs, logits = examples[signature]
            is_quantized = FORMATS[name].is_quantized
            tolerance = QUANTIZED_SLACK * recorded["largest_difference"] if is_quantized else verification.TOLERANCE
            try:
                answer = answering.answer(folder / recorded["file"], signature, inputs)
                difference = check(answer, logits, is_quantized, tolerance)
            except (runtimes.FileError, VerificationError) as error:
                raise VerificationError(f"{folder}: {name}, {signature}: {error}") from error
            rows.append({"format": name, "signature": signature, "largest difference": difference})
    return rows


def check_installed(names: Iterable[str]) -> None:
    """Raise InputError unless the runtimes of these formats are installed."""
    if missing := describe_missing(names):
        raise InputError("; ".join(missing))
