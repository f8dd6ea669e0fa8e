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

from mimic_keras.contracts import InputError
from mimic_keras_cifar.classes import CIFAR10_CLASSES, CIFAR100_CLASSES

SHAPE = (32, 32, 3)
PIXELS = 32 * 32 * 3
SITE = "https://www.cs.toronto.edu/~kriz/"
LARGEST_MEMBER, LARGEST_HEADER = 2**32, 2**16


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk. A record is a byte for each of `labels`, {kind: classes}, of which the last is
    learnt, then the red, the green and the blue plane, row by row."""

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
        """{name: images in it}, the training files first, in order."""
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
    """The official archive, downloaded into `folder` unless it is there already; its MD5 is checked either way.

    Raises:
        InputError: it can not be had, or is not what was published.
    """
    import keras

    origin = SITE + layout.archive
    try:
        return Path(keras.utils.get_file(origin=origin, file_hash=layout.md5, cache_dir=folder, cache_subdir=""))
    except Exception as error:  # get_file raises bare Exceptions
        raise InputError(
            f"{layout.title} can not be downloaded: {error}. Get {layout.wanted}, and give its place as dataset.root"
        ) from error


def read(layout: Layout, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Every image, uint8 [N, 32, 32, 3], and its label, int32 [N]: the training files in order, then the test file.

    Args:
        layout: of the data set.
        root: the folder of the files, the folder that holds it, or the official .tar.gz.

    Raises:
        InputError: `root` is something else, or files are missing or damaged; all problems at once.
    """
    root = root.expanduser()
    total = layout.training_images + layout.test_images
    images, labels = np.empty([total, *SHAPE], np.uint8), np.empty(total, np.int32)
    starts = dict(zip(layout.files, np.cumsum([0, *layout.files.values()]), strict=False))
    digests: dict[str, str] = {}
    problems: list[str] = []
    found: set[str] = set()
    for name, content in _found(layout, root):
        found.add(name)
        if isinstance(content, str):
            problems.append(f"{name}: {content}")
            continue
        records = np.frombuffer(content, np.uint8).reshape(-1, layout.record)
        problems += [f"{name}: {problem}" for problem in _wrong_labels(layout, records)]
        digest = hashlib.sha256(content).hexdigest()
        problems += [f"{name}: the same as {other}" for other, known in digests.items() if known == digest]
        digests[name] = digest
        place = slice(starts[name], starts[name] + len(records))
        images[place], labels[place] = decoded(layout, records), records[:, len(layout.labels) - 1]
    problems += [f"{name}: missing" for name in layout.files if name not in found]
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise InputError(f"{layout.title} in {root}: {len(problems)} problem{'s'[: len(problems) > 1]}{lines}")
    return images, labels


def decoded(layout: Layout, records: np.ndarray) -> np.ndarray:
    """uint8 [N, record] to uint8 images [N, 32, 32, 3]."""
    planes = records[:, len(layout.labels) :].reshape(-1, SHAPE[2], *SHAPE[:2])
    return planes.transpose(0, 2, 3, 1)


def _wrong_labels(layout: Layout, records: np.ndarray) -> Iterator[str]:
    for column, (kind, classes) in enumerate(layout.labels.items()):
        wrong = np.flatnonzero(records[:, column] >= classes)
        if len(wrong):
            first = f"{records[wrong[0], column]} in record {wrong[0]:,}"
            kinds = kind + "s" * (len(wrong) > 1)
            yield f"{len(wrong):,} {kinds} out of range, the first {first}; expected 0 to {classes - 1}"


def _wrong_size(layout: Layout, name: str, size: int) -> str | None:
    expected = layout.files[name]
    if size == expected * layout.record:
        return None
    whole, rest = divmod(size, layout.record)
    kind = f"{whole:,} records and {rest:,} bytes of another" if rest else f"{whole:,} records"
    return f"{size:,} bytes, {kind}; expected {expected:,} records of {layout.record:,} bytes"


def _found(layout: Layout, root: Path) -> Iterator[tuple[str, bytes | str]]:
    """(file name, its bytes or what is wrong with it) of every file that is there."""
    try:
        if not root.exists():
            raise InputError(
                f"{layout.title}: {root} does not exist. Get {layout.wanted}; without root it is downloaded"
            )
        yield from _archived(layout, root) if root.is_file() else _stored(layout, root)
    except PermissionError as error:  # of a folder
        raise InputError(f"{layout.title}: {error.filename} can not be read: {error.strerror}") from error


def _stored(layout: Layout, root: Path) -> Iterator[tuple[str, bytes | str]]:
    """The same of a folder."""
    folder = max(root, root / layout.folder, key=lambda place: sum((place / name).exists() for name in layout.files))
    if not any((folder / name).exists() for name in layout.files):
        places = [root, *(root / name for other in LAYOUTS for name in (other.folder, other.python_folder))]
        entries = [entry for place in places if place.is_dir() for entry in place.iterdir()]
        raise _not_this(layout, root, {entry.name for entry in entries if entry.is_file()})
    for name in layout.files:
        file = folder / name
        try:
            if file.exists() and not file.is_file():
                yield name, "is no file"
            elif problem := _wrong_size(layout, name, file.stat().st_size):
                yield name, problem
            else:
                content = file.read_bytes()  # which somebody may be writing
                yield name, _wrong_size(layout, name, len(content)) or content
        except FileNotFoundError:
            pass
        except OSError as error:
            yield name, f"can not be read: {error.strerror}"


class _Header(tarfile.TarInfo):
    """A header of an archive. tarfile reads long names whole, and steps over a member block by block without stopping
    where the archive ends, so what no archive of images has is refused."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size > (LARGEST_MEMBER if header.type in tarfile.REGULAR_TYPES else LARGEST_HEADER):
            raise _too_large(header)
        return header


def _too_large(member: tarfile.TarInfo) -> tarfile.ReadError:
    return tarfile.ReadError(f"{member.name} is said to have {member.size:,} bytes")


def _archived(layout: Layout, root: Path) -> Iterator[tuple[str, bytes | str]]:
    """The same of an archive, read as a stream: nothing is written, and nothing of another size is read."""
    found: set[str] = set()
    try:
        with gzip.open(root) as content, tarfile.open(fileobj=content, mode="r|", tarinfo=_Header) as archive:
            for member in archive:
                if archive.offset - member.offset_data > LARGEST_MEMBER:  # which an extended header may have said
                    raise _too_large(member)
                name = Path(member.name).name
                stream = archive.extractfile(member) if name in layout.files and member.isfile() else None
                if stream and name not in found:
                    yield name, _wrong_size(layout, name, member.size) or stream.read()
                found.add(name)
            while content.read(2**20):  # gzip's checksum comes last; without it a flipped bit would pass for a pixel
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if not found:
            raise InputError(
                f"{layout.title}: {root} can not be read as a .tar.gz archive ({error}). Expected {layout.wanted}"
            ) from error
        yield root.name, f"breaks off or is damaged ({error})"
        return
    if not found & set(layout.files):
        raise _not_this(layout, root, found)


def _not_this(layout: Layout, root: Path, names: set[str]) -> InputError:
    """What `root`, in which files of these names were found, is instead of the data set."""
    for other in LAYOUTS:
        if other.plugin_name != layout.plugin_name and (names >= set(other.files) or other.archive in names):
            return InputError(f"{layout.title}: {root} is {other.title}; name: {other.plugin_name} reads it")
        if names >= other.python_files or other.python_archive in names:
            return InputError(
                f"{layout.title}: {root} is the Python version of {other.title}: pickles, which can run any program "
                f"when they are read. Get {layout.wanted}"
            )
    if layout.archive in names:
        return InputError(f"{layout.title}: {root} is the archive's folder; give the archive, {root / layout.archive}")
    return InputError(
        f"{layout.title}: nothing of it in {root}. Expected there, in a folder {layout.folder} or in an archive: "
        f"{', '.join(layout.files)}. Get {layout.wanted}"
    )


def read_unlabelled(layout: Layout, file: Path) -> np.ndarray:
    """Images of the user's own: uint8 [N, 32, 32, 3] of a .npy file, or records as the data set's own of a .bin file.

    Raises:
        InputError: the file is something else.
    """
    expected = f"expected a .npy file, uint8 [N, 32, 32, 3], or a .bin file of records of {layout.record:,} bytes"
    if file.suffix not in (".npy", ".bin"):
        raise InputError(f"unlabelled: {file} is neither; {expected}")
    file, is_array = file.expanduser(), file.suffix == ".npy"
    try:
        content = np.lib.format.open_memmap(file, mode="r") if is_array else np.memmap(file, np.uint8, "r")
    except Exception as error:  # NumPy raises anything here, depending on what the file holds
        raise InputError(f"unlabelled: {file} can not be read ({error}); {expected}") from error
    if is_array:
        if content.dtype != np.uint8 or content.shape[1:] != SHAPE or not len(content):
            raise InputError(f"unlabelled: {file} is {content.dtype} {list(content.shape)}; {expected}")
        return content
    if not len(content) or len(content) % layout.record:
        raise InputError(f"unlabelled: {file} has {len(content):,} bytes; {expected}")
    return decoded(layout, content.reshape(-1, layout.record))


def count_shared(images: np.ndarray, others: np.ndarray) -> int:
    """How many of `images` are among `others`, pixel by pixel; both uint8 [N, 32, 32, 3]."""
    known = {hashlib.sha256(image.tobytes()).digest() for image in others}
    return sum(hashlib.sha256(image.tobytes()).digest() in known for image in images)


LAYOUTS = (CIFAR10, CIFAR100)
