"""A training's optimizer, made from its section, and its learning rate as a function of the step."""

from __future__ import annotations

import inspect
import math
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from mimic_keras.contracts import InputError
from mimic_keras.experiment.optimizers import OfLimit
from mimic_keras.experiment.training import CosineDecay, StepDecay, TrainingSection
from mimic_keras.training.private_api import without_tracing_warning

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule

COMPILED_FROM = 2**17  # numbers in a weight; a call of compiled code costs smaller ones more than it saves
NOT_FASTER = {"sgd", "lamb", "adafactor", "muon"}  # by XLA: few terms, or norms, means and products of a whole weight


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A rate times a factor that rises linearly: at step s, counted from 0, min(1, (s + 1) / `steps`).

    Goyal et al. 2017, "Accurate, large minibatch SGD", section 2.2. `rate` is a schedule, which runs from step 0 as
    without warm-up, or a variable, which callbacks may change.

    Example:
        >>> float(Warmup(keras.Variable(0.5), steps=4)(0))
        0.125
    """

    def __init__(self, rate: keras.Variable | keras.optimizers.schedules.LearningRateSchedule, steps: int):
        super().__init__()
        self.rate, self.steps = rate, steps

    def __call__(self, step: Any) -> tf.Tensor:
        rate = self.rate.value if isinstance(self.rate, keras.Variable) else self.rate(step)
        return tf.cast(rate, tf.float32) * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / self.steps)

    @property
    def variables(self) -> list[keras.Variable]:
        """What a checkpoint has to keep."""
        return [self.rate] if isinstance(self.rate, keras.Variable) else []


def make_rate(settings: TrainingSection, steps: int) -> LearningRate:
    """The learning rate as a function of the step, or the first rate where only epochs change it; call it under the
    strategy. `steps` make a pass."""
    rate = _make_schedule(settings, steps)
    if not settings.warmup:
        return rate
    until = max(1, round(settings.warmup * steps))
    is_variable = isinstance(rate, float)
    return Warmup(keras.Variable(rate, trainable=False, name="rate") if is_variable else rate, until)


def peak_rate(settings: TrainingSection, steps: int) -> float:
    """The largest learning rate of a training, whose schedule only falls: the first, or one within the warm-up."""
    rate = make_rate(settings, steps)
    if isinstance(rate, Warmup):
        return float(tf.reduce_max(rate(tf.range(rate.steps))))
    return _first_rate(settings)


def _first_rate(settings: TrainingSection) -> float:
    rate = settings.optimizer.learning_rate
    assert not isinstance(rate, OfLimit)  # `stability.find_stability` has made it a number
    return rate


def _make_schedule(settings: TrainingSection, steps: int) -> LearningRate:
    rate, schedule = _first_rate(settings), settings.schedule
    if isinstance(schedule, CosineDecay):
        return keras.optimizers.schedules.CosineDecay(rate, settings.epochs * steps, schedule.final_fraction)
    if isinstance(schedule, StepDecay):
        return keras.optimizers.schedules.ExponentialDecay(
            rate, schedule.every * steps, schedule.factor, staircase=True
        )
    return rate


def make_optimizer(settings: TrainingSection, rate: LearningRate) -> keras.optimizers.Optimizer:
    """Keras' optimizer of the section, which also keeps the moving average of the weights if there is to be one.

    On processors, XLA compiles the updates of large weights: benchmarks/README.md has what it gains.

    Raises:
        InputError: the installed Keras has no such optimizer, or one without some of its arguments.
    """
    section = settings.optimizer
    kind = getattr(keras.optimizers, type(section).__name__, None)
    arguments = section.model_dump(exclude={"name", "learning_rate"})
    missing = arguments.keys() - inspect.signature(kind).parameters.keys() if kind else ()
    if kind is None or missing:
        lacks = f"'{section.name}'" + (f" with {', '.join(sorted(missing))}" if missing else "")
        raise InputError(f"Keras {keras.__version__} has no {lacks}; a newer Keras has")
    if settings.exponential_moving_average is not None:
        arguments |= {"use_ema": True, "ema_momentum": settings.exponential_moving_average}
    optimizer = kind(rate, **arguments)
    if section.name not in NOT_FASTER and not tf.config.list_logical_devices("GPU"):
        _compile_large_updates(optimizer)
    return optimizer


def _compile_large_updates(optimizer: keras.optimizers.Optimizer) -> None:
    """One loop over a large weight in place of an operation for each term, each of which reads and writes all of it."""
    update_step = optimizer.update_step

    def update(gradient: Any, variable: Any, learning_rate: Any) -> None:
        def step() -> None:
            update_step(gradient, variable, learning_rate)

        if math.prod(variable.shape) < COMPILED_FROM or isinstance(gradient, tf.IndexedSlices):  # of few rows
            step()
        else:
            without_tracing_warning(tf.function(step, jit_compile=True, autograph=False))()

    optimizer.update_step = update
