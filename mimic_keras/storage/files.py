"""Files that are whole or absent: written beside and renamed, with digests of what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mimic_keras.contracts import atomic_writer, file_digest, files_below

RECORD = "artifact.json"
LEFTOVER = re.compile(
    r"\..+\.([0-9]+|[A-Za-z0-9-]*-[0-9a-f]{32})\.tmp"
)  # of `atomic_writer`; earlier ones had a process id


def hash_json(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a JSON value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def derive_seed(text: str) -> int:
    """A seed from 0 to 2**31 - 1 that follows from `text`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 2**31


def derive_fraction(text: str) -> float:
    """A number in [0, 1) that follows from `text`."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 11) / 2**53


def file_digests(folder: Path, record: str = RECORD) -> dict[str, str]:
    """{path relative to the folder: SHA-256} of every file except the record."""
    return {name: file_digest(folder / name) for name in sorted(file_names(folder, record))}


def file_names(folder: Path, record: str = RECORD) -> set[str]:
    """Relative paths of every file in the folder except the record."""
    return {name for name in _files(folder) if name != record}


def stamp_files(places: Iterable[Path]) -> list[Any]:
    """[(file, size, times of change)] of every file in and below `places`: equal later if no file was touched.

    A place that cannot be listed never equals itself.
    """
    stamps: list[Any] = []
    for place in places:
        try:
            for file in files_below(place) if place.is_dir() else [place] if place.exists() else []:
                stat = file.stat()
                stamps.append((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        except OSError:
            stamps.append(object())
    return stamps


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file whole or not at all: to a sibling, which is synced and renamed."""
    with atomic_writer(file) as stream:
        stream.write(data)


def write_json(file: Path, value: Any) -> None:
    write_bytes(file, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of files. The caller holds the folder's lock: no live process writes there."""
    for name in list(_files(folder)):
        if LEFTOVER.fullmatch((folder / name).name):
            (folder / name).unlink()


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk."""
    for name in _files(folder):
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())
    for path in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync_folder(path)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Create `folder` if it is missing, and write, sync and remove a file in it.

    Raises:
        OSError: one of these fails; `filename` is the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _files(folder: Path) -> Iterator[str]:
    """A folder that cannot be listed is an OSError; `Path.rglob` would leave it out."""
    for place, _, names in os.walk(folder, onerror=_raise):
        paths = (Path(place, name) for name in names)
        yield from (path.relative_to(folder).as_posix() for path in paths if path.is_file())


def _raise(error: OSError) -> None:
    raise error
