"""What a published student answers: `verify` and `predict` of the library."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from mimic_keras.contracts import InputError
from mimic_keras.interface.folders import Place
from mimic_keras.interface.results import Table, VerifyResult
from mimic_keras.interface.session import quiet_native_libraries

if TYPE_CHECKING:
    from mimic_keras.serving.runtimes import Arrays


def verify(version: Place) -> VerifyResult:
    """Check that an export answers as its student does, and survives bad requests.

    `version` is its folder, as saved_models/quickstart/1.

    Raises:
        InputError: it is no export, or damaged.
        RunError: it answers something else, or a request crashes it.
    """
    from mimic_keras.storage.store import damaged_files, read_record

    version = Path(version)
    damaged = damaged_files(version, "export.json")
    if not (version / "export.json").exists():
        raise InputError(f"{version} is not an export: it has no export.json{_suggest_version(version)}")
    if damaged:
        raise InputError(f"{version} is damaged: {', '.join(damaged)}")
    with quiet_native_libraries():
        from mimic_keras.serving import portable, verification
    record = read_record(version, "export.json") or {}
    portable.check_installed(record.get("formats", {}))
    result = verification.verify(version)
    rows = [
        {
            "signature": name,
            "examples": checked["examples"],
            "largest difference": checked["largest_difference"],
            "bad requests refused": checked["refused"],
            "bad requests answered": checked["answered"],
        }
        for name, checked in result["signatures"].items()
    ]
    found = portable.verify(version, record)
    others = Table("other formats", list(found[0]), found) if found else None
    return VerifyResult(str(version), list(rows[0]), rows, result["warmup_requests"], others)


def predict(version: Place, *inputs: Place, signature: str | None = None, form: str = "saved_model") -> Table:
    """A table of the class, label and probability that an export answers for every example.

    Its rows also have "probabilities", {label: probability} of every class.

    Args:
        version: the export's folder, as saved_models/quickstart/1.
        inputs: files: arrays (.npy, .npz), rows (.csv), images, or others, whose bytes a signature of texts takes; or
            folders of them.
        signature: which to use; None: the only one that takes the inputs.
        form: which of the export's formats to run: saved_model, litert, litert_dynamic, litert_int8 or onnx.

    Raises:
        InputError: it is no export, has no such format or signature, or an input does not fit.

    Example:
        >>> mimic_keras.predict("saved_models/quickstart/1", "digits.npy").rows[0]["label"]
        '7'
    """
    from mimic_keras.storage.store import read_record

    record = read_record(Path(version), "export.json")
    if record is None:
        raise InputError(f"{version} is not an export: it has no whole export.json{_suggest_version(Path(version))}")
    for file in map(Path, inputs):
        if not file.exists():
            raise InputError(f"{file}: no such file or folder")
    with quiet_native_libraries():
        from mimic_keras.serving import portable, prediction

        runtimes = portable.load(Path(version), record, form)
        from mimic_keras.reporting import console
    examples = prediction.read([Path(file) for file in inputs])
    if signature and signature not in runtimes:
        raise InputError(f"--signature {signature}: {form} has {', '.join(runtimes)}")
    known = {name: each.inputs for name, each in runtimes.items() if signature in (None, name)}
    with console.showing_messages():
        chosen, request = prediction.choose(known, examples)
        _warn_of_other_scales(Path(version), chosen, request, others=[name for name in runtimes if name != chosen])
    rows = list(prediction.predict(runtimes[chosen], request, examples.names, record["class_names"]))
    columns = ["example", *["row"] * any("row" in row for row in rows), "class", "label", "probability"]
    return Table(f"{chosen}, {form}", columns, rows)


def _warn_of_other_scales(version: Path, signature: str, request: Arrays, others: Sequence[str]) -> None:
    from mimic_keras.serving import prediction, verification

    try:
        own, _ = verification.read_examples(version)[signature]
    except verification.VerificationError as error:
        logging.warning("%s; whether the examples were prepared as the student's is not checked", error)
    else:
        prediction.warn_of_other_scales(signature, request, own, others)


def _suggest_version(folder: Path) -> str:
    """The newest version in `folder`, if it is the folder above them, or what it published, if it is a run's."""
    versions = [int(file.parent.name) for file in folder.glob("*/export.json") if file.parent.name.isdecimal()]
    if versions:
        return f". Did you mean '{folder / str(max(versions))}'?"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no run, or a damaged one, or not published
        return f". It is a run; its export is '{json.loads((folder / 'metrics.json').read_bytes())['export']['path']}'"
    return ""
