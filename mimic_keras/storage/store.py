"""Artefacts: folders addressed by the hash of what they were made from, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging

from mimic_keras.contracts import MimicError
from mimic_keras.storage.files import RECORD, file_digest, file_digests, hash_json, sync_folder, sync_tree, write_json
from mimic_keras.storage.locks import locked

DAMAGED = "damaged"
REUSED = {"is_reuse": True}  # marks a log record, which `console.brief` leaves out


@dataclass(frozen=True)
class Artifact:
    """A finished folder. `made` is True if this run made it, False if it was there."""

    folder: Path
    key: str
    made: bool

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


class Store:
    """The artefacts of a home folder. `common` goes into every key, such as the trainer's version.

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

    def get_or_make(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        label: str,
        make: Callable[[Path], None],
        check: Callable[[], None] = lambda: None,
    ) -> Artifact:
        """The artefact of these inputs, made by `make(folder)` if it is missing.

        An artefact is reused only if every file in its record is there with its digest; damaged files are moved aside,
        logged and rebuilt. The folder may hold files of an interrupted run, which `make` may continue from. Waits
        while another process makes the same artefact. `check` raises an error if the inputs are no longer what `inputs`
        says; it is called before `make`, and again before the artefact is kept.
        """
        key = self.key(inputs)
        final, partial = self.home / kind / key, self.home / kind / f".{key}.partial"
        final.parent.mkdir(parents=True, exist_ok=True)
        with locked(final.parent / f".{key}.lock", label):
            if final.exists():
                if not move_damage_aside(final, self.home, label):
                    (final / RECORD).touch()  # the time of its last use
                    self.counts["reused"] += 1
                    logging.info("%s: reused (%s/%s)", label, kind, key, extra=REUSED)
                    return Artifact(final, key, made=False)
                shutil.rmtree(partial, ignore_errors=True)
                final.rename(partial)
            partial.mkdir(exist_ok=True)
            for unfinished in partial.rglob(".*.tmp"):
                unfinished.unlink()
            check()
            make(partial)
            try:
                check()
            except MimicError:
                shutil.rmtree(partial, ignore_errors=True)  # made from something else: nothing may resume from it
                raise
            write_record(partial, kind, key, label, {**self.common, **inputs})
            sync_tree(partial)
            partial.rename(final)
            sync_folder(final.parent)
        self.counts["made"] += 1
        return Artifact(final, key, made=True)


def write_record(folder: Path, kind: str, key: str, label: str, made_from: Mapping[str, Any]) -> None:
    """Record every file of `folder` with its digest, and what the folder was made from."""
    record = {"kind": kind, "label": label, "key": key, "made_from": made_from}
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(folder / RECORD, {**record, "created": created, "files": file_digests(folder)})


def move_damage_aside(folder: Path, home: Path, label: str) -> list[str]:
    """Compare `folder` with its record, and move what is damaged into `home`/damaged; returns the damaged names.

    A damaged file takes the top-level folder that it is in along; an unreadable record takes everything along.
    """
    damage = damaged_files(folder)
    if damage:
        aside = home / DAMAGED / f"{folder.parent.name}-{folder.name}-{time.time_ns()}"
        aside.mkdir(parents=True)
        everything = {path.name for path in folder.iterdir()}
        entries = everything if RECORD in damage else everything & {RECORD, *(Path(name).parts[0] for name in damage)}
        for name in entries:
            (folder / name).rename(aside / name)
        logging.warning("%s: %s is damaged (%s); moved to %s and rebuilt", label, folder, ", ".join(damage), aside)
    return damage


def damaged_files(folder: Path, record: str = RECORD) -> list[str]:
    """Names in the folder's record that are missing or changed; the record itself if it cannot be read."""
    try:
        content = json.loads((folder / record).read_text(encoding="utf-8"))
        return [record] * ("key" not in content) + [
            name for name, digest in content["files"].items() if not _is_whole(folder / name, digest)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [record]


def _is_whole(file: Path, digest: str) -> bool:
    return file.is_file() and file_digest(file) == digest
