"""A synthetic corpus in TIMIT's layout, for tests and for users without TIMIT: harmonics and noise through formants.

It shares only the layout, the phone symbols and the speakers' ids with TIMIT.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimic_keras_timit.audio import SAMPLE_RATE, sphere_file
from mimic_keras_timit.corpus import in_parallel
from mimic_keras_timit.speakers import CORE_TEST, DEVELOPMENT

CONTROL = 80  # samples between control points: 5 ms
HARMONICS_TO = 4000.0  # Hz
BANDWIDTHS, GAINS = np.array([70.0, 110.0, 170.0]), np.array([1.0, 0.5, 0.25])
GLIDE = 5  # control points over which one phone moves into the next
REGIONS, SENTENCE_WORDS, LEXICON_WORDS = 8, 5, 150
NOTICE = "Synthetic sounds in the layout of TIMIT. This is not TIMIT, and contains no part of it.\n"

# Vowel formants in Hz near Peterson & Barney 1952; the rest is our own. Columns: phone, three formants, loudness of
# voice and noise, centre and width of the noise in Hz, length in ms. A second row is the end of a diphthong.
_TABLE = """
iy 270 2290 3010 1 0 0 1 90; ih 390 1990 2550 1 0 0 1 70; eh 530 1840 2480 1 0 0 1 85; ae 660 1720 2410 1 0 0 1 120
aa 730 1090 2440 1 0 0 1 115; ao 570 840 2410 1 0 0 1 115; uh 440 1020 2240 1 0 0 1 75; uw 300 870 2240 1 0 0 1 95
ux 320 1500 2300 1 0 0 1 90; ah 640 1190 2390 1 0 0 1 80; ax 500 1400 2400 .7 0 0 1 50; ix 420 1750 2500 .7 0 0 1 50
ax-h 500 1400 2400 .1 .2 1500 900 40; er 490 1350 1690 1 0 0 1 110; axr 470 1300 1650 .8 0 0 1 85
ey 500 1850 2500 1 0 0 1 120; ey 300 2250 2900 1 0 0 1 0; ay 720 1200 2500 1 0 0 1 140; ay 400 1950 2550 1 0 0 1 0
oy 560 850 2400 1 0 0 1 150; oy 390 1950 2500 1 0 0 1 0; aw 720 1250 2450 1 0 0 1 150; aw 430 950 2250 1 0 0 1 0
ow 540 950 2400 1 0 0 1 125; ow 330 850 2250 1 0 0 1 0; l 360 1000 2600 .7 0 0 1 65; el 380 950 2550 .7 0 0 1 90
r 350 1100 1500 .7 0 0 1 60; w 300 650 2200 .6 0 0 1 60; y 270 2200 3000 .6 0 0 1 55; m 250 1000 2200 .5 0 0 1 65
n 250 1500 2400 .5 0 0 1 60; ng 250 2100 2700 .5 0 0 1 65; em 260 1000 2200 .5 0 0 1 90; en 260 1500 2400 .5 0 0 1 85
eng 260 2100 2700 .5 0 0 1 90; nx 300 1450 2450 .6 0 0 1 35; dx 350 1600 2500 .5 0 0 1 35; q 350 1400 2400 .2 0 0 1 60
hh 500 1500 2500 0 .3 1600 1200 65; hv 500 1500 2500 .4 .2 1600 1200 60; s 0 0 0 0 .8 6200 1200 110
z 250 1500 2500 .3 .5 6000 1200 85; sh 0 0 0 0 .8 3200 900 115; zh 250 1600 2500 .3 .5 3100 900 85
f 0 0 0 0 .25 4500 3000 100; v 250 1100 2300 .4 .12 4500 3000 60; th 0 0 0 0 .2 6500 1800 90
dh 260 1300 2500 .4 .1 6300 1800 45; ch 0 0 0 0 .8 3500 900 80; jh 250 1700 2500 .2 .6 3400 900 60
p 0 0 0 0 .4 1000 700 40; b 300 900 2200 .3 .2 800 600 20; t 0 0 0 0 .6 4800 1500 45; d 300 1700 2600 .3 .3 4300 1500 25
k 0 0 0 0 .5 2300 700 50; g 300 2000 2500 .3 .3 2100 700 28; pcl 0 0 0 0 0 0 1 60; tcl 0 0 0 0 0 0 1 55
kcl 0 0 0 0 0 0 1 60; bcl 200 600 2200 .12 0 0 1 60; dcl 200 1500 2500 .12 0 0 1 50; gcl 200 1900 2500 .12 0 0 1 52
pau 0 0 0 0 0 0 1 120; epi 0 0 0 0 0 0 1 40; h# 0 0 0 0 0 0 1 140
"""
_CONSONANTS = (
    "bcl b; dcl d; gcl g; pcl p; tcl t; kcl k; tcl ch; dcl jh; s; sh; z; zh; f; v; th; dh; hh; hv; m; n; ng; nx; dx; "
    "l; r; w; y; q"
)
_VOWELS = "iy ih eh ae aa ao uh uw ux ah ax ix ax-h er axr ey ay oy aw ow el em en eng"


def _parse_table() -> dict[str, np.ndarray]:
    """{phone: [1 or 2, 8]}"""
    shapes: dict[str, list[list[float]]] = {}
    for row in _TABLE.replace("\n", ";").split(";"):
        if row.strip():
            phone, *values = row.split()
            shapes.setdefault(phone, []).append([float(value) for value in values])
    return {phone: np.array(rows) for phone, rows in shapes.items()}


SHAPES = _parse_table()


@dataclass(frozen=True)
class Plan:
    """The size and seed of a corpus. Half of the test voices, at least one, are the validation set."""

    training_speakers: int
    test_speakers: int
    utterances: int
    seed: int

    def __post_init__(self) -> None:
        most = 2 * len(CORE_TEST)
        for name, largest in {"training_speakers": 999, "test_speakers": most, "utterances": 999}.items():
            smallest = 2 if name == "test_speakers" else 1
            if not smallest <= getattr(self, name) <= largest:
                raise ValueError(f"{name} must be from {smallest} to {largest}, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to {2**32 - 1}, got {self.seed}")

    def utterance_counts(self) -> dict[str, int]:
        validation = self.test_speakers // 2
        speakers = {"train": self.training_speakers, "validation": validation, "test": self.test_speakers - validation}
        return {split: count * self.utterances for split, count in speakers.items()}

    def speakers(self) -> Iterator[tuple[str, str]]:
        """(folder, speaker)"""

        def in_order(names: frozenset[str]) -> list[str]:
            return sorted(names, key=lambda name: name[1:])  # without the F or M in front: any number has both

        validation = self.test_speakers // 2
        for number in range(self.training_speakers):
            yield "TRAIN", f"{'FM'[number % 2]}SY{number:03d}"
        for name in (*in_order(DEVELOPMENT)[:validation], *in_order(CORE_TEST)[: self.test_speakers - validation]):
            yield "TEST", name


def write_corpus(plan: Plan, folder: Path) -> Path:
    """The folder with the corpus of `plan`, in `folder`; the corpus is written unless it exists."""
    key = hashlib.sha256(repr(plan).encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    place, unfinished = folder / f"synthetic-{key}", folder / f".synthetic-{key}"
    if place.is_dir():
        return place
    shutil.rmtree(unfinished, ignore_errors=True)
    jobs = [
        (unfinished / half / f"DR{number % REGIONS + 1}" / name, number, utterance)
        for number, (half, name) in enumerate(plan.speakers())
        for utterance in range(plan.utterances + 1)
    ]
    lexicon = _lexicon(np.random.default_rng([plan.seed, 0]))
    for _ in in_parallel(lambda job: _write_utterance(plan, lexicon, *job), jobs):
        pass
    (unfinished / "README.TXT").write_text(NOTICE)
    unfinished.replace(place)
    return place


def _write_utterance(plan: Plan, lexicon: list[list[str]], folder: Path, speaker: int, number: int) -> None:
    """A speaker's last utterance is a sentence that all speakers say, like SA1 in TIMIT."""
    is_common = number == plan.utterances
    words = np.random.default_rng([plan.seed, 1] if is_common else [plan.seed, 2, speaker, number])
    sentence = [phone for _ in range(SENTENCE_WORDS) for phone in lexicon[words.integers(len(lexicon))]]
    if words.random() < 0.3:
        sentence.insert(len(sentence) // 2, "pau" if words.random() < 0.7 else "epi")
    voice = Voice.of(np.random.default_rng([plan.seed, 3, speaker]), folder.name[0] == "F")
    sound, segments = voice.say(["h#", *sentence, "h#"], np.random.default_rng([plan.seed, 4, speaker, number]))
    folder.mkdir(parents=True, exist_ok=True)
    name = "SA1" if is_common else f"SX{number + 1}"
    (folder / f"{name}.WAV").write_bytes(sphere_file(sound))
    (folder / f"{name}.PHN").write_text("".join(f"{start} {end} {phone}\n" for start, end, phone in segments))
    (folder / f"{name}.TXT").write_text(f"0 {len(sound)} {NOTICE}")


def _lexicon(random: np.random.Generator) -> list[list[str]]:
    """Words of one to three syllables: a vowel, with or without a consonant on either side."""
    consonants, vowels = [item.split() for item in _CONSONANTS.split(";")], _VOWELS.split()

    def syllable() -> list[str]:
        onset, coda = (consonants[random.integers(len(consonants))] if random.random() < 0.7 else [] for _ in "ab")
        return [*onset, vowels[random.integers(len(vowels))], *coda]

    return [[phone for _ in range(random.integers(1, 4)) for phone in syllable()] for _ in range(LEXICON_WORDS)]


@dataclass(frozen=True)
class Voice:
    """A speaker: pitch in Hz, factors on formants and lengths, fall of the voice per octave, and background noise."""

    pitch: float
    tract: float
    pace: float
    fall: float
    noise: float

    @classmethod
    def of(cls, random: np.random.Generator, is_female: bool) -> Voice:
        pitch, tract = (200, 1.12) if is_female else (115, 0.97)
        return cls(
            pitch * random.uniform(0.8, 1.25),
            tract * random.uniform(0.93, 1.08),
            random.uniform(0.8, 1.2),
            random.uniform(0.6, 1.2),
            random.uniform(0.002, 0.01),
        )

    def say(self, phones: list[str], random: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int, str]]]:
        """The sound, int16 [samples], and (begin, end, phone) of every phone, in samples."""
        rows, segments, at = [], [], 0
        for phone in phones:
            shape = SHAPES[phone]
            length = max(3, round(shape[0, -1] * self.pace * random.uniform(0.7, 1.4) * SAMPLE_RATE / 1000 / CONTROL))
            path = np.linspace(shape[0, :-1], shape[-1, :-1], length)
            path[:, :3] *= self.tract * random.normal(1, 0.05, 3)  # no phone sounds the same twice
            path[:, 3:5] *= random.uniform(0.6, 1.4)
            rows.append(path)
            segments.append((at * CONTROL, (at + length) * CONTROL, phone))
            at += length
        smooth = np.ones(GLIDE) / GLIDE
        controls = np.concatenate(rows)
        padded = np.pad(controls, [(GLIDE // 2, GLIDE // 2), (0, 0)], "edge")
        controls = np.stack([np.convolve(column, smooth, "valid") for column in padded.T], 1)
        sound = self._make_voice(controls, random) + self._make_noise(controls, random)
        sound += self.noise * random.standard_normal(len(sound))
        return np.clip(sound * 6000, -32768, 32767).astype(np.int16), segments

    def _make_voice(self, controls: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Harmonics of a drifting pitch, as loud as the formants at their frequencies."""
        points = len(controls)
        drift = np.linspace(1.1, 0.9, points) * (1 + 0.03 * np.sin(np.arange(points) / random.uniform(8, 20)))
        pitch = self.pitch * drift
        orders = np.arange(1, int(HARMONICS_TO / pitch.min()) + 1)
        frequencies = pitch[:, None] * orders
        near = (frequencies[..., None] - controls[:, None, :3]) / BANDWIDTHS
        loudness = (GAINS / (1 + near**2)).sum(-1) * (frequencies / 500 + 1) ** -self.fall
        loudness *= controls[:, 3:4] * (frequencies < HARMONICS_TO)
        samples, at = np.arange(points * CONTROL) / CONTROL, np.arange(points)
        phase = 2 * np.pi * np.cumsum(np.interp(samples, at, pitch)) / SAMPLE_RATE
        sound = np.zeros(len(samples))
        for order, curve in zip(orders, loudness.T, strict=True):
            sound += np.interp(samples, at, curve) * np.sin(order * phase)
        return sound

    def _make_noise(self, controls: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """White noise in overlapping frames of two control intervals, shaped in frequency."""
        length = 2 * CONTROL
        spectrum = np.fft.rfft(random.standard_normal([len(controls), length]))
        frequencies = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
        loudness, centre, width = controls[:, 4:5], controls[:, 5:6] * self.tract, np.maximum(controls[:, 6:7], 100)
        shaped = np.fft.irfft(spectrum * loudness * np.exp(-0.5 * ((frequencies - centre) / width) ** 2))
        shaped *= np.hanning(length + 1)[:-1]
        sound = np.zeros([len(controls) + 1, CONTROL])
        sound[:-1] += shaped[:, :CONTROL]
        sound[1:] += shaped[:, CONTROL:]
        return sound[:-1].reshape(-1)
