"""What a plugin provides, what the program promises in return, and the tools that both need.

A plugin imports this module and no other part of mimic-keras. It registers a component by an entry point in the group
`mimic_keras.datasets`, `mimic_keras.architectures`, `mimic_keras.teachers` or `mimic_keras.losses`.

The program passes the positional parameters. All others (an architecture's keyword-only parameters, the named
`__init__` parameters of the three classes) are set in the experiment and checked against their type hints. A parameter
annotated `Architecture` is a nested component. A `pathlib.Path` (relative to the working directory), or a `TypedDict`
that contains one, is a location and takes no part in cache keys: the content found there must be part of
`Dataset.prepare`'s fingerprint, of `Teacher.source_digest`, or of an architecture's `source_digest`.

A loss is a `keras.losses.Loss` whose `call(teacher_logits, student_logits)` returns one value per example, [batch],
independent of the other rows. If `call` has a third parameter named `labels`, it receives int32 [batch], -1 where
unknown. The class attribute `standardizable = True` permits logits standardised per class in place of the original.
`needs_teacher = False` says that the loss compares with the labels alone: it is for a student without a teacher, whose
`teacher_logits` are None.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import math
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SPLITS = ("train", "validation", "test", "transfer")
ROWS_AT_ONCE = 4096


class MimicError(Exception):
    """Base class of the errors whose message the program prints before it exits."""


class InputError(MimicError):
    """The user's input is invalid. The message says what, where, and what is accepted; the program exits with 2."""


class RunError(MimicError):
    """The run cannot continue, and not because of the user's input; the program exits with 1."""


class Architecture(Protocol):
    """Builds an uncompiled `keras.Model` that outputs float32 logits [batch, num_classes], or a dict with "logits".

    There is no softmax. It draws random numbers only from Keras' seeds, so that the same global seed gives the same
    weights. It reads no files, unless the function has an attribute `source_digest`, a function of the same named
    arguments that returns a digest of the files' contents, or None if these arguments name no file.
    """

    def __call__(self, input_shape: tuple[int, ...], num_classes: int, /) -> keras.Model: ...


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about a data set before it is read. `input_shape` has no batch dimension.

    `groups` names what `Dataset.groups` can group examples by, as ("speaker",).

    For estimates only: `num_examples`, {split: examples, virtual copies included}, where known in advance, and
    `repeats`, the number of virtual copies in train and transfer.
    """

    name: str
    version: str
    input_shape: tuple[int, ...]
    num_classes: int
    class_names: tuple[str, ...]
    num_examples: Mapping[str, int] = field(default_factory=dict)
    repeats: int = 1
    groups: tuple[str, ...] = ()


class Split(Protocol):
    """Examples addressed by id. Each original has `repeats` virtual copies: id = copy * num_examples + original.

    `batch` maps ids, int64 [B], to float32 [B, *input_shape] in the graph and depends on nothing else: an id gives the
    same bits in every batch of every run. `labels` is int32 [num_examples], -1 where an example has no label.
    """

    num_examples: int
    repeats: int
    labels: np.ndarray

    def batch(self, ids: tf.Tensor) -> tf.Tensor: ...


def host_variable(*arrays: np.ndarray) -> tf.Variable:
    """Concatenate arrays [N, ...] of one dtype into a variable in host memory, from which graphs gather rows.

    A graph captures a variable by reference, but copies a constant or an array. The variable is filled piece by piece,
    because TensorFlow would hold three copies of an array passed whole. If dtypes or row shapes differ: a ValueError.

    Example:
        >>> host_variable(np.zeros([2, 3], np.uint8), np.ones([1, 3], np.uint8)).shape
        TensorShape([3, 3])
    """
    return filled_variable(sum(map(len, arrays)), arrays)


def filled_variable(rows: int, arrays: Iterable[np.ndarray]) -> tf.Variable:
    """As `host_variable`, from arrays that need not exist at the same time; a ValueError unless they total `rows`."""
    import tensorflow as tf

    variable, expected, start = None, None, 0
    with tf.init_scope(), tf.device("CPU:0"):
        for array in arrays:
            kind = (array.dtype, array.shape[1:])
            if kind != (expected := expected or kind):
                raise ValueError(f"expected arrays of one dtype and row shape, got {expected} and {kind}")
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


def gather_rows(arrays: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Some rows, int64 [B], of arrays [N_i, ...] that are numbered one after the other; only these rows are read.

    Example:
        >>> gather_rows([np.array([[0], [1]]), np.array([[2], [3]])], np.array([3, 0]))
        array([[3],
               [0]])
    """
    starts = np.cumsum([0, *map(len, arrays)])
    places = np.searchsorted(starts, rows, side="right") - 1
    found = np.empty((len(rows), *arrays[0].shape[1:]), arrays[0].dtype)
    for place in np.unique(places):
        chosen = places == place
        found[chosen] = arrays[place][rows[chosen] - starts[place]]
    return found


class ArraySplit:
    """A `Split` over arrays in memory.

    Args:
        inputs: array [N, ...] of any dtype; held once, in host memory.
        labels: integers [N], -1 where unknown. None: no example has a label.
        prepare: `prepare(rows [B, ...], ids int64 [B]) -> float32 [B, *input_shape]`, in TensorFlow operations that
            depend on nothing else (use stateless random operations seeded by the id). None: a cast to float32.
        repeats: virtual copies per example.

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
        self.num_examples, self.repeats = len(inputs), repeats
        self.labels = np.full(len(inputs), -1, np.int32) if labels is None else np.asarray(labels, np.int32)
        self._inputs, self._prepare = host_variable(inputs), prepare

    def batch(self, ids: tf.Tensor) -> tf.Tensor:
        """The examples with the ids int64 [B], as float32 [B, *input_shape]."""
        import tensorflow as tf

        rows = tf.gather(self._inputs, ids % self.num_examples)
        return tf.cast(rows if self._prepare is None else self._prepare(rows, ids), tf.float32)


class MappedSplit(ArraySplit):
    """As `ArraySplit`, over arrays that stay on the disk: `np.load(file, mmap_mode="r")`. Each batch reads its rows.

    Args:
        inputs: arrays [N_i, ...] of one dtype and row shape, in C order, one after the other.
        labels: integers [N], -1 where unknown. None: no example has a label.
        rows: int64 [N], the row of `inputs` that each example is; a row may be in several splits, or in none. None: all
            of them, in order.
        prepare: as for `ArraySplit`.
        repeats: as for `ArraySplit`.

    Raises:
        ValueError: dtypes or row shapes differ, an array is not in C order, the lengths of `rows` and `labels` differ,
            or `repeats` is below 1.

    Example:
        >>> np.save("x.npy", np.arange(12).reshape(6, 2))
        >>> split = MappedSplit([np.load("x.npy", mmap_mode="r")], rows=np.array([5, 0]))
        >>> split.batch(tf.constant([0], tf.int64)).numpy()
        array([[10., 11.]], dtype=float32)
    """

    def __init__(
        self,
        inputs: Sequence[np.ndarray],
        labels: np.ndarray | None = None,
        *,
        rows: np.ndarray | None = None,
        prepare: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
        repeats: int = 1,
    ):
        kinds = {(array.dtype, array.shape[1:]) for array in inputs}
        if len(kinds) != 1 or not all(array.flags.c_contiguous for array in inputs):
            raise ValueError(f"expected arrays of one dtype and row shape in C order, got {kinds}")
        rows = np.arange(sum(map(len, inputs))) if rows is None else rows
        super().__init__(np.asarray(rows, np.int64), labels, prepare=self._prepare_rows, repeats=repeats)
        self._arrays, self._finish = list(inputs), prepare

    def _prepare_rows(self, rows: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        def read(rows: np.ndarray) -> np.ndarray:
            return gather_rows(self._arrays, rows)

        # Not stateful: the rows depend on their numbers alone.
        found = tf.numpy_function(read, [rows], self._arrays[0].dtype, stateful=False)
        found = tf.ensure_shape(found, (None, *self._arrays[0].shape[1:]))
        return found if self._finish is None else self._finish(found, ids)


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix for the report: `counts[i, j]` examples of class `names[i]` were classified as `names[j]`."""

    names: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class GroupedRate:
    """An error rate whose errors depend on each other within groups, as those of a speaker do, but not across them.

    `errors` and `counts`, integers [groups], are the errors in each group and what they are counted in, as its phones.
    A sweep tells differences from chance by groups.

    Example:
        >>> float(GroupedRate(errors=np.array([1, 2]), counts=np.array([10, 20])))
        0.1
    """

    errors: np.ndarray
    counts: np.ndarray

    def __float__(self) -> float:
        total = self.counts.sum()
        return float(self.errors.sum() / total) if total else float("nan")


@dataclass(frozen=True, eq=False)
class RawSignature:
    """A serving signature that takes raw data and prepares it in the graph.

    Args:
        inputs: {name: tf.TensorSpec}; the first dimension, the examples of a request, is None.
        prepare: maps tensors with these names to float32 [B, *input_shape], as the training data was prepared. Where
            an example becomes several rows, as an utterance becomes frames: to (float32 [N, *input_shape], splits
            int64 [B + 1]), rows splits[b] to splits[b + 1] for example b. Examples never affect each other.
        examples: {name: array}, a few validation examples to check an export and warm up a server; texts and encoded
            files as an array of objects, each `bytes`.
        ids: int64 [N], the validation id of each prepared row.
    """

    inputs: Mapping[str, Any]
    prepare: Callable[..., Any]
    examples: Mapping[str, np.ndarray]
    ids: np.ndarray


class Dataset(abc.ABC):
    """Examples in four splits: "train", "validation", "test", and "transfer", which the teacher labels.

    "transfer" starts with train's examples in train's order, followed by unlabelled ones; it never has a validation or
    test example. The `seed` of `split` controls augmentation only, never which split an example is in.
    """

    @property
    @abc.abstractmethod
    def info(self) -> DatasetInfo:
        """Available before `prepare`; may list files."""

    @abc.abstractmethod
    def prepare(self, data_dir: Path) -> str:
        """Download, verify and convert into `data_dir`, at most once; return a digest of the data that will be read.

        Keep what was digested rather than read it again in `split`: files may change in between.

        Files in `data_dir` persist between runs. Before the call, a damaged one is moved aside, with the folder of
        `data_dir` that contains it. A run may be killed at any moment: use `atomic_writer`, or rename a whole folder.

        Raises:
            InputError: the data is missing or damaged; the message lists every problem and its location.
        """

    @abc.abstractmethod
    def split(self, name: str, seed: int = 0) -> Split:
        """One of `SPLITS`, after `prepare`."""

    def groups(self, name: str) -> np.ndarray:
        """The group of each example of "train", integers [num_examples], after `prepare`; `info.groups` has the names.

        Examples of a group are alike, as the frames of a speaker are: those who divide the examples may keep them
        together.
        """
        raise ValueError(f"no groups '{name}'")

    def given_rows(self, name: str) -> np.ndarray:
        """The row of each example of a split in what the data set was given, int64 [num_examples], after `prepare`.

        Several files are one after the other: train, validation, test, unlabelled. A ValueError, the default: examples
        are no rows of files.
        """
        raise ValueError(f"the examples of '{name}' are no rows of files")

    def raw_signatures(self) -> Mapping[str, RawSignature]:
        """{name: signature} in addition to prepared inputs, as {"serve_images": ...}; called after `prepare`."""
        return {}

    def evaluate(self, logits: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | GroupedRate | Confusion]]:
        """{split: metrics} of a model's logits, {split: float32 [num_examples, num_classes]}; by default none.

        They stand beside those that the program computes of every data set (error rate, accuracy, negative
        log-likelihood, calibration error), and replace those of the same name. The smaller the better. Anything chosen
        from data, such as a decoder's weights, is chosen on "validation".
        """
        return {name: {} for name in logits}


def error_rate(labels: np.ndarray, logits: np.ndarray) -> float:
    """Share of labelled examples whose largest logit is not the label's; NaN if none is labelled.

    `labels` is int [N], -1 where unknown; `logits` is float [N, num_classes].

    Example:
        >>> error_rate(np.array([1, 0, -1]), np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
        0.5
    """
    known = labels >= 0
    return float(np.mean(logits[known].argmax(-1) != labels[known])) if known.any() else float("nan")


def logits_of(output: Any) -> Any:
    """The logits of an architecture's output: the tensor itself, or the "logits" of a dict; not cast."""
    return output["logits"] if isinstance(output, dict) else output


def count_parameters(weights: Iterable[Any]) -> int:
    """How many numbers are in `weights`, variables or arrays of any shape."""
    return sum(math.prod(weight.shape) for weight in weights)


@dataclass(frozen=True, init=False)
class Member:
    """One net of the teacher: `call` maps float32 [B, *input_shape] to float32 logits [B, num_classes], in the graph.

    Where the logits exist already, `call` is None and `predict` returns them: predict(split, ids) is float32
    [N, num_classes] for virtual ids, int64 [N], of "transfer", "validation" or "test".

    `model` is the `keras.Model` if it was trained here, else None; it is saved, and later called from its file.
    `parameters` is the number of trainable weights. None: counted from `model`; not counted if there is none.
    `expects` is (low, high), the range of inputs that the net's own scaling suggests, if it has any: the run warns of
    a data set whose inputs are far from it. A ValueError unless low < high, or unless exactly one of `call` and
    `predict` is given.

    Example:
        >>> stored = np.load("test.npy", mmap_mode="r")
        >>> member = Member(predict=lambda split, ids: stored[ids])
    """

    call: Callable[[Any], Any] | None
    parameters: int | None
    model: keras.Model | None
    predict: Callable[[str, np.ndarray], np.ndarray] | None
    expects: tuple[float, float] | None

    def __init__(
        self,
        call: Callable[[Any], Any] | None = None,
        parameters: int | None = None,
        model: keras.Model | None = None,
        predict: Callable[[str, np.ndarray], np.ndarray] | None = None,
        expects: tuple[float, float] | None = None,
    ):
        if (call is None) == (predict is None):
            raise ValueError("a Member needs either `call` or `predict`")
        if parameters is None and model is not None:
            parameters = count_parameters(model.trainable_weights)
        if expects is not None and not expects[0] < expects[1]:
            raise ValueError(f"expects: expected (low, high) with low < high, got {expects}")
        values = {"call": call, "parameters": parameters, "model": model, "predict": predict, "expects": expects}
        for name, value in values.items():
            object.__setattr__(self, name, value)


class Train(Protocol):
    """Trains the model that `build()` makes on the labels of "train", or only of `ids` (int64); returns it in float32.

    The settings are the `training` section of the teacher's entry. It takes a builder, not a model, because the model
    must be built under the distribution strategy, in the training precision and from the member's seed.
    """

    def __call__(self, build: Callable[[], keras.Model], ids: np.ndarray | None = None) -> keras.Model: ...


@dataclass(frozen=True)
class TeacherContext:
    """What a teacher receives to make one member. It may write to `directory` only."""

    dataset: Dataset
    seed: int
    directory: Path
    train: Train


class Teacher(abc.ABC):
    """Makes members. The program repeats, averages, weights and caches them."""

    @abc.abstractmethod
    def member(self, context: TeacherContext) -> Member:
        """Train or load one member."""

    def source_digest(self) -> str | None:
        """The digest that identifies the model to load; None if the member is trained here, and then stored."""
        return None

    def check(self, info: DatasetInfo) -> None:
        """Called before any training; an InputError says that the model to load is missing or does not fit."""
        return None


@contextlib.contextmanager
def atomic_writer(file: Path) -> Iterator[BinaryIO]:
    """A binary stream whose content replaces `file` at the end of the block; an error leaves `file` as it was.

    Example:
        >>> with atomic_writer(data_dir / "mean.npy") as stream: np.save(stream, mean)
    """
    sibling = file.with_name(f".{file.name}.{unique_name()}.tmp")
    try:
        with sibling.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        sibling.replace(file)
    finally:
        sibling.unlink(missing_ok=True)


def unique_name() -> str:
    """A part of a file name that no other process makes: the host's name and 32 random hexadecimal digits.

    A process id is no such name: two containers, or two hosts that share a folder, have equal ones.

    Example:
        >>> unfinished = data_dir / f".unfinished-{unique_name()}"
    """
    return f"{re.sub('[^A-Za-z0-9]', '-', socket.gethostname())[:32]}-{uuid.uuid4().hex}"


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Every file in and below `folder`, sorted. Links are followed, except those to a folder that they are in.

    Raises:
        OSError: a folder cannot be listed.
    """

    def walk(place: Path, above: tuple[str, ...]) -> Iterator[Path]:
        real = os.path.realpath(place)
        if real not in above:
            for entry in os.scandir(place):
                if entry.is_dir():
                    yield from walk(Path(entry), (*above, real))
                elif entry.is_file():
                    yield Path(entry)

    return sorted(walk(folder, ()))


def array_digest(*arrays: np.ndarray) -> str:
    """SHA-256 over dtype, shape and bytes of each array, 64 hexadecimal digits; a ValueError for Python objects."""
    digest = hashlib.sha256()
    for array in arrays:
        if array.dtype.hasobject:
            raise ValueError(f"expected arrays of numbers, got dtype {array.dtype}")
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
