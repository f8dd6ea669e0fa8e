"""Stage 3: the teacher's logits, computed once per member and kept in checksummed shards; their mean is the teacher."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from mimic_keras.artifacts import Artifact, Store, write_bytes
from mimic_keras.console import progress
from mimic_keras.contracts import RunError, Split, error_rate
from mimic_keras.models import predictor
from mimic_keras.stages.data import Data
from mimic_keras.stages.teachers import TeacherMember

SPLITS = ("transfer", "validation", "test")
SHARD_EXAMPLES = 1 << 16


@dataclass(frozen=True)
class TeacherLogits:
    """`mean` {split: float32 [examples, num_classes]}, the weighted mean over members, "transfer" by virtual id;
    `members` the same of each member for "validation" and "test"; `key` what the mean was made from."""

    mean: dict[str, np.ndarray]
    members: dict[str, dict[str, np.ndarray]]
    folders: dict[str, dict[str, Path]]
    key: list[list]


def label(members: Sequence[TeacherMember], data: Data, store: Store) -> TeacherLogits | None:
    """None where there is no teacher."""
    if not members:
        return None
    artifacts = {member.name: _member_logits(member, store) for member in members}
    # The mean's last bits must not depend on the order of the list; a member's seed follows from what it is.
    order = sorted(members, key=lambda member: (member.seed, member.key))
    total = sum(member.weight for member in order)
    mean = {}
    for split in SPLITS:
        sums = np.zeros((_examples(data.split(split), split), data.dataset.info.num_classes), np.float32)
        for member in order:
            for start, shard in _shards(artifacts[member.name][split]):
                sums[start : start + len(shard)] += shard * np.float32(member.weight / total)
        mean[split] = sums
    transfer = data.split("transfer")
    error = error_rate(np.tile(transfer.labels, transfer.repeats), mean["transfer"])
    if not math.isnan(error):
        logging.info("teacher: error rate %.4f on the transfer set, virtual copies included", error)
    singles = {
        name: {split: np.concatenate([shard for _, shard in _shards(found[split])]) for split in SPLITS[1:]}
        for name, found in artifacts.items()
    }
    folders = {name: {split: item.folder for split, item in found.items()} for name, found in artifacts.items()}
    return TeacherLogits(mean, singles, folders, [[member.key, member.weight / total] for member in order])


def _examples(split: Split, name: str) -> int:
    """Every virtual copy of the transfer set is labelled; models are judged on originals."""
    return split.num_examples * (split.repeats if name == "transfer" else 1)


def _member_logits(member: TeacherMember, store: Store) -> dict[str, Artifact]:
    predict = None
    found = {}
    for name in SPLITS:

        def fill(folder: Path, name: str = name) -> None:
            nonlocal predict
            predict = predict or predictor(member.load())
            split = member.data.split(name)
            examples = _examples(split, name)
            with progress(f"{member.name} on {name}", examples, "examples") as advance:
                for start in range(0, examples, SHARD_EXAMPLES):
                    ids = np.arange(start, min(start + SHARD_EXAMPLES, examples), dtype=np.int64)
                    if not _have_shard(folder, start // SHARD_EXAMPLES, len(ids)):
                        _write_shard(folder, start // SHARD_EXAMPLES, _finite(predict(split, ids), member.name))
                    advance(len(ids))

        inputs = {"member": member.key, "data": member.data.identity, "split": name}
        found[name] = store.get_or_make("logits", inputs, f"{member.name} logits on {name}", fill)
    return found


def _write_shard(folder: Path, index: int, values: np.ndarray) -> None:
    """The name carries the digest, so that a shard proves itself before the folder has a record."""
    stream = io.BytesIO()
    np.save(stream, values)
    data = stream.getvalue()
    write_bytes(folder / f"{index:05d}.{hashlib.sha256(data).hexdigest()[:16]}.npy", data)


def _have_shard(folder: Path, index: int, rows: int) -> bool:
    """Whether an interrupted run left this shard whole; anything else that it left in its place is removed."""
    whole = False
    for file in folder.glob(f"{index:05d}.*.npy"):
        intact = hashlib.sha256(file.read_bytes()).hexdigest()[:16] == file.name.split(".")[1]
        if whole or not intact or len(np.load(file)) != rows:
            file.unlink()
        else:
            whole = True
    return whole


def _finite(logits: np.ndarray, member: str) -> np.ndarray:
    if not np.isfinite(logits).all():
        raise RunError(f"{member} gives infinite or NaN logits; a student can not mimic them")
    return logits


def _shards(artifact: Artifact) -> Iterator[tuple[int, np.ndarray]]:
    """(id of the first row, rows) of every shard, in order."""
    start = 0
    for file in sorted(artifact.folder.glob("*.npy")):
        shard = np.load(file)
        yield start, shard
        start += len(shard)
