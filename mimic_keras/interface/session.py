"""One call of the program within a process: TensorFlow imported, messages shown, and settings as before afterwards."""

from __future__ import annotations

import contextlib
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
        with quiet_native_libraries():
            import tensorflow  # noqa: F401


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
