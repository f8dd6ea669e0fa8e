"""Convert the corpus to arrays, once: normalised features of all frames, in a folder keyed by the corpus."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import InputError, file_digest
from mimic_keras_timit import features
from mimic_keras_timit.corpus import SPLITS, Corpus, digest, in_parallel

ROWS_AT_ONCE = 1 << 15
ARRAYS = ("features", "mean", "deviation")


@dataclass(frozen=True)
class Prepared:
    """Normalised `features` of all splits in order, float32 [frames, 123]; `fingerprint` is the digest of all arrays.

    `mean` and `deviation` are those of the training set, float64 [123].
    """

    features: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    fingerprint: str


def prepare(corpus: Corpus, folder: Path) -> Prepared:
    """The arrays of `corpus`, computed once and kept in a subfolder of the existing `folder`.

    Raises:
        InputError: no training utterance is as long as one frame.
    """
    code = Path(features.__file__).read_bytes() + Path(__file__).read_bytes()
    key = hashlib.sha256(digest(corpus).encode() + code).hexdigest()[:32]
    place = folder / key
    if place.is_dir():
        return _load(place)
    unfinished = folder / f".{key}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    _write_arrays(corpus, unfinished)
    unfinished.replace(place)
    return _load(place)


def _write_arrays(corpus: Corpus, place: Path) -> None:
    utterances = [utterance for split in SPLITS for utterance in corpus[split]]
    counts = [features.num_frames(utterance.samples) for utterance in utterances]
    training = sum(counts[: len(corpus["train"])])
    if not training:
        raise InputError("no training utterance is as long as one frame, 25 ms")
    rows = np.lib.format.open_memmap(
        place / "features.npy", "w+", dtype=np.float32, shape=(sum(counts), features.FEATURES)
    )
    start = 0
    for count, values in zip(counts, _with_progress(_extract(utterances), len(utterances)), strict=True):
        rows[start : start + count] = values
        start += count
    mean = sum(part.sum(0, dtype=np.float64) for part in _split_rows(rows[:training])) / training
    variance = sum(((part - mean) ** 2).sum(0) for part in _split_rows(rows[:training])) / training
    deviation = np.where(variance > 0, np.sqrt(variance), 1.0)
    for part in _split_rows(rows):
        part[:] = normalise(part, mean, deviation)
    rows.flush()
    np.save(place / "mean.npy", mean)
    np.save(place / "deviation.npy", deviation)
    for name in ARRAYS:
        with (place / f"{name}.npy").open("rb") as stream:
            os.fsync(stream.fileno())


def normalise(values: Any, mean: np.ndarray, deviation: np.ndarray) -> Any:
    """Features [N, 123], an array or a tensor, minus the mean and in units of the deviation, float64 [N, 123]."""
    return (values - mean) / deviation


def _extract(utterances: list) -> Any:
    """The features of each utterance, in order, computed in parallel."""
    import tensorflow as tf

    compute = tf.function(features.extract, input_signature=[tf.TensorSpec([None], tf.int16)], autograph=False)
    return in_parallel(lambda utterance: compute(utterance.read()).numpy(), utterances)


def _with_progress(values: Any, total: int) -> Any:
    """`values`, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    return track(values, "features", total, console=console, transient=True, disable=hidden)


def _split_rows(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]


def _load(place: Path) -> Prepared:
    content = hashlib.sha256()
    for name in ARRAYS:
        content.update(bytes.fromhex(file_digest(place / f"{name}.npy")))
    # Mapped, not read: the only copy in memory is the variable from which graphs gather.
    values, mean, deviation = (np.load(place / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
    return Prepared(values, np.array(mean), np.array(deviation), content.hexdigest())
