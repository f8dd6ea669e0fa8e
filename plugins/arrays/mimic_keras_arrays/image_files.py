"""What listed image files contain: which are the same image, and the pixels of all as one array on the disk."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import ROWS_AT_ONCE, InputError, file_digest
from mimic_keras_arrays import decoding
from mimic_keras_arrays.class_folders import Listing
from mimic_keras_arrays.decoding import Decoder

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Images:
    """The different images among listed files, in the order of their contents' digests.

    So no name and no folder changes what a row is.

    Args:
        digests: SHA-256 of each image.
        files: the files of each image; they are identical.
        labels: int32 [images]; -1 if all its files are unlabelled.
        rows: {listed split: its images, sorted int64}.
    """

    digests: Sequence[str]
    files: Sequence[Sequence[Path]]
    labels: np.ndarray
    rows: Mapping[str, np.ndarray]

    def describe(self, rows: Iterable[int]) -> str:
        """The files of some images, a line for each of the first ten."""
        return describe_first(sorted(" = ".join(map(str, self.files[row])) for row in rows))


def read_images(listing: Listing) -> Images:
    """Digest every listed file.

    Raises:
        InputError: files cannot be read, or an image is in two classes; lists the first of them.
    """
    found: dict[Path, str] = {}

    def digest(file: Path) -> None:
        found[file] = file_digest(file)

    _for_each(digest, [file for of in listing.files.values() for file, _ in of], "reading images")
    digests = sorted(set(found.values()))
    row_of = {digest: row for row, digest in enumerate(digests)}
    files: list[list[Path]] = [[] for _ in digests]
    for file, digest_found in sorted(found.items()):
        files[row_of[digest_found]].append(file)
    uses = [(row_of[found[file]], label) for of in listing.files.values() for file, label in of if label >= 0]
    labels = np.full(len(digests), -1, np.int32)
    for row, label in uses:
        labels[row] = label
    rows = {
        split: np.unique(np.array([row_of[found[file]] for file, _ in of], np.int64))
        for split, of in listing.files.items()
    }
    images = Images(digests, files, labels, rows)
    if several := sorted({row for row, label in uses if labels[row] != label}):
        raise InputError(f"path: {len(several):,} images are in two classes:{images.describe(several)}")
    return images


def prepare_pixels(images: Images, decoder: Decoder, data_dir: Path) -> Path:
    """A .npy file of pixels, uint8 [images, height, width, channels].

    Decoded once, in parallel, and kept in a subfolder of `data_dir` whose name is a digest of contents and arguments.

    Raises:
        InputError: files are no images, or were changed; lists the first of them.
    """
    code = b"".join(Path(source).read_bytes() for source in (__file__, decoding.__file__))
    key = sha256("\n".join([*images.digests, repr(decoder)]).encode() + code).hexdigest()[:32]
    place = data_dir / key
    if not place.is_dir():
        unfinished = data_dir / f".{key}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        _decode(images, decoder, unfinished / "images.npy")
        unfinished.replace(place)
    return place / "images.npy"


def _decode(images: Images, decoder: Decoder, target: Path) -> None:
    import tensorflow as tf

    decode = tf.function(decoder, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    shape = (len(images.digests), *decoder.shape)
    pixels = np.lib.format.open_memmap(target, "w+", np.uint8, shape)
    row_of = {files[0]: row for row, files in enumerate(images.files)}

    def convert(file: Path) -> None:
        content = file.read_bytes()
        if sha256(content).hexdigest() != images.digests[row_of[file]]:
            raise OSError("changed while it was being read")
        try:
            pixels[row_of[file]] = decode(tf.constant(content)).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise ValueError("no JPEG, PNG, BMP or GIF image that TensorFlow can decode") from error

    _for_each(convert, list(row_of), "decoding images")
    pixels.flush()
    with target.open("rb") as stream:
        os.fsync(stream.fileno())


def _for_each(function: Callable[[Path], None], files: Sequence[Path], what: str) -> None:
    """Call `function` with every file, on all processors, with a progress bar on a terminal.

    Raises:
        InputError: it raised OSError or ValueError; lists the first files.
    """

    def call(file: Path) -> str | None:
        try:
            function(file)
        except (OSError, ValueError) as error:
            return f"{file}: {getattr(error, 'strerror', None) or error}"
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = (files[start : start + ROWS_AT_ONCE] for start in range(0, len(files), ROWS_AT_ONCE))
        results = (result for part in parts for result in pool.map(call, part))
        problems = sorted(result for result in _with_progress(results, what, len(files)) if result)
    if problems:
        raise InputError(f"path: {len(problems):,} of {len(files):,} files are not usable:{describe_first(problems)}")


def describe_first(lines: Sequence[str]) -> str:
    """The first ten lines, indented, and how many more there are."""
    more = len(lines) - PROBLEMS_SHOWN
    shown = [*lines[:PROBLEMS_SHOWN], *([f"and {more:,} more"] if more > 0 else [])]
    return "".join(f"\n  {line}" for line in shown)


def _with_progress(values: Iterator[Any], what: str, total: int) -> Any:
    from rich.console import Console
    from rich.progress import track

    hidden = not sys.stderr.isatty()
    return track(values, what, total, console=Console(stderr=True), transient=True, disable=hidden)
