"""One call of the program within a process: TensorFlow imported, messages shown, and settings as before afterwards."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimic_keras.planning.plugins import GivenPlugin


@contextlib.contextmanager
def session(files: Sequence[Path] = (), objects: Sequence[GivenPlugin] = ()) -> Iterator[None]:
    """Within the block, experiments may be planned and run, and may name the components of `files` and `objects`.

    Raises:
        InputError: a file cannot be used, or Keras computes with something else than TensorFlow.
    """
    from mimic_keras.reporting import console

    with console.showing_messages():
        with console.waiting("loading TensorFlow"):
            import_tensorflow()
            from mimic_keras.planning.files import components_of
            from mimic_keras.planning.plugins import knowing
            from mimic_keras.training.process import keeping_settings

        with keeping_settings(), components_of(files), knowing(objects):
            yield


def import_tensorflow() -> None:
    """Import TensorFlow without its notices, unless the process has it."""
    if "tensorflow" not in sys.modules:
        with _uncollected(), quiet_native_libraries():
            import tensorflow  # noqa: F401


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Within the block, garbage is not collected, and what is there after it stays as long as the process.

    Going through the 400,000 objects of TensorFlow's modules takes a fifth of their import, and 0.2 s of each
    collection afterwards, as long as a small net's evaluation; sweeps, searches and workers collect after each net.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
    gc.freeze()


@contextlib.contextmanager
def quiet_native_libraries() -> Iterator[None]:
    """Hold back what TensorFlow's libraries print while they load, which no setting silences; shown if they fail."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Keras would write a keras.json into the user's home, and read one, which can change what nets compute.
    os.environ.setdefault("KERAS_HOME", os.devnull)
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            yield
        except BaseException:
            notices.seek(0)
            os.write(kept, notices.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
