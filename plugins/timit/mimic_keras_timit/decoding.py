"""Decode frame posteriors to phones, and score them: a hybrid recogniser like those that Ba & Caruana 2014 cite.

A phone is three states from left to right, each lasting at least one frame. Staying and moving on are equally likely;
this factor is common to all paths and left out. A path's score is the sum over frames of log(posterior / prior), plus,
for every phone, language_model_weight * log P(phone | previous phone) + insertion_penalty.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from mimic_keras_timit.corpus import in_parallel
from mimic_keras_timit.phones import CLASSES, STATES, fold

# The grid for the two constants, chosen on validation. Neighbouring frames share most of their window, so the sum of
# their scores overstates the evidence: the language model needs a weight above 1.
LANGUAGE_MODEL_WEIGHTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
INSERTION_PENALTIES = (-4.0, 0.0, 4.0, 8.0, 12.0, 16.0, 20.0)
NOTHING = "(nothing)"


@dataclass(frozen=True)
class Bigram:
    """Logarithms of P(first phone) [P], P(phone | previous phone) [previous, phone] and P(end | last phone) [P]."""

    first: np.ndarray
    next: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, transcripts: Sequence[np.ndarray], phones: int) -> Bigram:
        """Counted in transcripts (int [N] each), smoothed by method C of Witten & Bell 1991.

        P(b | a) = (count(a, b) + kinds(a) P(b)) / (count(a) + kinds(a)) with kinds(a) different phones following a;
        the boundary counts as a phone. A phone in no transcript has probability 0.
        """
        boundary = phones
        counts = np.zeros([phones + 1, phones + 1])
        for transcript in transcripts:
            path = np.concatenate([[boundary], np.asarray(transcript, np.int64), [boundary]])
            np.add.at(counts, (path[:-1], path[1:]), 1)
        unigram = counts.sum(0) / counts.sum()
        kinds = (counts > 0).sum(1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithm = np.log((counts + kinds * unigram) / (counts.sum(1, keepdims=True) + kinds))
        logarithm[np.isnan(logarithm)] = -np.inf  # after a phone that never occurs
        return cls(logarithm[boundary, :phones], logarithm[:phones, :phones], logarithm[:phones, boundary])


def log_priors(states: np.ndarray, count: int) -> np.ndarray:
    """log P(state) [count] from the training targets; +inf for a state without frames, so that it is never decoded."""
    frames = np.bincount(states, minlength=count).astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.where(frames > 0, np.log(frames / max(frames.sum(), 1)), np.inf)


def scaled_likelihoods(logits: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """log(posterior / prior), float32 [frames, states], from logits and `log_priors`."""
    shifted = logits - logits.max(-1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)) - priors).astype(np.float32)


def decode(scores: Sequence[np.ndarray], bigram: Bigram, weight: float, penalty: float) -> list[np.ndarray]:
    """The best phone sequence of each utterance (Viterbi), all utterances at once.

    Args:
        scores: log(posterior / prior) of each utterance, float32 [frames, 3 * phones].
        bigram: the language model of the phones.
        weight: factor on the language model's logarithms.
        penalty: added for every phone; a negative one reduces insertions.

    Returns:
        The phones of each utterance, int64 [N]; none if it has fewer than 3 frames.
    """
    phones = len(bigram.first)
    with np.errstate(invalid="ignore"):
        first, enter, last = (
            np.where(np.isneginf(table), -np.inf, weight * table).astype(np.float32)
            for table in (bigram.first, bigram.next.T, bigram.last)
        )
    order = sorted((place for place, rows in enumerate(scores) if len(rows)), key=lambda place: -len(scores[place]))
    lengths = np.array([len(scores[place]) for place in order])
    found = [np.zeros(0, np.int64) for _ in scores]
    if not order:
        return found
    shape = (lengths[0], len(order), phones)
    came_from, entered = np.zeros(shape, np.int16), np.zeros(shape, np.int32)
    best = np.full([len(order), phones, STATES], -np.inf, np.float32)
    since = np.zeros([len(order), phones, STATES], np.int32)  # the frame at which the best path entered the phone
    for frame in range(lengths[0]):
        active = int(np.searchsorted(-lengths, -frame, "left"))
        old, begun = best[:active], since[:active]
        local = np.stack([scores[place][frame] for place in order[:active]]).reshape(active, phones, STATES)
        if frame == 0:
            entry = np.broadcast_to(first + penalty, [active, phones])
        else:
            options = old[:, None, :, STATES - 1] + enter
            previous = options.argmax(-1)
            came_from[frame, :active] = previous
            entry = np.take_along_axis(options, previous[..., None], -1)[..., 0] + np.float32(penalty)
        before = np.concatenate([entry[..., None], old[..., :-1]], -1)
        before_since = np.concatenate([np.full([active, phones, 1], frame, np.int32), begun[..., :-1]], -1)
        moves = before > old
        best[:active] = np.where(moves, before, old) + local
        since[:active] = np.where(moves, before_since, begun)
        entered[frame, :active] = since[:active, :, -1]
    # `best` of an utterance has not changed since its last frame.
    ends = best[..., -1] + last
    for row, place in enumerate(order):
        if np.isfinite(ends[row].max()):
            found[place] = _trace(int(ends[row].argmax()), came_from[:, row], entered[:, row], lengths[row] - 1)
    return found


def _trace(phone: int, came_from: np.ndarray, entered: np.ndarray, frame: int) -> np.ndarray:
    path = [phone]
    while (start := int(entered[frame, phone])) > 0:
        phone, frame = int(came_from[start, phone]), start - 1
        path.append(phone)
    return np.array(path[::-1], np.int64)


@dataclass(frozen=True)
class Constants:
    """The weight and penalty for `decode`, chosen on validation."""

    language_model_weight: float
    insertion_penalty: float


def choose(scores: Sequence[np.ndarray], references: Sequence[np.ndarray], bigram: Bigram) -> Constants:
    """The constants with the lowest phone error rate; the first in case of a tie."""

    def error(constants: Constants) -> float:
        found = decode(scores, bigram, constants.language_model_weight, constants.insertion_penalty)
        return phone_error_rate(references, found)

    grid = [Constants(*values) for values in itertools.product(LANGUAGE_MODEL_WEIGHTS, INSERTION_PENALTIES)]
    errors = list(in_parallel(error, grid))
    return grid[errors.index(min(errors))]


def phone_error_rate(references: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Edit distance divided by the references' length, over all utterances, with phones folded to 39 classes.

    Example:
        >>> phone_error_rate([np.array([0, 1, 2])], [np.array([0, 2])])
        0.3333333333333333
    """
    errors, lengths = count_phone_errors(references, found)
    return sum(errors) / sum(lengths) if sum(lengths) else float("nan")


def count_phone_errors(references: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> tuple[list[int], list[int]]:
    """The edit distance of each utterance and its reference's length, with phones folded to 39 classes.

    Example:
        >>> count_phone_errors([np.array([0, 1, 2])], [np.array([0, 2])])
        ([1], [3])
    """
    pairs = [(fold(reference), fold(phones)) for reference, phones in zip(references, found, strict=True)]
    errors = [Levenshtein.distance(reference.tolist(), phones.tolist()) for reference, phones in pairs]
    return errors, [len(reference) for reference, _ in pairs]


def confusion(references: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names, and counts [40, 40] of classes (rows) recognised as others (columns), along the cheapest edit.

    The last row counts insertions, the last column deletions.
    """
    nothing = len(CLASSES)
    counts = np.zeros([nothing + 1, nothing + 1], np.int64)
    for reference, phones in zip(references, found, strict=True):
        true, taken = fold(reference), fold(phones)
        for step in Levenshtein.opcodes(true.tolist(), taken.tolist()):
            rows, columns = true[step.src_start : step.src_end], taken[step.dest_start : step.dest_end]
            if step.tag == "delete":
                columns = np.full(len(rows), nothing)
            elif step.tag == "insert":
                rows = np.full(len(columns), nothing)
            np.add.at(counts, (rows, columns), 1)
    return (*CLASSES, NOTHING), counts
