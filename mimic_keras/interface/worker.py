"""A worker's entrance: a task comes in, an answer goes out. Nothing of TensorFlow is imported before it begins."""

from __future__ import annotations

import os
import pickle

from mimic_keras.contracts import MimicError, RunError
from mimic_keras.interface.session import session
from mimic_keras.interface.tasks import Answer, Task


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
