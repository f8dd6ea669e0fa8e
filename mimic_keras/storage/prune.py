"""The artefacts of a home folder: list and check them, and remove those that were not used for long.

A home folder may hold files of others. Ours are the folders whose record names their own kind and key, and those with a
hidden or numbered name that only this program gives; nothing else is removed, and no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from mimic_keras.contracts import unique_name
from mimic_keras.storage.files import sync_folder
from mimic_keras.storage.locks import oldest_use
from mimic_keras.storage.store import (
    DAMAGED,
    RECORD,
    damaged_files,
    experiments_file,
    experiments_of,
    extra_files,
    read_record,
)

DATASETS = "datasets"  # named by their plugin, and filled by many experiments; all others by their key, and closed
KINDS = (DATASETS, "teachers", "logits", "students", DAMAGED)
PARTIAL = re.compile(r"\.([0-9a-f]{16})\.partial")
ASIDE = re.compile(r"[a-z]+-.+-[0-9]{19}")
REMOVING = re.compile(r"\.(.+)\.[A-Za-z0-9-]*-[0-9a-f]{32}\.removing")
HALF_REMOVED = "half removed"


@dataclass(frozen=True)
class Entry:
    """One artefact, or what an interrupted run left of it.

    `size` is in bytes, `used` (last) in seconds since 1970. `experiments`: who has used it, as far as it was noted.
    `state`: "" of a finished one that was not checked.
    """

    kind: str
    key: str
    folder: Path
    label: str
    size: int
    used: float
    state: str
    experiments: tuple[str, ...] = ()

    @property
    def is_wrong(self) -> bool:
        return self.state.startswith(("damaged", "unreadable"))


@dataclass(frozen=True)
class Choice:
    """What to remove: of what was not used for `older_than` seconds, and by no experiment but `experiment`, the least
    recently used until all artefacts together take at most `max_size` bytes. None: as if it were not asked for."""

    older_than: float | None = None
    max_size: float | None = None
    experiment: str | None = None

    def takes(self, entry: Entry, size: float) -> bool:
        """Whether to remove `entry` while all artefacts take `size` bytes."""
        if entry.state == HALF_REMOVED:
            return True
        return (
            (self.older_than is None or time.time() - entry.used >= self.older_than)
            and (self.max_size is None or size > self.max_size)
            and (self.experiment is None or entry.experiments == (self.experiment,))
        )


def list_entries(home: Path, check: bool = True) -> list[Entry]:
    """Every artefact below `home`, the least recently used first.

    `check` compares all digests, and adds the folders without a valid record that the next run would move aside.
    """
    folders = [(kind, folder) for kind in KINDS for folder in (home / kind).glob("*")]
    entries = [entry for kind, folder in folders if (entry := _read_entry(kind, folder, check))]
    return sorted(entries, key=lambda entry: entry.used)


def _read_entry(kind: str, folder: Path, check: bool) -> Entry | None:
    """None if the folder is not ours."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    found = _identify(kind, folder, check)
    if found is None:
        return None
    key, label, state = found
    return Entry(kind, key, folder, label, *_measure(folder), state, experiments_of(folder.parent, key))


def _identify(kind: str, folder: Path, check: bool) -> tuple[str, str, str] | None:
    """(key, label, state) of a folder of ours."""
    if match := REMOVING.fullmatch(folder.name):
        return match[1], "", HALF_REMOVED
    if kind == DAMAGED:
        return (folder.name, "", "moved aside") if ASIDE.fullmatch(folder.name) else None
    if kind != DATASETS and (match := PARTIAL.fullmatch(folder.name)):
        return match[1], "", "unfinished"
    label = ""
    try:
        record = read_record(folder)
        if record:
            label = str(record.get("label", ""))
        elif not check or not _seems_damaged(kind, folder):
            return None
        return folder.name, label, _describe_state(kind, folder, record) if check else ""
    except OSError as error:
        return (folder.name, label, f"unreadable: {error.strerror or error}") if check else None


def _seems_damaged(kind: str, folder: Path) -> bool:
    """Whether a folder without a valid record has its lock beside it, and so was ours; it is never removed on that."""
    is_ours = folder.with_name(f".{folder.name}.lock").exists()
    return is_ours and (
        (folder / RECORD).exists() or (kind != DATASETS and bool(re.fullmatch("[0-9a-f]{16}", folder.name)))
    )


def _describe_state(kind: str, folder: Path, record: Mapping[str, Any] | None) -> str:
    if kind == DATASETS and record and "files" not in record:
        return "unfinished"
    damage = damaged_files(folder) or (extra_files(folder) if kind != DATASETS else [])
    return f"damaged: {', '.join(damage)}" if damage else "whole"


def _measure(folder: Path) -> tuple[int, float]:
    """(bytes, when the newest file was written); files may vanish meanwhile."""
    size, used = 0, 0.0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(os.path.join(place, name))
                size, used = size + found.st_size, max(used, found.st_mtime)
    return size, used


def remove_unused(home: Path, choice: Choice, dry_run: bool = False) -> tuple[list[Entry], int]:
    """Remove what `choice` takes, except what a running experiment may use; with `dry_run`, only say what.

    Returns:
        The removed entries, and how many more were chosen but in use.
    """
    removed, kept = [], 0
    entries = list_entries(home, check=False)
    size = sum(entry.size for entry in entries)
    for entry in entries:
        if not choice.takes(entry, size):
            continue
        with _locked(home / entry.kind / f".{entry.key}.lock") as is_locked:
            # All of it again, now that no process can begin to use it: a run may have done so meanwhile.
            found = _read_entry(entry.kind, entry.folder, False) if is_locked else entry
            if found is None:  # finished, or removed by another prune
                continue
            if not is_locked or not choice.takes(found, size) or _is_in_use(found, home):
                kept += 1
                continue
            if not dry_run:
                _remove(found)
            removed.append(found)
            size -= found.size
    return removed, kept


def _is_in_use(entry: Entry, home: Path) -> bool:
    return entry.state != HALF_REMOVED and entry.used >= oldest_use(home)


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[bool]:
    """Hold the lock `file`; False if another process holds it."""
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _remove(entry: Entry) -> None:
    """Hide the folder before deleting in it: a kill in between leaves what no run reads, and the next prune removes."""
    hidden = entry.folder
    if entry.state != HALF_REMOVED:
        hidden = hidden.with_name(f".{entry.key}.{unique_name()}.removing")
        entry.folder.rename(hidden)
        sync_folder(hidden.parent)
    shutil.rmtree(hidden)
    experiments_file(entry.folder.parent, entry.key).unlink(missing_ok=True)
