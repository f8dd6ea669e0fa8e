"""A worker's entrance: a task comes in, an answer goes out. Nothing of TensorFlow is imported before it begins."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimic_keras.contracts import MimicError, RunError
from mimic_keras.interface.session import session


@dataclass(frozen=True)
class Task:
    """What a worker is sent: `function` of a plan and a workspace, and all that both follow from.

    `given` and `complete` are those of the experiment's Source, `file` is its name. `code`: what the driver's plan is
    carried out by. `data`: hashes of its data sets' identities. `folder`: the driver's working directory.
    """

    function: Callable[[Any, Any], Any]
    given: dict[str, Any]
    complete: dict[str, Any]
    file: str
    code: tuple[str, ...]
    data: tuple[str, ...]
    home: Path
    plugins: tuple[Path, ...]
    folder: Path


@dataclass(frozen=True)
class Missing:
    """An artefact that a unit waits for; arguments of `Store`."""

    common: Mapping[str, Any]
    kind: str
    inputs: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class Answer:
    """What a worker sends back: the unit's `value` and the folders of the artefacts that it `used`, what is `missing`
    for it, or its `error`; and what was logged.
    """

    value: Any = None
    used: tuple[Path, ...] = ()
    missing: tuple[Missing, ...] = ()
    error: Exception | None = None
    messages: list[logging.LogRecord] = field(default_factory=list)


def compute(task: Task, assigned: str | None = None) -> Answer:
    """Compute a unit whose artefacts are all there; else say which are missing. With `assigned`, the key of an artefact
    that the unit asks for, make that one alone.

    An error is part of the answer: Ray would compute again what would fail again.
    """
    try:
        os.chdir(task.folder)
        with session(task.plugins):
            from mimic_keras.interface import bench

            return bench.compute(task, assigned)
    except Exception as error:
        return Answer(error=_portable(error))


def _portable(error: Exception) -> Exception:
    """The error, if it can be sent; else its message."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(str(error))
    return error if isinstance(error, MimicError) else RunError(f"{type(error).__name__}: {error}")
