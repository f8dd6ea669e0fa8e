"""The artefacts of a home folder: list and check them, and remove those that were not used for long."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import filelock

from mimic_keras.storage.locks import USERS
from mimic_keras.storage.store import DAMAGED, RECORD, damaged_files

KINDS = ("datasets", "teachers", "logits", "students", DAMAGED)
PARTIAL = ".partial"
STALE = 3600  # seconds; a younger lock file may be about to be locked


@dataclass(frozen=True)
class Entry:
    """One artefact, or what an interrupted run left of it. `size` is in bytes, `used` (last) in seconds since 1970."""

    kind: str
    key: str
    folder: Path
    label: str
    size: int
    used: float
    state: str


def list_entries(home: Path, check: bool = True) -> list[Entry]:
    """Every artefact below `home`, the least recently used first; `check` compares all digests."""
    entries = []
    for kind in KINDS:
        for folder in (home / kind).glob("*"):
            if folder.is_dir():
                entries.append(_read_entry(kind, folder, check))
    return sorted(entries, key=lambda entry: entry.used)


def _read_entry(kind: str, folder: Path, check: bool) -> Entry:
    files = [file.stat() for file in folder.rglob("*") if file.is_file()]
    size, used = sum(file.st_size for file in files), max((file.st_mtime for file in files), default=0.0)
    if folder.name.endswith(PARTIAL):
        return Entry(kind, folder.name.removesuffix(PARTIAL).lstrip("."), folder, "", size, used, "unfinished")
    if kind == DAMAGED:
        return Entry(kind, folder.name, folder, "", size, used, "moved aside")
    if kind == "datasets" and not (folder / RECORD).exists():
        return Entry(kind, folder.name, folder, f"data set {folder.name}", size, used, "unfinished")
    damage = damaged_files(folder) if check else []
    try:
        label = json.loads((folder / RECORD).read_text(encoding="utf-8"))["label"]
    except (OSError, ValueError, KeyError, TypeError):
        label = ""
    state = f"damaged: {', '.join(damage)}" if damage else "whole"
    return Entry(kind, folder.name, folder, label, size, used, state)


def remove_unused(home: Path, seconds: float) -> tuple[list[Entry], int]:
    """Remove what was not used for so many seconds, except what a running experiment may use.

    Returns:
        The removed entries, and how many more were old enough but in use.
    """
    oldest_run = _oldest_run(home)
    removed, kept = [], 0
    for entry in list_entries(home, check=False):
        if time.time() - entry.used < seconds:
            continue
        lock = filelock.FileLock(home / entry.kind / f".{entry.key}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            kept += 1
            continue
        try:
            # Read again, now that no process can begin to use it.
            if entry.folder.is_dir() and _read_entry(entry.kind, entry.folder, False).used >= oldest_run:
                kept += 1
            elif entry.folder.is_dir():
                shutil.rmtree(entry.folder)
                removed.append(entry)
        finally:
            lock.release()
    return removed, kept


def _oldest_run(home: Path) -> float:
    """When the oldest running experiment began; infinity if none runs."""
    started = float("inf")
    for file in (home / USERS).glob("*.lock"):
        began, lock = float(file.name.partition("-")[0]), filelock.FileLock(file)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            started = min(started, began)
        else:
            lock.release()
            if time.time() - began > STALE:  # left by a killed process
                file.unlink(missing_ok=True)
    return started
