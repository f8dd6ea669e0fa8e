"""Arrays in .npy and .npz files as a data set."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, InputError, RawSignature
from mimic_keras_arrays.examples import MAPPED_BYTES, Preparation, prepare_examples
from mimic_keras_arrays.files import ArrayFile, check_finite, check_rows, run_all
from mimic_keras_arrays.images import Copies
from mimic_keras_arrays.inputs import LinearInputs
from mimic_keras_arrays.labels import check_label_kind, check_labels, name_classes
from mimic_keras_arrays.shares import HELD_OUT, Division, Shares

Header = tuple[tuple[int, ...], np.dtype]


class ArrayFiles(TypedDict):
    """Inputs x [N, ...] and labels y [N] in .npy files."""

    x: Path
    y: Path


class Arrays(Dataset):
    """Inputs float32 [...] of any shape, from arrays [N, ...] of numbers; labels from arrays of integers.

    A split is {x: FILE.npy, y: FILE.npy}, or a .npz file with arrays `x` and `y`. Labels are [N] or [N, 1], from 0, and
    -1 where unknown: such training examples are in the transfer set alone. Above 1 GiB of inputs, .npy files are
    memory-mapped, and may be larger than the memory; .npz files are always read.

    Args:
        train: the training split, or all examples.
        validation: the validation split; None: a share of `train`.
        test: the test split; None: a share of `train`.
        unlabelled: more inputs for the transfer set: a .npy file, or a .npz with an array `x`.
        shares: fractions of the labelled examples of `train` that become validation and test, where there are no files.
        split_seed: draws them.
        stratify: every class has its share in each split.
        classes: their names or their number; None: 1 + the largest label of `train`. Without names, "0", "1", ...
        inputs: inputs are x * scale + offset.
        standardize: inputs have mean 0 and deviation 1 in training, for each index of the last axis: each feature of
            rows, each channel of images.
        copies: virtual copies of every training and transfer image; the first is the image itself.
        mirror: the other copies are mirrored left to right with probability 1/2.
        shift: they are moved by up to this many pixels on each axis, and filled with 0 after scaling.
        smallest_crop: they are windows of U(smallest_crop, 1) times the image's sides, anywhere in the image, scaled
            back by bilinear interpolation. Above 0, at most 1, which is no crop.

    Raises:
        ValueError: an argument is out of its range, or two exclude each other.

    Example:
        {name: arrays, train: {x: x.npy, y: y.npy}, shares: {validation: 0.1, test: 0.1}, standardize: true}
    """

    def __init__(
        self,
        train: Path | ArrayFiles,
        validation: Path | ArrayFiles | None = None,
        test: Path | ArrayFiles | None = None,
        unlabelled: Path | None = None,
        shares: Shares | None = None,
        split_seed: int = 0,
        stratify: bool = True,
        classes: int | list[str] | None = None,
        inputs: LinearInputs | None = None,
        standardize: bool = False,
        copies: int = 1,
        mirror: bool = False,
        shift: int = 0,
        smallest_crop: float = 1.0,
    ):
        files = {"train": train, "validation": validation, "test": test, "unlabelled": unlabelled}
        given = {name: files_of for name, files_of in files.items() if files_of is not None}
        self._division = Division(given.keys(), shares or {}, split_seed, stratify)
        self._preparation = Preparation(inputs, standardize, Copies(copies, mirror, shift, smallest_crop))
        self._files = {name: _locate(name, files_of) for name, files_of in given.items()}
        self._names = None if classes is None else name_classes(classes)

    @property
    def info(self) -> DatasetInfo:
        """From the headers of the files; the labels of training are read where `classes` is not given.

        Raises:
            InputError: files are missing, or shapes or dtypes do not fit; the message has a line for each.
        """
        return self._info

    @functools.cached_property
    def _info(self) -> DatasetInfo:
        headers = self._read_headers()
        shape, _ = headers["train"]
        self._preparation.copies.check_shape(shape[1:])
        names = self._names
        if names is None:
            labels = check_labels("train.y", self._files["train"]["y"].load())
            names = name_classes(int(labels.max(initial=-1)) + 1)
        repeats = self._preparation.copies.copies
        sizes = self._division.estimate_sizes({name: header[0][0] for name, header in headers.items()}, repeats)
        return DatasetInfo("arrays", "1", shape[1:], len(names), names, sizes, repeats)

    def _read_headers(self) -> dict[str, Header]:
        """{split or "unlabelled": shape and dtype of its inputs}, after checking those of all files."""
        files = [(name, member, file) for name, of in self._files.items() for member, file in of.items()]
        found = run_all([functools.partial(_check_header, file, member) for _, member, file in files])
        headers = {(name, member): header for (name, member, _), header in zip(files, found, strict=True)}
        first, first_dtype = headers["train", "x"]
        problems = []
        for name, of in self._files.items():
            shape, dtype = headers[name, "x"]
            if (shape[1:], dtype) != (first[1:], first_dtype):
                problems.append(
                    f"{name}.x: {dtype} {list(shape)} does not fit train.x, {first_dtype} {list(first)}; expected one "
                    "dtype and one shape of rows"
                )
            if "y" in of and headers[name, "y"][0][0] != shape[0]:
                problems.append(f"{name}: x has {shape[0]} rows, but y has {headers[name, 'y'][0][0]} labels")
        if problems:
            raise InputError("\n".join(problems))
        return {name: headers[name, "x"] for name in self._files}

    def prepare(self, data_dir: Path) -> str:
        """Read and check everything; `data_dir` only stores the moments of `standardize`.

        The digest is of arrays and not of files: it is the same for .npy and .npz, and wherever the files are.
        """
        total = sum(math.prod(shape) * dtype.itemsize for shape, dtype in self._read_headers().values())
        loaded = run_all([functools.partial(self._load, name, total > MAPPED_BYTES) for name in self._files])
        parts = dict(zip(self._files, loaded, strict=True))
        names = self.info.class_names
        self._examples, digest = prepare_examples(parts, self._division, self._preparation, names, data_dir)
        return digest

    def _load(self, name: str, mapped: bool) -> tuple[np.ndarray, np.ndarray]:
        """(inputs, int32 labels) of a split or of "unlabelled"."""
        files = self._files[name]
        inputs = files["x"].load(mapped)
        check_finite(files["x"].where, inputs)
        if "y" not in files:
            return inputs, np.full(len(inputs), -1, np.int32)
        labels = files["y"].load()
        return inputs, check_labels(files["y"].where, labels, self.info.num_classes, complete=name in HELD_OUT)

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        return self._examples.split(name, seed)

    def given_rows(self, name: str) -> np.ndarray:
        return self._examples.given_rows(name)

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_images` or `serve_rows`: values as in the files."""
        return self._examples.raw_signatures()


def _locate(name: str, given: Path | ArrayFiles) -> dict[str, ArrayFile]:
    """The files of an argument: "x", and "y" except for `unlabelled`."""
    members = ("x",) if name == "unlabelled" else ("x", "y")
    if isinstance(given, Path) and (given.suffix == ".npz" or name != "unlabelled"):
        if given.suffix != ".npz":
            raise InputError(
                f"{name}: expected {{x: FILE.npy, y: FILE.npy}}, or a .npz file with arrays x and y, got {given}"
            )
        return {member: ArrayFile(f"{name}.{member}", given, member) for member in members}
    files: Mapping[str, Any] = {"x": given} if isinstance(given, Path) else given
    for member, file in files.items():
        if file.suffix != ".npy":
            raise InputError(f"{name}.{member}: expected a .npy file, got {file}")
    return {member: ArrayFile(f"{name}.{member}", files[member]) for member in members}


def _check_header(file: ArrayFile, member: str) -> Header:
    """Shape and dtype of inputs "x" or labels "y", checked."""
    header = file.read_header()
    (check_rows if member == "x" else check_label_kind)(file.where, *header)
    return header
