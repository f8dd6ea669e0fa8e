"""The folders that a user names: checked before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

from mimic_keras.contracts import InputError

Place = str | os.PathLike[str]


def as_folder(place: Place) -> Path:
    """A folder of this machine, with `~` filled in.

    Raises:
        InputError: it is an address, or the user's home directory is unknown.
    """
    text = os.fspath(place)
    if "://" in text:
        raise InputError(f"{text!r} is not a folder: addresses are not supported, use a mounted folder")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # neither HOME nor the system says where
        raise InputError(
            f"the user's home directory, ~ in {text!r}, is unknown; give a folder with --home or MIMIC_KERAS_HOME"
        ) from error


def as_exports_folder(place: Place) -> Path:
    """A folder that TensorFlow can load a SavedModel from; an InputError if it cannot."""
    folder = as_folder(place)
    if {"[", "\\"} & {*str(folder)}:  # it reads a path as a pattern
        raise InputError(f"{os.fspath(place)}: TensorFlow cannot load a SavedModel from a path with '[' or '\\'")
    return folder


def default_home() -> str:
    return os.environ.get("MIMIC_KERAS_HOME") or "~/.cache/mimic_keras"


def as_home(home: Place | None) -> Path:
    return as_folder(default_home() if home is None else home)


def check_writable(*folders: Path) -> None:
    """Notice a folder that cannot be written before anything is computed.

    Raises:
        InputError: it is a file, or in one.
        OSError: it cannot be written for another reason.
    """
    from mimic_keras.storage import files

    for folder in folders:
        try:
            files.check_writable(folder)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"{folder}: expected a folder, and this, or what it is in, is a file") from error
