"""The members' logits of a split, in checksummed shards: each is computed once, from batches that members share.

The rows of the next batches are read, and the shards before are written, while the nets run.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mimic_keras.contracts import RunError, Split
from mimic_keras.experiment.schema import MixupSection
from mimic_keras.reporting.console import progress
from mimic_keras.stages.data import Data
from mimic_keras.stages.teachers import TeacherMember
from mimic_keras.storage.files import hash_json, write_bytes
from mimic_keras.storage.store import Artifact, Store, Wanted
from mimic_keras.training import models
from mimic_keras.training.mixing import MixedSplit

SHARD_EXAMPLES = 1 << 16
BYTES_AT_ONCE = 1 << 30  # of the members that are run together: their parameters and a shard of their logits
MOST_AT_ONCE = 32  # members: their artefacts are held one within the other


def label_splits(
    members: Sequence[TeacherMember], names: Sequence[str], store: Store, mixup: MixupSection | None = None
) -> dict[str, dict[str, Artifact]]:
    """{member: {split: its logits}} of the splits `names`, computed where they are missing.

    Raises:
        RunError: a member gives infinite or NaN logits.
    """
    groups = _group(members)
    made = store.get_or_make_all(_want_all(groups, names, mixup))
    found: dict[str, dict[str, Artifact]] = {member.name: {} for member in members}
    for group in groups:
        for name in names:
            for member in group:
                found[member.name][name] = next(made)
    return found


def _want_all(
    groups: Sequence[Sequence[TeacherMember]], names: Sequence[str], mixup: MixupSection | None
) -> Iterator[Wanted]:
    """For each group, for each split, what its members are to give; a group's nets are let go before the next one's."""
    for group in groups:
        together = _Together(group, mixup)
        for name in names:
            yield from together.want(name)


def split_to_label(data: Data, name: str, mixup: MixupSection | None) -> Split:
    """The examples to label: of the transfer set also mixtures, the same ones in every member's data set."""
    split = data.split(name)
    return MixedSplit(split, mixup.copies, mixup.alpha, data.seed) if mixup and name == "transfer" else split


def count_examples(split: Split, name: str) -> int:
    """Every virtual copy of the transfer set is labelled; models are evaluated on originals only."""
    return split.num_examples * (split.repeats if name == "transfer" else 1)


def describe_mixup(mixup: MixupSection | None) -> list[list]:
    """What goes into keys; nothing without mixup."""
    return [["mixup", mixup.model_dump()]] if mixup else []


def load_shards(artifact: Artifact) -> np.ndarray:
    """All logits of an artefact, float32 [N, num_classes]."""
    return np.concatenate([np.load(file) for file in list_shards(artifact)])


def list_shards(artifact: Artifact) -> list[Path]:
    """The files of the logits, in order."""
    return sorted(artifact.folder.glob("*.npy"))


def _group(members: Sequence[TeacherMember]) -> list[list[TeacherMember]]:
    """Members that can be run on the same batches; two that are the same net are never together.

    They are in the order of their keys, so that two processes never wait for each other's locks.
    """
    groups: dict[tuple[str, int], list[TeacherMember]] = {}
    times: Counter[str] = Counter()
    for member in sorted(members, key=lambda member: member.key):
        times[member.key] += 1
        kind = (hash_json(member.data.identity), times[member.key]) if member.load else (member.name, 0)
        groups.setdefault(kind, []).append(member)
    return [part for group in groups.values() for part in _parts(group)]


def _parts(group: Sequence[TeacherMember]) -> Iterator[list[TeacherMember]]:
    part: list[TeacherMember] = []
    taken = 0
    for member in group:
        size = 4 * ((member.cost.parameters or 0) + member.data.dataset.info.num_classes * SHARD_EXAMPLES)
        if part and (taken + size > BYTES_AT_ONCE or len(part) == MOST_AT_ONCE):
            yield part
            part, taken = [], 0
        part.append(member)
        taken += size
    yield part


@dataclass(frozen=True)
class _Shard:
    """The virtual ids of a shard, and the members, with their folders, that it is missing of."""

    index: int
    ids: range
    missing: list[tuple[TeacherMember, Path]]


class _Together:
    """Members of one data set and different keys; each net is loaded once, and only if it has to label."""

    def __init__(self, members: Sequence[TeacherMember], mixup: MixupSection | None):
        self.members, self.mixup = members, mixup
        self.nets: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {}

    def want(self, name: str) -> list[Wanted]:
        """The members' logits of a split, which can be made on the same batches."""
        by_label = {f"{member.name} logits on {name}": member for member in self.members}
        others = dict(describe_mixup(self.mixup)) if name == "transfer" else {}

        def fill(folders: Mapping[str, Path]) -> None:
            self._fill([(by_label[label], folder) for label, folder in folders.items()], name)

        def want(label: str, member: TeacherMember) -> Wanted:
            inputs = {"member": member.key, "data": member.data.identity, "split": name, **others}
            return Wanted("logits", inputs, label, lambda folder: fill({label: folder}), member.check, fill)

        return [want(label, member) for label, member in by_label.items()]

    def _fill(self, missing: Sequence[tuple[TeacherMember, Path]], name: str) -> None:
        """Write the shards that an interrupted run has not left, one thread behind the nets."""
        split = split_to_label(missing[0][0].data, name, self.mixup)
        examples = count_examples(split, name)
        shards = [shard for shard in _list_missing(missing, examples) if shard.missing]
        who = missing[0][0].name if len(missing) == 1 else f"{len(missing)} members"
        with progress(f"{who} on {name}", examples, "examples") as advance, ThreadPoolExecutor(1) as writer:
            advance(examples - sum(len(shard.ids) for shard in shards))
            nets = self._run_nets(shards, split, advance)
            answers = nets if missing[0][0].load else _look_up(shards, name, split, advance)
            writing: list[Future[None]] = []
            for shard, logits in zip(shards, answers, strict=True):
                _wait_for(writing)
                writing = [
                    writer.submit(_finish_shard, folder, shard.index, pieces, member.name)
                    for (member, folder), pieces in zip(shard.missing, logits, strict=True)
                ]
            _wait_for(writing)

    def _run_nets(
        self, shards: Sequence[_Shard], split: Split, advance: Callable[[int], None]
    ) -> Iterator[list[list[tf.Tensor]]]:
        """For each shard, the logits of the members that it is missing of: for each batch, float32 [B, num_classes]."""
        batches = iter(models.read_inputs(split, _batch_ids(shards)))
        for shard in shards:
            nets = [self._net(member) for member, _ in shard.missing]
            logits: list[list[tf.Tensor]] = [[] for _ in nets]
            for _ in range(0, len(shard.ids), models.PREDICTION_BATCH):
                inputs = next(batches)
                for net, pieces in zip(nets, logits, strict=True):
                    pieces.append(net(inputs))
                advance(len(inputs))
            yield logits

    def _net(self, member: TeacherMember) -> Callable[[tf.Tensor], tf.Tensor]:
        if member.name not in self.nets:
            assert member.load
            self.nets[member.name] = models.compile_logits(member.load())
        return self.nets[member.name]


def _look_up(
    shards: Sequence[_Shard], name: str, split: Split, advance: Callable[[int], None]
) -> Iterator[list[list[np.ndarray]]]:
    """As `_Together._run_nets`, for a member whose predictions are stored."""
    for shard in shards:
        ids = np.arange(shard.ids.start, shard.ids.stop, dtype=np.int64)
        yield [[member.predictor()(name, split, ids)] for member, _ in shard.missing]
        advance(len(ids))


def _batch_ids(shards: Sequence[_Shard]) -> tf.data.Dataset:
    """Batches of virtual ids; none goes beyond its shard, since which rows share a batch is part of a logit's bits."""
    bounds = np.array([(shard.ids.start, shard.ids.stop) for shard in shards], np.int64).reshape(-1, 2)
    return tf.data.Dataset.from_tensor_slices(bounds).flat_map(
        lambda bound: tf.data.Dataset.range(bound[0], bound[1]).batch(models.PREDICTION_BATCH)
    )


def _wait_for(writing: Sequence[Future[None]]) -> None:
    for each in writing:
        each.result()


def _list_missing(missing: Sequence[tuple[TeacherMember, Path]], examples: int) -> Iterator[_Shard]:
    for index, start in enumerate(range(0, examples, SHARD_EXAMPLES)):
        ids = range(start, min(start + SHARD_EXAMPLES, examples))
        yield _Shard(index, ids, [each for each in missing if not _have_shard(each[1], index, len(ids))])


def _finish_shard(folder: Path, index: int, pieces: Sequence[Any], member: str) -> None:
    logits = np.concatenate([np.asarray(piece) for piece in pieces])
    if not np.isfinite(logits).all():
        raise RunError(f"{member} gives infinite or NaN logits; a student cannot mimic them")
    _write_shard(folder, index, logits)


def _write_shard(folder: Path, index: int, values: np.ndarray) -> None:
    """The name carries the digest, so that a shard can be checked before the folder has a record."""
    stream = io.BytesIO()
    np.save(stream, values)
    data = stream.getvalue()
    write_bytes(folder / f"{index:05d}.{hashlib.sha256(data).hexdigest()[:16]}.npy", data)


def _have_shard(folder: Path, index: int, rows: int) -> bool:
    """Whether an interrupted run left this shard whole; damaged or surplus files of the shard are removed."""
    whole = False
    for file in folder.glob(f"{index:05d}.*.npy"):
        intact = hashlib.sha256(file.read_bytes()).hexdigest()[:16] == file.name.split(".")[1]
        if whole or not intact or len(np.load(file)) != rows:
            file.unlink()
        else:
            whole = True
    return whole
