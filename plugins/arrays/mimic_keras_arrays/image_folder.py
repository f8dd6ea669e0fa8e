"""The data set `image_folder`: your own images, in one folder per class."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from absl import logging

from mimic_keras.contracts import (
    ROWS_AT_ONCE,
    SPLITS,
    Dataset,
    DatasetInfo,
    InputError,
    MappedSplit,
    RawSignature,
    file_digest,
)
from mimic_keras_arrays import image_files
from mimic_keras_arrays.decoding import Decoder, Resize
from mimic_keras_arrays.image_files import UNLABELLED, describe_first
from mimic_keras_arrays.images import Copies
from mimic_keras_arrays.inputs import LinearInputs, Scaling, check_inputs, stored_moments
from mimic_keras_arrays.shares import Shares, check_shares, divide

BRIGHTEST = 255
SERVED_EXAMPLES = 64
SERVED_FILES = 8


class ImageFolder(Dataset):
    """Inputs float32 [height, width, channels], pixels / 255 by default; the classes are the folders' names.

    Identical files of one class are one example. The pixels are kept on the disk, as uint8 in one array, from which
    every batch is read.

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
        self.inputs, self.standardize = inputs or {"scale": 1 / BRIGHTEST}, standardize
        height, width = image_size
        self.decoder, self.shape = Decoder(height, width, channels, resize), (height, width, channels)
        self.variation = Copies(copies, mirror, shift, smallest_crop)
        self.variation.check_shape(self.shape)

    @functools.cached_property
    def _listing(self) -> image_files.Listing:
        return image_files.list_images(self.path, list(self.shares))

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
        files = [file for of in listed.files.values() for file, _ in of]
        digests = dict(zip(files, image_files.compute_digests(files), strict=True))
        # In the order of their contents, so that no name and no folder changes what an id means.
        examples = {name: sorted({(digests[file], label) for file, label in of}) for name, of in listed.files.items()}
        places = self._divide({name: [label for _, label in of] for name, of in examples.items()})
        chosen = {name: [examples[of][place] for place in ids] for name, (of, ids) in places.items()}
        files_of: dict[str, list[Path]] = defaultdict(list)
        for file, digest in sorted(digests.items()):
            files_of[digest].append(file)
        self._check_shared(chosen, files_of)
        unique = {digest: of[0] for digest, of in sorted(files_of.items())}
        pixels = image_files.prepare_pixels(unique, self.decoder, data_dir)
        self._pixels = np.load(pixels, mmap_mode="r", allow_pickle=False)
        row_of = {digest: row for row, digest in enumerate(unique)}
        chosen["transfer"] = chosen["train"] + chosen.pop(UNLABELLED)
        self._rows = {name: np.array([row_of[digest] for digest, _ in of], np.int64) for name, of in chosen.items()}
        self._labels = {name: np.array([label for _, label in of], np.int32) for name, of in chosen.items()}
        self._warn_of_empty_classes()
        self._served = self._read_served([unique[digest] for digest, _ in chosen["validation"]])
        self._scaling = self._make_scaling(data_dir)
        fingerprint = sha256(f"{listed.class_names} {file_digest(pixels)} {self._scaling.digest}".encode())
        for name in SPLITS:
            fingerprint.update(self._rows[name].tobytes() + self._labels[name].tobytes())
        return fingerprint.hexdigest()

    def _check_shared(self, chosen: Mapping[str, list[tuple[str, int]]], files_of: Mapping[str, list[Path]]) -> None:
        """Warn of images in two splits or classes; refuse unlabelled ones that are held out."""
        labelled = [name for name in chosen if name != UNLABELLED]
        uses = Counter(digest for name in labelled for digest, _ in chosen[name])
        held_out = {digest for name in ("validation", "test") for digest, _ in chosen[name]}
        if shared := _name_files((digest for digest, _ in chosen[UNLABELLED] if digest in held_out), files_of):
            raise InputError(
                f"path: {len(shared):,} images of {self.path / UNLABELLED} are also validation or test images, which "
                f"must not be trained on:{describe_first(shared)}"
            )
        if several := _name_files((digest for digest, count in uses.items() if count > 1), files_of):
            logging.warning(
                "image_folder: %d images are in several splits, so that results on test are too good, or in several "
                "classes:%s",
                len(several),
                describe_first(several),
            )

    def _warn_of_empty_classes(self) -> None:
        known = set(self._labels["train"].tolist())
        empty = [name for label, name in enumerate(self._listing.class_names) if label not in known]
        if empty:
            logging.warning("image_folder: no training images of the classes %s", ", ".join(empty))

    def _read_served(self, files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
        """The contents of a few validation files, the smallest so that exports stay small, and their ids."""
        ids = np.sort(np.argsort([file.stat().st_size for file in files], kind="stable")[:SERVED_FILES])
        contents = np.empty(len(ids), object)
        contents[:] = [files[place].read_bytes() for place in ids]
        return contents, ids

    def _make_scaling(self, data_dir: Path) -> Scaling:
        if not self.standardize:
            return Scaling.of(self.inputs)
        rows = np.unique(self._rows["train"])
        digest = sha256(rows.tobytes()).hexdigest()[:16]
        parts = (self._pixels[rows[start : start + ROWS_AT_ONCE]] for start in range(0, len(rows), ROWS_AT_ONCE))
        folder = Path(self._pixels.filename).parent
        return Scaling.standardizing(stored_moments(folder / f"moments-{digest}.npy", parts))

    def split(self, name: str, seed: int = 0) -> MappedSplit:
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; accepted: {', '.join(SPLITS)}")
        rows, labels = self._rows[name], self._labels[name]
        if name in ("validation", "test"):
            return MappedSplit([self._pixels], labels, rows=rows, prepare=lambda pixels, _: self._scaling(pixels))

        def prepare(pixels: Any, ids: Any) -> Any:
            return self.variation(pixels, self._scaling, seed, ids // len(rows), ids % len(rows))

        return MappedSplit([self._pixels], labels, rows=rows, prepare=prepare, repeats=self.variation.copies)

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images`: uint8 images of the inputs' size. `serve_encoded`: the contents of files."""
        import tensorflow as tf

        ids = np.arange(min(SERVED_EXAMPLES, len(self._rows["validation"])))
        images = {"images": self._pixels[self._rows["validation"][ids]]}
        specification = {"images": tf.TensorSpec((None, *self.shape), tf.uint8)}
        contents, served = self._served
        return {
            "serve_images": RawSignature(specification, lambda images: self._scaling(images), images, ids),
            "serve_encoded": RawSignature(
                {"encoded": tf.TensorSpec((None,), tf.string)},
                lambda encoded: self._scaling(self.decoder.decode_batch(encoded)),
                {"encoded": contents},
                served,
            ),
        }


def _name_files(digests: Iterable[str], files_of: Mapping[str, list[Path]]) -> list[str]:
    """For each image, the files that hold it."""
    return sorted(" = ".join(map(str, files_of[digest])) for digest in digests)
