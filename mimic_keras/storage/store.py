"""Artefacts: folders addressed by the hash of what they were made from, written whole or not at all."""

from __future__ import annotations

import itertools
import json
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging

from mimic_keras.contracts import MimicError
from mimic_keras.storage.files import (
    RECORD,
    file_digest,
    file_digests,
    file_names,
    hash_json,
    remove_leftovers,
    sync_folder,
    sync_tree,
    write_bytes,
    write_json,
)
from mimic_keras.storage.locks import locked

DAMAGED = "damaged"
REUSED = {"is_reuse": True}  # marks a log record, which `console.brief` leaves out
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # any other OSError tells nothing about a file


@dataclass(frozen=True)
class Artifact:
    """A finished folder. `made` is True if this run made it, False if it was there."""

    folder: Path
    key: str
    made: bool

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Wanted:
    """What a store is asked for. `kind` to `check` are as in `Store.get_or_make`.

    `make_together`, which artefacts share that are cheaper made together, makes those of them that are missing, given
    their folders by their labels; `make` makes one of them alone, to the same bits.
    """

    kind: str
    inputs: Mapping[str, Any]
    label: str
    make: Callable[[Path], None]
    check: Callable[[], None] = lambda: None
    make_together: Callable[[Mapping[str, Path]], None] | None = None


class Store:
    """The artefacts of a home folder. `common` goes into every key, such as the trainer's version. `experiment`: who
    uses them, for `cache`; it goes into no key.

    Example:
        >>> store = Store(Path("home"), {"trainer": 1})
        >>> artifact = store.get_or_make("students", {"seed": 0}, "student", lambda folder: train_into(folder))
    """

    def __init__(self, home: Path, common: Mapping[str, Any], experiment: str = ""):
        self.home, self.experiment = home, experiment
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

        An artefact is reused only if its record is its own and every file in it is there with its digest; damaged files
        are moved aside, logged and rebuilt; files that are not in the record are moved aside. The folder may hold files
        of an interrupted run, which `make` may continue from. Waits while another process makes the same artefact.

        `check` raises an error if the inputs are no longer what `inputs` says; it is called before `make`, and again
        before the artefact is kept.

        Raises:
            OSError: a file exists but cannot be read, so nothing is known about it; it stays where it is.
        """
        key = self.key(inputs)
        final, partial = locate(self.home, kind, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        with locked(final.parent / f".{key}.lock", label):
            if final.exists():
                if not move_damage_aside(final, self.home, label, is_closed=True):
                    note_experiment(final, self.experiment)
                    (final / RECORD).touch()  # the time of its last use
                    self.counts["reused"] += 1
                    logging.info("%s: reused (%s/%s)", label, kind, key, extra=REUSED)
                    return Artifact(final, key, made=False)
                shutil.rmtree(partial, ignore_errors=True)
                final.rename(partial)
            fill(partial, make, check)
            write_record(partial, kind, key, label, {**self.common, **inputs})
            sync_tree(partial)
            note_experiment(final, self.experiment)
            partial.rename(final)
            sync_folder(final.parent)
        self.counts["made"] += 1
        return Artifact(final, key, made=True)

    def get_or_make_all(self, wanted: Iterable[Wanted]) -> Iterator[Artifact]:
        """The artefacts of `wanted`, in order; they do not depend on each other. Each is made when it is asked for, or
        with those next to it that share its `make_together`.
        """
        for make_together, several in itertools.groupby(wanted, lambda each: each.make_together):
            if make_together:
                yield from self._get_or_make_together(list(several), make_together, {})
            else:
                yield from (
                    self.get_or_make(each.kind, each.inputs, each.label, each.make, each.check) for each in several
                )

    def _get_or_make_together(
        self,
        left: Sequence[Wanted],
        make_together: Callable[[Mapping[str, Path]], None],
        missing: Mapping[str, Path],
    ) -> list[Artifact]:
        """The artefacts of `left`. Those that are missing are held, one within the other, then made with those held
        before, whose folders are `missing`.
        """
        if not left:
            if missing:
                make_together(missing)
            return []
        first, others = left[0], left[1:]
        found: list[Artifact] = []

        def make(folder: Path) -> None:
            found.extend(self._get_or_make_together(others, make_together, {**missing, first.label: folder}))

        artifact = self.get_or_make(first.kind, first.inputs, first.label, make, first.check)
        if not artifact.made:
            found = self._get_or_make_together(others, make_together, missing)
        return [artifact, *found]


def locate(home: Path, kind: str, key: str) -> tuple[Path, Path]:
    """The folder of a finished artefact, and of an unfinished one."""
    return home / kind / key, home / kind / f".{key}.partial"


def fill(partial: Path, make: Callable[[Path], None], check: Callable[[], None]) -> None:
    """Make an artefact in its unfinished folder; `make` and `check` as in `Store.get_or_make`."""
    check()
    partial.mkdir(exist_ok=True)
    remove_leftovers(partial)
    make(partial)
    try:
        check()
    except MimicError:
        shutil.rmtree(partial, ignore_errors=True)  # made from something else: nothing may resume from it
        raise


def experiments_file(kind_folder: Path, key: str) -> Path:
    """The file beside an artefact that names who has used it, one name a line; prune and list need no more to know."""
    return kind_folder / f".{key}.experiments"


def experiments_of(kind_folder: Path, key: str) -> tuple[str, ...]:
    try:
        return tuple(experiments_file(kind_folder, key).read_text(encoding="utf-8").split())
    except (*MISSING, ValueError):
        return ()


def note_experiment(folder: Path, experiment: str) -> None:
    """Note that `experiment` uses the artefact in `folder`, whose lock is held."""
    known = experiments_of(folder.parent, folder.name)
    if experiment and experiment not in known:
        write_bytes(experiments_file(folder.parent, folder.name), "\n".join([*known, experiment]).encode())


def note_use(folder: Path) -> bool:
    """Keep a finished artefact from being pruned while this process uses the home folder; False if it is not whole."""
    if not folder.is_dir():
        return False
    with locked(folder.with_name(f".{folder.name}.lock"), folder.name):
        is_whole = not damaged_files(folder)
        if is_whole:
            (folder / RECORD).touch()
    return is_whole


def write_record(folder: Path, kind: str, key: str, label: str, made_from: Mapping[str, Any]) -> None:
    """Record every file of `folder` with its digest, and what the folder was made from."""
    record = {"kind": kind, "label": label, "key": key, "made_from": made_from}
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(folder / RECORD, {**record, "created": created, "files": file_digests(folder)})


def write_claim(folder: Path, kind: str, key: str, label: str) -> None:
    """Write a record without files: `folder` is ours, and not finished."""
    write_json(folder / RECORD, {"kind": kind, "label": label, "key": key})


def read_record(folder: Path, record: str = RECORD) -> dict[str, Any] | None:
    """The record of `folder`; None if it is missing, cannot be parsed, or is of another artefact.

    Raises:
        OSError: the record exists but cannot be read.
    """
    try:
        content = json.loads((folder / record).read_bytes())
        own = record != RECORD or (content["kind"], content["key"]) == (folder.parent.name, folder.name)
        return content if own and isinstance(content["key"], str) else None
    except (*MISSING, ValueError, KeyError, TypeError):
        return None


def move_damage_aside(folder: Path, home: Path, label: str, is_closed: bool = False) -> list[str]:
    """Compare `folder` with its record, and move what is damaged into `home`/damaged; returns the damaged names.

    A damaged file takes the top-level folder that it is in along; an unreadable record takes everything along. With
    `is_closed`, files that are not in the record are moved too; they are not in the result, since nothing is lost.
    """
    damage = damaged_files(folder)
    extra = extra_files(folder) if is_closed and not damage else []
    if not damage and not extra:
        return []
    aside = home / DAMAGED / f"{folder.parent.name}-{folder.name}-{time.time_ns()}"
    aside.mkdir(parents=True)
    everything = {path.name for path in folder.iterdir()} - {RECORD}
    moved = everything if RECORD in damage else everything & {Path(name).parts[0] for name in damage}
    for name in [*moved, *extra]:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(aside / name)
    if extra:
        logging.warning("%s: %s holds %s beside its files; moved to %s", label, folder, ", ".join(extra), aside)
        return []
    # The record last, so that a kill in between leaves damage that the next run finds.
    if RECORD not in damage:
        shutil.copy2(folder / RECORD, aside)
    elif (folder / RECORD).exists():
        (folder / RECORD).rename(aside / RECORD)
    logging.warning("%s: %s is damaged (%s); moved to %s and rebuilt", label, folder, ", ".join(damage), aside)
    return damage


def damaged_files(folder: Path, record: str = RECORD) -> list[str]:
    """Names in the folder's record that are missing or changed; the record itself if it is not a whole one of `folder`.

    Raises:
        OSError: a file exists but cannot be read, which is no damage.
    """
    files = (read_record(folder, record) or {}).get("files")
    if not isinstance(files, dict):
        return [record]
    return [name for name, digest in files.items() if not _is_whole(folder / name, digest)]


def extra_files(folder: Path) -> list[str]:
    """Names of files that are not in the folder's record."""
    return sorted(file_names(folder) - ((read_record(folder) or {}).get("files") or {}).keys())


def _is_whole(file: Path, digest: str) -> bool:
    try:
        return stat.S_ISREG(file.stat().st_mode) and file_digest(file) == digest
    except MISSING:
        return False
    except OSError as error:
        error.filename = error.filename or str(file)  # a failed read does not know its file
        raise
