"""The data set `image_folder`: your own images, in one folder per class."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from absl import logging

from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, InputError, RawSignature
from mimic_keras_arrays import image_files
from mimic_keras_arrays.class_folders import UNLABELLED, Listing, list_images
from mimic_keras_arrays.decoding import Decoder, Resize
from mimic_keras_arrays.examples import MAPPED_BYTES, Preparation, make_examples
from mimic_keras_arrays.files import ArrayFile
from mimic_keras_arrays.images import Copies
from mimic_keras_arrays.inputs import LinearInputs
from mimic_keras_arrays.labels import name_classes
from mimic_keras_arrays.shares import HELD_OUT, Division, Shares

BRIGHTEST = 255
SERVED_FILES = 8


class ImageFolder(Dataset):
    """Inputs float32 [height, width, channels], pixels / 255 by default; the classes are the folders' names.

    Identical files are one example. Every different image is decoded once, and kept as uint8. Above 1 GiB, all
    stay on the disk, and every batch reads its rows.

    Args:
        path: has the folders train, validation and test, each with one folder per class; or, with `shares` of
            validation and test, one folder per class. In either case also a folder unlabelled, if you have images
            without labels for the transfer set. Files in or below these are JPEG, PNG, BMP or GIF (the first frame);
            names with a leading "." are left out.
        image_size: [height, width] of the inputs in pixels.
        channels: 3 (red, green, blue) or 1 (grey).
        resize: "stretch" changes the aspect ratio to that of `image_size`; "crop" takes the largest window of that
            aspect ratio from the centre of the image. Then bilinear interpolation with antialiasing.
        shares: of validation, test or both, drawn from the training images; a split that is drawn has no folder.
        split_seed: draws them.
        stratify: give each split its share of every class.
        classes: the folders' names in the order of the outputs of a net that knows them; None: sorted.
        inputs: pixels, 0 to 255, become x * scale + offset. By default scale is 1 / 255.
        standardize: instead, each channel has mean 0 and deviation 1 over the training images.
        copies, mirror, shift, smallest_crop: virtual copies of every training and transfer image.

    Raises:
        ValueError: an argument is out of its range, or two exclude each other.
    """

    def __init__(
        self,
        path: Path,
        image_size: tuple[int, int],
        channels: Literal[3, 1] = 3,
        resize: Resize = "stretch",
        shares: Shares | None = None,
        split_seed: int = 0,
        stratify: bool = True,
        classes: list[str] | None = None,
        inputs: LinearInputs | None = None,
        standardize: bool = False,
        copies: int = 1,
        mirror: bool = False,
        shift: int = 0,
        smallest_crop: float = 1.0,
    ):
        if min(image_size) < 1:
            raise ValueError(f"image_size: expected a height and a width of at least 1, got {list(image_size)}")
        height, width = image_size
        self._path, self._decoder, self._drawn = path, Decoder(height, width, channels, resize), list(shares or {})
        given = ["train", *(name for name in HELD_OUT if name not in self._drawn)]
        self._division = Division(given, shares or {}, split_seed, stratify)
        self._classes = None if classes is None else name_classes(classes)
        scaled = inputs if inputs or standardize else LinearInputs(scale=1 / BRIGHTEST)
        self._preparation = Preparation(scaled, standardize, Copies(copies, mirror, shift, smallest_crop))
        self._preparation.copies.check_shape(self._decoder.shape)

    @functools.cached_property
    def _listing(self) -> Listing:
        return list_images(self._path, self._drawn, self._classes)

    @property
    def info(self) -> DatasetInfo:
        """From the names of folders and files; sizes are less if some are identical."""
        names, repeats = self._listing.class_names, self._preparation.copies.copies
        listed = {name: len(files) for name, files in self._listing.files.items()}
        sizes = self._division.estimate_sizes(listed, repeats)
        return DatasetInfo("image_folder", "1", self._decoder.shape, len(names), names, sizes, repeats)

    def prepare(self, data_dir: Path) -> str:
        """Digest all files, and decode those whose contents have not been decoded yet."""
        names = self._listing.class_names
        images = image_files.read_images(self._listing)
        rows = self._divide(images)
        stored = image_files.prepare_pixels(images, self._decoder, data_dir)
        pixels = ArrayFile("path", stored).load(mapped=stored.stat().st_size > MAPPED_BYTES)
        self._examples, digest = make_examples([pixels], images.labels, rows, self._preparation, names, data_dir)
        self._served = _read_smallest([images.files[row][0] for row in rows["validation"]])
        return sha256(f"{digest} {names}".encode()).hexdigest()

    def _divide(self, images: image_files.Images) -> dict[str, np.ndarray]:
        """{split: its images, int64}.

        Raises:
            InputError: unlabelled images are also validation or test images.
        """
        listed = {name: rows for name, rows in images.rows.items() if name != UNLABELLED}
        places = self._division.rows({name: images.labels[rows] for name, rows in listed.items()})
        rows = {name: np.concatenate(list(listed.values()))[ids] for name, ids in places.items()}
        held_out = np.concatenate([rows[name] for name in HELD_OUT])
        unlabelled = images.rows[UNLABELLED]
        if len(shared := np.intersect1d(unlabelled, held_out)):
            raise InputError(
                f"path: {len(shared):,} images of {self._path / UNLABELLED} are also validation or test images, which "
                f"must not be trained on:{images.describe(shared)}"
            )
        found, counts = np.unique(np.concatenate([rows["train"], held_out]), return_counts=True)
        if len(several := found[counts > 1]):
            logging.warning(
                "image_folder: %d images are in several splits, so that results on validation or test are too good:%s",
                len(several),
                images.describe(several),
            )
        return {**rows, "transfer": np.concatenate([rows["train"], np.setdiff1d(unlabelled, rows["train"])])}

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        return self._examples.split(name, seed)

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images`: uint8 images of the inputs' size. `serve_encoded`: the contents of files."""
        import tensorflow as tf

        contents, ids = self._served
        signatures = self._examples.raw_signatures()
        encoded = RawSignature(
            {"encoded": tf.TensorSpec((None,), tf.string)},
            lambda encoded: signatures["serve_images"].prepare(images=self._decoder.decode_batch(encoded)),
            {"encoded": contents},
            ids,
        )
        return {**signatures, "serve_encoded": encoded}


def _read_smallest(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The contents of the smallest files, so that exports stay small, and their places in `files`."""
    places = np.sort(np.argsort([file.stat().st_size for file in files], kind="stable")[:SERVED_FILES])
    contents = np.empty(len(places), object)
    contents[:] = [files[place].read_bytes() for place in places]
    return contents, places
