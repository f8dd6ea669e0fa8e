"""The built-in default data: 1,797 real handwritten digits of 8 x 8 pixels, included in scikit-learn.

They are the test set of the UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998). The split is
fixed, in file order: 1,097 training, 350 validation, 350 test.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import SPLITS, ArraySplit, Dataset, DatasetInfo, RawSignature

BOUNDS = {"train": (0, 1097), "validation": (1097, 1447), "test": (1447, 1797)}
LARGEST_PIXEL = 16.0
SERVED_EXAMPLES = 64


class Digits(Dataset):
    """Inputs float32 [8, 8, 1] in [0, 1] (pixels / 16), 10 classes.

    Args:
        copies: virtual copies of every training and transfer image, at least 1. The first is the image itself; the
            others are shifted.
        shift: largest shift in pixels, 0 to 7, drawn per copy and axis from (seed, id); the border is filled with 0.

    Raises:
        ValueError: `copies` or `shift` is out of its range.
    """

    def __init__(self, copies: int = 1, shift: int = 1):
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        if not 0 <= shift <= 7:
            raise ValueError(f"shift must be from 0 to 7 pixels, got {shift}")
        self.copies, self.shift = copies, shift

    @property
    def info(self) -> DatasetInfo:
        sizes = {name: stop - start for name, (start, stop) in BOUNDS.items()}
        sizes["train"] *= self.copies
        sizes["transfer"] = sizes["train"]
        names = tuple(str(digit) for digit in range(10))
        return DatasetInfo("digits", "1", (8, 8, 1), 10, names, sizes, self.copies)

    def prepare(self, data_dir: Path) -> str:
        """The digest of the images and labels; nothing is written."""
        images, labels = _load()
        return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; accepted: {', '.join(SPLITS)}")
        images, labels = _load()
        if name in ("validation", "test"):
            rows = slice(*BOUNDS[name])
            return ArraySplit(images[rows], labels[rows], prepare=lambda pixels, _: _scale(pixels))
        rows = slice(*BOUNDS["train"])
        offsets = _draw_offsets(seed, self.copies, rows.stop - rows.start, self.shift)

        def prepare(pixels: Any, ids: Any) -> Any:
            return _shift(_scale(pixels), offsets, ids, self.shift)

        return ArraySplit(images[rows], labels[rows], prepare=prepare, repeats=self.copies)

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images`: uint8 pixels from 0 to 16, as in the file."""
        import tensorflow as tf

        ids = np.arange(SERVED_EXAMPLES)
        images = _load()[0][slice(*BOUNDS["validation"])][ids]
        inputs = {"images": tf.TensorSpec((None, 8, 8, 1), tf.uint8)}
        return {"serve_images": RawSignature(inputs, lambda images: _scale(images), {"images": images}, ids)}


def _load() -> tuple[np.ndarray, np.ndarray]:
    """uint8 images [1797, 8, 8, 1] from 0 to 16, and int32 labels [1797]."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1).astype(np.uint8), labels.astype(np.int32)


def _scale(pixels: Any) -> Any:
    import tensorflow as tf

    return tf.cast(pixels, tf.float32) / LARGEST_PIXEL


def _draw_offsets(seed: int, copies: int, count: int, largest: int) -> np.ndarray:
    """Each id's shift down and to the right in pixels, int32 [copies * count, 2]; 0 for copy 0."""
    offsets = np.random.default_rng(seed).integers(-largest, largest, (copies, count, 2), np.int32, endpoint=True)
    offsets[0] = 0
    return offsets.reshape(-1, 2)


def _shift(images: Any, offsets: np.ndarray, ids: Any, largest: int) -> Any:
    """Move each image down and to the right by its id's offsets, and fill the border with 0."""
    import tensorflow as tf

    height, width = images.shape[1:3]
    moves = tf.gather(offsets, ids)
    padded = tf.pad(images, [[0, 0], [largest, largest], [largest, largest], [0, 0]])
    rows = tf.range(height) + largest - moves[:, :1]
    columns = tf.range(width) + largest - moves[:, 1:]
    picked = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(picked, columns, axis=2, batch_dims=1)
