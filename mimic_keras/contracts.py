"""What a plugin provides, and what the program promises in return; nothing else.

A plugin imports this module and no other part of mimic-keras. A component is made known by an entry point in one of
the groups `mimic_keras.datasets`, `mimic_keras.architectures`, `mimic_keras.teachers` and `mimic_keras.losses`.

Positional parameters come from the program. Every other parameter (for an architecture: every keyword-only one; for
the three classes: every named `__init__` parameter) is written by the user in the experiment and checked against its
type hint. A parameter annotated `Architecture` is a nested component. A parameter annotated `pathlib.Path` (relative to
the working directory), or with a `TypedDict` that has one, says where something lies, not what it is: it takes no part
in cache keys, so what lies there must be part of `Dataset.prepare`'s fingerprint or `Teacher.source_digest`.

A loss is a `keras.losses.Loss` whose `call(teacher_logits, student_logits)` returns one value per example, [batch],
that no other row of the batch changes. If `call` has a third parameter named `labels` (int32 [batch], -1 where
unknown) it is passed. Logits are real logits; a class attribute `standardizable = True` says that the loss may be given
logits standardised per class instead.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SPLITS = ("train", "validation", "test", "transfer")
ROWS_AT_ONCE = 4096


class InputError(Exception):
    """What the user gave is wrong. The message says what, where, and what is accepted; the program exits with 2."""


class RunError(Exception):
    """The run can not go on, and the user's input is not to blame; the program prints the message and exits with 1."""


class Architecture(Protocol):
    """A function that builds an uncompiled `keras.Model` with float32 logits [batch, num_classes] as its output.

    The output may be a dict whose "logits" are those. No softmax. It reads no file, and draws random numbers from
    Keras' seeds alone, so that the same global seed gives the same weights.
    """

    def __call__(self, input_shape: tuple[int, ...], num_classes: int, /) -> keras.Model: ...


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before anything is read: `input_shape` without the batch dimension.

    `num_examples` gives examples per split, virtual copies included, where they are known beforehand, and `repeats` the
    virtual copies of train and transfer; both serve estimates alone.
    """

    name: str
    version: str
    input_shape: tuple[int, ...]
    num_classes: int
    class_names: tuple[str, ...]
    num_examples: Mapping[str, int] = field(default_factory=dict)
    repeats: int = 1


class Split(Protocol):
    """Examples addressed by id. `repeats` virtual copies of each original: id = copy * num_examples + original.

    `batch` is a pure function of the ids, in the graph: int64 [B] to float32 [B, *input_shape]. The same id gives the
    same bits in any batch, on any run. `labels` is int32 [num_examples], -1 where an example has no label.
    """

    num_examples: int
    repeats: int
    labels: np.ndarray

    def batch(self, ids: tf.Tensor) -> tf.Tensor: ...


def host_variable(*arrays: np.ndarray) -> tf.Variable:
    """Arrays [N, ...] of one dtype, one after the other, in host memory, for graphs to gather rows from.

    A graph captures a variable by reference; a constant or an array would be copied into every graph that uses it.
    It is filled piece by piece, since TensorFlow would hold three copies of an array that is given at once.

    Raises:
        ValueError: the arrays differ in dtype or in the shape of a row.

    Example:
        >>> host_variable(np.zeros([2, 3], np.uint8), np.ones([1, 3], np.uint8)).shape
        TensorShape([3, 3])
    """
    return filled_variable(sum(map(len, arrays)), arrays)


def filled_variable(rows: int, arrays: Iterable[np.ndarray]) -> tf.Variable:
    """As `host_variable`, of `rows` rows in all, from arrays that need not exist at the same time.

    Raises:
        ValueError: as `host_variable`, or the rows are not as many as `rows`.
    """
    import tensorflow as tf

    variable, start, kind = None, 0, None
    with tf.init_scope(), tf.device("CPU:0"):
        for array in arrays:
            kind = kind or (array.dtype, array.shape[1:])
            if (array.dtype, array.shape[1:]) != kind:
                raise ValueError(
                    f"expected arrays of one dtype and one shape of row, got {kind} and {array.dtype, array.shape[1:]}"
                )
            if start + len(array) > rows:
                raise ValueError(f"expected {rows} rows, got {start + len(array)}")
            if variable is None:
                variable = tf.Variable(tf.zeros([rows, *array.shape[1:]], array.dtype), trainable=False)
            for at in range(0, len(array), ROWS_AT_ONCE):
                piece = array[at : at + ROWS_AT_ONCE]
                variable.scatter_update(tf.IndexedSlices(piece, np.arange(start, start + len(piece))))
                start += len(piece)
    if variable is None or start != rows:
        raise ValueError(f"expected {rows} rows, got {start}")
    return variable


class ArraySplit:
    """A `Split` over arrays in memory.

    Args:
        inputs: array [N, ...] of any dtype; kept once, in host memory.
        labels: integers [N], -1 where unknown. None: no example has a label.
        prepare: `prepare(rows [B, ...], ids int64 [B]) -> float32 [B, *input_shape]`, TensorFlow operations that
            depend on nothing else (use stateless random operations seeded by the id). None: a cast to float32.
        repeats: virtual copies of each example.

    Raises:
        ValueError: the lengths of `inputs` and `labels` differ, or `repeats` is below 1.

    Example:
        >>> split = ArraySplit(np.zeros([10, 4], np.uint8), np.zeros([10]), prepare=lambda rows, ids: rows / 255)
        >>> split.batch(tf.constant([3, 3], tf.int64)).shape
        TensorShape([2, 4])
    """

    def __init__(
        self,
        inputs: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        prepare: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
        repeats: int = 1,
    ):
        if labels is not None and len(labels) != len(inputs):
            raise ValueError(f"{len(inputs)} inputs but {len(labels)} labels")
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}")
        self.num_examples = len(inputs)
        self.repeats = repeats
        self.labels = np.full(len(inputs), -1, np.int32) if labels is None else np.asarray(labels, np.int32)
        self._prepare = prepare
        self._inputs = host_variable(inputs)

    def batch(self, ids: tf.Tensor) -> tf.Tensor:
        """The examples of `ids` (int64 [B]) as float32 [B, *input_shape]."""
        import tensorflow as tf

        rows = tf.gather(self._inputs, ids % self.num_examples)
        return tf.cast(rows if self._prepare is None else self._prepare(rows, ids), tf.float32)


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix for the report: `counts[i, j]` examples of class `names[i]` were taken for `names[j]`."""

    names: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class RawSignature:
    """A signature of an export that takes data as users have it, and prepares it in the graph.

    Args:
        inputs: {name: tf.TensorSpec}, the first dimension None: the examples of a request.
        prepare: tensors by these names to float32 [B, *input_shape], by the code that prepared the training data; or
            to (float32 [N, *input_shape], int64 [B + 1]) where one example becomes several rows, as the frames of an
            utterance: rows splits[b] to splits[b + 1] are those of example b. No example may change another's rows.
        examples: {name: array} of a few validation examples, with which an export is checked and a server warmed up.
        ids: int64 [N], the validation examples that their rows are.
    """

    inputs: Mapping[str, Any]
    prepare: Callable[..., Any]
    examples: Mapping[str, np.ndarray]
    ids: np.ndarray


class Dataset(abc.ABC):
    """Examples in four splits: "train", "validation", "test", and "transfer", which the teacher labels.

    "transfer" holds train's examples in train's order, then unlabelled ones, and never a validation or test example.
    Which example is in which split never depends on the `seed` of `split`, which drives augmentation alone.
    """

    @property
    @abc.abstractmethod
    def info(self) -> DatasetInfo:
        """May list files; never needs `prepare`."""

    @abc.abstractmethod
    def prepare(self, data_dir: Path) -> str:
        """Download, verify and convert into `data_dir`, at most once; return the digest of what will be read.

        Files there keep their content from one run to the next: a damaged one is moved away before this is called, with
        the folder in `data_dir` that it is in. A run may be killed at any moment: write beside, then rename.

        Raises:
            InputError: the data is missing or damaged; the message lists every problem with its place.
        """

    @abc.abstractmethod
    def split(self, name: str, seed: int = 0) -> Split:
        """One of `SPLITS`, after `prepare`."""

    def raw_signatures(self) -> Mapping[str, RawSignature]:
        """After `prepare`: what a served student takes besides prepared inputs, as {"serve_images": ...}."""
        return {}

    def evaluate(self, logits: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | Confusion]]:
        """Metrics of a model's logits, {split: float32 [num_examples, num_classes]}, per split.

        A choice that needs data (a decoder's weights, say) is made on "validation". The default is the error rate.
        """
        return {name: {"error_rate": error_rate(self.split(name).labels, values)} for name, values in logits.items()}


def error_rate(labels: np.ndarray, logits: np.ndarray) -> float:
    """Share of the labelled examples whose largest logit is not the label's; NaN where none is labelled.

    Args:
        labels: int [N], -1 where unknown.
        logits: float [N, num_classes].

    Example:
        >>> error_rate(np.array([1, 0, -1]), np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
        0.5
    """
    known = labels >= 0
    return float(np.mean(logits[known].argmax(-1) != labels[known])) if known.any() else float("nan")


@dataclass(frozen=True)
class Member:
    """One net of the teacher: `call(float32 [B, *input_shape]) -> float32 logits [B, num_classes]`, in the graph.

    `parameters` counts trainable weights. `model` is the `keras.Model` if it was trained here, else None; a trained
    model is stored, and called from its file.
    """

    call: Callable[[Any], Any]
    parameters: int
    model: keras.Model | None = None


@dataclass(frozen=True)
class TeacherContext:
    """What a teacher is given to make one member.

    `train(build, ids=None)` trains the model that `build()` returns on the labels of "train" (of these ids, int64,
    alone) with the entry's `training` section, and returns it in float32. It is given the builder, not a model, because
    the model has to be made under the distribution strategy, in the training's precision and from the member's seed.
    `directory` is the one folder a teacher may write to.
    """

    dataset: Dataset
    seed: int
    directory: Path
    train: Callable[..., keras.Model]


class Teacher(abc.ABC):
    """Makes members. The program repeats, averages, weighs and caches them."""

    @abc.abstractmethod
    def member(self, context: TeacherContext) -> Member:
        """Train or load one member."""

    def source_digest(self) -> str | None:
        """The digest of the model that is loaded; None (the default) if the member is trained here.

        A trained member is stored; a loaded one is addressed by this digest and loaded again when it is needed.
        """
        return None

    def check(self, info: DatasetInfo) -> None:
        """Called before anything is trained.

        Raises:
            InputError: the model that would be loaded is missing, or does not fit the data set.
        """
        return None
