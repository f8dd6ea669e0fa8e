"""A teacher that is its stored predictions, made anywhere: by another framework, a service, or people."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import numpy as np
from absl import logging

from mimic_keras.contracts import (
    ROWS_AT_ONCE,
    Dataset,
    DatasetInfo,
    InputError,
    Member,
    Teacher,
    TeacherContext,
    file_digest,
)
from mimic_keras_teachers.outputs import Outputs, check_values, to_logits

SPLITS = ("transfer", "validation", "test")


class Predictions(Teacher):
    """Outputs for every example in .npy files of floating-point numbers [examples, num_classes], memory-mapped.

    They are in one file of all examples or in a file for each split. Its parameters and multiply-adds are not counted.

    Args:
        path: the rows are those of the data set's own files, in their order, whatever split each is in; of several
            files those of train, validation, test and then unlabelled. For data sets `arrays` and `table`, without
            virtual copies.
        transfer: instead, a file for each split, with its examples in the data set's order: outputs for the transfer
            set, which are train's examples and then the unlabelled ones; of all virtual copies, first every example's
            first copy, then every example's second.
        validation: outputs for the validation set.
        test: outputs for the test set.
        outputs: what they are; see `mimic_keras_teachers.outputs.to_logits`.

    Raises:
        InputError: a file is missing, is no such array, or does not fit the data set.
        ValueError: neither `path` nor all of the others are given, or both.

    Example:
        >>> np.save("all.npy", other_model.predict_proba(inputs))
    """

    def __init__(
        self,
        transfer: Path | None = None,
        validation: Path | None = None,
        test: Path | None = None,
        outputs: Outputs = "logits",
        path: Path | None = None,
    ):
        files = {"transfer": transfer, "validation": validation, "test": test, "path": path}
        self.files, self.outputs = {name: file for name, file in files.items() if file is not None}, outputs
        if tuple(self.files) not in (SPLITS, ("path",)):
            given = ", ".join(self.files) or "none of them"
            raise ValueError(f"expected path, or transfer, validation and test; got {given}")

    def source_digest(self) -> str:
        return hashlib.sha256(" ".join(map(file_digest, self.files.values())).encode()).hexdigest()

    def check(self, info: DatasetInfo) -> None:
        for split in self.files:
            self._read(split, info)

    def member(self, context: TeacherContext) -> Member:
        arrays = {name: self._read(name, context.dataset.info) for name in self.files}
        if "path" in arrays:
            rows, places = arrays["path"], self._find_places(len(arrays["path"]), context.dataset)
            return Member(predict=lambda split, ids: to_logits(rows[places[split][ids]], self.outputs).numpy())
        for split, found in arrays.items():
            self._check_rows(split, len(found), context.dataset)
        return Member(predict=lambda split, ids: to_logits(arrays[split][ids], self.outputs).numpy())

    def _find_places(self, found: int, dataset: Dataset) -> dict[str, np.ndarray]:
        """{split: the row of each of its examples in `path`}."""
        copies = dataset.split("transfer").repeats
        if copies > 1:
            raise InputError(
                f"path: it has one row for all {copies} virtual copies of an example; expected copies: 1, or "
                "transfer, validation and test, with a row for each copy"
            )
        try:
            places = {split: dataset.given_rows(split) for split in SPLITS}
        except ValueError as error:
            raise InputError(
                f"path: {error} in the data set '{dataset.info.name}'; expected transfer, validation and test"
            ) from error
        if found != (examples := sum(map(len, places.values()))):
            raise InputError(
                f"path: {self.files['path']} has {found} rows, expected {examples}, one for each row of the data set's "
                "files"
            )
        return places

    def _read(self, split: str, info: DatasetInfo) -> np.ndarray:
        """The array of a split, every row of it checked."""
        path = self.files[split]
        if not path.is_file():
            raise InputError(f"{split}: no such file: {path}")
        try:
            rows = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # NumPy raises anything here, depending on the file's content
            raise InputError(f"{split}: {path} is not an .npy file of numbers: {error}") from error
        if rows.ndim != 2 or rows.dtype.kind != "f" or not rows.size:
            raise InputError(
                f"{split}: {path} holds {rows.dtype} {list(rows.shape)}, expected floating-point numbers "
                f"[examples, {info.num_classes}]"
            )
        for start in range(0, len(rows), ROWS_AT_ONCE):
            with np.errstate(over="ignore"):
                finite = np.isfinite(rows[start : start + ROWS_AT_ONCE].astype(np.float32)).all(-1)
            if not finite.all():
                row = start + int(finite.argmin())
                raise InputError(f"{split}: {path} has infinite or NaN values, the first in row {row}")
        check_values(f"{split}: {path}", path, rows[:ROWS_AT_ONCE], self.outputs, info.num_classes)
        return rows

    def _check_rows(self, split: str, found: int, dataset: Dataset) -> None:
        examples = dataset.split(split)
        copies = examples.repeats if split == "transfer" else 1
        if found != examples.num_examples * copies:
            expected = f"{examples.num_examples * copies}: {examples.num_examples} examples"
            if copies > 1:
                expected += f" x {copies} virtual copies, each with predictions of its own"
            elif _are_drawn(dataset, split):
                expected += ", drawn by shares; give one file for all rows of the data set's files, as path"
            raise InputError(f"{split}: {self.files[split]} has {found} rows, expected {expected}")
        if copies == 1 and _are_drawn(dataset, split):
            logging.warning(
                "%s: %s: shares draw the examples of this split, and whether the rows are in their order cannot be "
                "known; path takes one file, with the rows of the data set's files",
                split,
                self.files[split],
            )


def _are_drawn(dataset: Dataset, split: str) -> bool:
    """Whether a split's examples are not the rows of its own file, but some of another."""
    with contextlib.suppress(ValueError):
        rows = dataset.given_rows("train" if split == "transfer" else split)  # unlabelled files may follow train's
        return bool((np.diff(rows) != 1).any())
    return False
