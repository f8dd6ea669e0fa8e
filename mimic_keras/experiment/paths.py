"""Where the paths in an experiment lead: they are relative to its own file."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from absl import logging

from mimic_keras.experiment import builtin


def anchor(text: str, folder: Path | None) -> str:
    """The absolute path; addresses and what begins at the user's home are kept.

    A relative path is relative to the `folder` of the experiment's file. Where nothing is there, but something in the
    working directory, it is that, with a note: experiments of earlier versions were written so. A built-in experiment
    names no files, so its paths are the user's, and relative to the working directory. Without a folder the path is
    left as it is.
    """
    if folder is None or not text or text.startswith("~") or "://" in text or Path(text).is_absolute():
        return text
    return _anchor(text, Path.cwd() if folder.is_relative_to(builtin.FOLDER) else folder)


@functools.cache  # a note is shown once
def _anchor(text: str, folder: Path) -> str:
    beside, here = _shorten(folder.absolute() / text), _shorten(Path(text).absolute())
    if beside.exists() or not here.exists() or beside == here:
        return str(beside)
    logging.info("%s: there is none beside the experiment, in %s; taken from the working directory", text, folder)
    return str(here)


def _shorten(path: Path) -> Path:
    """Without "..", if that is the same place: behind a symbolic link it may not be."""
    short = Path(os.path.normpath(path))
    return short if short.resolve() == path.resolve() else path
