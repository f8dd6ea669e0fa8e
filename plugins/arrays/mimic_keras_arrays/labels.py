"""Labels and the names of their classes, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import logging

from mimic_keras.contracts import InputError

MOST_SHOWN = 10
LARGEST_LABEL = 2**31 - 1


def name_classes(classes: int | Sequence[str]) -> tuple[str, ...]:
    """The names of the classes: as given, or "0", "1", ... for a number of classes.

    Raises:
        ValueError: there are fewer than two, or a name is given twice.
    """
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    if len(names) < 2:
        raise ValueError(f"classes: expected at least 2, got {classes}")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"classes: each name must be there once, but {', '.join(repeated)} is repeated")
    return names


def order_classes(found: Sequence[str], classes: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """The classes that are in `place`, in the order of `classes`; None keeps the order found.

    Raises:
        InputError: `classes` are not those found, in any order.

    Example:
        >>> order_classes(["diamond", "disc"], ["disc", "diamond"], "shapes/train")
        ('disc', 'diamond')
    """
    if classes is None:
        return tuple(found)
    if sorted(classes) != sorted(found):
        raise InputError(
            f"classes: expected those of {place}, in any order: {show_names(found)}; got {show_names(classes)}"
        )
    return tuple(classes)


def show_names(names: Sequence[str]) -> str:
    """At most ten of them."""
    return ", ".join(names[:MOST_SHOWN]) + (", ..." if len(names) > MOST_SHOWN else "")


def check_label_kind(where: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise an InputError, which says how to convert, unless an array can be labels: integers [N] or [N, 1]."""
    is_column = len(shape) == 2 and shape[1] == 1
    if dtype.kind in "iu" and (len(shape) == 1 or is_column):
        return
    if len(shape) == 2 and not is_column:
        remedy = "rows of one-hot values become labels by y.argmax(1)"
    elif dtype.kind in "US":
        remedy = "texts become labels by np.unique(y, return_inverse=True)[1]"
    else:
        remedy = "whole numbers of another type become labels by y.astype(int)"
    raise InputError(
        f"{where}: expected integers [examples] or [examples, 1], from 0 and -1 where unknown, got {dtype} "
        f"{list(shape)}; {remedy}"
    )


def check_labels(where: str, labels: np.ndarray, num_classes: int | None = None, complete: bool = False) -> np.ndarray:
    """Integers [N] or [N, 1] as int32 [N].

    Raises:
        InputError: some are outside of -1 (0, if they must be `complete`) to num_classes - 1.
    """
    labels = labels.reshape(-1)
    smallest, largest = 0 if complete else -1, LARGEST_LABEL if num_classes is None else num_classes - 1
    outside = (labels < smallest) | (labels > largest)
    if outside.any():
        first = int(outside.argmax())
        accepted = "every example of this split needs a label" if complete else "-1 where unknown"
        raise InputError(
            f"{where}: {outside.sum()} of {len(labels)} labels are not from 0 to {largest} ({accepted}); "
            f"the first is {labels[first]}, in row {first}"
        )
    return labels.astype(np.int32)


def warn_of_empty_classes(labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Log the classes that no training example has; `labels` are those of training, int32, none of them -1."""
    missing = np.flatnonzero(np.bincount(labels, minlength=len(class_names)) == 0)
    if len(missing):
        shown = show_names([class_names[int(index)] for index in missing])
        logging.warning("no training example of %d of %d classes: %s", len(missing), len(class_names), shown)
