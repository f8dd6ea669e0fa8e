"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), prepared as in Ba & Caruana 2014 and Urban et al. 2017.

The images stay uint8 in memory, once for all splits; preparation, mirroring and shifts happen in the graph.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mimic_keras.contracts import SPLITS, ArraySplit, Dataset, DatasetInfo, InputError, RawSignature, host_variable
from mimic_keras_cifar import augmentation, preparation, records
from mimic_keras_cifar.records import CIFAR10, CIFAR100, SHAPE, Layout

LARGEST_SHIFT = 31
SERVED_EXAMPLES = 64


class Cifar(Dataset):
    """Inputs float32 [32, 32, 3], red, green, blue.

    Args:
        root: the official binary version: its folder, the folder that holds it, or the .tar.gz. None: it is
            downloaded once, and checked against the published MD5.
        preparation: "standardize": each image minus its mean, divided by its standard deviation, over all its values
            (Urban et al. 2017, section 2.5). "zca": global contrast normalisation, then whitening with the statistics
            of the training images (Ba & Caruana 2014, section 4).
        validation: how many of the 50,000 training images are the validation set, 1 to 49,999.
        split_seed: draws the validation images, and those that `labelled` keeps.
        labelled: keep the labels of this many training images; the others are in the transfer set alone, without
            labels. None: all.
        unlabelled: images of your own for the transfer set: a .npy file, uint8 [N, 32, 32, 3], or a .bin file of
            records as the data set's own, whose labels are not used.
        copies: virtual copies of every training and transfer image; the first is the image itself.
        mirror: the other copies are mirrored left to right with probability 1/2.
        shift: the other copies are shifted by up to this many pixels on each axis; 0, about the mean of prepared
            images, moves in. 0 to 31.

    Raises:
        ValueError: an argument is out of its range, or `copies` fits neither `mirror` nor `shift`.
    """

    layout: Layout

    def __init__(
        self,
        root: Path | None = None,
        preparation: Literal["standardize", "zca"] = "standardize",
        validation: int = 10_000,
        split_seed: int = 0,
        labelled: int | None = None,
        unlabelled: Path | None = None,
        copies: int = 1,
        mirror: bool = False,
        shift: int = 0,
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
        if (copies > 1) != (mirror or shift > 0):
            raise ValueError(
                f"copies: {copies} with mirror: {str(mirror).lower()} and shift: {shift}; the first copy is the image "
                "itself, so mirror and shift need copies above 1, and copies above 1 need one of them"
            )
        self.root, self.preparation, self.unlabelled = root, preparation, unlabelled
        self.validation, self.split_seed, self.training = validation, split_seed, training
        self.labelled = training if labelled is None else labelled
        self.copies, self.mirror, self.shift = copies, mirror, shift

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
        return DatasetInfo(self.layout.plugin_name, "1", SHAPE, len(names), names, sizes)

    def prepare(self, data_dir: Path) -> str:
        """Read and verify everything into memory; only a download and the whitening are kept in `data_dir`."""
        root = records.downloaded(self.layout, data_dir) if self.root is None else self.root
        images, self._labels = records.read(self.layout, root)
        self._rows = self._partition()
        parts = [images]
        if self.unlabelled is not None:
            parts.append(self._added(images, self.unlabelled))
        digest = hashlib.sha256()
        for array in (*parts, self._labels, self._rows["transfer"], self._rows["validation"]):
            digest.update(np.ascontiguousarray(array).data)
        self._prepared = preparation.standardized
        if self.preparation == "zca":
            whitening = preparation.Whitening.of(images, self._rows["transfer"][: self.training], data_dir)
            digest.update(whitening.mean.data)
            digest.update(whitening.matrix.data)
            self._prepared = whitening
        self._images = host_variable(*parts)  # one for all splits
        return digest.hexdigest()

    def _partition(self) -> dict[str, np.ndarray]:
        """{split: places of its images, int64 [N]}; the training images come before the test images."""
        count = self.layout.training_images
        # Frozen by NumPy's compatibility policy (NEP 19), which the newer generators are not.
        rows = np.random.RandomState(self.split_seed).permutation(count).astype(np.int64)
        return {
            "train": rows[: self.labelled],
            "validation": rows[self.training :],
            "test": np.arange(count, count + self.layout.test_images),
            "transfer": rows[: self.training],
        }

    def _added(self, images: np.ndarray, file: Path) -> np.ndarray:
        """The user's images, which come behind the others and at the end of the transfer set."""
        extra = records.read_unlabelled(self.layout, file)
        held_out = images[np.concatenate([self._rows["validation"], self._rows["test"]])]
        if shared := records.count_shared(extra, held_out):
            raise InputError(
                f"unlabelled: {shared:,} of the {len(extra):,} images of {file} are validation or test images, which "
                "no net may be trained on"
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
                return self._prepared(images)
            copies = ids // len(labels)
            is_mirrored, down, right = augmentation.variants(seed, copies, rows, self.mirror, self.shift)
            if self.preparation == "zca":  # it weighs pixels by their places, so that it has to see the image as it is
                images = augmentation.mirrored(self._prepared(images), is_mirrored)
            else:  # the same bits in either order, and uint8 is four times less to mirror
                images = self._prepared(augmentation.mirrored(images, is_mirrored))
            return augmentation.moved(images, down, right, self.shift)

        return ArraySplit(rows, labels, prepare=prepare, repeats=self.copies if is_augmented else 1)

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images`: uint8 images, as in the files."""
        import tensorflow as tf

        ids = np.arange(min(SERVED_EXAMPLES, self.validation))
        images = tf.gather(self._images, self._rows["validation"][ids]).numpy()
        inputs = {"images": tf.TensorSpec((None, *SHAPE), tf.uint8)}
        return {"serve_images": RawSignature(inputs, lambda images: self._prepared(images), {"images": images}, ids)}


class Cifar10(Cifar):
    __doc__ = f"CIFAR-10: 10 classes. {Cifar.__doc__}"
    layout = CIFAR10


class Cifar100(Cifar):
    __doc__ = f"CIFAR-100: its 100 fine classes. {Cifar.__doc__}"
    layout = CIFAR100
