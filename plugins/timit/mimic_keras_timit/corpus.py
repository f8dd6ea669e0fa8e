"""The corpus as users have it on disk: find its utterances, read them, and list all problems at once."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from mimic_keras.contracts import InputError
from mimic_keras_timit import audio
from mimic_keras_timit.features import FRAME_SHIFT
from mimic_keras_timit.phones import PHONES
from mimic_keras_timit.speakers import CORE_TEST, DEVELOPMENT

VARIABLE = "MIMIC_KERAS_TIMIT"
SPLITS = ("train", "validation", "test")
LEVELS = 3  # the given folder and two levels below it
PROBLEMS_SHOWN = 100
LONGEST_NUMBER = 12  # digits of a position in the sound
_AUDIO_ENDINGS = (".wav", ".wav.wav")  # the second is a RIFF copy of the disc's file; the disc's file is preferred
_PLACES = {phone: place for place, phone in enumerate(PHONES)}

NO_CORPUS = f"""\
TIMIT is a licensed corpus of read American English (630 speakers, phones marked by hand): get it from the Linguistic
Data Consortium as LDC93S1, and set dataset.root or the environment variable {VARIABLE} to its folder, the one that
holds TRAIN and TEST or one above it. `mimic-keras run experiments/timit_demo.yaml` runs without it, on synthetic
sounds."""


@dataclass(frozen=True)
class Transcript:
    """Phones (int [P], indices into `PHONES`), and the start and end of each in samples (int [P])."""

    phones: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Utterance:
    """A verified utterance. `name` is SPEAKER/SENTENCE, `samples` its length, `digest` that of both files."""

    name: str
    audio: Path
    samples: int
    transcript: Transcript
    digest: str

    def read(self) -> np.ndarray:
        """The sound, int16 [samples]."""
        return audio.decode(self.audio.read_bytes())


Corpus = dict[str, list[Utterance]]


def find(root: Path | None) -> Path:
    """The folder that contains TRAIN and TEST, at or below `root` or the environment variable's folder.

    Raises:
        InputError: there is none; the message says what TIMIT is and where to get it.
    """
    given = "dataset.root" if root else VARIABLE
    place = root or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if place is None:
        raise InputError(f"dataset.root is not set, and neither is {VARIABLE}.\n{NO_CORPUS}")
    place = place.expanduser()
    if not place.is_dir():
        raise InputError(f"{given}: no such folder: {place}\n{NO_CORPUS}")
    level = [place]
    for _ in range(LEVELS):
        for folder in level:
            if {"train", "test"} <= {child.name.lower() for child in _folders(folder)}:
                return folder
        level = [inner for folder in level for inner in _folders(folder)]
    raise InputError(f"{given}: {place} holds no folders TRAIN and TEST, nor do the two levels below it.\n{NO_CORPUS}")


def read(root: Path, expected: Mapping[str, int]) -> Corpus:
    """{split: utterances sorted by name} of the corpus at `root` (from `find`), every file read and verified.

    Warns if a split does not have its `expected` number of utterances.

    Raises:
        InputError: files are missing or damaged; lists the first hundred problems and their number.
    """
    candidates = {split: sorted(_candidates(root, split), key=lambda found: found[0]) for split in SPLITS}
    jobs = [(split, name, files) for split, found in candidates.items() for name, files in found]
    corpus: Corpus = {split: [] for split in SPLITS}
    problems = [f"no utterances of the {split} speakers" for split, found in candidates.items() if not found]
    for (split, name, files), (_, other, others) in itertools.pairwise(jobs):
        if name == other:
            places = [next(iter(found.values())) for found in (files, others)]
            problems.append(f"{name} is in '{split}' twice: {places[0]} and {places[1]}")
    results = in_parallel(lambda job: _read_utterance(*job[1:]), jobs)
    for (split, _, _), (utterance, faults) in zip(jobs, results, strict=True):
        problems += faults
        if utterance:
            corpus[split].append(utterance)
    if problems:
        shown = problems[:PROBLEMS_SHOWN]
        rest = [f"and {len(problems) - len(shown):,} more"] if len(problems) > len(shown) else []
        count = f"{len(problems):,} problem{'s' if len(problems) > 1 else ''}"
        raise InputError("\n  ".join([f"{root}: {count}", *shown, *rest]))
    for split, whole in expected.items():
        if (found := len(corpus[split])) != whole:
            logging.warning("%s: %d utterances in '%s'; the whole corpus has %d", root, found, split, whole)
    return corpus


def digest(corpus: Corpus) -> str:
    """SHA-256 of every utterance's split, name and file contents."""
    result = hashlib.sha256()
    for split, utterances in corpus.items():
        for utterance in utterances:
            result.update(f"{split} {utterance.name} {utterance.digest}\n".encode())
    return result.hexdigest()


def in_parallel(function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
    """`function(job)` for each job, in order, on all processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(function, jobs)


def _folders(place: Path) -> list[Path]:
    """Subfolders; none if `place` is not readable, such as lost+found next to a corpus."""
    try:
        return sorted(child for child in place.iterdir() if child.is_dir())
    except PermissionError:
        return []


def _candidates(root: Path, split: str) -> Iterator[tuple[str, dict[str, Path]]]:
    """(name, {"audio": file, "phn": file}) of a split's utterances; either file may be missing."""
    part = "train" if split == "train" else "test"
    (half,) = [folder for folder in _folders(root) if folder.name.lower() == part][:1]
    members = {"validation": DEVELOPMENT, "test": CORE_TEST}.get(split)
    for speaker in (speaker for region in _folders(half) for speaker in _folders(region)):
        if members is not None and speaker.name.upper() not in members:
            continue
        found: dict[str, dict[str, Path]] = {}
        for file in sorted(speaker.iterdir(), key=lambda file: (len(file.name), file.name)):
            sentence, _, ending = file.name.partition(".")
            kind = "phn" if ending.lower() == "phn" else "audio" if f".{ending.lower()}" in _AUDIO_ENDINGS else None
            if kind and not sentence.upper().startswith("SA"):
                found.setdefault(f"{speaker.name}/{sentence}".upper(), {}).setdefault(kind, file)
        yield from found.items()


def _read_utterance(name: str, files: dict[str, Path]) -> tuple[Utterance | None, list[str]]:
    """The utterance, or the problems of its files."""
    faults, samples, transcript = [], None, None
    here = next(iter(files.values()))
    missing = {"audio": ".WAV", "phn": ".PHN"}
    faults += [f"{here}: its {ending} file is missing" for kind, ending in missing.items() if kind not in files]
    content = {}
    for kind, file in files.items():
        try:
            content[kind] = file.read_bytes()
        except OSError as error:
            faults.append(f"{file}: {error.strerror}")
    if "audio" in content:
        try:
            samples = len(audio.decode(content["audio"]))
        except ValueError as error:
            faults.append(f"{files['audio']}: {error}")
    if "phn" in content:
        try:
            transcript = parse_transcript(content["phn"].decode("ascii", "replace"), samples)
        except ValueError as error:
            faults.append(f"{files['phn']}: {error}")
    if samples is None or transcript is None or faults:
        return None, faults
    both = hashlib.sha256(content["audio"]).hexdigest() + hashlib.sha256(content["phn"]).hexdigest()
    return Utterance(name, files["audio"], samples, transcript, both), []


def parse_transcript(text: str, samples: int | None = None) -> Transcript:
    """Parse a .PHN file's lines, "begin end phone" in samples; the sound has `samples` samples (None: unknown).

    The last phone may end up to one frame shift (160 samples) after the sound.

    Raises:
        ValueError: a line has another form, a phone is unknown, or boundaries overlap or lie outside the sound.
    """
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not rows:
        raise ValueError("no phones")
    before = 0
    for number, row in rows:
        if len(row) != 3 or not all(_is_number(value) for value in row[:2]):
            raise ValueError(f"line {number}: expected 'begin end phone', got '{' '.join(row)}'")
        start, end = int(row[0]), int(row[1])
        if row[2] not in _PLACES:
            raise ValueError(f"line {number}: unknown phone '{row[2]}'; TIMIT's are {' '.join(PHONES)}")
        if not before <= start < end:
            raise ValueError(f"line {number}: {start} to {end} after {before}: boundaries have to rise")
        if samples is not None and (start >= samples or end > samples + FRAME_SHIFT):
            raise ValueError(f"line {number}: {start} to {end} lies outside the sound's {samples} samples")
        before = end
    columns = [np.array(column) for column in zip(*(row for _, row in rows), strict=True)]
    starts, ends = (column.astype(np.int64) for column in columns[:2])
    return Transcript(np.array([_PLACES[phone] for phone in columns[2]]), starts, ends)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER
