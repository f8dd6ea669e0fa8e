"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), prepared as in Ba & Caruana 2014 and Urban et al. 2017.

All splits share one copy of the images in memory, as uint8; preparation and augmentation happen in the graph.
"""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mimic_keras.contracts import SPLITS, ArraySplit, Dataset, DatasetInfo, InputError, RawSignature, host_variable
from mimic_keras_cifar import augmentation, preparation, records
from mimic_keras_cifar.records import CIFAR10, CIFAR100, SHAPE, Layout
from mimic_keras_cifar.single_layer import SingleLayer
from mimic_keras_cifar.urban import Variation

LARGEST_SHIFT = 31
SERVED_EXAMPLES = 64
FILTERS = 4000
# {digest: images in memory}, shared by data sets that vary the same images in different ways.
_held: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


class Cifar(Dataset):
    """Inputs float32 [32, 32, 3], red, green, blue, or of "single_layer" [4 * filters].

    Args:
        root: the official binary version: its folder, the parent folder, or the .tar.gz. None: it is downloaded once
            and checked against the published MD5.
        preparation: "standardize": each image minus its mean, divided by its standard deviation, over all its values
            (Urban et al. 2017, section 2.5). "zca": global contrast normalisation, then whitening with the statistics
            of the training images (Ba & Caruana 2014, section 4). "single_layer": features by `filters` that k-means
            finds in whitened patches of the training images (Coates et al. 2011).
        validation: number of the 50,000 training images in the validation set, 1 to 49,999.
        split_seed: draws the validation images, and the images that stay labelled.
        labelled: number of training images that keep their labels; the others are only in the transfer set, without
            labels. None: all.
        unlabelled: your own images for the transfer set: a .npy file, uint8 [N, 32, 32, 3], or a .bin file of records
            like the data set's, whose labels are not used.
        copies: virtual copies of every training and transfer image; the first is the image itself.
        mirror: the other copies are mirrored left to right with probability 1/2.
        shift: the other copies are shifted by up to this many pixels on each axis, and filled with 0, about the mean of
            prepared images. 0 to 31.
        smallest_crop: the other copies are square windows of U(smallest_crop, 32) pixels, anywhere in the image,
            scaled back to 32 x 32 by third-order splines (Urban et al. 2017, section 2.5). 1 to 32; None or 32: none.
        hue_shift: U(-hue_shift, hue_shift) is added to the hue of the other copies, in turns. 0 to 0.5.
        saturation_shift: U(-saturation_shift, saturation_shift) is added to their saturation, from 0 to 1, after
            `saturation_factor`. 0 to 1.
        value_shift: the same for their value. 0 to 1.
        saturation_factor: their saturation is multiplied by U(1 / (1 + saturation_factor), 1 + saturation_factor).
            0 to 9.
        value_factor: the same for their value. 0 to 9.

        filters: of "single_layer", at least 1. None: 4000.

    Raises:
        ValueError: an argument is out of its range; `copies` above 1 without augmentation, or the reverse; both `shift`
            and `smallest_crop`; changed colours or crops with "zca"; or `shift` with "single_layer", or `filters`
            without it.
    """

    layout: Layout

    def __init__(
        self,
        root: Path | None = None,
        preparation: Literal["standardize", "zca", "single_layer"] = "standardize",
        validation: int = 10_000,
        split_seed: int = 0,
        labelled: int | None = None,
        unlabelled: Path | None = None,
        copies: int = 1,
        mirror: bool = False,
        shift: int = 0,
        smallest_crop: int | None = None,
        hue_shift: float = 0.0,
        saturation_shift: float = 0.0,
        value_shift: float = 0.0,
        saturation_factor: float = 0.0,
        value_factor: float = 0.0,
        filters: int | None = None,
    ):
        everything = self.layout.training_images
        if not 1 <= validation < everything:
            raise ValueError(f"validation must be from 1 to {everything - 1} images, got {validation}")
        if not 0 <= split_seed < 2**32:
            raise ValueError(f"split_seed must be from 0 to {2**32 - 1}, got {split_seed}")
        training = everything - validation
        if labelled is not None and not 1 <= labelled <= training:
            raise ValueError(f"labelled must be from 1 to the {training} training images, got {labelled}")
        if not 0 <= shift <= LARGEST_SHIFT:
            raise ValueError(f"shift must be from 0 to {LARGEST_SHIFT} pixels, got {shift}")
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        self.variation = Variation(
            smallest_crop, hue_shift, saturation_shift, value_shift, saturation_factor, value_factor
        )
        self.root, self.preparation, self.unlabelled = root, preparation, unlabelled
        self.validation, self.split_seed, self.training = validation, split_seed, training
        self.labelled = training if labelled is None else labelled
        self.copies, self.mirror, self.shift = copies, mirror, shift
        if filters is not None and (filters < 1 or preparation != "single_layer"):
            raise ValueError(
                f"filters: {filters} with preparation: {preparation}; only single_layer has any, at least 1"
            )
        self.filters = FILTERS if filters is None else filters
        self._check_augmentation()

    def _check_augmentation(self) -> None:
        """Raise a ValueError if arguments exclude each other, or one lacks another that it requires."""
        given = self.variation.given
        pairs = {"mirror": str(self.mirror).lower(), "shift": self.shift, **given}
        shown = " and ".join(f"{name}: {value}" for name, value in pairs.items())
        if (self.copies > 1) != (self.mirror or self.shift > 0 or bool(given)):
            names = ", ".join(("mirror", "shift", *(field.name for field in fields(Variation))))
            raise ValueError(
                f"copies: {self.copies} with {shown}; the first copy is the image itself, so augmentation needs copies "
                f"above 1, and copies above 1 need one of {names}"
            )
        if self.shift and "smallest_crop" in given:
            crop = given["smallest_crop"]
            raise ValueError(f"shift: {self.shift} with smallest_crop: {crop}; both move the image: give one of them")
        if self.preparation == "single_layer" and self.shift:
            raise ValueError(
                f"preparation: single_layer with shift: {self.shift}; it gives no images that can be moved"
            )
        if self.preparation == "zca" and given:
            # Neighbouring pixels of a scaled image are alike, and whitening would amplify their small differences.
            raise ValueError(
                f"preparation: zca with {shown}; its statistics are of unchanged images, so that it only allows mirror "
                "and shift; preparation: standardize allows everything"
            )

    @property
    def info(self) -> DatasetInfo:
        extra = 0 if self.unlabelled is None else len(records.read_unlabelled(self.layout, self.unlabelled))
        sizes = {
            "train": self.labelled * self.copies,
            "validation": self.validation,
            "test": self.layout.test_images,
            "transfer": (self.training + extra) * self.copies,
        }
        names = self.layout.class_names
        shape = (4 * self.filters,) if self.preparation == "single_layer" else SHAPE
        return DatasetInfo(self.layout.plugin_name, "1", shape, len(names), names, sizes, self.copies)

    def prepare(self, data_dir: Path) -> str:
        """Read and verify everything into memory; `data_dir` only stores a download and the whitening."""
        root = records.downloaded(self.layout, data_dir) if self.root is None else self.root
        images, self._labels = records.read(self.layout, root)
        self._rows = self._partition()
        parts = [images]
        if self.unlabelled is not None:
            parts.append(self._add_unlabelled(images, self.unlabelled))
        digest = hashlib.sha256()
        for array in parts:
            digest.update(np.ascontiguousarray(array).data)
        if (images_held := _held.get(digest.hexdigest())) is None:
            images_held = _held[digest.hexdigest()] = host_variable(*parts)
        self._images = images_held  # shared by all splits
        for array in (self._labels, self._rows["transfer"], self._rows["validation"]):
            digest.update(np.ascontiguousarray(array).data)
        self._prepare_images = preparation.standardize
        if self.preparation == "zca":
            whitening = preparation.Whitening.of(images, self._rows["transfer"][: self.training], data_dir)
            digest.update(whitening.mean.data)
            digest.update(whitening.matrix.data)
            self._prepare_images = whitening
        if self.preparation == "single_layer":
            features = SingleLayer.of(images, self._rows["transfer"][: self.training], self.filters, data_dir)
            for value in asdict(features).values():
                digest.update(value.data)
            self._prepare_images = features
        return digest.hexdigest()

    def _partition(self) -> dict[str, np.ndarray]:
        """{split: indices of its images, int64 [N]}; the training images come before the test images."""
        count = self.layout.training_images
        # RandomState never changes (NumPy's compatibility policy, NEP 19); the newer generators may.
        rows = np.random.RandomState(self.split_seed).permutation(count).astype(np.int64)
        return {
            "train": rows[: self.labelled],
            "validation": rows[self.training :],
            "test": np.arange(count, count + self.layout.test_images),
            "transfer": rows[: self.training],
        }

    def _add_unlabelled(self, images: np.ndarray, file: Path) -> np.ndarray:
        """Add the user's images after the others and to the end of the transfer set; return them."""
        extra = records.read_unlabelled(self.layout, file)
        held_out = images[np.concatenate([self._rows["validation"], self._rows["test"]])]
        if shared := records.count_shared(extra, held_out):
            raise InputError(
                f"unlabelled: {shared:,} of the {len(extra):,} images of {file} are validation or test images, which "
                "must not be trained on"
            )
        added = np.arange(len(images), len(images) + len(extra))
        self._rows["transfer"] = np.concatenate([self._rows["transfer"], added])
        return extra

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; accepted: {', '.join(SPLITS)}")
        rows = self._rows[name]
        labels = np.full(len(rows), -1, np.int32)
        known = self.labelled if name == "transfer" else len(rows)
        labels[:known] = self._labels[rows[:known]]
        is_augmented = name in ("train", "transfer") and self.copies > 1

        def prepare(rows: Any, ids: Any) -> Any:
            import tensorflow as tf

            images = tf.gather(self._images, rows)
            if not is_augmented:
                return self._prepare_images(images)
            copies = ids // len(labels)
            is_mirrored, down, right = augmentation.draw_variants(seed, copies, rows, self.mirror, self.shift)
            if self.preparation == "zca":  # weights pixels by position, so that it needs the image as it is
                images = augmentation.mirror_some(self._prepare_images(images), is_mirrored)
            else:  # mirroring first gives the same bits, and has a quarter of the bytes to move
                images = self.variation(images, seed, copies, rows)
                images = self._prepare_images(augmentation.mirror_some(images, is_mirrored))
            return augmentation.move(images, down, right, self.shift) if self.shift else images

        return ArraySplit(rows, labels, prepare=prepare, repeats=self.copies if is_augmented else 1)

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images`: uint8 images, as in the files."""
        import tensorflow as tf

        ids = np.arange(min(SERVED_EXAMPLES, self.validation))
        images = tf.gather(self._images, self._rows["validation"][ids]).numpy()
        inputs = {"images": tf.TensorSpec((None, *SHAPE), tf.uint8)}
        signature = RawSignature(inputs, lambda images: self._prepare_images(images), {"images": images}, ids)
        return {"serve_images": signature}


class Cifar10(Cifar):
    __doc__ = f"CIFAR-10: 10 classes. {Cifar.__doc__}"
    layout = CIFAR10


class Cifar100(Cifar):
    __doc__ = f"CIFAR-100: its 100 fine classes. {Cifar.__doc__}"
    layout = CIFAR100
