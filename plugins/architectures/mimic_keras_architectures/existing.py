"""Nets that exist already, as students to start from: `keras_file` and `keras_application`.

mimic_keras_teachers loads its teachers with the same functions.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers

from mimic_keras.contracts import InputError, RunError, file_digest, logits_of

# Their safe mode loads a TFSMLayer, which runs any SavedModel, and HDF5 external data, which reads any file.
UNSAFE_KERAS = ("3.12.0", "3.13.0", "3.13.1")


def keras_file(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    path: Path,
    weights: Literal["keep", "fresh"] = "keep",
) -> keras.Model:
    """A functional or sequential model from a .keras file: float32 [batch, *input_shape] to logits.

    Args:
        input_shape: of the data set.
        num_classes: of the data set.
        path: the file; code in it is not run (Keras' safe mode).
        weights: `keep` starts from the file's weights; `fresh` draws new ones, by the file's initializers. What a
            Normalization layer has adapted to is kept.

    Raises:
        InputError: the file is missing, is no such model, does not fit the data set, or does not give logits.
        RunError: this release of Keras would run code from the file.
    """
    saved = load_keras_file(path)
    check_inputs(f"path: {path}", saved.input_shape, input_shape)
    check_outputs(f"path: {path}", logits_of(saved.compute_output_shape(saved.input_shape)), num_classes)
    inputs = np.random.default_rng(0).normal(0, 10, (32, *input_shape)).astype(np.float32)
    values = np.asarray(logits_of(saved(inputs, training=False)))
    if values.min() >= 0 and values.max() <= 1:
        raise InputError(
            f"path: {path} gives outputs between 0 and 1; a student gives logits: save it without the softmax or "
            "sigmoid at its end (activation=None)"
        )
    net = _rebuild(saved, path)
    if weights == "keep":
        net.set_weights(saved.get_weights())
    for old, new in zip(_layers_of(saved), _layers_of(net), strict=True):
        if isinstance(old, layers.Normalization):
            new.set_weights(old.get_weights())
            new.finalize_state()
    return net


def keras_application(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    model: str,
    weights: Path | None = None,
    pooling: Literal["avg", "max"] = "avg",
    alpha: float | None = None,
) -> keras.Model:
    """A net of keras.applications without its top, global pooling, and logits: float32 [batch, height, width, channels]
    to logits.

    Args:
        input_shape: of the data set.
        num_classes: of the data set.
        model: its name there. Some, as EfficientNet, rescale their inputs: see its page in Keras' documentation.
        weights: a .weights.h5 file of the net without its top: `net.save_weights(...)` of `include_top=False`. None:
            fresh ones; nothing is downloaded.
        pooling: the mean or the maximum over the picture.
        alpha: factor on the widths of a MobileNet; None: Keras' default.

    Raises:
        InputError: Keras has no such net, or the file is missing or does not fit.
        ValueError: Keras refuses the shape of the inputs, or alpha.

    Example:
        >>> keras_application((32, 32, 3), 10, model="MobileNet", alpha=0.25).output_shape
        (None, 10)
    """
    base = build_application(model, input_shape, alpha, include_top=False, pooling=pooling)
    if weights:
        load_weights(base, weights, model)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(base.output)
    return keras.Model(base.input, logits, name=model.lower())


def _file_digest(path: Path, **_: Any) -> str:
    return file_digest(find_file("path", path))


def _weights_digest(weights: Path | None, **_: Any) -> str | None:
    return file_digest(find_file("weights", weights)) if weights else None


keras_file.source_digest = _file_digest  # type: ignore[attr-defined]
keras_application.source_digest = _weights_digest  # type: ignore[attr-defined]


def find_file(argument: str, path: Path) -> Path:
    """The path, if a file is there.

    Raises:
        InputError: there is none.
    """
    if path.is_dir():
        hint = "; the teacher saved_model reads a SavedModel" if (path / "saved_model.pb").is_file() else ""
        raise InputError(f"{argument}: {path} is a folder, expected a file{hint}")
    if not path.is_file():
        raise InputError(f"{argument}: no such file: {path}")
    return path


def load_keras_file(path: Path) -> keras.Model:
    """The uncompiled model of a .keras file, loaded in safe mode.

    Raises:
        InputError: it is not a model that Keras can load.
        RunError: this release of Keras would run code from the file.
    """
    _refuse_unsafe_keras()
    try:
        model = keras.models.load_model(find_file("path", path), compile=False)
        model.compute_output_shape(model.input_shape)
        return model
    except InputError:
        raise
    except Exception as error:  # Keras raises anything here, depending on the file's content
        raise InputError(f"path: {path} is not a model that Keras can load: {error}") from error


def build_application(model: str, input_shape: tuple[int, ...], alpha: float | None, **options: Any) -> keras.Model:
    """A net of keras.applications with fresh weights; `options` are passed on.

    Raises:
        InputError: Keras has no such net, or it takes no alpha.
    """
    nets = {name: net for name, net in vars(keras.applications).items() if inspect.isfunction(net)}
    if model not in nets:
        close = difflib.get_close_matches(model, nets, 1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise InputError(f"model: keras.applications has no {model!r}. {hint}Accepted: {', '.join(sorted(nets))}")
    if alpha is not None:
        if "alpha" not in inspect.signature(nets[model]).parameters:
            raise InputError(f"alpha: {model} takes none, got {alpha}")
        options["alpha"] = alpha
    return nets[model](input_shape=tuple(input_shape), weights=None, **options)


def load_weights(net: keras.Model, path: Path, model: str) -> None:
    """Load a .weights.h5 file into a net of keras.applications.

    Raises:
        InputError: the file is missing or is of another net.
        RunError: this release of Keras would read other files that this one names.
    """
    _refuse_unsafe_keras()
    if not find_file("weights", path).name.endswith(".weights.h5"):
        raise InputError(f"weights: expected a .weights.h5 file, as net.save_weights(...) writes it, got {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of layers that it finds no weights for
            net.load_weights(path)
    except Exception as error:  # Keras raises anything here, depending on the file's content
        raise InputError(f"weights: {path} does not fit {model}: {error}") from error


def check_inputs(place: str, shape: Any, input_shape: tuple[int, ...]) -> None:
    """Raise InputError unless a model's inputs [batch, ...], None for any size, can be [batch, *input_shape]."""
    if not _fits(shape, input_shape):
        expected = _shown((None, *input_shape))
        raise InputError(f"{place} takes inputs of shape {_shown(shape)}, the data set's are {expected}")


def check_outputs(place: str, shape: Any, num_classes: int) -> None:
    """Raise InputError unless a model's outputs [batch, ...] can be [batch, num_classes]."""
    if not _fits(shape, (num_classes,)):
        raise InputError(f"{place} gives outputs of shape {_shown(shape)}, the data set has {num_classes} classes")


def _fits(shape: Any, expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) + 1 and all(
        size in (None, wanted) for size, wanted in zip(shape[1:], expected, strict=True)
    )


def _shown(shape: Any) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape[1:])}]"


def _refuse_unsafe_keras() -> None:
    if keras.__version__ in UNSAFE_KERAS:
        raise RunError(
            f"Keras {keras.__version__} runs code and reads other files that a model's file names; it needs another "
            f"release than {', '.join(UNSAFE_KERAS)}"
        )


def _rebuild(saved: keras.Model, path: Path) -> keras.Model:
    """The same net with fresh weights, in the precision of the training; its last layers stay float32."""
    last = getattr(saved, "output_names", None) or [saved.layers[-1].name]  # a sequential model names none

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if layer.dtype_policy.name == "float32" and layer.name not in last:
            config["dtype"] = keras.config.dtype_policy().name
        return type(layer).from_config(config)

    try:
        return keras.models.clone_model(saved, clone_function=clone, recursive=True)
    except ValueError as error:
        raise InputError(f"path: {path} is no functional or sequential model: {error}") from error


def _layers_of(model: keras.Model) -> Iterator[layers.Layer]:
    """Every layer, those of nested models included."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers_of(layer)
