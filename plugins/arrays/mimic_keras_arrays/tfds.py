"""Classification sets of TensorFlow Datasets, converted once into .npy files."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, InputError, RawSignature, files_below
from mimic_keras_arrays.examples import MAPPED_BYTES, Preparation, prepare_examples
from mimic_keras_arrays.files import ArrayFile, check_finite, check_rows, write_rows
from mimic_keras_arrays.images import Copies
from mimic_keras_arrays.inputs import LinearInputs
from mimic_keras_arrays.labels import check_labels
from mimic_keras_arrays.shares import HELD_OUT, Division, Shares

BATCH = 256


class Tfds(Dataset):
    """Inputs float32, images or other arrays of numbers of one shape, from a set with (input, class label) pairs.

    The set is downloaded if it is not there, and converted into the home folder, where its inputs are memory-mapped
    above 1 GiB. It needs the package tensorflow-datasets.

    Args:
        builder: its name, with a version or configuration if wanted: "mnist", "mnist:3.0.1", "cmaterdb/bangla".
        train: the training split, or all examples, as TensorFlow Datasets writes splits: "train", "train[:80%]".
        validation: the validation split; None: a share of `train`.
        test: the test split; None: a share of `train`.
        unlabelled: a split whose labels are not used, for the transfer set.
        root: the folder of downloaded sets; None: TensorFlow Datasets' own, TFDS_DATA_DIR or ~/tensorflow_datasets.
        image_size: [height, width] that images are resized to, with anti-aliasing; needed where their sizes differ.
        shares: fractions of the labelled examples of `train` that become validation and test, where there is no split.
        split_seed, stratify, inputs, standardize, copies, mirror, shift, smallest_crop: as for `arrays`.

    Raises:
        ValueError: an argument is out of its range, or two exclude each other.
        InputError: tensorflow-datasets is not installed.

    Example:
        {name: tfds, builder: mnist, test: test, shares: {validation: 0.1}, inputs: {scale: 0.00392156862745098}}
    """

    def __init__(
        self,
        builder: str,
        train: str = "train",
        validation: str | None = None,
        test: str | None = None,
        unlabelled: str | None = None,
        root: Path | None = None,
        image_size: tuple[int, int] | None = None,
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
        splits = {"train": train, "validation": validation, "test": test, "unlabelled": unlabelled}
        self._splits = {name: split for name, split in splits.items() if split is not None}
        self._division = Division(self._splits.keys(), shares or {}, split_seed, stratify)
        self._preparation = Preparation(inputs, standardize, Copies(copies, mirror, shift, smallest_crop))
        if image_size is not None and min(image_size) < 1:
            raise ValueError(f"image_size: expected a height and a width of at least 1, got {list(image_size)}")
        self._image_size = image_size
        self._builder = _find_builder(builder, root)

    @property
    def info(self) -> DatasetInfo:
        """From the description of the set. The sizes of splits are known once it was downloaded.

        Raises:
            InputError: the set has no (input, class label) pairs, a split does not exist, or `image_size` is needed.
        """
        return self._info

    @functools.cached_property
    def _info(self) -> DatasetInfo:
        shape, names = self._describe()
        self._preparation.copies.check_shape(shape)
        repeats, sizes = self._preparation.copies.copies, {}
        if self._builder.info.splits:
            counts = {name: self._count(name) for name in self._splits}
            sizes = self._division.estimate_sizes(counts, repeats)
        return DatasetInfo("tfds", str(self._builder.version), shape, len(names), names, sizes, repeats)

    def _describe(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """(shape of the inputs, names of the classes)."""
        import tensorflow_datasets as tfds

        info = self._builder.info
        pair = [info.features[key] for key in info.supervised_keys or ()]
        is_pair = len(pair) == 2 and isinstance(pair[1], tfds.features.ClassLabel) and pair[1].num_classes
        if not is_pair or not isinstance(pair[0], tfds.features.Image | tfds.features.Tensor):
            raise InputError(
                f"builder: expected a set of (numbers, class label) pairs, but {info.full_name} has "
                f"{', '.join(info.features)} and the pairs {info.supervised_keys}"
            )
        inputs, label = pair
        shape = tuple(inputs.shape)
        if self._image_size is not None:
            if len(shape) != 3:
                raise InputError(f"image_size is for images, but the inputs of {info.full_name} are {list(shape)}")
            shape = (*self._image_size, shape[2])
        if None in shape:
            raise InputError(
                f"builder: the inputs of {info.full_name} have no common shape, {list(shape)}; images of several sizes "
                "need image_size: [HEIGHT, WIDTH]"
            )
        check_rows("builder", (1, *shape), np.dtype(inputs.np_dtype))
        return shape, tuple(label.names)

    def _count(self, name: str) -> int:
        """How many examples the split `name` has."""
        info, split = self._builder.info, self._splits[name]
        try:
            return int(info.splits[split].num_examples)
        except (KeyError, ValueError) as error:
            accepted = ", ".join(info.splits)
            raise InputError(
                f"{name}: {info.full_name} has no split '{split}'; accepted: {accepted}, and parts"
            ) from error

    def prepare(self, data_dir: Path) -> str:
        """Download and convert the set, each at most once; a set whose files were changed is converted again."""
        try:
            self._builder.download_and_prepare()
        except Exception as error:  # of the set's own code, of the network, of the disk
            if isinstance(error, OSError) and error.errno:
                raise
            info, place = self._builder.info, self._builder.data_path
            reason = _first_line(error)
            raise InputError(
                f"builder: {info.full_name} is not in {place}, and cannot be downloaded: {reason}"
            ) from error
        folder = data_dir / self._key()
        if not folder.is_dir():
            self._convert(folder)
        parts, names = self._load(folder), self.info.class_names
        self._examples, digest = prepare_examples(parts, self._division, self._preparation, names, data_dir)
        return digest

    def _load(self, folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{split or "unlabelled": (inputs, int32 labels)} of the converted set."""
        files = {name: ArrayFile(name, folder / f"{name}_x.npy") for name in self._splits}
        total = sum(math.prod(shape) * dtype.itemsize for shape, dtype in map(ArrayFile.read_header, files.values()))
        parts = {}
        for name, file in files.items():
            inputs, labels = file.load(mapped=total > MAPPED_BYTES), np.load(folder / f"{name}_y.npy")
            check_finite(name, inputs)
            if name == "unlabelled":
                labels = np.full_like(labels, -1)
            parts[name] = (inputs, check_labels(name, labels, self.info.num_classes, complete=name in HELD_OUT))
        return parts

    def _key(self) -> str:
        """A name for the converted set: of all that it is converted from, and how."""
        stats = {file.name: file.stat() for file in files_below(Path(self._builder.data_path))}
        files = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
        made_from = [self._builder.info.full_name, self._splits, self._image_size, files]
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]

    def _convert(self, folder: Path) -> None:
        """Write the inputs and labels of each split to `folder`, which appears whole."""
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for name in self._splits:
            count, labels = self._count(name), list[np.ndarray]()
            logging.info("%s: converting %d examples of %s", self._builder.info.full_name, count, self._splits[name])
            write_rows(unfinished / f"{name}_x.npy", count, self._read(name, labels))
            np.save(unfinished / f"{name}_y.npy", np.concatenate(labels))
        unfinished.replace(folder)

    def _read(self, name: str, labels: list[np.ndarray]) -> Iterator[np.ndarray]:
        """The inputs of a split, in a fixed order and batch by batch; adds their labels to `labels`."""
        import tensorflow as tf
        import tensorflow_datasets as tfds

        def resize(image: Any, label: Any) -> Any:
            resized = tf.image.resize(image, self._image_size, antialias=True)
            return tf.saturate_cast(tf.round(resized) if image.dtype.is_integer else resized, image.dtype), label

        in_order = tfds.ReadConfig(interleave_cycle_length=1)
        found = self._builder.as_dataset(self._splits[name], as_supervised=True, read_config=in_order)
        if self._image_size is not None:
            found = found.map(resize, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        for inputs, batch_labels in found.batch(BATCH).prefetch(1).as_numpy_iterator():
            labels.append(batch_labels)
            yield inputs

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        return self._examples.split(name, seed)

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images` or `serve_rows`: values as in the set, resized."""
        return self._examples.raw_signatures()


def _find_builder(name: str, root: Path | None) -> Any:
    """The set's builder; nothing is downloaded.

    Raises:
        InputError: tensorflow-datasets is not installed, or knows no such set, and `root` has none.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"tfds needs tensorflow-datasets: pip install 'mimic-keras[tfds]' ({_first_line(error)})"
        ) from error
    try:
        return tfds.builder(name, data_dir=root)
    except Exception as error:  # of the set's own code too
        raise InputError(f"builder: no set '{name}' in tensorflow-datasets: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
