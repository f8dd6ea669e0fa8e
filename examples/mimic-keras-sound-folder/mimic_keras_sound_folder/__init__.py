"""A user's own sounds in one folder per class, split by content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import SPLITS, ArraySplit, Dataset, DatasetInfo, InputError, RawSignature, array_digest

MELS = 64
FRAME, STEP = 0.025, 0.010  # seconds
QUIETEST = 1e-6  # added to each energy, so that silence has a logarithm
PROBLEMS_SHOWN = 20
SERVED_EXAMPLES = 16


class SoundFolder(Dataset):
    """Inputs float32 [frames, 64, 1], log-mel spectrograms, 10 ms a frame; the classes are the folders in `root`.

    Args:
        root: a folder with one folder per class, which has .wav files in it or below: 16-bit, any rate and channels.
        unlabelled: a folder of sounds without labels for the transfer set. None: no such sounds.
        seconds: length to which every sound is cut, or filled with silence at its end; at least 0.025.
        rate: samples a second to which every sound is brought.
        validation, test: shares of the sounds, each above 0, their sum below 1. A sound's split depends on its content.
        split_seed: draws the splits.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        root: Path,
        unlabelled: Path | None = None,
        seconds: float = 1.0,
        rate: int = 16_000,
        validation: float = 0.15,
        test: float = 0.15,
        split_seed: int = 0,
    ):
        if seconds < FRAME or rate < 1000:
            raise ValueError(f"seconds must be at least {FRAME} and rate at least 1000, got {seconds} and {rate}")
        if not (validation > 0 and test > 0 and validation + test < 1):
            raise ValueError(f"validation and test must be above 0 and below 1 together, got {validation} and {test}")
        self.root, self.unlabelled, self.rate = root, unlabelled, rate
        self.samples, self.frame, self.step = (round(length * rate) for length in (seconds, FRAME, STEP))
        self.validation, self.test, self.split_seed = validation, test, split_seed

    @property
    def info(self) -> DatasetInfo:
        if not self.root.is_dir():
            raise InputError(f"root: expected a folder with one folder per class, got {self.root}")
        names = tuple(sorted(path.name for path in self.root.iterdir() if path.is_dir() and path.name[0] != "."))
        if len(names) < 2:
            raise InputError(f"root: expected at least two class folders in {self.root}, found {len(names)}")
        shape = (1 + (self.samples - self.frame) // self.step, MELS, 1)
        return DatasetInfo("sound_folder", "1", shape, len(names), names)

    def prepare(self, data_dir: Path) -> str:
        """Read all sounds and split them. `data_dir` stays empty, because reading is quick compared to training."""
        names = self.info.class_names
        found = [(file, label) for label, name in enumerate(names) for file in _list_sounds(self.root / name)]
        inputs = self._read([file for file, _ in found])
        position = np.array([self._draw_position(row) for row in inputs])
        masks = {
            "validation": position < self.validation,
            "test": (position >= self.validation) & (position < self.validation + self.test),
        }
        masks["train"] = ~(masks["validation"] | masks["test"])
        for name, mask in masks.items():
            if not mask.any():
                raise InputError(f"{self.root}: none of its {len(inputs)} sounds falls into '{name}'; more are needed")
        labels = np.array([label for _, label in found], np.int32)
        extra = self._read(_list_sounds(self.unlabelled) if self.unlabelled else [])
        self._check_not_held_out(extra, inputs[~masks["train"]])
        self._arrays = {name: (inputs[mask], labels[mask]) for name, mask in masks.items()}
        train, known = self._arrays["train"]
        unknown = np.full(len(extra), -1, np.int32)
        self._arrays["transfer"] = np.concatenate([train, extra]), np.concatenate([known, unknown])
        served = np.flatnonzero(masks["validation"])[:SERVED_EXAMPLES]
        self._served = np.array([found[place][0].read_bytes() for place in served], object)
        return array_digest(np.array(names), *(array for name in SPLITS for array in self._arrays[name]))

    def _read(self, files: list[Path]) -> np.ndarray:
        """The inputs of all files, float32 [N, frames, 64, 1].

        Raises:
            InputError: files cannot be read as sounds; lists the first of them.
        """
        import tensorflow as tf

        inputs = np.empty([len(files), *self.info.input_shape], np.float32)
        problems = []
        for row, file in zip(inputs, files, strict=True):
            try:
                row[:] = self._prepare(tf.constant(file.read_bytes()))
            except (OSError, tf.errors.InvalidArgumentError) as error:
                problems.append(f"{file}: {str(error).splitlines()[0]}")
        if problems:
            shown = "".join(f"\n  {problem}" for problem in problems[:PROBLEMS_SHOWN])
            raise InputError(f"{len(problems)} of {len(files)} files cannot be read as 16-bit WAV:{shown}")
        return inputs

    def _prepare(self, content: Any) -> Any:
        """The content of one WAV file, a string, to float32 [frames, 64, 1]. Training and serving both use it."""
        import tensorflow as tf

        sound, rate = tf.audio.decode_wav(content)  # float32 [samples, channels] from -1 to 1
        mono = tf.reduce_mean(sound, 1)
        length = tf.cast(tf.round(tf.size(mono) / rate * self.rate), tf.int32)
        # A windowed sinc, the usual filter to resample with.
        image = tf.image.resize(mono[:, None, None], [tf.maximum(length, 1), 1], "lanczos5", antialias=True)
        filled = tf.pad(image[: self.samples, 0, 0], [[0, tf.maximum(self.samples - length, 0)]])
        filled = tf.ensure_shape(filled[: self.samples], [self.samples])
        energies = tf.abs(tf.signal.stft(filled, self.frame, self.step)) ** 2
        mels = tf.signal.linear_to_mel_weight_matrix(MELS, energies.shape[-1], self.rate, 20.0, self.rate / 2)
        return tf.math.log(energies @ mels + QUIETEST)[..., None]

    def _draw_position(self, row: np.ndarray) -> float:
        """A number from 0 to 1, derived from the sound, that decides its split."""
        digest = hashlib.sha256(self.split_seed.to_bytes(8, "little", signed=True) + row.tobytes()).digest()
        return int.from_bytes(digest[:8], "little") / 2**64

    def _check_not_held_out(self, extra: np.ndarray, held_out: np.ndarray) -> None:
        known = {array_digest(row) for row in held_out}
        if shared := sum(array_digest(row) in known for row in extra):
            raise InputError(
                f"unlabelled: {shared} of the {len(extra)} sounds of {self.unlabelled} are validation or test sounds, "
                "which must not be trained on"
            )

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; accepted: {', '.join(SPLITS)}")
        return ArraySplit(*self._arrays[name])

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_wav`: the content of WAV files."""
        import tensorflow as tf

        def prepare(wav: Any) -> Any:
            return tf.map_fn(self._prepare, wav, fn_output_signature=tf.TensorSpec(self.info.input_shape, tf.float32))

        inputs = {"wav": tf.TensorSpec((None,), tf.string)}
        return {"serve_wav": RawSignature(inputs, prepare, {"wav": self._served}, np.arange(len(self._served)))}


def _list_sounds(folder: Path) -> list[Path]:
    """In an order that does not depend on the machine."""
    if not folder.is_dir():
        raise InputError(f"expected a folder of sounds, got {folder}")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".wav")
