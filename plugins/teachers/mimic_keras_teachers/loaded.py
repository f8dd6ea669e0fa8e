"""What all teachers with a model in a file have in common: it is checked before anything is trained."""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf
from mimic_keras_architectures.existing import check_inputs

from mimic_keras.contracts import DatasetInfo, InputError, Member, MimicError, Teacher, TeacherContext
from mimic_keras_teachers.outputs import Outputs, check_values, to_logits


class LoadedModel(NamedTuple):
    """`call` maps float32 inputs to outputs, in the graph. `input_shape` has the batch dimension, and None for any
    size. `parameters` is None where they cannot be counted. `expects` as in `Member`."""

    call: Callable[[Any], Any]
    input_shape: Any
    parameters: int | None
    expects: tuple[float, float] | None = None


class Loaded(Teacher):
    """An existing model, its outputs converted to logits. `path` is what the argument named `argument` says."""

    argument: ClassVar[str] = "path"
    path: Path
    outputs: Outputs = "logits"

    @abc.abstractmethod
    def _load(self, info: DatasetInfo) -> LoadedModel:
        """Read the model from `path`, or raise an InputError."""

    @property
    def _place(self) -> str:
        """How a message begins."""
        return f"{self.argument}: {self.path}"

    def check(self, info: DatasetInfo) -> None:
        if not self.path.exists():
            raise InputError(f"{self.argument}: no such file or folder: {self.path}")
        model = self._load(info)
        check_inputs(self._place, model.input_shape, info.input_shape)
        noise = np.random.default_rng(0).random((8, *info.input_shape), np.float32)
        values = run(self._place, lambda: np.asarray(model.call(tf.constant(noise))))
        check_values(self._place, self.path, values, self.outputs, info.num_classes)

    def member(self, context: TeacherContext) -> Member:
        self.check(context.dataset.info)
        model = self._load(context.dataset.info)
        return Member(lambda x: to_logits(model.call(x), self.outputs), model.parameters, expects=model.expects)


def run(place: str, function: Callable[[], Any]) -> Any:
    """What `function` returns; an error of the model becomes an InputError."""
    try:
        return function()
    except MimicError:
        raise
    except Exception as error:  # a runtime raises anything here, depending on the file's content
        raise InputError(f"{place} cannot be run on the data set's inputs: {error}") from error


def in_python(place: str, function: Callable[[np.ndarray], np.ndarray], input_shape: tuple[int, ...]) -> Callable:
    """`function`, float32 [B, *input_shape] to [B, ...], as a call in the graph."""
    shape = run(place, lambda: function(np.zeros((1, *input_shape), np.float32))).shape

    def call(x: Any) -> Any:
        outputs = tf.numpy_function(lambda rows: function(rows).astype(np.float32), [x], tf.float32)
        return tf.ensure_shape(outputs, [None, *shape[1:]])

    return call
