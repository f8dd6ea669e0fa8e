"""TIMIT (Garofolo et al. 1993) as in Ba & Caruana 2014, section 3: 15 frames of 123 features to one of 183 states.

Every frame is stored once; its window is gathered in the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from absl import logging
from typing_extensions import TypedDict

from mimic_keras.contracts import SPLITS, Confusion, Dataset, DatasetInfo, GroupedRate, RawSignature, host_variable
from mimic_keras_timit import corpus as corpora
from mimic_keras_timit import decoding, features, preparation, serving, synthesis, targets
from mimic_keras_timit.phones import NUM_STATES, PHONES, STATE_NAMES
from mimic_keras_timit.speakers import DISC_UTTERANCES

# Frames of 10 ms, from the sample counts on the disc; used only for estimates.
FRAMES_PER_UTTERANCE = 304
SERVED_EXAMPLES = 3  # utterances


class AlignmentFile(TypedDict):
    """Targets from a file written by `python -m mimic_keras_timit.align`."""

    file: Path


class FrameSplit:
    """The frames of one split, as windows. `labels` are states, int32 [num_examples].

    Args:
        arrays: variables `frames` [N, 123] of all splits, and `first` and `last` [N], the bounds of each frame's
            utterance.
        offset: the first frame of this split.
        labels: the states of this split's frames.
    """

    repeats = 1

    def __init__(self, arrays: Mapping[str, Any], offset: int, labels: np.ndarray):
        self.num_examples, self.labels = len(labels), labels
        self._arrays, self._offset = arrays, offset

    def batch(self, ids: Any) -> Any:
        """Frames (int64 [B]) as float32 [B, 15, 123]."""
        frames, first, last = (self._arrays[name] for name in ("frames", "first", "last"))
        return features.gather_windows(frames, first, last, ids + self._offset)


class Timit(Dataset):
    """Inputs float32 [15, 123], normalised with the training set's mean and deviation; the classes are 183 states.

    Splits: 462 training speakers, 50 development speakers (validation) and the 24 speakers of the core test set,
    without the SA sentences, which all speakers share. Metrics: `phone_error_rate`; `error_rate` is of frames.

    Args:
        root: the folder that contains TRAIN and TEST, or a folder above it. None: taken from the environment variable
            MIMIC_KERAS_TIMIT.
        alignment: "uniform": every phone's segment is cut into thirds. {file: ...}: an alignment by the teacher of a
            finished run.

    Raises:
        InputError: the corpus is missing or damaged; lists all damaged files.
    """

    name = "timit"

    def __init__(self, root: Path | None = None, alignment: Literal["uniform"] | AlignmentFile = "uniform"):
        self.root, self.alignment = root, alignment

    @property
    def info(self) -> DatasetInfo:
        sizes = {split: count * FRAMES_PER_UTTERANCE for split, count in self._utterances().items()}
        shape = (features.WINDOW, features.FEATURES)
        sizes |= {"transfer": sizes["train"]}
        return DatasetInfo(self.name, "1", shape, NUM_STATES, STATE_NAMES, sizes, groups=("speaker",))

    def _utterances(self) -> Mapping[str, int]:
        return DISC_UTTERANCES

    def prepare(self, data_dir: Path) -> str:
        """Verify the corpus, and compute its features unless they are already in `data_dir`."""
        self.corpus = corpora.read(self._corpus_folder(data_dir), self._utterances())
        self.corpus_digest = corpora.digest(self.corpus)
        prepared = preparation.prepare(self.corpus, data_dir)
        self.mean, self.deviation = prepared.mean, prepared.deviation
        self._lengths = {
            split: np.array([features.num_frames(utterance.samples) for utterance in utterances])
            for split, utterances in self.corpus.items()
        }
        self._labels = self._targets()
        lengths = np.concatenate(list(self._lengths.values()))
        ends = np.cumsum(lengths)
        bounds = {"first": ends - lengths, "last": ends - 1}
        rows = {name: np.repeat(values, lengths).astype(np.int32) for name, values in bounds.items()}
        self._arrays = {
            "frames": host_variable(prepared.features),
            **{name: host_variable(values) for name, values in rows.items()},
        }
        digest = hashlib.sha256(f"{self.corpus_digest} {prepared.fingerprint}".encode())
        for labels in self._labels.values():
            digest.update(labels.data)
        return digest.hexdigest()

    def _corpus_folder(self, data_dir: Path) -> Path:
        return corpora.find(self.root)

    def _targets(self) -> dict[str, np.ndarray]:
        if self.alignment == "uniform":
            aligned = {
                item.name: targets.cut_in_thirds(item.transcript, features.num_frames(item.samples))
                for utterances in self.corpus.values()
                for item in utterances
            }
        else:
            aligned = targets.read(self.alignment["file"], self.corpus, self.corpus_digest)
        return {
            split: np.concatenate([aligned[item.name] for item in utterances]).astype(np.int32)
            for split, utterances in self.corpus.items()
        }

    def split(self, name: str, seed: int = 0) -> FrameSplit:
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; accepted: {', '.join(SPLITS)}")
        source = _source(name)
        sizes = {split: len(labels) for split, labels in self._labels.items()}
        names = list(sizes)
        offset = sum(sizes[earlier] for earlier in names[: names.index(source)])
        return FrameSplit(self._arrays, offset, self._labels[source])

    def groups(self, name: str) -> np.ndarray:
        """The speaker of each training frame, int64: their number in the order of their ids."""
        if name != "speaker":
            return super().groups(name)
        return np.repeat(self._speakers("train"), self._lengths["train"])

    def _speakers(self, split: str) -> np.ndarray:
        """The speaker of each utterance, int64 [utterances]: their number in the order of their ids."""
        names = [utterance.name.split("/")[0] for utterance in self.corpus[_source(split)]]
        return np.unique(names, return_inverse=True)[1]

    def _by_speaker(self, split: str, errors: Sequence[int], counts: Sequence[int]) -> GroupedRate:
        """A rate by speaker, of the errors in each utterance and what they are counted in."""
        speakers = self._speakers(split)
        return GroupedRate(*(np.bincount(speakers, each).astype(np.int64) for each in (errors, counts)))

    def scores(self, split: str, logits: np.ndarray) -> list[np.ndarray]:
        """log(posterior / prior) of each utterance in a split, float32 [frames, 183]."""
        values = decoding.scaled_likelihoods(logits, decoding.log_priors(self._labels["train"], NUM_STATES))
        return np.split(values, np.cumsum(self._lengths[_source(split)])[:-1])

    def evaluate(self, logits: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | GroupedRate | Confusion]]:
        """The error rates of phones and of frames, by speaker, and the confusion matrix of the 39 classes.

        Raises:
            ValueError: `logits` has no "validation", on which the decoder's constants are chosen.
        """
        if "validation" not in logits:
            raise ValueError("the decoder's constants are chosen on 'validation', whose logits are missing")
        bigram = decoding.Bigram.of([item.transcript.phones for item in self.corpus["train"]], len(PHONES))
        chosen = decoding.choose(
            self.scores("validation", logits["validation"]), self._references("validation"), bigram
        )
        logging.info("decoder: %s, chosen on validation", chosen)
        results: dict[str, dict[str, float | GroupedRate | Confusion]] = {}
        for split, values in logits.items():
            references, scores = self._references(split), self.scores(split, values)
            found = decoding.decode(scores, bigram, chosen.language_model_weight, chosen.insertion_penalty)
            wrong = values.argmax(-1) != self._labels[_source(split)]
            frames = np.split(wrong, np.cumsum(self._lengths[_source(split)])[:-1])
            results[split] = {
                "error_rate": self._by_speaker(split, [each.sum() for each in frames], list(map(len, frames))),
                "phone_error_rate": self._by_speaker(split, *decoding.count_phone_errors(references, found)),
                "phones": Confusion(*decoding.confusion(references, found)),
            }
        return results

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_waveform` (float32 samples from -1 to 1) and `serve_pcm16` (int16 samples), both 16 kHz.

        They take one or more utterances, padded at the end; `lengths` int32 is each one's number of samples. A row of
        the output is a frame.
        """
        utterances = self.corpus["validation"][:SERVED_EXAMPLES]
        sounds = [utterance.read() for utterance in utterances]
        lengths = np.array([len(sound) for sound in sounds], np.int32)
        pcm = np.zeros([len(sounds), lengths.max()], np.int16)
        for row, sound in zip(pcm, sounds, strict=True):
            row[: len(sound)] = sound
        ids = np.arange(sum(features.num_frames(length) for length in lengths))
        return serving.signatures(self.mean, self.deviation, pcm, lengths, ids)

    def _references(self, split: str) -> list[np.ndarray]:
        return [utterance.transcript.phones for utterance in self.corpus[_source(split)]]


def _source(split: str) -> str:
    """The transfer set is the training set, because all of TIMIT is labelled."""
    return "train" if split == "transfer" else split


class SyntheticTimit(Timit):
    """A synthetic corpus in TIMIT's layout: buzz and noise from a small formant synthesiser, not TIMIT.

    Args:
        training_speakers, test_speakers: synthetic voices; the first half of the test voices is the validation set.
        utterances: number per speaker.
        seed: draws voices, sentences and noise.

    Raises:
        ValueError: an argument is out of its range.
    """

    name = "timit_synthetic"

    def __init__(self, training_speakers: int = 24, test_speakers: int = 12, utterances: int = 6, seed: int = 0):
        super().__init__()
        self.plan = synthesis.Plan(training_speakers, test_speakers, utterances, seed)

    def _utterances(self) -> Mapping[str, int]:
        return self.plan.utterance_counts()

    def _corpus_folder(self, data_dir: Path) -> Path:
        return corpora.find(synthesis.write_corpus(self.plan, data_dir))
