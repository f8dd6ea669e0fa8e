"""The embedded default data: 1,797 real handwritten digits of 8 x 8 pixels, which scikit-learn carries in its package.

They are the test set of the UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998). The split is
fixed, in the order of the file: 1,097 training, 350 validation, 350 test.
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
        copies: virtual copies of every training and transfer image, at least 1. The first is the image itself, the
            others are shifted.
        shift: largest shift in pixels, drawn for each copy and axis from (seed, id); the border is filled with 0.

    Raises:
        ValueError: `copies` is below 1, or `shift` outside 0 to 7.
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
        images, labels = _load()
        return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; accepted: {', '.join(SPLITS)}")
        images, labels = _load()
        if name in ("validation", "test"):
            rows = slice(*BOUNDS[name])
            return ArraySplit(images[rows], labels[rows], prepare=_scaled)
        rows = slice(*BOUNDS["train"])
        offsets = _offsets(seed, self.copies, rows.stop - rows.start, self.shift)

        def prepare(pixels: Any, ids: Any) -> Any:
            return _shifted(_scaled(pixels, ids), offsets, ids, self.shift)

        return ArraySplit(images[rows], labels[rows], prepare=prepare, repeats=self.copies)

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images`: uint8 pixels of 0 to 16, as in the file."""
        import tensorflow as tf

        ids = np.arange(SERVED_EXAMPLES)
        images = _load()[0][slice(*BOUNDS["validation"])][ids]
        inputs = {"images": tf.TensorSpec((None, 8, 8, 1), tf.uint8)}
        return {"serve_images": RawSignature(inputs, lambda images: _scaled(images, None), {"images": images}, ids)}


def _load() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [1797, 8, 8, 1] of 0 to 16, and int32 labels [1797]."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1).astype(np.uint8), labels.astype(np.int32)


def _scaled(pixels: Any, ids: Any) -> Any:
    import tensorflow as tf

    return tf.cast(pixels, tf.float32) / LARGEST_PIXEL


def _offsets(seed: int, copies: int, count: int, largest: int) -> np.ndarray:
    """int32 [copies * count, 2]: rows and columns that each virtual id is moved by; copy 0 stays where it is."""
    offsets = np.random.default_rng(seed).integers(-largest, largest, (copies, count, 2), np.int32, endpoint=True)
    offsets[0] = 0
    return offsets.reshape(-1, 2)


def _shifted(images: Any, offsets: np.ndarray, ids: Any, largest: int) -> Any:
    """Move each image by its id's offsets, down and to the right; what moves in is 0."""
    import tensorflow as tf

    height, width = images.shape[1:3]
    moves = tf.gather(offsets, ids)
    padded = tf.pad(images, [[0, 0], [largest, largest], [largest, largest], [0, 0]])
    rows = tf.range(height) + largest - moves[:, :1]
    columns = tf.range(width) + largest - moves[:, 1:]
    picked = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(picked, columns, axis=2, batch_dims=1)
