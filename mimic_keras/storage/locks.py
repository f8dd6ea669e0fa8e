"""Locks on folders; the system releases those of a dead process."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
from absl import logging

from mimic_keras.contracts import InputError, unique_name
from mimic_keras.storage.files import write_json

USERS = ".users"  # holds a locked file for every process that uses the home folder, named by its start
STALE = 3600  # seconds; a younger lock file may be about to be locked
_are_held_elsewhere = contextvars.ContextVar("_are_held_elsewhere", default=False)
MARGIN = 60  # seconds by which the clocks of two hosts, and of a disk, may differ


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
        found = {"process": "unknown", "host": "unknown", "started": "just now"}
        with contextlib.suppress(OSError, ValueError):
            found |= json.loads(owner.read_text())
        raise InputError(
            f"{folder}: process {found['process']} on host {found['host']} has been running this experiment "
            f"since {found['started']}; "
            "wait for it, or give this run another name: --set name=NAME"
        ) from None
    try:
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        write_json(owner, {"process": os.getpid(), "host": socket.gethostname(), "started": started})
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def in_use(home: Path) -> Iterator[None]:
    """Within the block, no process prunes what was used since the block began."""
    folder = home / USERS
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{int(time.time())}-{unique_name()}.lock"
    try:
        with filelock.FileLock(file):
            yield
    finally:
        file.unlink(missing_ok=True)


def oldest_use(home: Path) -> float:
    """When the oldest process that is using `home` began, in seconds since 1970; infinity if there is none."""
    oldest = float("inf")
    for file, began in _users(home).items():
        lock = filelock.FileLock(file)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            oldest = min(oldest, began - MARGIN)
        else:
            lock.release()
            if time.time() - began > STALE:  # left by a killed process
                file.unlink(missing_ok=True)
    return oldest


def _users(home: Path) -> dict[Path, float]:
    """{lock file: when its process began}; a file with another kind of name is not ours."""
    found = {file: re.fullmatch(r"([0-9]{1,15})-.+\.lock", file.name) for file in (home / USERS).glob("*")}
    for file, match in found.items():
        if not match:
            _warn_of(file)
    return {file: float(match[1]) for file, match in found.items() if match}


@functools.cache
def _warn_of(file: Path) -> None:
    """Once for each file, however often the folder is read."""
    logging.warning("%s is no process's lock, such as 1700000000-HOST-ID.lock; ignored", file)


@contextlib.contextmanager
def locked(file: Path, label: str) -> Iterator[None]:
    """Hold the lock `file`; if another process holds it, log that and wait."""
    if _are_held_elsewhere.get():
        yield
        return
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


@contextlib.contextmanager
def held_elsewhere() -> Iterator[None]:
    """Within the block, `locked` takes no lock: a process on whatever machine holds those that this one needs."""
    token = _are_held_elsewhere.set(True)
    try:
        yield
    finally:
        _are_held_elsewhere.reset(token)
