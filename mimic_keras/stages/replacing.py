"""Whose results a run would replace: those of another experiment stay, unless the user wants them replaced.

Experiments that name the same components are the same: all else is tuned from run to run under one name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimic_keras.contracts import InputError
from mimic_keras.experiment.file import read
from mimic_keras.experiment.schema import Experiment
from mimic_keras.serving import publishing
from mimic_keras.storage.store import read_record

EXPERIMENT = "experiment.yaml"  # in the folder of a run
CELLS = "cells"  # in the folder of a sweep
OTHER_NAME = "give this one another name, --set name=NAME"


def name_components(experiment: Mapping[str, Any]) -> dict[str, str]:
    """The names of the components of an experiment, given as plain data; "none" where there is none.

    Raises:
        KeyError, TypeError, AttributeError: it is not an experiment.

    Example:
        >>> name_components(YAML(typ="safe").load(Path("experiments/quickstart.yaml")))
        {'dataset': 'digits', 'teacher': 'trained cnn', 'student': 'bottleneck', 'loss': 'logit_l2'}
    """
    student, teacher = experiment["student"], experiment.get("teacher") or {"members": []}
    members = {_with_nested(entry["teacher"]) for entry in teacher["members"]}
    return {
        "dataset": experiment["dataset"]["name"],
        "teacher": ", ".join(sorted(members)) or "none",
        "student": student["architecture"]["name"],
        "loss": (student.get("loss") or {"name": "none"})["name"],
    }


def _with_nested(component: Mapping[str, Any]) -> str:
    """A component's name and those of the components among its arguments, as in 'trained cnn'."""
    nested = [value["name"] for value in component.values() if isinstance(value, dict) and "name" in value]
    return " ".join([component["name"], *nested])


def check_run(folder: Path, experiment: Experiment, replace: bool) -> None:
    """Check that `folder`, where the results are to go, holds those of no other experiment, unless they may go.

    Raises:
        InputError: it does, or whose they are cannot be read; or it holds a sweep's.
    """
    if (folder / CELLS).exists():
        raise InputError(f"{folder} holds the results of a sweep; {OTHER_NAME}, or move the folder away")
    file = folder / EXPERIMENT
    if replace or not file.exists():
        return
    try:
        found = name_components(read(file).content)
    except (InputError, KeyError, TypeError, AttributeError) as error:
        reason = error if isinstance(error, InputError) else f"{file}: not an experiment ({error!r})"
        raise InputError(
            f"{reason}; so {folder} may hold the results of another experiment; {OTHER_NAME}, or replace them: "
            "--replace"
        ) from error
    _compare(folder, found, experiment)


def check_export(base: Path, experiment: Experiment, replace: bool) -> None:
    """Check that a version can be published below `base`, where the newest is of no other experiment.

    Raises:
        InputError: it is, and may not be followed by ours; or there can be no next version.
    """
    if not base.exists():
        return
    publishing.next_version(base)
    newest = max(publishing.list_versions(base), default=0)
    # Models that others put there, and exports of earlier versions of the program, do not say what they are of.
    found = (read_record(base / str(newest), publishing.RECORD) or {}).get("components")
    if not replace and isinstance(found, dict):
        _compare(base / str(newest), found, experiment)


def check_sweep(folder: Path) -> None:
    """Check that `folder`, where a sweep's results are to go, holds no experiment's.

    Raises:
        InputError: it does.
    """
    if (folder / EXPERIMENT).exists():
        raise InputError(f"{folder} holds the results of an experiment; {OTHER_NAME}, or move the folder away")


def _compare(place: Path, found: Mapping[str, str], experiment: Experiment) -> None:
    ours = name_components(experiment.model_dump())
    differences = [f"{kind} {found.get(kind)}, not {name}" for kind, name in ours.items() if found.get(kind) != name]
    if differences:
        raise InputError(
            f"{place} is of another experiment ({'; '.join(differences)}); {OTHER_NAME}, or replace its results: "
            "--replace"
        )
