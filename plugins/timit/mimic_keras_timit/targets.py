"""The target of every frame: one of 183 states, from the transcript's boundaries or a finished run's alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mimic_keras.contracts import InputError, atomic_writer
from mimic_keras_timit.corpus import Corpus, Transcript, Utterance
from mimic_keras_timit.features import frame_centres, num_frames
from mimic_keras_timit.phones import STATES

SMALLEST_SCORE = -1e6


def cut_in_thirds(transcript: Transcript, frames: int) -> np.ndarray:
    """States, int32 [frames]: every phone's segment is cut into thirds; a frame's middle decides its third.

    A frame before the first phone or after the last counts as part of that phone.

    Example:
        >>> phones, bounds = np.array([2, 0]), np.array([0, 600, 1080])
        >>> cut_in_thirds(Transcript(phones, bounds[:-1], bounds[1:]), 5).tolist()
        [7, 7, 8, 0, 1]
    """
    middles = frame_centres(frames)
    segment = np.maximum(np.searchsorted(transcript.starts, middles, "right") - 1, 0)
    starts, lengths = transcript.starts[segment], (transcript.ends - transcript.starts)[segment]
    third = np.clip(STATES * (middles - starts) // lengths, 0, STATES - 1)
    return (transcript.phones[segment] * STATES + third).astype(np.int32)


def list_states(transcript: Transcript) -> np.ndarray:
    """The states of an utterance in order, int32 [3 * phones]."""
    return (transcript.phones[:, None] * STATES + np.arange(STATES)).reshape(-1).astype(np.int32)


def force_align(transcript: Transcript, scores: np.ndarray) -> np.ndarray | None:
    """The best path through the transcript's states, at least one frame in each (Viterbi).

    Args:
        transcript: the phones; its boundaries are ignored.
        scores: logarithm of each state's (scaled) likelihood, float [frames, 183].

    Returns:
        States, int32 [frames]; None if there are fewer frames than states.
    """
    states = list_states(transcript)
    frames, length = len(scores), len(states)
    if frames < length:
        return None
    # A state absent from training scores -inf; a floor keeps paths through it comparable.
    local = np.maximum(np.asarray(scores, np.float64)[:, states], SMALLEST_SCORE)
    best = np.full(length, -np.inf)
    best[0] = local[0, 0]
    moved = np.zeros([frames, length], bool)
    for frame in range(1, frames):
        before = np.concatenate([[-np.inf], best[:-1]])
        moved[frame] = before > best
        best = np.maximum(before, best) + local[frame]
    path = np.empty(frames, np.int64)
    place = length - 1
    for frame in range(frames - 1, -1, -1):
        path[frame] = place
        place -= int(moved[frame, place])
    return states[path]


def write(file: Path, corpus_digest: str, aligned: dict[str, np.ndarray]) -> None:
    """Save an alignment: {utterance: states [frames]}."""
    states = np.concatenate([*aligned.values(), np.zeros(0, np.int16)]).astype(np.int16)
    with atomic_writer(file) as stream:
        np.savez_compressed(
            stream,
            corpus=np.array(corpus_digest),
            utterances=np.array(list(aligned)),
            frames=np.array([len(path) for path in aligned.values()]),
            states=states,
        )


def read(file: Path, corpus: Corpus, corpus_digest: str) -> dict[str, np.ndarray]:
    """An alignment of this corpus, {utterance: states}, checked against the transcripts.

    Raises:
        InputError: the file is missing, damaged, or belongs to another corpus.
    """
    where = f"dataset.alignment.file: {file}"
    if not file.is_file():
        raise InputError(f"{where}: no such file; `python -m mimic_keras_timit.align RUN --out FILE` makes one")
    try:
        with np.load(file) as stored:
            found = str(stored["corpus"])
            paths = np.split(stored["states"].astype(np.int32), np.cumsum(stored["frames"])[:-1])
            aligned = dict(zip(stored["utterances"].tolist(), paths, strict=True))
    except Exception as error:  # NumPy raises anything here, depending on the file's content
        raise InputError(f"{where} is not an alignment: {error}") from error
    if found != corpus_digest:
        raise InputError(f"{where} was made from another corpus; rebuild it from a run on this one")
    for utterance in (utterance for utterances in corpus.values() for utterance in utterances):
        if (path := aligned.get(utterance.name)) is None or not _fits(path, utterance):
            raise InputError(f"{where} does not follow the transcript of {utterance.name}; rebuild it")
    return aligned


def _fits(path: np.ndarray, utterance: Utterance) -> bool:
    """Whether there is a state per frame, in the transcript's order; thirds if there are fewer frames than states."""
    if len(path) != num_frames(utterance.samples):
        return False
    states = list_states(utterance.transcript)
    if len(path) < len(states):
        return bool(np.array_equal(path, cut_in_thirds(utterance.transcript, len(path))))
    # Two equal states in a row would look like one lasting longer, but a phone has three different states.
    return bool(np.array_equal(path[np.flatnonzero(np.diff(path, prepend=-1))], states))
