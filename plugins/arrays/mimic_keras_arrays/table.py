"""The data set `table`: CSV and Parquet files with a row per example."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from mimic_keras.contracts import SPLITS, ArraySplit, Dataset, DatasetInfo, InputError, RawSignature, array_digest
from mimic_keras_arrays.columns import Columns, encode, fit, make_vocabulary
from mimic_keras_arrays.files import run_all
from mimic_keras_arrays.labels import name_classes, order_classes, show_names, warn_of_empty_classes
from mimic_keras_arrays.shares import HELD_OUT, Division, Shares
from mimic_keras_arrays.table_files import TableFile

SERVED_EXAMPLES = 64


@dataclass(frozen=True, eq=False)
class Loaded:
    """What is read: by split, `rows` float32 [N, columns], `labels` int32 [N], and `places` in the files, int64 [N].

    `examples` are some of validation.
    """

    columns: Columns
    class_names: tuple[str, ...]
    rows: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    places: Mapping[str, np.ndarray]
    examples: Mapping[str, np.ndarray]


class Table(Dataset):
    """Inputs float32 [size] from the columns of a table; the classes are the values of its column `target`.

    A column is of numbers if all its values are. Numbers get mean 0 and deviation 1 over the training rows; a missing
    one becomes 0, and a column that misses some in training has a second input, 1 where missing. Other columns become
    one-hot: an input for each text in training, of which a missing value is one, and 0 everywhere for any other text.
    Numbers come first, then what is missing, then categories, each in the order of the columns.

    The table is read whole, and already by `validate`, because the inputs depend on it.

    Args:
        train: a CSV file in UTF-8, whose first line has the names, or a Parquet file: the training rows, or all rows.
            Rows without a target are in the transfer set alone.
        target: the column with the class.
        validation, test: a file of the same columns; None: a share of `train`.
        shares: fractions of the rows of `train` that become validation and test, where there is no file.
        split_seed: draws them.
        stratify: give each split its share of every class.
        classes: the values of `target`, as texts, in the order of the outputs of a model that knows them; None: sorted,
            by value if all are numbers.
        categories: columns that are categories although all values are numbers.
        ignore: columns that are no inputs, such as names and numbers of rows.
        missing: texts that stand for a missing value, such as "?", besides none at all.
        separator: between the values of a CSV file.
        standardize: false leaves numbers as they are.

    Raises:
        ValueError: an argument is out of its range, or two exclude each other.
        InputError: a file is not such a table.
    """

    def __init__(
        self,
        train: Path,
        target: str,
        validation: Path | None = None,
        test: Path | None = None,
        shares: Shares | None = None,
        split_seed: int = 0,
        stratify: bool = True,
        classes: list[str] | None = None,
        categories: list[str] | None = None,
        ignore: list[str] | None = None,
        missing: list[str] | None = None,
        separator: str = ",",
        standardize: bool = True,
    ):
        if len(separator) != 1:
            raise ValueError(f"separator: expected one character, got {separator!r}")
        named = [target, *(categories or []), *(ignore or [])]
        if repeated := [name for name in named if named.count(name) > 1]:
            raise ValueError(f"column '{repeated[0]}' can be only one of target, in categories and in ignore, and once")
        files = {"train": train, "validation": validation, "test": test}
        self.files = {name: file for name, file in files.items() if file is not None}
        self.division = Division(self.files.keys(), shares or {}, split_seed, stratify)
        self._classes = None if classes is None else name_classes(classes)
        self.target, self.categories, self.ignore = target, categories or [], ignore or []
        self.missing, self.separator, self.standardize = missing or [], separator, standardize

    @property
    def info(self) -> DatasetInfo:
        loaded = self._loaded
        sizes = {name: len(labels) for name, labels in loaded.labels.items()}
        names = loaded.class_names
        return DatasetInfo("table", "1", (loaded.columns.size,), len(names), names, sizes)

    @functools.cached_property
    def _loaded(self) -> Loaded:
        read = [
            functools.partial(TableFile, name, file, self.missing, self.separator) for name, file in self.files.items()
        ]
        tables = dict(zip(self.files, run_all(read), strict=True))
        names = self._check_names(tables)
        class_names, labels = self._read_labels(tables)
        places = self.division.rows(labels)
        vocabularies = {
            place: make_vocabulary(name, tables["train"].texts(name)[places["train"]])
            for place, name in enumerate(names)
            if name in self.categories or not tables["train"].holds_numbers(name)
        }
        packed = np.concatenate([_pack(table, names, vocabularies) for table in tables.values()])
        columns = fit(packed[places["train"]], names, vocabularies, self.missing, self.standardize)
        all_labels = np.concatenate(list(labels.values()))
        return Loaded(
            columns,
            class_names,
            {name: packed[ids] for name, ids in places.items()},
            {name: all_labels[ids] for name, ids in places.items()},
            places,
            _read_examples(tables, places["validation"][:SERVED_EXAMPLES], columns),
        )

    def _check_names(self, tables: Mapping[str, TableFile]) -> list[str]:
        """The columns that are inputs, after checking that all files have all columns."""
        found = tables["train"].names
        for argument, wanted in (("target", [self.target]), ("categories", self.categories), ("ignore", self.ignore)):
            if absent := [name for name in wanted if name not in found]:
                raise InputError(
                    f"{argument}: no column '{absent[0]}' in {self.files['train']}; its columns are {show_names(found)}"
                )
        names = [name for name in found if name not in (self.target, *self.ignore)]
        if not names:
            raise InputError(f"train: {self.files['train']} has no columns but target and those in ignore")
        for split, table in tables.items():
            if absent := [name for name in (*names, self.target) if name not in table.names]:
                raise InputError(f"{split}: no column '{absent[0]}' in {table.file}, which {self.files['train']} has")
        return names

    def _read_labels(self, tables: Mapping[str, TableFile]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        """The classes, and the labels of each file, int32 [rows], -1 where the target is missing."""
        targets = {name: table.texts(self.target) for name, table in tables.items()}
        found = _sort(set(targets["train"].tolist()) - {""})
        if len(found) < 2:
            raise InputError(f"target: expected at least two different values of '{self.target}', got {len(found)}")
        names = order_classes(found, self._classes, f"column '{self.target}' of {self.files['train']}")
        labels = {name: encode(texts, names).astype(np.int32) for name, texts in targets.items()}
        for name in HELD_OUT:
            if name in tables and (wrong := labels[name] < 0).any():
                raise InputError(
                    f"{name}: {wrong.sum():,} rows of {tables[name].file} have a '{self.target}' that is no class of "
                    f"train ({show_names(names)}); the first is {targets[name][wrong][0]!r}, in row "
                    f"{wrong.argmax() + 1}"
                )
        return names, labels

    def prepare(self, data_dir: Path) -> str:
        """The digest of what was read; nothing is written."""
        loaded = self._loaded
        warn_of_empty_classes(loaded.labels["train"], loaded.class_names)
        known = {row.tobytes() for row in loaded.rows["train"]}
        for name in ("validation", "test"):
            if shared := sum(row.tobytes() in known for row in loaded.rows[name]):
                logging.warning("table: %d of %d rows of %s are also in train", shared, len(loaded.rows[name]), name)
        arrays = [array for name in SPLITS for array in (loaded.rows[name], loaded.labels[name])]
        return array_digest(np.array([loaded.columns.digest]), np.array(loaded.class_names), *arrays)

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'; accepted: {', '.join(SPLITS)}")
        columns = self._loaded.columns
        return ArraySplit(
            self._loaded.rows[name], self._loaded.labels[name], prepare=lambda rows, _: columns.prepare(rows)
        )

    def given_rows(self, name: str) -> np.ndarray:
        return self._loaded.places[name]

    def raw_signatures(self) -> dict[str, RawSignature]:
        """`serve_rows`: an input for each column: float32, NaN where missing, or string, "" where missing."""
        columns = self._loaded.columns

        def prepare(**given: object) -> object:
            return columns.prepare(columns.pack(given))

        ids = np.arange(min(SERVED_EXAMPLES, len(self._loaded.rows["validation"])))
        return {"serve_rows": RawSignature(columns.inputs, prepare, self._loaded.examples, ids)}


def _pack(table: TableFile, names: list[str], vocabularies: Mapping[int, list[str]]) -> np.ndarray:
    """The rows of a file, float32 [rows, columns]; `Columns` says what they hold."""
    rows = np.empty([len(table), len(names)], np.float32)
    for place, name in enumerate(names):
        vocabulary = vocabularies.get(place)
        rows[:, place] = table.numbers(name) if vocabulary is None else encode(table.texts(name), vocabulary)
    return rows


def _read_examples(tables: Mapping[str, TableFile], ids: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
    """{name in requests: the values of some rows}, float32 or texts; the files' rows come one after the other."""

    def read(place: int, name: str) -> np.ndarray:
        of = [table.texts(name) if place in columns.vocabularies else table.numbers(name) for table in tables.values()]
        return np.concatenate(of)[ids]

    return {key: read(place, name) for place, (key, name) in enumerate(zip(columns.inputs, columns.names, strict=True))}


def _sort(values: set[str]) -> list[str]:
    """By value if all are numbers, else as texts."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        return sorted(values)
    return sorted(values, key=lambda value: (numbers[value], value) if np.isfinite(numbers[value]) else (np.inf, value))
