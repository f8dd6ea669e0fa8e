"""Columns of a table as inputs: numbers standardised, categories one-hot, in the graph."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mimic_keras.contracts import InputError, array_digest

MOST_CATEGORIES = 1000


@dataclass(frozen=True, eq=False)
class Columns:
    """From a table's rows, float32 [B, columns], to inputs, float32 [B, size].

    A row has the column's number, NaN where missing, or the place of its text in the column's vocabulary, -1 where it
    is not there. Inputs are, in this order: each number minus `mean` times `scale`, 0 where missing; for each column in
    `flagged`, 1 where its number is missing, else 0; for each column of texts, 1 at the place of the text, else 0.

    Args:
        names: of all columns.
        numeric: places of the columns of numbers, in order.
        mean, scale: of these columns, float32.
        flagged: places, in `numeric`, of those with missing values in training.
        vocabularies: {place of a column: its texts in training, sorted}; "" is a missing value.
        missing: texts that stand for a missing value in requests.
    """

    names: tuple[str, ...]
    numeric: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    flagged: np.ndarray
    vocabularies: Mapping[int, Sequence[str]]
    missing: Sequence[str]

    @property
    def size(self) -> int:
        return len(self.numeric) + len(self.flagged) + sum(map(len, self.vocabularies.values()))

    @property
    def digest(self) -> str:
        words = [np.array(list(texts), np.str_) for texts in self.vocabularies.values()]
        return array_digest(np.array(self.names), self.numeric, self.mean, self.scale, self.flagged, *words)

    @property
    def inputs(self) -> dict[str, Any]:
        """{name in requests: its tf.TensorSpec}, in the columns' order."""
        import tensorflow as tf

        kinds = [tf.string if place in self.vocabularies else tf.float32 for place in range(len(self.names))]
        return {name: tf.TensorSpec((None,), kind) for name, kind in zip(input_names(self.names), kinds, strict=True)}

    def prepare(self, rows: Any) -> Any:
        """Rows, float32 [B, columns], to inputs, float32 [B, size]."""
        import tensorflow as tf

        numbers = tf.gather(rows, self.numeric, axis=1)
        are_missing = tf.math.is_nan(numbers)
        scaled = tf.where(are_missing, 0.0, (numbers - self.mean) * self.scale)
        flags = tf.cast(tf.gather(are_missing, self.flagged, axis=1), tf.float32)
        one_hot = [
            tf.one_hot(tf.cast(rows[:, place], tf.int32), len(texts)) for place, texts in self.vocabularies.items()
        ]
        return tf.concat([scaled, flags, *one_hot], 1)

    def pack(self, given: Mapping[str, Any]) -> Any:
        """{name in requests: float32 [B] or string [B]} to rows, float32 [B, columns]."""
        import tensorflow as tf

        columns = []
        for place, name in enumerate(self.inputs):
            values = given[name]
            if place in self.vocabularies:
                texts = tf.strings.strip(values)
                is_missing = tf.reduce_any(texts[:, None] == tf.constant(list(self.missing), tf.string), 1)
                texts = tf.where(is_missing, "", texts)
                matches = texts[:, None] == tf.constant(list(self.vocabularies[place]))
                found = tf.argmax(matches, 1, tf.int32)
                values = tf.cast(tf.where(tf.reduce_any(matches, 1), found, -1), tf.float32)
            columns.append(values)
        return tf.stack(columns, 1)


def fit(
    rows: np.ndarray,
    names: Sequence[str],
    vocabularies: Mapping[int, Sequence[str]],
    missing: Sequence[str],
    standardize: bool,
) -> Columns:
    """The columns with the mean and deviation of training rows, float32 [N, columns]; without `standardize` 0 and 1.

    Raises:
        InputError: a column of numbers has none in training.
    """
    numeric = np.array([place for place in range(len(names)) if place not in vocabularies], np.int64)
    numbers = rows[:, numeric].astype(np.float64)
    if len(empty := np.flatnonzero(np.isnan(numbers).all(0))):
        raise InputError(f"column '{names[numeric[empty[0]]]}' has no number in any training row; list it in ignore")
    mean, deviation = np.zeros(len(numeric)), np.ones(len(numeric))
    if standardize:
        mean, deviation = np.nanmean(numbers, 0), np.nanstd(numbers, 0)
    scale = 1 / np.where(deviation > 0, deviation, 1.0)
    flagged = np.flatnonzero(np.isnan(numbers).any(0))
    statistics = mean.astype(np.float32), scale.astype(np.float32)
    return Columns(tuple(names), numeric, *statistics, flagged, dict(vocabularies), missing)


def make_vocabulary(name: str, texts: np.ndarray) -> list[str]:
    """The different texts of a column in training, sorted.

    Raises:
        InputError: there are too many.
    """
    found = sorted(set(texts.tolist()))
    if len(found) > MOST_CATEGORIES:
        raise InputError(
            f"column '{name}' has {len(found):,} different texts in {len(texts):,} training rows, at most "
            f"{MOST_CATEGORIES:,} can be categories; list it in ignore"
        )
    return found


def encode(texts: np.ndarray, vocabulary: Sequence[str]) -> np.ndarray:
    """The place of each text in the vocabulary, float32 [rows]; -1 if it is not there."""
    place_of = {text: place for place, text in enumerate(vocabulary)}
    return np.array([place_of.get(text, -1) for text in texts.tolist()], np.float32)


def input_names(names: Sequence[str]) -> list[str]:
    """Columns' names as names of a signature's inputs: letters, digits and "_", a letter first.

    Example:
        >>> input_names(["sepal length (cm)", "2nd", "class"])
        ['sepal_length_cm', 'column_2nd', 'column_class']

    Raises:
        InputError: two become the same.
    """
    found: dict[str, str] = {}
    for name in names:
        short = re.sub("[^A-Za-z0-9]+", "_", name).strip("_")
        if not short[:1].isalpha() or keyword.iskeyword(short):
            short = f"column_{short}"
        if short in found:
            raise InputError(
                f"columns '{found[short]}' and '{name}' would both be '{short}' in requests to a served student; "
                "rename one of them in the file"
            )
        found[short] = name
    return list(found)
