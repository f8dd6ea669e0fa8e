"""Stage 3: the logits of every member, computed once and kept; their mean is the teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from mimic_keras.contracts import InputError, RunError, Split, error_rate, filled_variable
from mimic_keras.experiment.schema import MixupSection, SelectionSection
from mimic_keras.stages.data import Data
from mimic_keras.stages.labelling import (
    count_examples,
    describe_mixup,
    label_splits,
    list_shards,
    load_shards,
    split_to_label,
)
from mimic_keras.stages.plausibility import find_other_order, find_other_scales, find_poor_members, is_far_more
from mimic_keras.stages.teachers import TeacherMember
from mimic_keras.storage.store import REUSED, Artifact, Store
from mimic_keras.training.metrics import log_softmax

SPLITS = ("transfer", "validation", "test")


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
    found = {name: each["validation"] for name, each in label_splits(members, ("validation",), store).items()}
    said = {name: {} if artifact.made else REUSED for name, artifact in found.items()}
    called = {member.name: str(member) for member in members}
    for name, reason in find_other_scales(members):
        logging.warning("%s: %s", called[name], reason, extra=said[name])
    labels = data.split("validation").labels
    if members and (labels >= 0).any():
        errors = {name: error_rate(labels, load_shards(artifact)) for name, artifact in found.items()}
        poor = find_poor_members(labels, errors)
        for name, error in errors.items():
            logging.info("%s: error rate %.4f on validation", called[name], error, extra=said[name])
            if name in poor:
                reason = poor[name] + _describe_order(labels, load_shards(found[name]), data.dataset.info.class_names)
                logging.warning("%s: its error rate on validation is %s", called[name], reason, extra=said[name])
    return found


def _describe_order(labels: np.ndarray, logits: np.ndarray, class_names: Sequence[str]) -> str:
    """What a warning adds if the member's outputs are those of the classes in another order."""
    if (better := find_other_order(labels, logits.argmax(-1), len(class_names))) is None:
        return ""
    order, error = better
    names = ", ".join(class_names[label] for label in order)
    return f". If its outputs are those of {names}, in this order, it is {error:.4f}"


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
    stack = np.stack([load_shards(validation[member.name]) for member in order])
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
    found = label_splits(members, ("transfer", "test"), store, mixup)
    artifacts = {name: {**splits, "validation": validation[name]} for name, splits in found.items()}
    # Sorted, so that the last bits of the mean do not depend on the order of the list.
    order = sorted(members, key=lambda member: (member.seed, member.key))
    total = sum(member.weight for member in order)
    weights = {member.name: member.weight / total for member in order}
    means = {
        split: _average([(artifacts[name][split], weight) for name, weight in weights.items()]) for split in SPLITS
    }
    mean = {split: np.concatenate(list(means[split])) for split in SPLITS[1:]}
    # Of mixtures, which have the label of one of two, no such error rate is expected.
    on_validation = math.nan if mixup else error_rate(data.split("validation").labels, mean["validation"])
    transfer = split_to_label(data, "transfer", mixup)
    logged = _log_error_rate(means["transfer"], transfer, on_validation)
    examples = filled_variable(count_examples(transfer, "transfer"), logged)
    singles = {name: {split: load_shards(found[split]) for split in SPLITS[1:]} for name, found in artifacts.items()}
    folders = {name: {split: item.folder for split, item in found.items()} for name, found in artifacts.items()}
    key = [[member.key, weights[member.name]] for member in order] + describe_mixup(mixup)
    return TeacherLogits(transfer, examples, mean, singles, weights, folders, key)


def _average(members: Sequence[tuple[Artifact, float]]) -> Iterator[np.ndarray]:
    """The weighted mean of the members' logits, shard by shard; one member's shard is in memory at a time."""
    weights = [np.float32(weight) for _, weight in members]
    for files in zip(*(list_shards(artifact) for artifact, _ in members), strict=True):
        yield sum(np.load(file) * weight for file, weight in zip(files, weights, strict=True))


def _log_error_rate(means: Iterable[np.ndarray], split: Split, on_validation: float) -> Iterator[np.ndarray]:
    """Pass the shards on; after the last one, log the error rate over all of them, if there are labels, and warn if it
    is far above that `on_validation`, which may be NaN."""
    errors = known = start = 0
    for shard in means:
        labels = split.labels[np.arange(start, start + len(shard)) % len(split.labels)]
        errors += int(np.sum((shard.argmax(-1) != labels) & (labels >= 0)))
        known += int(np.sum(labels >= 0))
        start += len(shard)
        yield shard
    if not known:
        return
    has_copies = start > len(split.labels)
    copies = ", virtual copies included" if has_copies else ""
    logging.info("teacher: error rate %.4f on the transfer set%s", errors / known, copies)
    if has_copies and is_far_more(errors / known, on_validation, int(np.sum(split.labels >= 0))):
        logging.warning(
            "teacher: more than twice as many errors on the transfer set, virtual copies included, as on validation, "
            "%.4f against %.4f: its members may not know such copies, and the student learns what they say of them",
            errors / known,
            on_validation,
        )
