"""Stage 3: the logits of every member, computed once and kept in checksummed shards; their mean is the teacher."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from mimic_keras.contracts import InputError, RunError, Split, error_rate, filled_variable
from mimic_keras.experiment.schema import MixupSection, SelectionSection
from mimic_keras.reporting.console import progress
from mimic_keras.stages.data import Data
from mimic_keras.stages.plausibility import find_other_scales, find_poor_members
from mimic_keras.stages.teachers import TeacherMember
from mimic_keras.storage.files import write_bytes
from mimic_keras.storage.store import REUSED, Artifact, Store, Wanted
from mimic_keras.training.metrics import log_softmax
from mimic_keras.training.mixing import MixedSplit

SPLITS = ("transfer", "validation", "test")
SHARD_EXAMPLES = 1 << 16


@dataclass(frozen=True)
class TeacherLogits:
    """The weighted mean of the members' logits.

    `split`: the transfer set that was labelled, with its mixed copies.
    `transfer`: float32 [virtual examples, num_classes], in host memory, and only once since it may be large.
    `mean`: {"validation" and "test": float32 [examples, num_classes]}; `members` has the same for each member.
    `weights`: of the members, summing to 1. `folders`: {member: {split: artefact}}. `key`: what the mean was made from.
    """

    split: Split
    transfer: tf.Variable
    mean: dict[str, np.ndarray]
    members: dict[str, dict[str, np.ndarray]]
    weights: dict[str, float]
    folders: dict[str, dict[str, Path]]
    key: list[list]


def label_validation(members: Sequence[TeacherMember], data: Data, store: Store) -> dict[str, Artifact]:
    """{member: its logits on validation}; prints every member's error there, and warns of what is suspicious.

    It comes before all other labelling, which may take hours. What an earlier run has said is marked as reuse.
    """
    found = {name: labelled["validation"] for name, labelled in _label(members, store, ("validation",)).items()}
    said = {name: {} if artifact.made else REUSED for name, artifact in found.items()}
    for name, reason in find_other_scales(members):
        logging.warning("%s: %s", name, reason, extra=said[name])
    labels = data.split("validation").labels
    if members and (labels >= 0).any():
        errors = {name: error_rate(labels, _load_all(artifact)) for name, artifact in found.items()}
        poor = find_poor_members(labels, errors)
        for name, error in errors.items():
            logging.info("%s: error rate %.4f on validation", name, error, extra=said[name])
            if name in poor:
                logging.warning("%s: its error rate on validation is %s", name, poor[name], extra=said[name])
    return found


def select_members(
    members: Sequence[TeacherMember], select: SelectionSection | None, data: Data, validation: Mapping[str, Artifact]
) -> Sequence[TeacherMember]:
    """The members that `select` chooses on validation; all of them without it.

    Members that are not chosen label nothing but validation. A member chosen k times gets k times its weight.
    `validation` holds the logits of `label_validation`.

    Raises:
        InputError: the validation examples have no labels.
        RunError: fewer members are left than are to be chosen.
    """
    if select is None:
        return members
    if len(members) < select.members and not select.replacement:
        raise RunError(
            f"teacher.select.members: cannot choose {select.members} without replacement: "
            f"only {len(members)} members have not diverged"
        )
    labels = data.split("validation").labels
    if not (labels >= 0).any():
        raise InputError("teacher.select: members are chosen on validation, which has no labels")
    order = sorted(members, key=lambda member: (member.seed, member.key))
    stack = np.stack([_load_all(validation[member.name]) for member in order])
    weights = np.array([member.weight for member in order])
    times = np.bincount(
        select_greedily(stack, labels, weights, select.members, select.replacement), minlength=len(order)
    )
    weight = {member.name: member.weight * count for member, count in zip(order, times, strict=True)}
    chosen = [replace(member, weight=weight[member.name]) for member in members if weight[member.name]]
    logging.info("teacher: chose %s of %d members", ", ".join(member.name for member in chosen), len(members))
    return chosen


def select_greedily(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, count: int, replacement: bool
) -> list[int]:
    """Caruana et al. 2004, "Ensemble selection from libraries of models", section 2: `count` times, add the member
    that gives the (weighted) mean of the logits the fewest errors; ties go to the smaller cross-entropy, then to the
    first member.

    Args:
        logits: float [members, examples, classes].
        labels: int [examples], -1 where unknown.
        weights: float [members], above 0.
        count: how many to choose.
        replacement: whether one may be chosen again.

    Example:
        >>> select_greedily(np.array([[[0.0, 1.0]], [[2.0, 0.0]]]), np.array([0]), np.ones(2), 1, False)
        [1]
    """
    known = labels >= 0
    logits, labels, rows = logits[:, known].astype(np.float64), labels[known], np.arange(int(known.sum()))
    total, chosen = np.zeros(logits.shape[1:]), list[int]()
    for _ in range(count):
        scores = {}
        for member in range(len(logits)):
            if replacement or member not in chosen:
                mean = (total + weights[member] * logits[member]) / (weights[chosen].sum() + weights[member])
                entropy = -log_softmax(mean)[rows, labels].mean()
                scores[member] = (int((mean.argmax(-1) != labels).sum()), float(entropy))
        best = min(scores, key=lambda member: (*scores[member], member))
        chosen.append(best)
        total += weights[best] * logits[best]
    return chosen


def compute_teacher_logits(
    members: Sequence[TeacherMember],
    data: Data,
    store: Store,
    validation: Mapping[str, Artifact],
    mixup: MixupSection | None = None,
) -> TeacherLogits | None:
    """Label the other splits with every member, and average; None if there is no teacher."""
    if not members:
        return None
    labelled = _label(members, store, ("transfer", "test"), mixup)
    artifacts = {name: {**found, "validation": validation[name]} for name, found in labelled.items()}
    # Sorted, so that the last bits of the mean do not depend on the order of the list.
    order = sorted(members, key=lambda member: (member.seed, member.key))
    total = sum(member.weight for member in order)
    weights = {member.name: member.weight / total for member in order}
    means = {
        split: _average([(artifacts[name][split], weight) for name, weight in weights.items()]) for split in SPLITS
    }
    transfer = _split(data, "transfer", mixup)
    examples = filled_variable(_count_examples(transfer, "transfer"), _log_error_rate(means["transfer"], transfer))
    mean = {split: np.concatenate(list(means[split])) for split in SPLITS[1:]}
    singles = {name: {split: _load_all(found[split]) for split in SPLITS[1:]} for name, found in artifacts.items()}
    folders = {name: {split: item.folder for split, item in found.items()} for name, found in artifacts.items()}
    key = [[member.key, weights[member.name]] for member in order] + _describe(mixup)
    return TeacherLogits(transfer, examples, mean, singles, weights, folders, key)


def _split(data: Data, name: str, mixup: MixupSection | None) -> Split:
    """The examples to label: of the transfer set also mixtures, the same ones in every member's data set."""
    split = data.split(name)
    return MixedSplit(split, mixup.copies, mixup.alpha, data.seed) if mixup and name == "transfer" else split


def _describe(mixup: MixupSection | None) -> list[list]:
    """What goes into keys; nothing without mixup."""
    return [["mixup", mixup.model_dump()]] if mixup else []


def _average(members: Sequence[tuple[Artifact, float]]) -> Iterator[np.ndarray]:
    """The weighted mean of the members' logits, shard by shard; one member's shard is in memory at a time."""
    weights = [np.float32(weight) for _, weight in members]
    for files in zip(*(_list_shards(artifact) for artifact, _ in members), strict=True):
        yield sum(np.load(file) * weight for file, weight in zip(files, weights, strict=True))


def _log_error_rate(means: Iterable[np.ndarray], split: Split) -> Iterator[np.ndarray]:
    """Pass the shards on; after the last one, log the error rate over all of them, if there are labels."""
    errors = known = start = 0
    for shard in means:
        labels = split.labels[np.arange(start, start + len(shard)) % len(split.labels)]
        errors += int(np.sum((shard.argmax(-1) != labels) & (labels >= 0)))
        known += int(np.sum(labels >= 0))
        start += len(shard)
        yield shard
    if known:
        logging.info("teacher: error rate %.4f on the transfer set, virtual copies included", errors / known)


def _count_examples(split: Split, name: str) -> int:
    """Every virtual copy of the transfer set is labelled; models are evaluated on originals only."""
    return split.num_examples * (split.repeats if name == "transfer" else 1)


def _label(
    members: Sequence[TeacherMember], store: Store, splits: Sequence[str], mixup: MixupSection | None = None
) -> dict[str, dict[str, Artifact]]:
    """{member: {split: its logits}}, computed where they are missing."""
    made = store.get_or_make_all(each for member in members for each in _want_logits(member, splits, mixup))
    return {member.name: {name: next(made) for name in splits} for member in members}


def _want_logits(member: TeacherMember, splits: Sequence[str], mixup: MixupSection | None) -> Iterator[Wanted]:
    """The member's logits on each split; its net is loaded once, for the first that is missing."""
    predict = None
    for name in splits:

        def fill(folder: Path, name: str = name) -> None:
            nonlocal predict
            predict = predict or member.predictor()
            split = _split(member.data, name, mixup)
            examples = _count_examples(split, name)
            with progress(f"{member.name} on {name}", examples, "examples") as advance:
                for start in range(0, examples, SHARD_EXAMPLES):
                    ids = np.arange(start, min(start + SHARD_EXAMPLES, examples), dtype=np.int64)
                    if not _have_shard(folder, start // SHARD_EXAMPLES, len(ids)):
                        _write_shard(
                            folder, start // SHARD_EXAMPLES, _check_finite(predict(name, split, ids), member.name)
                        )
                    advance(len(ids))

        inputs = {"member": member.key, "data": member.data.identity, "split": name}
        if name == "transfer":
            inputs |= dict(_describe(mixup))
        yield Wanted("logits", inputs, f"{member.name} logits on {name}", fill, member.check)


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


def _check_finite(logits: np.ndarray, member: str) -> np.ndarray:
    if not np.isfinite(logits).all():
        raise RunError(f"{member} gives infinite or NaN logits; a student cannot mimic them")
    return logits


def _load_all(artifact: Artifact) -> np.ndarray:
    return np.concatenate([np.load(file) for file in _list_shards(artifact)])


def _list_shards(artifact: Artifact) -> list[Path]:
    """The files of the logits, in order."""
    return sorted(artifact.folder.glob("*.npy"))
