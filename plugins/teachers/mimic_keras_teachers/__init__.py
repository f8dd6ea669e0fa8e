"""Teachers: nets trained here on the labels, and existing models from a .keras file or a SavedModel."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import (
    Architecture,
    DatasetInfo,
    InputError,
    Member,
    RunError,
    Teacher,
    TeacherContext,
    count_parameters,
    file_digest,
    files_below,
    logits_of,
)
from mimic_keras_teachers.scaling import expected_inputs

Outputs = Literal["logits", "probabilities"]
# About the precision of float32 probabilities; the logarithm of a smaller one would be noise.
SMALLEST_PROBABILITY = 1e-7
# Their safe mode loads a TFSMLayer, which runs any SavedModel, and HDF5 external data, which reads any file.
UNSAFE_KERAS = ("3.12.0", "3.13.0", "3.13.1")


class Trained(Teacher):
    """A net of any architecture, trained on the labels.

    Args:
        architecture: the net.
        share: part of the training set to train on, above 0 and at most 1; each member draws its own from its seed
            (Ba & Caruana 2014, section 3.2, trains members on subsets).

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
        return Member(model, model=model)


class _Model(NamedTuple):
    """A loaded model: `call` maps inputs to outputs; the shapes have the batch dimension, and None for any size.

    `expects` as in `Member`.
    """

    call: Callable[[Any], Any]
    input_shape: tuple
    output_shape: tuple
    parameters: int
    expects: tuple[float, float] | None = None


class _Loaded(Teacher):
    """An existing model: checked against the data set, its outputs converted to logits."""

    path: Path
    outputs: Outputs

    @abc.abstractmethod
    def _load(self) -> _Model:
        """Read the model from `path`, or raise an InputError."""

    def check(self, info: DatasetInfo) -> None:
        if not self.path.exists():
            raise InputError(f"path: no such file or folder: {self.path}")
        model = self._load()
        if not _fits(model.input_shape, info.input_shape):
            found, expected = _shown(model.input_shape), _listed(info.input_shape)
            raise InputError(f"path: {self.path} takes inputs of shape {found}, the data set's are [{expected}]")
        if not _fits(model.output_shape, (info.num_classes,)):
            found, expected = _shown(model.output_shape), f"{info.num_classes} classes"
            raise InputError(f"path: {self.path} gives outputs of shape {found}, the data set has {expected}")
        self._check_outputs(model.call, info)

    def _check_outputs(self, call: Callable[[Any], Any], info: DatasetInfo) -> None:
        """Logits mistaken for probabilities, or the reverse, would mislead silently; noise tells them apart."""
        noise = np.random.default_rng(0).random((8, *info.input_shape), np.float32)
        values = np.asarray(call(tf.constant(noise)), np.float64)
        are_probabilities = bool((values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3))
        if are_probabilities != (self.outputs == "probabilities"):
            found = "sum to 1 and are not negative" if are_probabilities else "are negative or do not sum to 1"
            other = "probabilities" if are_probabilities else "logits"
            raise InputError(f"outputs: the outputs of {self.path} {found}: expected '{other}', got '{self.outputs}'")

    def member(self, context: TeacherContext) -> Member:
        self.check(context.dataset.info)
        model = self._load()

        def call(x: Any) -> Any:
            values = tf.cast(model.call(x), tf.float32)
            return values if self.outputs == "logits" else tf.math.log(tf.maximum(values, SMALLEST_PROBABILITY))

        return Member(call, model.parameters, expects=model.expects)


class KerasFile(_Loaded):
    """A model saved as a .keras file; code in the file is not run (Keras' safe mode).

    Args:
        path: the file.
        outputs: what the model outputs; probabilities p become logits log(max(p, 1e-7)).

    Raises:
        InputError: the file is missing, is not a Keras model, or does not fit the data set.
        RunError: this release of Keras would run code from the file.
    """

    def __init__(self, path: Path, outputs: Outputs = "logits"):
        self.path, self.outputs = path, outputs

    def source_digest(self) -> str:
        return file_digest(self.path) + self.outputs

    def _load(self) -> _Model:
        if keras.__version__ in UNSAFE_KERAS:
            raise RunError(
                f"Keras {keras.__version__} runs code and reads other files that a .keras file names; keras_file needs "
                f"another release than {', '.join(UNSAFE_KERAS)}"
            )
        try:
            model = keras.models.load_model(self.path, compile=False)
            input_shape, output_shape = model.input_shape, model.output_shape
            shapes = model.compute_output_shape(input_shape)
        except Exception as error:  # Keras raises anything here, depending on the file's content
            raise InputError(f"path: {self.path} is not a model that Keras can load: {error}") from error
        if isinstance(shapes, dict):
            if "logits" not in shapes:
                raise InputError(f"path: {self.path} has the outputs {_listed(sorted(shapes))}, expected 'logits'")
            output_shape = shapes["logits"]

        def call(x: Any) -> Any:
            return logits_of(model(x, training=False))

        parameters = count_parameters(model.trainable_weights)
        return _Model(call, input_shape, output_shape, parameters, expected_inputs(model))


class SavedModel(_Loaded):
    """A signature of a SavedModel folder.

    Args:
        path: the folder.
        signature: name of the signature, which must have one input.
        output: name of the output; required if there are several.
        outputs: what the signature outputs; probabilities p become logits log(max(p, 1e-7)).

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
        for file in files_below(self.path):
            digest.update(file.relative_to(self.path).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.hexdigest()

    def _load(self) -> _Model:
        try:
            loaded = tf.saved_model.load(str(self.path))
        except Exception as error:  # the loader raises anything here, depending on the folder's content
            raise InputError(f"path: {self.path} is not a SavedModel that TensorFlow can load: {error}") from error
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
        # The loaded object owns the weights that the function reads: it must live as long as the call.
        call.owner = loaded  # type: ignore[attr-defined]
        return _Model(call, tuple(taken), tuple(given), count_parameters(weights))


def _fits(shape: tuple, expected: tuple[int, ...]) -> bool:
    """Whether a model's [batch, ...] can be [batch, *expected]."""
    return len(shape) == len(expected) + 1 and all(
        size in (None, wanted) for size, wanted in zip(shape[1:], expected, strict=True)
    )


def _shown(shape: tuple) -> str:
    return f"[{_listed('any' if size is None else size for size in shape[1:])}]"


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)
