"""Which images are in class folders, what they contain, and their pixels as one memory-mapped array."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import ROWS_AT_ONCE, InputError, file_digest, files_below
from mimic_keras_arrays.decoding import Decoder

UNLABELLED = "unlabelled"
PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Listing:
    """`files`: {split: [(file, label)]}, splits "train", "validation", "test" and "unlabelled" (label -1)."""

    class_names: tuple[str, ...]
    files: Mapping[str, Sequence[tuple[Path, int]]]


def list_images(path: Path, drawn: Sequence[str]) -> Listing:
    """List the images of class folders.

    Args:
        path: has the folders train, validation and test, but not those in `drawn`, each with one folder per class, and
            maybe a folder unlabelled. If all but train are drawn, the class folders may be in `path` itself. Every file
            in or below a class folder is an image, unless it or a folder that it is in has a name with a leading ".".
        drawn: splits that are drawn from the training images.

    Raises:
        InputError: the folders are not like this.
    """
    folders = _folders(path)
    fixed = [name for name in ("train", "validation", "test") if name not in drawn]
    roots = {name: path / name for name in fixed}
    if fixed == ["train"] and "train" not in folders:
        roots = {"train": path}
    missing = [name for name, root in roots.items() if root != path and name not in folders]
    if missing:
        found = ", ".join(folders[:PROBLEMS_SHOWN]) or "none"
        raise InputError(
            f"path: no folder {' and '.join(missing)} in {path}, which has {found}; "
            "expected train, validation and test, each with one folder per class; or, with shares of validation and "
            "test, one folder per class"
        )
    both = [name for name in drawn if name in folders]
    if both:
        raise InputError(f"path: {path} has a folder {both[0]}, but shares draws {both[0]}; remove one of them")
    names = [name for name in _folders(roots["train"]) if roots["train"] / name != path / UNLABELLED]
    if len(names) < 2:
        raise InputError(f"path: expected at least two class folders in {roots['train']}, found {len(names)}")
    files = {split: _list_classes(root, names, split) for split, root in roots.items()}
    files[UNLABELLED] = [(file, -1) for file in _visible_files(path / UNLABELLED)] if UNLABELLED in folders else []
    return Listing(tuple(names), files)


def _list_classes(root: Path, names: Sequence[str], split: str) -> list[tuple[Path, int]]:
    other = [name for name in _folders(root) if name not in names]
    if other and split != "train":
        raise InputError(f"path: {root} has the class folder {other[0]}, which the training images do not have")
    files = [(file, label) for label, name in enumerate(names) for file in _visible_files(root / name)]
    if not files:
        raise InputError(f"path: no images for '{split}' in the class folders of {root}")
    return files


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        raise InputError(f"path: expected a folder, got {path}")
    return sorted(child.name for child in path.iterdir() if child.is_dir() and child.name[0] != ".")


def _visible_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = files_below(folder)
    return [file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts)]


def compute_digests(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file's content.

    Raises:
        InputError: files cannot be read; lists the first of them.
    """
    found: dict[Path, str] = {}

    def compute(file: Path) -> None:
        found[file] = file_digest(file)

    _for_each(compute, files, "reading images")
    return [found[file] for file in files]


def prepare_pixels(files: Mapping[str, Path], decoder: Decoder, data_dir: Path) -> Path:
    """A .npy file of pixels, uint8 [N, height, width, channels], one row per image in the order of `files`.

    Decoded once, in parallel, and kept in a subfolder of `data_dir` whose name is a digest of contents and arguments.

    Args:
        files: {digest of the content: file}.

    Raises:
        InputError: files are no images, or were changed; lists the first of them.
    """
    code = b"".join(Path(source).read_bytes() for source in (__file__, sys.modules[Decoder.__module__].__file__ or ""))
    key = sha256("\n".join([*files, repr(decoder)]).encode() + code).hexdigest()[:32]
    place = data_dir / key
    if not place.is_dir():
        unfinished = data_dir / f".{key}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        _decode(files, decoder, unfinished / "images.npy")
        unfinished.replace(place)
    return place / "images.npy"


def _decode(files: Mapping[str, Path], decoder: Decoder, target: Path) -> None:
    import tensorflow as tf

    decode = tf.function(decoder, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    shape = (len(files), decoder.height, decoder.width, decoder.channels)
    pixels = np.lib.format.open_memmap(target, "w+", np.uint8, shape)
    expected = {file: (row, digest) for row, (digest, file) in enumerate(files.items())}

    def convert(file: Path) -> None:
        row, digest = expected[file]
        content = file.read_bytes()
        if sha256(content).hexdigest() != digest:
            raise OSError("changed while it was being read")
        try:
            pixels[row] = decode(tf.constant(content)).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise ValueError("no JPEG, PNG, BMP or GIF image that TensorFlow can decode") from error

    _for_each(convert, list(expected), "decoding images")
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
