"""What stages leave on disk: folders addressed by the hash of what they were made from, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import filelock
from absl import logging

from mimic_keras.contracts import InputError

RECORD = "artifact.json"
DAMAGED = "damaged"
USERS = ".users"  # a locked file, named by when it began, for every process that uses the home folder


@dataclass(frozen=True)
class Artifact:
    """A finished folder; `made` says whether this run made it or found it."""

    folder: Path
    key: str
    made: bool

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


class Store:
    """The artefacts of a home folder. `common` is part of every key (the trainer's version, determinism).

    Example:
        >>> store = Store(Path("home"), {"trainer": 1})
        >>> artifact = store.get_or_make("students", {"seed": 0}, "student", lambda folder: train_into(folder))
    """

    def __init__(self, home: Path, common: Mapping[str, Any]):
        self.home = home
        self.common = dict(common)
        self.counts = {"made": 0, "reused": 0}

    def key(self, inputs: Mapping[str, Any]) -> str:
        return hash_json({**self.common, **inputs})

    def get_or_make(self, kind: str, inputs: Mapping[str, Any], label: str, make: Callable[[Path], None]) -> Artifact:
        """The artefact of these inputs. `make(folder)` fills a folder, in which an interrupted run may have left files.

        A folder is used only if every file of its record is there with its digest; otherwise what is damaged is
        moved aside, said, and made again. Another process that makes the same artefact is waited for.
        """
        key = self.key(inputs)
        final, partial = self.home / kind / key, self.home / kind / f".{key}.partial"
        final.parent.mkdir(parents=True, exist_ok=True)
        with locked(final.parent / f".{key}.lock", label):
            if final.exists():
                if not set_damage_aside(final, self.home, label):
                    (final / RECORD).touch()  # its age is that of its last use
                    self.counts["reused"] += 1
                    logging.info("%s: reused (%s/%s)", label, kind, key)
                    return Artifact(final, key, made=False)
                shutil.rmtree(partial, ignore_errors=True)
                final.rename(partial)
            partial.mkdir(exist_ok=True)
            for unfinished in partial.rglob(".*.tmp"):
                unfinished.unlink()
            make(partial)
            write_record(partial, kind, key, label, {**self.common, **inputs})
            sync_tree(partial)
            partial.rename(final)
            sync_folder(final.parent)
        self.counts["made"] += 1
        return Artifact(final, key, made=True)


def write_record(folder: Path, kind: str, key: str, label: str, made_from: Mapping[str, Any]) -> None:
    """Note every file of `folder` with its digest, and what the folder was made from."""
    record = {"kind": kind, "label": label, "key": key, "made_from": made_from}
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(folder / RECORD, {**record, "created": created, "files": file_digests(folder)})


def set_damage_aside(folder: Path, home: Path, label: str) -> list[str]:
    """Compare `folder` with its record; the names of what is damaged, which is then in `home`/damaged, and said.

    A folder in it goes as a whole, everything goes if the record can not be read, and the record in any case.
    """
    damage = damaged_files(folder)
    if damage:
        aside = home / DAMAGED / f"{folder.parent.name}-{folder.name}-{time.time_ns()}"
        aside.mkdir(parents=True)
        everything = {path.name for path in folder.iterdir()}
        entries = everything if RECORD in damage else everything & {RECORD, *(Path(name).parts[0] for name in damage)}
        for name in entries:
            (folder / name).rename(aside / name)
        logging.warning("%s: %s is damaged (%s), moved to %s; made again", label, folder, ", ".join(damage), aside)
    return damage


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone.

    Raises:
        InputError: another process holds it; says which, since when, and what can be done. One that died does not.
    """
    lock, owner = filelock.FileLock(folder / ".lock"), folder / ".owner.json"
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        found = {"process": "unknown", "started": "just now"}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(owner.read_text())
        raise InputError(
            f"{folder}: process {found['process']} runs this experiment since {found['started']}; wait for it to end, "
            "or give this run another name: --set name=NAME"
        ) from None
    try:
        write_json(owner, {"process": os.getpid(), "started": time.strftime("%Y-%m-%d %H:%M:%S")})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def in_use(home: Path) -> Iterator[None]:
    """Within the block, what was used since its beginning is kept by `cache.prune` of any process."""
    folder = home / USERS
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{int(time.time())}-{os.getpid()}.lock"
    with filelock.FileLock(file):
        yield
    file.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(file: Path, label: str) -> Iterator[None]:
    """Hold the lock `file`; if another process holds it, say so and wait."""
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        logging.info("%s: waiting for another process that makes it", label)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def damaged_files(folder: Path, record: str = RECORD) -> list[str]:
    """Names that the folder's record lists and that are missing or changed; the record itself if it can not be read."""
    try:
        content = json.loads((folder / record).read_text(encoding="utf-8"))
        return [record] * ("key" not in content) + [
            name for name, digest in content["files"].items() if not _is_whole(folder / name, digest)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [record]


def hash_json(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of a JSON value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digests(folder: Path, record: str = RECORD) -> dict[str, str]:
    """{path below the folder: SHA-256} of every file but the record."""
    return {name: file_digest(folder / name) for name in sorted(file_names(folder, record))}


def file_names(folder: Path, record: str = RECORD) -> set[str]:
    """Paths below the folder of every file but the record."""
    return {name for name in _files(folder) if name != record}


def file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file whole or not at all: a sibling, synced, renamed."""
    with replaced(file) as stream:
        stream.write(data)


@contextlib.contextmanager
def replaced(file: Path) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of `file` at the end of the block, if nothing was raised in it."""
    sibling = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with sibling.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        sibling.replace(file)
    finally:
        sibling.unlink(missing_ok=True)


def write_json(file: Path, value: Any) -> None:
    write_bytes(file, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def sync_tree(folder: Path) -> None:
    """Have every file and folder below `folder` on the disk before it is renamed."""
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


def _files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _is_whole(file: Path, digest: str) -> bool:
    return file.is_file() and file_digest(file) == digest
