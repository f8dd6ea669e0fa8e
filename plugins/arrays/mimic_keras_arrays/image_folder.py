"""The data set `image_folder`: your own images, in one folder per class."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from absl import logging

from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, InputError, RawSignature
from mimic_keras_arrays import image_files
from mimic_keras_arrays.class_folders import UNLABELLED, Listing, list_images
from mimic_keras_arrays.decoding import Decoder, Resize
from mimic_keras_arrays.examples import MAPPED_BYTES, Examples, digest_examples, make_scaling
from mimic_keras_arrays.files import ArrayFile, chunks
from mimic_keras_arrays.images import Copies
from mimic_keras_arrays.inputs import LinearInputs, check_inputs
from mimic_keras_arrays.labels import warn_of_empty_classes
from mimic_keras_arrays.shares import Shares, check_shares, divide

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
        inputs: pixels, 0 to 255, become x * scale + offset. By default scale is 1 / 255.
        standardize: instead, each channel has mean 0 and deviation 1 over the training images.
        copies, mirror, shift, smallest_crop: virtual copies of every training and transfer image.

    Raises:
        ValueError: an argument is out of its range, or two exclude each other.
    """

    def __init__(
        self,
        path: Path,
        image_size: list[int],
        channels: Literal[3, 1] = 3,
        resize: Resize = "stretch",
        shares: Shares | None = None,
        split_seed: int = 0,
        stratify: bool = True,
        inputs: LinearInputs | None = None,
        standardize: bool = False,
        copies: int = 1,
        mirror: bool = False,
        shift: int = 0,
        smallest_crop: float = 1.0,
    ):
        if len(image_size) != 2 or min(image_size) < 1:
            raise ValueError(f"image_size must be [height, width], both at least 1, got {image_size}")
        self.path, self.split_seed, self.stratify = path, split_seed, stratify
        self.shares: Shares = shares or {}
        check_shares(self.shares, split_seed)
        check_inputs(inputs, standardize)
        self.inputs: LinearInputs = inputs or {"scale": 1 / BRIGHTEST}
        self.standardize = standardize
        height, width = image_size
        self.decoder, self.shape = Decoder(height, width, channels, resize), (height, width, channels)
        self.variation = Copies(copies, mirror, shift, smallest_crop)
        self.variation.check_shape(self.shape)

    @functools.cached_property
    def _listing(self) -> Listing:
        return list_images(self.path, list(self.shares))

    @property
    def info(self) -> DatasetInfo:
        listed = self._listing
        places = self._divide({name: [label for _, label in files] for name, files in listed.files.items()})
        sizes = {name: len(ids) for name, (_, ids) in places.items()}
        sizes["transfer"] = sizes["train"] + sizes.pop(UNLABELLED)
        sizes |= {name: sizes[name] * self.variation.copies for name in ("train", "transfer")}
        names = listed.class_names
        return DatasetInfo("image_folder", "1", self.shape, len(names), names, sizes, self.variation.copies)

    def _divide(self, labels: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, np.ndarray]]:
        """{split: (the listed split that its examples are in, their indices)}."""
        places = {name: (name, np.arange(len(values))) for name, values in labels.items()}
        if self.shares:
            train = np.asarray(labels["train"], np.int32)
            validation, test = self.shares.get("validation", 0.0), self.shares.get("test", 0.0)
            drawn = divide(train, validation, test, self.split_seed, self.stratify)
            places |= {name: ("train", drawn[name]) for name in ("train", *self.shares)}
        return places

    def prepare(self, data_dir: Path) -> str:
        """Digest all files, and decode those whose contents have not been decoded yet."""
        listed = self._listing
        images = image_files.read_images(listed)
        places = self._divide({name: images.labels[rows] for name, rows in images.rows.items()})
        rows = {name: images.rows[of][ids] for name, (of, ids) in places.items()}
        rows["transfer"] = np.concatenate([rows["train"], self._check_leaks(rows, images)])
        warn_of_empty_classes(images.labels[rows["train"]], listed.class_names)
        stored = image_files.prepare_pixels(images, self.decoder, data_dir)
        pixels = ArrayFile("path", stored).load(mapped=stored.stat().st_size > MAPPED_BYTES)
        content = digest_examples([pixels], images.labels, rows)
        train = chunks(pixels, rows["train"])
        self._scaling = make_scaling(self.inputs, self.standardize, content, train, data_dir)
        self._examples = Examples([pixels], images.labels, rows, self._scaling, self.variation)
        self._served = _read_smallest([images.files[row][0] for row in rows["validation"]])
        return sha256(f"{content} {self._scaling.digest} {listed.class_names}".encode()).hexdigest()

    def _check_leaks(self, rows: Mapping[str, np.ndarray], images: image_files.Images) -> np.ndarray:
        """The unlabelled images without training images; warn of images that are in several splits.

        Raises:
            InputError: unlabelled images are also validation or test images.
        """
        held_out = np.concatenate([rows["validation"], rows["test"]])
        if len(shared := np.intersect1d(rows[UNLABELLED], held_out)):
            raise InputError(
                f"path: {len(shared):,} images of {self.path / UNLABELLED} are also validation or test images, which "
                f"must not be trained on:{images.describe(shared)}"
            )
        found, counts = np.unique(np.concatenate([rows["train"], held_out]), return_counts=True)
        if len(several := found[counts > 1]):
            logging.warning(
                "image_folder: %d images are in several splits, so that results on validation or test are too good:%s",
                len(several),
                images.describe(several),
            )
        return np.setdiff1d(rows[UNLABELLED], rows["train"])

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        return self._examples.split(name, seed)

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images`: uint8 images of the inputs' size. `serve_encoded`: the contents of files."""
        import tensorflow as tf

        contents, ids = self._served
        encoded = RawSignature(
            {"encoded": tf.TensorSpec((None,), tf.string)},
            lambda encoded: self._scaling(self.decoder.decode_batch(encoded)),
            {"encoded": contents},
            ids,
        )
        return {**self._examples.raw_signatures(), "serve_encoded": encoded}


def _read_smallest(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The contents of the smallest files, so that exports stay small, and their places in `files`."""
    places = np.sort(np.argsort([file.stat().st_size for file in files], kind="stable")[:SERVED_FILES])
    contents = np.empty(len(places), object)
    contents[:] = [files[place].read_bytes() for place in places]
    return contents, places
