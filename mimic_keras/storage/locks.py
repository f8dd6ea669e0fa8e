"""Locks on folders; the system releases those of a dead process."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
from absl import logging

from mimic_keras.contracts import InputError
from mimic_keras.storage.files import write_json

USERS = ".users"  # holds a locked file for every process that uses the home folder, named by its start


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process only.

    Raises:
        InputError: another live process holds it; names the process, its start, and the ways out.
    """
    lock, owner = filelock.FileLock(folder / ".lock"), folder / ".owner.json"
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        found = {"process": "unknown", "started": "just now"}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(owner.read_text())
        raise InputError(
            f"{folder}: process {found['process']} has been running this experiment since {found['started']}; "
            "wait for it, or give this run another name: --set name=NAME"
        ) from None
    try:
        write_json(owner, {"process": os.getpid(), "started": time.strftime("%Y-%m-%d %H:%M:%S")})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def in_use(home: Path) -> Iterator[None]:
    """Within the block, no process prunes what was used since the block began."""
    folder = home / USERS
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{int(time.time())}-{os.getpid()}.lock"
    with filelock.FileLock(file):
        yield
    file.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(file: Path, label: str) -> Iterator[None]:
    """Hold the lock `file`; if another process holds it, log that and wait."""
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        logging.info("%s: waiting for the process that is making it", label)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
