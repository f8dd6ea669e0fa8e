"""A worker's entrance: a task comes in, an answer goes out. Nothing of TensorFlow is imported before it begins."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Sequence

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


def compute_together(addresses: Sequence[str], rank: int, task: Task, assigned: str) -> Answer:
    """Make the net of the key `assigned` with others, who are at `addresses`; this is number `rank` of them.

    Raises:
        MimicError: as of `leading.train_together`, or whatever else went wrong.
    """
    role = {"type": "worker", "index": rank}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": list(addresses)}, "task": role})
    try:
        os.chdir(task.folder)
        with session(task.plugins):
            from mimic_keras.interface import leading

            return leading.train_together(task, assigned)
    except Exception as error:
        raise _portable(error) from None


def _portable(error: Exception) -> Exception:
    """The error, if it can be sent; else its message."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(str(error))
    return error if isinstance(error, MimicError) else RunError(f"{type(error).__name__}: {error}")
