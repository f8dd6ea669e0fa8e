"""Teachers: nets trained here on the labels, and existing models in a .keras file or a SavedModel."""

from __future__ import annotations

import abc
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import Architecture, DatasetInfo, InputError, Member, Teacher, TeacherContext

Outputs = Literal["logits", "probabilities"]
# Float32 probabilities are exact to about this; the logarithm of a smaller one would be noise.
SMALLEST_PROBABILITY = 1e-7


class Trained(Teacher):
    """Any architecture, trained on the labels.

    Args:
        architecture: of the net.
        share: part of the training set, drawn for each member from its seed, that it is trained on (Ba & Caruana 2014,
            section 3.2 trains members on subsets), above 0 and at most 1.

    Raises:
        ValueError: `share` is outside (0, 1].
    """

    def __init__(self, architecture: Architecture, share: float = 1.0):
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {share}")
        self.architecture, self.share = architecture, share

    def member(self, context: TeacherContext) -> Member:
        info, split = context.dataset.info, context.dataset.split("train")
        ids = None
        if self.share < 1:
            count = max(1, round(self.share * split.num_examples))
            ids = np.sort(np.random.default_rng(context.seed).permutation(split.num_examples)[:count])
        model = context.train(lambda: self.architecture(info.input_shape, info.num_classes), ids)
        return Member(model, _parameters(model.trainable_weights), model)


class _Loaded(Teacher):
    """A model that exists: checked against the data set, its outputs turned into logits."""

    path: Path
    outputs: Outputs

    @abc.abstractmethod
    def _call(self) -> tuple[Callable[[Any], Any], tuple, tuple, int]:
        """(call, shape of its inputs, shape of its outputs, number of parameters)"""

    def check(self, info: DatasetInfo) -> None:
        if not self.path.exists():
            raise InputError(f"path: no such file or folder: {self.path}")
        call, inputs, outputs, _ = self._call()
        if not _fits(inputs, info.input_shape):
            expected = _listed(info.input_shape)
            raise InputError(
                f"path: {self.path} takes inputs of shape {_shown(inputs)}, the data set's are [{expected}]"
            )
        if not _fits(outputs, (info.num_classes,)):
            expected = f"{info.num_classes} classes"
            raise InputError(f"path: {self.path} gives outputs of shape {_shown(outputs)}, the data set has {expected}")
        self._check_kind(call, info)

    def _check_kind(self, call: Callable[[Any], Any], info: DatasetInfo) -> None:
        """Probabilities are so for any input, noise included; taken for the other kind they mislead in silence."""
        noise = np.random.default_rng(0).random((8, *info.input_shape), np.float32)
        values = np.asarray(call(tf.constant(noise)), np.float64)
        are_probabilities = bool((values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3))
        if are_probabilities != (self.outputs == "probabilities"):
            found = "sum to 1 and are not negative" if are_probabilities else "are negative or do not sum to 1"
            other = "probabilities" if are_probabilities else "logits"
            raise InputError(f"outputs: the outputs of {self.path} {found}: expected '{other}', got '{self.outputs}'")

    def member(self, context: TeacherContext) -> Member:
        self.check(context.dataset.info)
        call, _, _, parameters = self._call()

        def logits(x: Any) -> Any:
            values = tf.cast(call(x), tf.float32)
            return values if self.outputs == "logits" else tf.math.log(tf.maximum(values, SMALLEST_PROBABILITY))

        return Member(logits, parameters)


class KerasFile(_Loaded):
    """A model saved as a .keras file; code inside the file is not run (Keras' safe mode).

    Args:
        path: of the file.
        outputs: what the model gives; probabilities p become logits log(max(p, 1e-7)).

    Raises:
        InputError: the file is missing, is no Keras model, or does not fit the data set.
    """

    def __init__(self, path: Path, outputs: Outputs = "logits"):
        self.path, self.outputs = path, outputs

    def source_digest(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest() + self.outputs

    def _call(self) -> tuple[Callable[[Any], Any], tuple, tuple, int]:
        try:
            model = keras.models.load_model(self.path, compile=False)
            inputs, outputs = model.input_shape, model.output_shape
            structure = model.compute_output_shape(inputs)
        except Exception as error:  # Keras raises anything here, depending on what the file holds
            raise InputError(f"path: {self.path} is no model that Keras can load: {error}") from error
        named = isinstance(structure, dict)
        if named and "logits" not in structure:
            raise InputError(f"path: {self.path} has the outputs {_listed(sorted(structure))}, expected 'logits'")

        def call(x: Any) -> Any:
            values = model(x, training=False)
            return values["logits"] if named else values

        return call, inputs, structure["logits"] if named else outputs, _parameters(model.trainable_weights)


class SavedModel(_Loaded):
    """A signature of a SavedModel folder.

    Args:
        path: of the folder.
        signature: its name; it has to have one input.
        output: which of its outputs; needed if there are several.
        outputs: what they are; probabilities p become logits log(max(p, 1e-7)).

    Raises:
        InputError: the folder is missing, has no such signature or output, or does not fit the data set.
    """

    def __init__(
        self,
        path: Path,
        signature: str = "serving_default",
        output: str | None = None,
        outputs: Outputs = "logits",
    ):
        self.path, self.signature, self.output, self.outputs = path, signature, output, outputs

    def source_digest(self) -> str:
        digest = hashlib.sha256(f"{self.signature} {self.output} {self.outputs}".encode())
        for file in sorted(path for path in self.path.rglob("*") if path.is_file()):
            digest.update(file.relative_to(self.path).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.hexdigest()

    def _call(self) -> tuple[Callable[[Any], Any], tuple, tuple, int]:
        try:
            loaded = tf.saved_model.load(str(self.path))
        except Exception as error:  # the loader raises anything here, depending on what the folder holds
            raise InputError(f"path: {self.path} is no SavedModel that TensorFlow can load: {error}") from error
        signatures = dict(loaded.signatures)
        if self.signature not in signatures:
            raise InputError(f"signature: {self.path} has no '{self.signature}'; it has {_listed(sorted(signatures))}")
        function = signatures[self.signature]
        inputs, outputs = function.structured_input_signature[1], function.structured_outputs
        if len(inputs) != 1:
            raise InputError(
                f"signature: '{self.signature}' takes {len(inputs)} inputs ({_listed(inputs)}), expected 1"
            )
        output = self.output or (next(iter(outputs)) if len(outputs) == 1 else None)
        if output not in outputs:
            raise InputError(f"output: expected one of {_listed(sorted(outputs))}, got {output!r}")
        ((name, specification),) = inputs.items()
        taken, given = specification.shape, outputs[output].shape
        if not taken.rank or not given.rank or taken[0] is not None:
            raise InputError(
                f"signature: '{self.signature}' takes {taken} and gives {given}, expected [any number of examples, ...]"
            )

        def call(x: Any) -> Any:
            return function(**{name: tf.cast(x, specification.dtype)})[output]

        weights = [variable for variable in function.variables if variable.trainable]
        # The loaded object owns the weights that the function reads: keep it for as long as the call.
        call.owner = loaded  # type: ignore[attr-defined]
        return call, tuple(taken), tuple(given), _parameters(weights)


def _parameters(weights: Any) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _fits(shape: tuple, expected: tuple[int, ...]) -> bool:
    """Whether [batch, ...] of a model can be [batch, *expected]; None stands for any size."""
    return len(shape) == len(expected) + 1 and all(
        size in (None, wanted) for size, wanted in zip(shape[1:], expected, strict=True)
    )


def _shown(shape: tuple) -> str:
    return f"[{_listed('any' if size is None else size for size in shape[1:])}]"


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)
