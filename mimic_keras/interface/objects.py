"""Objects of a program where an experiment has a component: each becomes a component with an identity."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from mimic_keras.contracts import Dataset, DatasetInfo, InputError, Member, Teacher, TeacherContext
from mimic_keras.experiment.places import Place
from mimic_keras.interface.identity import NoIdentityError, identify, temporary_identity
from mimic_keras.planning.files import kind_of
from mimic_keras.planning.plugins import GROUPS, PYTHON, GivenPlugin
from mimic_keras.training import models

ACCEPTED = {
    "dataset": "a Dataset",
    "teacher": "a keras.Model or a Teacher",
    "architecture": "a keras.Model or a function that builds one; its first parameters are input_shape and num_classes",
    "loss": "a keras.losses.Loss, whose method call a function may be",
}
# Keras' own losses whose true values are probabilities or classes, whatever their from_logits says of the others.
OF_PROBABILITIES = (
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CTC",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "CategoricalHinge",
    "Circle",
    "Dice",
    "Hinge",
    "KLDivergence",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "Tversky",
)
# About the precision of float32 probabilities; the logarithm of a smaller one would be noise.
SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class ObjectPlugin(GivenPlugin):
    """A component that is an object. `is_made`: it has no arguments, since it is not a class or function any more."""

    is_made: bool = False

    def parameters(self) -> dict[str, tuple[Any, Any]]:
        return {} if self.is_made else super().parameters()

    def describe_use(self) -> str:
        return (
            f"an object of the program that ran this, with the digest {self.identity[:16]}; only it can run this again"
        )


@dataclass
class Objects:
    """Replaces the objects in an experiment by names, and collects the components that the names stand for.

    Example:
        >>> objects = Objects()
        >>> objects.name_all({"student": {"loss": keras.losses.Huber()}})
        {'student': {'loss': {'name': 'Python:Huber'}}}
    """

    plugins: list[ObjectPlugin] = field(default_factory=list)

    def name_all(self, value: Any, place: Place = Place()) -> Any:  # noqa: B008 - it never changes
        """`value` as plain data.

        Raises:
            InputError: an object that is no component of the kind that belongs there.
        """
        if isinstance(value, Mapping):
            return {key: self.name_all(item, place / str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.name_all(item, place / index) for index, item in enumerate(value)]
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, str | int | float):
            return value
        keys = [str(key) for key in place]
        is_named = keys[-1:] == ["name"]  # {name: object, argument: ...}
        kind = next((key for key in keys[::-1][is_named:][:1]), "")
        if kind not in GROUPS:
            raise InputError(f"{place}: expected a text, number, boolean, list or mapping, got {value!r:.80}")
        name = f"{PYTHON}:{self._add(kind, value, place)}"
        return name if is_named else {"name": name}

    def _add(self, kind: str, value: Any, place: Place) -> str:
        """The name of the component, which is added unless it is there."""
        try:
            identity = identify(value)
        except NoIdentityError as error:
            identity = temporary_identity(value)
            logging.warning(
                "%s: %r has no identity (%s): what is made with it is not reused after this process",
                place,
                value,
                error,
            )
        target, is_made = _as_component(kind, value, identity, place)
        name = getattr(value, "__name__", None) or type(value).__name__
        if isinstance(value, keras.Model):  # models share names; a member's may not depend on the others
            name = f"{name}_{identity[:8]}"
        for plugin in self.plugins:
            if (plugin.kind, plugin.identity, plugin.is_made) == (kind, identity, is_made):
                return plugin.name
            if (plugin.kind, plugin.name) == (kind, name):
                name = f"{name}_{identity[:8]}"
        origin = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
        entry_point = importlib.metadata.EntryPoint(name, f"{origin.__module__}:{origin.__qualname__}", GROUPS[kind])
        summary = (inspect.getdoc(value) or "").partition("\n")[0]
        unchanged = partial(str, identity)  # a run has the program's thread: nothing changes the object meanwhile
        self.plugins.append(
            ObjectPlugin(kind, name, entry_point, PYTHON, "", summary, target, identity, unchanged, is_made)
        )
        return name


def _as_component(kind: str, value: Any, identity: str, place: Place) -> tuple[Callable[..., Any], bool]:
    """(what makes the component, whether it takes no arguments).

    Raises:
        InputError: the object is no component of this kind.
    """
    origin = value if inspect.isclass(value) else type(value)
    if kind == "loss" and any(origin is getattr(keras.losses, name, None) for name in OF_PROBABILITIES):
        raise InputError(
            f"{place}: keras.losses.{origin.__name__} compares with probabilities or classes, and the teacher's "
            "outputs are logits; 'kl' and 'temperature' compare the probabilities of logits"
        )
    if kind_of(value) == kind:
        return value, False
    if isinstance(value, keras.Model) and kind == "architecture":
        return partial(_copy_model, value), True
    if isinstance(value, keras.Model) and kind == "teacher":
        return Made(ModelTeacher(value, identity)), True
    bases = {"dataset": Dataset, "teacher": Teacher, "loss": keras.losses.Loss}
    if kind in bases and isinstance(value, bases[kind]):
        return Made(value), True
    raise InputError(f"{place}: expected {ACCEPTED[kind]}, or a name, got {value!r:.80}")


class Made:
    """Stands for the class of an object: called, it returns the object; of a data set or teacher, which may keep what
    it prepares, a copy."""

    def __init__(self, instance: Any):
        self._instance = instance

    def __call__(self) -> Any:
        return copy.copy(self._instance) if isinstance(self._instance, Dataset | Teacher) else self._instance

    def __getattr__(self, name: str) -> Any:
        return getattr(type(self._instance), name)


def _copy_model(model: keras.Model, input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """A net of the model's architecture that starts from its weights."""
    if tuple(model.input_shape[1:]) != tuple(input_shape):
        raise ValueError(f"the model takes inputs of shape {model.input_shape[1:]}, the data set's are {input_shape}")
    again = keras.saving.deserialize_keras_object(
        {**keras.saving.serialize_keras_object(model), "compile_config": None}, safe_mode=False
    )
    again.set_weights(model.get_weights())
    return again


class ModelTeacher(Teacher):
    """A model of the program as a member; where its outputs are probabilities p, its logits are log(max(p, 1e-7))."""

    def __init__(self, model: keras.Model, identity: str):
        self.model, self.identity = model, identity

    def source_digest(self) -> str:
        return self.identity

    def check(self, info: DatasetInfo) -> None:
        found, expected = models.logits_shape(self._call, info.input_shape), (1, info.num_classes)
        if found != expected:
            raise InputError(
                f"the model gives outputs of shape {found[1:]}, the data set has {info.num_classes} classes"
            )

    def member(self, context: TeacherContext) -> Member:
        self.check(context.dataset.info)
        noise = np.random.default_rng(0).random((8, *context.dataset.info.input_shape), np.float32)
        values = keras.ops.convert_to_numpy(models.float32_logits(self._call(noise)))
        if (values < 0).any() or not np.allclose(values.sum(-1), 1, atol=1e-3):
            return Member(self._call, model=None, parameters=self._parameters)
        logging.info("teacher: %s gives probabilities; their logarithms are its logits", self.model.name)
        return Member(self._log_probabilities, model=None, parameters=self._parameters)

    @property
    def _parameters(self) -> int:
        return models.count_parameters(self.model.trainable_weights)

    def _call(self, inputs: Any) -> Any:
        return self.model(inputs, training=False)

    def _log_probabilities(self, inputs: Any) -> Any:
        return keras.ops.log(keras.ops.maximum(models.float32_logits(self._call(inputs)), SMALLEST_PROBABILITY))
