"""Arrays on the disk: .npy files, read or memory-mapped, and members of .npz files, read."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from mimic_keras.contracts import InputError, atomic_writer

CHUNK_BYTES = 1 << 24
LARGEST_ITEM = 8  # bytes: TensorFlow has no longer floats


@dataclass(frozen=True)
class ArrayFile:
    """An array in a .npy file, or the member of that name in a .npz file. `where` is the argument that gives it."""

    where: str
    file: Path
    member: str | None = None

    def read_header(self) -> tuple[tuple[int, ...], np.dtype]:
        """(shape, dtype); the values are not read. InputError as for `load`."""
        with self._open() as stream:
            version = np.lib.format.read_magic(stream)
            is_first = version == (1, 0)
            read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
        return shape, dtype

    def load(self, mapped: bool = False) -> np.ndarray:
        """The array, in C order; with `mapped`, that of a .npy file stays on the disk.

        Raises:
            InputError: the file is missing or damaged, holds Python objects, or has no such member; or the array is to
                be mapped and is in Fortran order.
        """
        if self.member:
            with self._open() as stream:
                return np.ascontiguousarray(np.lib.format.read_array(stream, allow_pickle=False))
        with self._refusing():
            # Mapping first compares the header with the size of the file: nothing is allocated for a false header.
            array = np.lib.format.open_memmap(self.file, mode="r")
        if not mapped:
            return np.array(array, order="C")
        if not array.flags.c_contiguous:
            raise InputError(
                f"{self.where}: {self.file} is in Fortran order, whose rows cannot be read one by one; save it again: "
                "np.save(file, np.ascontiguousarray(x))"
            )
        return array

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        with self._refusing():
            if not self.member:
                with self.file.open("rb") as stream:
                    yield stream
            else:
                with zipfile.ZipFile(self.file) as archive:
                    names = [name.removesuffix(".npy") for name in archive.namelist()]
                    if self.member not in names:
                        found = ", ".join(names) or "none"
                        raise InputError(f"{self.where}: {self.file} has no array '{self.member}'; it has {found}")
                    with archive.open(f"{self.member}.npy") as stream:
                        yield stream

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise InputError(f"{self.where}: no such file: {self.file}") from None
        except InputError:
            raise
        except Exception as error:  # NumPy and zipfile raise anything here, depending on the file's content
            expected = "a .npz file of np.savez" if self.member else "a .npy file of np.save"
            raise InputError(
                f"{self.where}: expected {expected}, without Python objects; {self.file} cannot be read: {error}"
            ) from error


def check_rows(where: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise an InputError unless an array can be the inputs of examples."""
    if len(shape) < 2 or 0 in shape:
        raise InputError(
            f"{where}: expected an array [examples, ...] with one row for each example, got {dtype} {list(shape)}"
        )
    if dtype.kind not in "buif" or dtype.itemsize > LARGEST_ITEM or not dtype.isnative:
        raise InputError(
            f"{where}: expected numbers, as uint8, int64 or float32 in the byte order of this machine, "
            f"got {dtype} {list(shape)}"
        )


def write_rows(file: Path, rows: int, arrays: Iterable[np.ndarray]) -> None:
    """Write arrays [n, ...] of one dtype, which need not exist at the same time, as one .npy file [rows, ...].

    Raises:
        ValueError: they do not total `rows`, or differ in dtype or row shape.
    """
    found, kind = 0, None
    with atomic_writer(file) as stream:
        for array in arrays:
            if kind is None:
                kind = (array.dtype, array.shape[1:])
                shape = (rows, *array.shape[1:])
                header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
            found += len(array)
            if (array.dtype, array.shape[1:]) != kind:
                raise ValueError(
                    f"expected arrays of one dtype and row shape, got {kind} and {array.dtype, array.shape}"
                )
            stream.write(np.ascontiguousarray(array).data)
        if found != rows:
            raise ValueError(f"expected {rows} rows, got {found}")


def chunks(array: np.ndarray, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """The array, or some rows (int64 [N]) of it, in pieces of at most 16 MiB or one row."""
    size = max(1, CHUNK_BYTES // max(1, math.prod(array.shape[1:]) * array.itemsize))
    for start in range(0, len(array) if rows is None else len(rows), size):
        piece = slice(start, start + size)
        yield array[piece] if rows is None else array[rows[piece]]


def check_finite(where: str, array: np.ndarray) -> None:
    """Raise an InputError if a float array has values that are NaN or infinite."""
    if array.dtype.kind != "f":
        return
    bad = np.concatenate([~np.isfinite(part.reshape(len(part), -1)).all(1) for part in chunks(array)])
    if bad.any():
        raise InputError(
            f"{where}: {bad.sum()} of {len(bad)} rows have values that are NaN or infinite; the first is row "
            f"{bad.argmax()}. Fill in or remove them"
        )


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
