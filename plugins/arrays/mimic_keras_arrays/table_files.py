"""CSV and Parquet files as columns of texts and numbers, unchanged but for spaces around texts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import InputError

PARQUET = b"PAR1"  # the first bytes of every Parquet file
SPACES = " \t\n\v\f\r"  # what tf.strings.strip removes
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[nN][aA][nN]$"
VALUES_SHOWN = 3


class TableFile:
    """A table in memory. `where` is the argument that gives the file.

    Args:
        missing: texts that stand for a missing value, besides none at all.
        separator: between the values of a CSV file.

    Raises:
        InputError: the file cannot be read, or is no table with a row.
    """

    def __init__(self, where: str, file: Path, missing: Sequence[str], separator: str):
        self.where, self.file, self._missing = where, file, list(missing)
        try:
            content = file.read_bytes()
            self._table = _parse_parquet(content) if content[:4] == PARQUET else _parse_csv(content, separator)
        except (OSError, ValueError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise InputError(f"{where}: {file} cannot be read as a table: {reason}") from error
        if not len(self):
            raise InputError(f"{where}: {file} has no rows")

    def __len__(self) -> int:
        return self._table.num_rows

    @property
    def names(self) -> list[str]:
        return self._table.column_names

    def holds_numbers(self, name: str) -> bool:
        """Whether a column's values are numbers; missing ones do not count.

        Raises:
            InputError: only some of its texts are numbers, it has no value at all, or is neither of texts nor numbers.
        """
        kind = self._table[name].type
        if not (_is_of_numbers(kind) or _is_of_texts(kind)):
            raise InputError(f"{self._of(name)} is {kind}; expected numbers, texts or truth values; list it in ignore")
        if self._table[name].null_count == len(self):
            raise InputError(f"{self._of(name)} has no values; list it in ignore")
        if _is_of_numbers(kind):
            return True
        present = self.texts(name)
        present = present[present != ""]
        if not len(present):
            raise InputError(f"{self._of(name)} has no values; list it in ignore")
        are_numbers = _are_numbers(present)
        if are_numbers.any() and not are_numbers.all():
            raise InputError(
                f"{self._of(name)}: {are_numbers.sum():,} of {len(present):,} values are numbers, but not "
                f"{_show(present[~are_numbers])}; list these texts in missing, or the column in categories or ignore"
            )
        return bool(are_numbers.all())

    def numbers(self, name: str) -> np.ndarray:
        """A column as float32 [rows], NaN where missing.

        Raises:
            InputError: a text is no number, or a number is infinite in float32.
        """
        import pyarrow as pa

        column = self._table[name]
        if not _is_of_numbers(column.type):
            texts = self.texts(name)
            present = texts != ""
            wrong = ~_are_numbers(texts[present])
            if wrong.any():
                raise InputError(
                    f"{self._of(name)}: numbers in the training rows, but here {_show(texts[present][wrong])}; list "
                    "these texts in missing, or the column in categories or ignore"
                )
            values = np.full(len(texts), np.nan)
            values[present] = texts[present].astype(np.float64)
        else:
            values = column.cast(pa.float64(), safe=False).to_numpy()
        with np.errstate(over="ignore"):
            found = values.astype(np.float32)
        if (infinite := np.isinf(found)).any():
            raise InputError(
                f"{self._of(name)}: {infinite.sum():,} numbers are infinite or too large for float32; the first is "
                f"{values[infinite][0]}, in row {infinite.argmax() + 1}"
            )
        return found

    def texts(self, name: str) -> np.ndarray:
        """A column as texts, object [rows], "" where missing."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = pc.utf8_trim(self._table[name].cast(pa.string()), characters=SPACES).fill_null("")
        found = texts.to_numpy()
        found[np.isin(found, self._missing)] = ""
        return found

    def _of(self, name: str) -> str:
        return f"{self.where}: column '{name}' of {self.file}"


def _is_of_numbers(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_of_texts(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)


def _are_numbers(texts: np.ndarray) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return np.asarray(pc.match_substring_regex(pa.array(texts, pa.string()), NUMBER))


def _show(texts: np.ndarray) -> str:
    different = sorted(set(texts.tolist()))
    return ", ".join(map(repr, different[:VALUES_SHOWN])) + (", ..." if len(different) > VALUES_SHOWN else "")


def _parse_csv(content: bytes, separator: str) -> Any:
    """The first line has the names, "quoted" if need be; a line with more or fewer values is an error."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    lines = csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline=""), delimiter=separator)
    names = _check_names([name.strip(SPACES) for name in next(lines, [])])
    return arrow.read_csv(
        pa.BufferReader(content),
        read_options=arrow.ReadOptions(column_names=names, skip_rows=lines.line_num),
        parse_options=arrow.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=arrow.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )


def _parse_parquet(content: bytes) -> Any:
    """Columns of numbers as they are; of truth values, texts and dictionaries as texts."""
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(pa.BufferReader(content))
    # An index of pandas, which tells a row by its place and is no input.
    table = table.drop_columns([name for name in table.column_names if name.startswith("__index_level_")])
    _check_names(table.column_names)
    return table


def _check_names(names: Iterable[str]) -> list[str]:
    found = list(names)
    if not found:
        raise ValueError("it has no columns")
    if "" in found:
        raise ValueError(
            f"column {found.index('') + 1} has no name, as pandas writes an index; save without it (index=False), or "
            "name it"
        )
    if repeated := sorted({name for name in found if found.count(name) > 1}):
        raise ValueError(f"it has several columns {repeated[0]!r}")
    return found
