"""Arrays in .npy and .npz files as a data set."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, InputError, RawSignature
from mimic_keras_arrays.examples import MAPPED_BYTES, Examples, digest_examples, make_scaling, warn_of_large_inputs
from mimic_keras_arrays.files import ArrayFile, check_finite, check_rows, chunks
from mimic_keras_arrays.images import Copies
from mimic_keras_arrays.inputs import LinearInputs, check_inputs
from mimic_keras_arrays.labels import check_label_kind, check_labels, name_classes, warn_of_empty_classes
from mimic_keras_arrays.shares import Shares, check_shares, divide

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
        self._shares: Mapping[str, Any] = shares or {}
        check_shares(self._shares, split_seed)
        for name in ("validation", "test"):
            if (files[name] is None) == (name not in self._shares):
                found = "neither" if files[name] is None else "both"
                raise ValueError(f"{name}: expected its files, or its share as shares: {{{name}: 0.1}}, got {found}")
        check_inputs(inputs, standardize)
        self._files = {name: _locate(name, given) for name, given in files.items() if given is not None}
        self._names = None if classes is None else name_classes(classes)
        self._split_seed, self._stratify = split_seed, stratify
        self._inputs, self._standardize = inputs, standardize
        self._copies = Copies(copies, mirror, shift, smallest_crop)

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
        self._copies.check_shape(shape[1:])
        names = self._names
        if names is None:
            labels = check_labels("train.y", self._files["train"]["y"].load())
            names = name_classes(int(labels.max(initial=-1)) + 1)
        sizes = {name: header[0][0] for name, header in headers.items()}
        extra, repeats = sizes.pop("unlabelled", 0), self._copies.copies
        sizes |= {name: round(shape[0] * share) for name, share in self._shares.items()}
        sizes["train"] = (shape[0] - sum(sizes[name] for name in self._shares)) * repeats
        sizes["transfer"] = sizes["train"] + extra * repeats
        return DatasetInfo("arrays", "1", shape[1:], len(names), names, sizes, repeats)

    def _read_headers(self) -> dict[str, Header]:
        """{split or "unlabelled": shape and dtype of its inputs}, after checking those of all files."""
        checks = [functools.partial(_check_headers, name, files) for name, files in self._files.items()]
        headers = dict(zip(self._files, run_all(checks), strict=True))
        shape, dtype = headers["train"]
        others = [
            f"{name}.x: {found} {list(other)} does not fit train.x, {dtype} {list(shape)}; expected one dtype and one "
            "shape of rows"
            for name, (other, found) in headers.items()
            if (other[1:], found) != (shape[1:], dtype)
        ]
        if others:
            raise InputError("\n".join(others))
        return headers

    def prepare(self, data_dir: Path) -> str:
        """Read and check everything; `data_dir` only stores the moments of `standardize`.

        The digest is of arrays and not of files: it is the same for .npy and .npz, and wherever the files are.
        """
        total = sum(math.prod(shape) * dtype.itemsize for shape, dtype in self._read_headers().values())
        loaded = run_all([functools.partial(self._load, name, total > MAPPED_BYTES) for name in self._files])
        labels = {name: of for name, (_, of) in zip(self._files, loaded, strict=True)}
        arrays, rows, all_labels = (
            [inputs for inputs, _ in loaded],
            self._divide(labels),
            np.concatenate([*labels.values()]),
        )
        content = digest_examples(arrays, all_labels, rows)
        train = chunks(arrays[0], rows["train"])
        scaling = make_scaling(self._inputs, self._standardize, content, train, data_dir)
        warn_of_empty_classes(all_labels[rows["train"]], self.info.class_names)
        warn_of_large_inputs(arrays[0].dtype, scaling)
        self._examples = Examples(arrays, all_labels, rows, scaling, self._copies)
        return hashlib.sha256(f"{content} {scaling.digest}".encode()).hexdigest()

    def _load(self, name: str, mapped: bool) -> tuple[np.ndarray, np.ndarray]:
        """(inputs, int32 labels) of a split or of "unlabelled"."""
        files = self._files[name]
        inputs = files["x"].load(mapped)
        check_finite(files["x"].where, inputs)
        if "y" not in files:
            return inputs, np.full(len(inputs), -1, np.int32)
        complete = name in ("validation", "test")
        return inputs, check_labels(files["y"].where, files["y"].load(), self.info.num_classes, complete)

    def _divide(self, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{split: its rows in the arrays, which come one after the other}; `labels` are those of each array."""
        first, places = 0, {}
        for name, of in labels.items():
            places[name] = np.arange(first, first + len(of))
            first += len(of)
        shares = {name: self._shares.get(name, 0.0) for name in ("validation", "test")}
        rows = divide(labels["train"], **shares, seed=self._split_seed, stratify=self._stratify)
        rows |= {name: places[name] for name in shares if name in places}
        unknown = np.flatnonzero(labels["train"] < 0)
        rows["transfer"] = np.concatenate([rows["train"], unknown, places.get("unlabelled", unknown[:0])])
        return rows

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        return self._examples.split(name, seed)

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


def _check_headers(name: str, files: Mapping[str, ArrayFile]) -> Header:
    """Shape and dtype of a split's inputs, after checking them and its labels'."""
    shape, dtype = files["x"].read_header()
    check_rows(files["x"].where, shape, dtype)
    if "y" in files:
        label_shape, label_dtype = files["y"].read_header()
        check_label_kind(files["y"].where, label_shape, label_dtype)
        if label_shape[0] != shape[0]:
            raise InputError(f"{name}: x has {shape[0]} rows, but y has {label_shape[0]} labels")
    return shape, dtype


def run_all(checks: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each returns.

    Raises:
        InputError: at least one raised it; the message has a line for each.
    """
    results, problems = [], []
    for check in checks:
        try:
            results.append(check())
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    return results
