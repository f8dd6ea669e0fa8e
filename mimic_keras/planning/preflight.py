"""Every component tried once, without data, before anything is trained: what can not work is a problem of the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np

from mimic_keras.contracts import DatasetInfo, InputError, RunError
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning.components import Component
from mimic_keras.training import models
from mimic_keras.training.objective import Objective


@contextlib.contextmanager
def reported(path: str, problems: Problems) -> Iterator[None]:
    """What is raised inside becomes a problem of `path`."""
    try:
        yield
    except (InputError, RunError) as error:
        problems.add(path, str(error))


def dataset_info(component: Component, path: str, problems: Problems) -> DatasetInfo | None:
    with reported(path, problems):
        return component.guard(lambda: component().info)
    return None


def check_teacher(component: Component, info: DatasetInfo, path: str, problems: Problems) -> None:
    with reported(path, problems):
        component.guard(component().check, info)


def net_cost(component: Component, info: DatasetInfo, path: str, problems: Problems) -> models.Cost | None:
    """Build a net; it has to give logits [batch, num_classes] and to come back from its own configuration."""

    def build() -> models.Cost:
        model = component(info.input_shape, info.num_classes)
        shape = models.logits_shape(model, info.input_shape)
        if shape != (1, info.num_classes):
            raise ValueError(f"logits of shape {shape} for one example, expected [batch, {info.num_classes}]")
        # A net that its file could not give back would be lost after hours of training.
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model), safe_mode=True)
        return models.measure_cost(model)

    with reported(path, problems):
        return models.build_without_values(build, component.guard)
    return None


def check_loss(component: Component, num_classes: int, path: str, problems: Problems) -> None:
    """Call a loss on two examples; it has to give one value for each."""
    logits = np.linspace(-1, 1, 2 * num_classes, dtype=np.float32).reshape(2, num_classes)
    batch = {"teacher_logits": keras.ops.convert_to_tensor(logits), "labels": np.zeros(2, np.int32)}

    def call() -> None:
        Objective(component())(keras.ops.convert_to_tensor(logits[::-1].copy()), batch)

    with reported(path, problems):
        component.guard(call)
