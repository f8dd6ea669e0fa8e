"""The official binary version of CIFAR-10 and CIFAR-100, read and verified; nothing is unpickled or extracted."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import InputError, array_digest
from mimic_keras_cifar.classes import CIFAR10_CLASSES, CIFAR100_CLASSES

SHAPE = (32, 32, 3)
PIXELS = 32 * 32 * 3
SITE = "https://www.cs.toronto.edu/~kriz/"
LARGEST_MEMBER, LARGEST_HEADER = 2**32, 2**16


@dataclass(frozen=True)
class Layout:
    """How a data set is stored on disk.

    A record is one byte for each of `labels`, {kind: number of classes}, of which the last is learnt, then the red,
    green and blue planes, row by row.
    """

    title: str
    plugin_name: str
    archive: str
    md5: str
    folder: str
    training_files: tuple[str, ...]
    test_file: str
    training_images: int
    test_images: int
    labels: dict[str, int]
    class_names: tuple[str, ...]
    python_folder: str
    python_files: frozenset[str]

    @property
    def python_archive(self) -> str:
        return self.archive.replace("binary", "python")

    @property
    def files(self) -> dict[str, int]:
        """{name: number of images}, the training files first, in order."""
        share = self.training_images // len(self.training_files)
        return {**dict.fromkeys(self.training_files, share), self.test_file: self.test_images}

    @property
    def record(self) -> int:
        """Bytes of a record."""
        return len(self.labels) + PIXELS

    @property
    def wanted(self) -> str:
        return f"the binary version, {self.archive} from {SITE}cifar.html"


CIFAR10 = Layout(
    title="CIFAR-10",
    plugin_name="cifar10",
    archive="cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",  # published beside the archive
    folder="cifar-10-batches-bin",
    training_files=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test_file="test_batch.bin",
    training_images=50_000,
    test_images=10_000,
    labels={"label": 10},
    class_names=CIFAR10_CLASSES,
    python_folder="cifar-10-batches-py",
    python_files=frozenset({"data_batch_1", "batches.meta"}),
)
CIFAR100 = Layout(
    title="CIFAR-100",
    plugin_name="cifar100",
    archive="cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    folder="cifar-100-binary",
    training_files=("train.bin",),
    test_file="test.bin",
    training_images=50_000,
    test_images=10_000,
    labels={"coarse label": 20, "fine label": 100},
    class_names=CIFAR100_CLASSES,
    python_folder="cifar-100-python",
    python_files=frozenset({"train", "test", "meta"}),
)


def downloaded(layout: Layout, folder: Path) -> Path:
    """The official archive, downloaded into `folder` unless it is already there; its MD5 is always checked.

    Raises:
        InputError: the download failed, or the MD5 is not the published one.
    """
    import keras

    origin = SITE + layout.archive
    try:
        return Path(keras.utils.get_file(origin=origin, file_hash=layout.md5, cache_dir=folder, cache_subdir=""))
    except Exception as error:  # get_file raises bare Exceptions
        raise InputError(
            f"{layout.title} cannot be downloaded: {error}. Get {layout.wanted}, and set dataset.root to its location"
        ) from error


def read(layout: Layout, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 [N, 32, 32, 3], and labels, int32 [N]: the training files in order, then the test file.

    Args:
        layout: the data set's.
        root: the folder of the files, its parent folder, or the official .tar.gz.

    Raises:
        InputError: `root` is something else, or files are missing or damaged; lists all problems.
    """
    root = root.expanduser()
    total = layout.training_images + layout.test_images
    images, labels = np.empty([total, *SHAPE], np.uint8), np.empty(total, np.int32)
    starts = dict(zip(layout.files, np.cumsum([0, *layout.files.values()]), strict=False))
    digests: dict[str, str] = {}
    problems: list[str] = []
    found: set[str] = set()
    for name, content in _read_files(layout, root):
        found.add(name)
        if isinstance(content, str):
            problems.append(f"{name}: {content}")
            continue
        records = np.frombuffer(content, np.uint8).reshape(-1, layout.record)
        problems += [f"{name}: {problem}" for problem in _label_problems(layout, records)]
        digest = hashlib.sha256(content).hexdigest()
        problems += [f"{name}: the same as {other}" for other, known in digests.items() if known == digest]
        digests[name] = digest
        place = slice(starts[name], starts[name] + len(records))
        images[place], labels[place] = decode(layout, records), records[:, len(layout.labels) - 1]
    problems += [f"{name}: missing" for name in layout.files if name not in found]
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise InputError(f"{layout.title} in {root}: {len(problems)} problem{'s'[: len(problems) > 1]}{lines}")
    return images, labels


def decode(layout: Layout, records: np.ndarray) -> np.ndarray:
    """The images of records: uint8 [N, layout.record] to uint8 [N, 32, 32, 3]."""
    planes = records[:, len(layout.labels) :].reshape(-1, SHAPE[2], *SHAPE[:2])
    return planes.transpose(0, 2, 3, 1)


def _label_problems(layout: Layout, records: np.ndarray) -> Iterator[str]:
    for column, (kind, classes) in enumerate(layout.labels.items()):
        wrong = np.flatnonzero(records[:, column] >= classes)
        if len(wrong):
            first = f"{records[wrong[0], column]} in record {wrong[0]:,}"
            kinds = kind + "s" * (len(wrong) > 1)
            yield f"{len(wrong):,} {kinds} out of range, the first {first}; expected 0 to {classes - 1}"


def _size_problem(layout: Layout, name: str, size: int) -> str | None:
    expected = layout.files[name]
    if size == expected * layout.record:
        return None
    whole, rest = divmod(size, layout.record)
    kind = f"{whole:,} records and {rest:,} bytes of another" if rest else f"{whole:,} records"
    return f"{size:,} bytes, {kind}; expected {expected:,} records of {layout.record:,} bytes"


def _read_files(layout: Layout, root: Path) -> Iterator[tuple[str, bytes | str]]:
    """(name, content or problem) of every file that exists."""
    try:
        if not root.exists():
            raise InputError(
                f"{layout.title}: {root} does not exist. Get {layout.wanted}; without root it is downloaded"
            )
        yield from _read_archive(layout, root) if root.is_file() else _read_folder(layout, root)
    except PermissionError as error:  # a folder's
        raise InputError(f"{layout.title}: {error.filename} cannot be read: {error.strerror}") from error


def _read_folder(layout: Layout, root: Path) -> Iterator[tuple[str, bytes | str]]:
    """(name, content or problem) of every file in the folder `root`, or in the official folder in it."""
    folder = max(root, root / layout.folder, key=lambda place: sum((place / name).exists() for name in layout.files))
    if not any((folder / name).exists() for name in layout.files):
        places = [root, *(root / name for other in LAYOUTS for name in (other.folder, other.python_folder))]
        entries = [entry for place in places if place.is_dir() for entry in place.iterdir()]
        raise _wrong_root(layout, root, {entry.name for entry in entries if entry.is_file()})
    for name in layout.files:
        file = folder / name
        try:
            if file.exists() and not file.is_file():
                yield name, "is not a file"
            elif problem := _size_problem(layout, name, file.stat().st_size):
                yield name, problem
            else:
                content = file.read_bytes()  # its size may have changed: someone may be writing it
                yield name, _size_problem(layout, name, len(content)) or content
        except FileNotFoundError:
            pass
        except OSError as error:
            yield name, f"cannot be read: {error.strerror}"


class _Header(tarfile.TarInfo):
    """An archive member's header, with a limit on its size.

    tarfile reads long names whole, and skips a member block by block, past the end of the archive.
    """

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size > (LARGEST_MEMBER if header.type in tarfile.REGULAR_TYPES else LARGEST_HEADER):
            raise _too_large(header)
        return header


def _too_large(member: tarfile.TarInfo) -> tarfile.ReadError:
    return tarfile.ReadError(f"{member.name} claims to have {member.size:,} bytes")


def _read_archive(layout: Layout, root: Path) -> Iterator[tuple[str, bytes | str]]:
    """(name, content or problem) of every file in the archive `root`.

    It is read as a stream: nothing is written, and a member of the wrong size is not read.
    """
    found: set[str] = set()
    try:
        with gzip.open(root) as content, tarfile.open(fileobj=content, mode="r|", tarinfo=_Header) as archive:
            for member in archive:
                if archive.offset - member.offset_data > LARGEST_MEMBER:  # an extended header may give another size
                    raise _too_large(member)
                name = Path(member.name).name
                stream = archive.extractfile(member) if name in layout.files and member.isfile() else None
                if stream and name not in found:
                    yield name, _size_problem(layout, name, member.size) or stream.read()
                found.add(name)
            while content.read(2**20):  # gzip's checksum comes last; without it a flipped bit would pass as a pixel
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if not found:
            raise InputError(
                f"{layout.title}: {root} cannot be read as a .tar.gz archive ({error}). Expected {layout.wanted}"
            ) from error
        yield root.name, f"is truncated or damaged ({error})"
        return
    if not found & set(layout.files):
        raise _wrong_root(layout, root, found)


def _wrong_root(layout: Layout, root: Path, names: set[str]) -> InputError:
    """The error for a `root` that contains files with these names, and not the data set's."""
    for other in LAYOUTS:
        if other.plugin_name != layout.plugin_name and (names >= set(other.files) or other.archive in names):
            return InputError(f"{layout.title}: {root} is {other.title}; name: {other.plugin_name} reads it")
        if names >= other.python_files or other.python_archive in names:
            return InputError(
                f"{layout.title}: {root} is the Python version of {other.title}: pickles, which can run any program "
                f"when read. Get {layout.wanted}"
            )
    if layout.archive in names:
        return InputError(f"{layout.title}: {root} is the archive's folder; give the archive, {root / layout.archive}")
    return InputError(
        f"{layout.title}: none of its files is in {root}. Expected there, in a folder {layout.folder} or an archive: "
        f"{', '.join(layout.files)}. Get {layout.wanted}"
    )


def read_unlabelled(layout: Layout, file: Path) -> np.ndarray:
    """The user's own images: uint8 [N, 32, 32, 3] from a .npy file, or from a .bin file of records like the data set's.

    Raises:
        InputError: the file is something else.
    """
    expected = f"expected a .npy file, uint8 [N, 32, 32, 3], or a .bin file of records of {layout.record:,} bytes"
    if file.suffix not in (".npy", ".bin"):
        raise InputError(f"unlabelled: {file} is neither; {expected}")
    file, is_array = file.expanduser(), file.suffix == ".npy"
    try:
        content = np.lib.format.open_memmap(file, mode="r") if is_array else np.memmap(file, np.uint8, "r")
    except Exception as error:  # NumPy raises anything here, depending on the file's content
        raise InputError(f"unlabelled: {file} cannot be read ({error}); {expected}") from error
    if is_array:
        if content.dtype != np.uint8 or content.shape[1:] != SHAPE or not len(content):
            raise InputError(f"unlabelled: {file} is {content.dtype} {list(content.shape)}; {expected}")
        return content
    if not len(content) or len(content) % layout.record:
        raise InputError(f"unlabelled: {file} has {len(content):,} bytes; {expected}")
    return decode(layout, content.reshape(-1, layout.record))


def count_shared(images: np.ndarray, others: np.ndarray) -> int:
    """How many of `images` are also in `others`, compared by all pixels; both uint8 [N, 32, 32, 3]."""
    known = {array_digest(image) for image in others}
    return sum(array_digest(image) in known for image in images)


LAYOUTS = (CIFAR10, CIFAR100)
