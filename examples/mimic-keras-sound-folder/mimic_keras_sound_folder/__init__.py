"""A user's own images in one folder per class, split by content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mimic_keras.contracts import SPLITS, ArraySplit, Dataset, DatasetInfo, InputError, RawSignature, array_digest

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
PROBLEMS_SHOWN = 20
SERVED_EXAMPLES = 64


class ImageFolder(Dataset):
    """Inputs float32 [height, width, 3], or 1 channel if `grey`, from -1 to 1; the classes are the folders in `root`.

    Args:
        root: a folder with one folder per class, which has images in it or below (png, jpg, bmp, webp).
        unlabelled: a folder of images without labels for the transfer set. None: no such images.
        height, width: size in pixels to which every image is resized (bilinear).
        grey: one channel instead of red, green and blue.
        validation, test: shares of the images, each above 0, their sum below 1. An image's split depends on its pixels.
        split_seed: draws the splits.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        root: Path,
        unlabelled: Path | None = None,
        height: int = 32,
        width: int = 32,
        grey: bool = False,
        validation: float = 0.15,
        test: float = 0.15,
        split_seed: int = 0,
    ):
        if height < 1 or width < 1:
            raise ValueError(f"height and width must be at least 1, got {height} and {width}")
        if not (validation > 0 and test > 0 and validation + test < 1):
            raise ValueError(f"validation and test must be above 0 and below 1 together, got {validation} and {test}")
        self.root, self.unlabelled, self.shape = root, unlabelled, (height, width, 1 if grey else 3)
        self.validation, self.test, self.split_seed = validation, test, split_seed

    @property
    def info(self) -> DatasetInfo:
        if not self.root.is_dir():
            raise InputError(f"root: expected a folder with one folder per class, got {self.root}")
        names = tuple(sorted(path.name for path in self.root.iterdir() if path.is_dir() and path.name[0] != "."))
        if len(names) < 2:
            raise InputError(f"root: expected at least two class folders in {self.root}, found {len(names)}")
        return DatasetInfo("image_folder", "1", self.shape, len(names), names)

    def prepare(self, data_dir: Path) -> str:
        """Read, resize and split all images. `data_dir` stays empty, because reading is quick compared to training."""
        names = self.info.class_names
        found = [(file, label) for label, name in enumerate(names) for file in _list_images(self.root / name)]
        extra = _list_images(self.unlabelled) if self.unlabelled else []
        pixels = self._read([file for file, _ in found])
        position = np.array([self._draw_position(image) for image in pixels])
        masks = {
            "validation": position < self.validation,
            "test": (position >= self.validation) & (position < self.validation + self.test),
        }
        masks["train"] = ~(masks["validation"] | masks["test"])
        for name, mask in masks.items():
            if not mask.any():
                raise InputError(f"{self.root}: none of its {len(pixels)} images falls into '{name}'; more are needed")
        labels = np.array([label for _, label in found], np.int32)
        unlabelled = self._read(extra)
        self._check_not_held_out(unlabelled, pixels[~masks["train"]])
        self._arrays = {name: (pixels[mask], labels[mask]) for name, mask in masks.items()}
        train, known = self._arrays["train"]
        unknown = np.full(len(unlabelled), -1, np.int32)
        self._arrays["transfer"] = np.concatenate([train, unlabelled]), np.concatenate([known, unknown])
        digest = hashlib.sha256(repr(names).encode())
        for name in SPLITS:
            for array in self._arrays[name]:
                digest.update(array.tobytes())
        return digest.hexdigest()

    def _read(self, files: list[Path]) -> np.ndarray:
        """uint8 [N, height, width, channels].

        Raises:
            InputError: files cannot be read as images; lists the first of them.
        """
        height, width, channels = self.shape
        pixels = np.empty([len(files), height, width, channels], np.uint8)
        problems = []
        for row, file in zip(pixels, files, strict=True):
            try:
                with Image.open(file) as image:
                    colours = image.convert("L" if channels == 1 else "RGB")
                    resized = colours.resize((width, height), Image.Resampling.BILINEAR)
                row[:] = np.asarray(resized).reshape(row.shape)
            except Exception as error:  # Pillow raises anything here, depending on the file's content
                problems.append(f"{file}: {error}")
        if problems:
            shown = "".join(f"\n  {problem}" for problem in problems[:PROBLEMS_SHOWN])
            raise InputError(f"{len(problems)} of {len(files)} files cannot be read as images:{shown}")
        return pixels

    def _draw_position(self, image: np.ndarray) -> float:
        """A number from 0 to 1, derived from the pixels, that decides the image's split."""
        digest = hashlib.sha256(self.split_seed.to_bytes(8, "little", signed=True) + image.tobytes()).digest()
        return int.from_bytes(digest[:8], "little") / 2**64

    def _check_not_held_out(self, extra: np.ndarray, held_out: np.ndarray) -> None:
        known = {array_digest(image) for image in held_out}
        if shared := sum(array_digest(image) in known for image in extra):
            raise InputError(
                f"unlabelled: {shared} of the {len(extra)} images of {self.unlabelled} are validation or test images, "
                "which must not be trained on"
            )

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; accepted: {', '.join(SPLITS)}")
        pixels, labels = self._arrays[name]
        return ArraySplit(pixels, labels, prepare=lambda rows, ids: _scale(rows))

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images`: uint8 images, already resized."""
        import tensorflow as tf

        images = self._arrays["validation"][0][:SERVED_EXAMPLES]
        inputs = {"images": tf.TensorSpec((None, *self.shape), tf.uint8)}
        return {"serve_images": RawSignature(inputs, _scale, {"images": images}, np.arange(len(images)))}


def _list_images(folder: Path) -> list[Path]:
    """In an order that does not depend on the machine."""
    if not folder.is_dir():
        raise InputError(f"expected a folder of images, got {folder}")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)


def _scale(images: Any) -> Any:
    import tensorflow as tf

    return tf.cast(images, tf.float32) / 127.5 - 1.0
