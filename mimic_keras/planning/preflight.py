"""Every component tried once, without data, before anything is trained: what cannot work is a problem of the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from mimic_keras.contracts import Dataset, DatasetInfo, MimicError
from mimic_keras.experiment.formats import describe_missing
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems, quote, suggest
from mimic_keras.experiment.training import TrainingSection
from mimic_keras.planning.components import Component
from mimic_keras.training import metrics, models
from mimic_keras.training.objective import Objective
from mimic_keras.training.optimizers import make_optimizer


@contextlib.contextmanager
def errors_as_problems(place: Place, problems: Problems) -> Iterator[None]:
    """Turn an InputError or RunError raised inside the block into a problem of `place`."""
    try:
        yield
    except MimicError as error:
        problems.add(place, str(error))


def read_dataset_info(component: Component, place: Place, problems: Problems) -> DatasetInfo | None:
    """The data set's `info`; None, with the problem added, if it cannot be had."""
    with errors_as_problems(place, problems):
        return component.guard(lambda: component().info)
    return None


def check_teacher(component: Component, info: DatasetInfo, place: Place, problems: Problems) -> None:
    """Have the teacher check that it fits the data set."""
    with errors_as_problems(place, problems):
        component.guard(component().check, info)


def measure_net(component: Component, info: DatasetInfo, place: Place, problems: Problems) -> models.Cost | None:
    """Build a net, check its contract, and return its cost; None, with the problem added, if it breaks the contract.

    The net must give logits [batch, num_classes] and be restorable from its own configuration.
    """

    def build() -> models.Cost:
        model = component(info.input_shape, info.num_classes)
        if not isinstance(model, keras.Model):
            raise TypeError(f"returned a {type(model).__name__}, expected a keras.Model")
        shape = models.logits_shape(model, info.input_shape)
        if shape != (1, info.num_classes):
            raise ValueError(f"logits of shape {shape} for one example, expected [batch, {info.num_classes}]")
        if models.ends_in_softmax(model):
            raise ValueError("it ends in a softmax and gives probabilities, expected logits: leave the softmax out")
        # A net that cannot be restored from its file would be lost after hours of training.
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model), safe_mode=True)
        return models.measure_cost(model)

    with errors_as_problems(place, problems):
        return models.build_without_values(build, component.guard)
    return None


def check_optimizer(settings: TrainingSection, place: Place, problems: Problems) -> None:
    """Make the optimizer: the installed Keras may not have it, or not all of its arguments."""
    with errors_as_problems(place, problems):
        make_optimizer(settings, 1.0)


def has_own_metrics(dataset: Component) -> bool:
    """Whether the data set evaluates models in a way of its own; the names are known once it is read."""
    return getattr(type(dataset()), "evaluate", None) is not Dataset.evaluate


def check_monitor(
    settings: TrainingSection, dataset: Component, info: DatasetInfo, place: Place, problems: Problems
) -> None:
    """Check that there is such a metric, if the data set has none of its own."""
    accepted = [*metrics.OF_THE_TRAINER, *metrics.list_metrics(info.num_classes, has_teacher=False)]
    name = settings.monitored_metric
    if name is not None and name not in accepted and not has_own_metrics(dataset):
        problems.add(place, f"no metric {quote(name)}. {suggest(name, {each: each for each in accepted})}")


def check_loss(component: Component, num_classes: int, place: Place, problems: Problems) -> None:
    """Call a loss on two examples; it must give one value for each."""
    logits = np.linspace(-1, 1, 2 * num_classes, dtype=np.float32).reshape(2, num_classes)
    batch = {"teacher_logits": keras.ops.convert_to_tensor(logits), "labels": np.zeros(2, np.int32)}

    def call() -> None:
        Objective(component())(keras.ops.convert_to_tensor(logits[::-1].copy()), batch)

    with errors_as_problems(place, problems):
        component.guard(call)


def check_formats(names: Iterable[str], problems: Problems) -> None:
    """Check that the converters and runtimes of an export's formats are installed."""
    for message in describe_missing(names):
        problems.add(Place("export", "formats"), message)
