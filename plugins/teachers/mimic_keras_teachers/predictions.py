"""A teacher that is its stored predictions, made anywhere: by another framework, a service, or people."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from mimic_keras.contracts import (
    ROWS_AT_ONCE,
    DatasetInfo,
    InputError,
    Member,
    Split,
    Teacher,
    TeacherContext,
    file_digest,
)
from mimic_keras_teachers.outputs import Outputs, check_values, to_logits


class Predictions(Teacher):
    """Outputs for every example in .npy files of floating-point numbers [examples, num_classes], memory-mapped.

    The rows of a file are the examples of the split of the same name, in the data set's order; those of `transfer` are
    all virtual copies, first every example's first copy, then every example's second. Its parameters and multiply-adds
    are not counted.

    Args:
        transfer: outputs for the transfer set, which are train's examples and then the unlabelled ones.
        validation: outputs for the validation set.
        test: outputs for the test set.
        outputs: what they are; see `mimic_keras_teachers.outputs.to_logits`.

    Raises:
        InputError: a file is missing, is no such array, or does not fit the data set.

    Example:
        >>> np.save("test.npy", other_model.predict_proba(test_inputs))
    """

    def __init__(self, transfer: Path, validation: Path, test: Path, outputs: Outputs = "logits"):
        self.files, self.outputs = {"transfer": transfer, "validation": validation, "test": test}, outputs

    def source_digest(self) -> str:
        return hashlib.sha256(" ".join(map(file_digest, self.files.values())).encode()).hexdigest()

    def check(self, info: DatasetInfo) -> None:
        for split in self.files:
            self._read(split, info)

    def member(self, context: TeacherContext) -> Member:
        info = context.dataset.info
        rows = {split: self._read(split, info) for split in self.files}
        for split, found in rows.items():
            self._check_rows(split, len(found), context.dataset.split(split))

        def predict(split: str, ids: np.ndarray) -> np.ndarray:
            return to_logits(rows[split][ids], self.outputs).numpy()

        return Member(predict=predict)

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

    def _check_rows(self, split: str, found: int, examples: Split) -> None:
        copies = examples.repeats if split == "transfer" else 1
        if found != examples.num_examples * copies:
            expected = f"{examples.num_examples * copies}: {examples.num_examples} examples"
            if copies > 1:
                expected += f" x {copies} virtual copies, each with predictions of its own"
            raise InputError(f"{split}: {self.files[split]} has {found} rows, expected {expected}")
