"""The one trainer: teacher members, baselines and students differ in their objective alone.

Keras' own step averages the means of the replicas, which is wrong when their shares of a batch differ. Here the loss
is per example, and the local sum is divided by the count over all replicas, so that any number of devices gives the
same curve.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import InputError, RunError
from mimic_keras.experiment.schema import Adam, CosineDecay, PlateauHalving, Sgd, StepDecay, TrainingSection
from mimic_keras.reporting.console import progress
from mimic_keras.training import models
from mimic_keras.training.batches import Examples, ordered_batches, training_batches
from mimic_keras.training.callbacks import BestWeights, Curve, History, Plateau, Progress
from mimic_keras.training.checkpoint import Checkpoint
from mimic_keras.training.objective import Objective

TRAINER_VERSION = 2  # part of every cache key: raise it when the same experiment would give other weights
VALIDATION_BATCH = 512
# Several steps are run in one graph call, as many as fit in about this much arithmetic, so that neither Python's
# overhead counts for small nets nor the progress bar stands still for large ones.
MULTIPLY_ADDS_PER_CALL = 20e9
MAXIMUM_STEPS_PER_CALL = 100


class TrainingDiverged(RunError):
    """The loss became infinite or NaN."""


class Trainer(keras.Model):
    """A net under training. One call of its train function runs `steps_per_call` steps (fewer at the end of a pass)."""

    def __init__(self, net: keras.Model, objective: Objective, steps_per_pass: int, steps_per_call: int):
        super().__init__()
        self.net, self.objective = net, objective
        self.steps_per_pass, self.steps_per_call, self.epoch = steps_per_pass, steps_per_call, 0
        self.schedule: keras.optimizers.schedules.LearningRateSchedule | None = None
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", "error_rate")}
        if objective.loss is not None:
            self._means["agreement"] = keras.metrics.Mean(name="agreement")
        self.validation_steps = 1
        self.built = True
        self.train_function: Callable[..., Any] | None = None
        self.test_function: Callable[..., Any] | None = None

    def rate(self) -> float:
        """The learning rate of the last step."""
        if self.schedule is not None:
            return float(self.schedule(max(0, int(self.optimizer.iterations.numpy()) - 1)))
        return float(self.optimizer.learning_rate.numpy())

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return models.logits_of(self.net(inputs, training=training))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())

    def _loss(self, batch: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """This replica's share of the mean loss over all replicas' examples."""
        outputs = self(batch["inputs"], training=training)
        per_example, weight = self.objective(outputs, batch)
        logits = self.objective.logits(outputs)
        predicted = tf.argmax(logits, -1, output_type=tf.int32)
        known = tf.cast(batch["labels"] >= 0, tf.float32)
        self._means["loss"].update_state(per_example, weight)
        self._means["error_rate"].update_state(tf.cast(predicted != batch["labels"], tf.float32), known)
        if "agreement" in self._means:
            same = predicted == tf.argmax(batch["teacher_logits"], -1, output_type=tf.int32)
            self._means["agreement"].update_state(tf.cast(same, tf.float32))
        replica = tf.distribute.get_replica_context()
        count = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(weight))
        penalties = tf.add_n(self.net.losses) / replica.num_replicas_in_sync if self.net.losses else 0.0
        return tf.reduce_sum(per_example * weight) / tf.maximum(count, 1.0) + penalties

    def train_step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = self._loss(batch, training=True)
        variables = self.net.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def test_step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return self._loss(batch, training=False)

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is None or force:
            run = self._steps_function(self.train_step, "loss")

            def function(iterator: Any) -> dict[str, tf.Tensor]:
                # None is left where a pass goes on that was interrupted: Keras makes as many calls as for a whole one.
                left = (self.epoch + 1) * self.steps_per_pass - int(self.optimizer.iterations.numpy())
                return run(iterator, min(self.steps_per_call, left))

            self.train_function = function

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is None or force:
            run = self._steps_function(self.test_step, "validation loss")
            self.test_function = lambda iterator: run(iterator, self.validation_steps)

    def _steps_function(
        self, step: Callable[[Any], tf.Tensor], what: str
    ) -> Callable[[Any, int], dict[str, tf.Tensor]]:
        """A function of (iterator, number of steps) that runs the steps in one graph call and returns the metrics; it
        stops at the first step whose loss is infinite or NaN, and raises."""
        strategy = self.distribute_strategy

        @tf.function(reduce_retracing=True, autograph=False)
        def run(iterator: Any, steps: tf.Tensor) -> tf.Tensor:
            def one(done: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                shares = strategy.run(step, args=(next(iterator),))
                return done + 1, strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None)

            def more(done: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
                return (done < steps) & tf.math.is_finite(loss)

            return tf.while_loop(more, one, (tf.constant(0), tf.constant(0.0)))[1]

        def function(iterator: Any, steps: int) -> dict[str, tf.Tensor]:
            loss = float(run(iterator, tf.constant(steps)))
            if not math.isfinite(loss):
                at = f"at step {int(self.optimizer.iterations.numpy())}, learning rate {self.rate():g}"
                raise TrainingDiverged(f"the {what} became {loss} {at}")
            return {metric.name: metric.result() for metric in self.metrics}

        return function

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Keras would run a step to build the model; net and optimizer are built already."""


@dataclass(frozen=True)
class Trained:
    """A float32 model outside any distribution scope, and its curves: {metric: one value per epoch}."""

    model: keras.Model
    history: dict[str, list[float]]


def train(
    build: Callable[[], keras.Model],
    examples: Examples,
    validation: Examples,
    objective: Objective,
    settings: TrainingSection,
    seed: int,
    name: str,
    *,
    strategy: tf.distribute.Strategy,
    judge: Callable[[np.ndarray], Mapping[str, float]] | None = None,
    logs: Path | None = None,
    state: Path | None = None,
) -> Trained:
    """Train the net that `build()` makes.

    Args:
        build: makes the uncompiled net; called under the strategy in the training's precision, then once more in
            float32 for the net that is returned.
        examples: what is trained on, in an order that follows from `seed`.
        validation: what "best" and the plateau are judged on: the error rate, or the loss if it has no labels.
        objective: what the net is trained for.
        settings: the `training` section.
        seed: of the initial weights, the dropout masks and the order of the data.
        name: of the net, for the progress bar and TensorBoard.
        strategy: the devices.
        judge: validation logits, float32 [examples, num_classes], to the data set's metrics, for `evaluate_every`.
        logs: TensorBoard's folder; None writes nothing.
        state: the file of an interrupted training's state, with which it goes on; None keeps none.

    Raises:
        TrainingDiverged: the loss became infinite or NaN; names the step and the learning rate.
        InputError: the labels are to be learnt, and there are none.
    """
    if objective.loss is None and not (examples.has_labels and validation.has_labels):
        raise InputError(f"{name}: learns the labels, but the training or the validation examples have none")
    steps = examples.steps_per_pass(settings.batch_size)
    monitor = "val_error_rate" if validation.has_labels else "val_loss"
    with _precision(settings.precision), strategy.scope():
        keras.utils.set_random_seed(seed)
        trainer = _trainer(build(), objective, settings, steps)
    trainer.validation_steps = validation.steps_per_pass(VALIDATION_BATCH)
    with progress(name, settings.epochs * steps, "steps") as advance:
        history = History()
        callbacks: list[keras.callbacks.Callback] = [
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: setattr(trainer, "epoch", epoch)),
            Progress(advance, monitor),
        ]
        if isinstance(settings.schedule, PlateauHalving):
            callbacks.append(Plateau(settings.schedule, monitor))
        if settings.restore == "best":
            callbacks.append(BestWeights(monitor))
        callbacks.append(history)
        curve = Curve(settings.evaluate_every, lambda: _judged(trainer, validation, judge)) if judge else None
        if curve:
            callbacks.append(curve)
        if logs:
            callbacks.append(keras.callbacks.TensorBoard(logs / name, write_graph=False))
        epoch = 0
        with contextlib.ExitStack() as stack:
            if state:
                checkpoint = Checkpoint(
                    state, [each for each in callbacks if hasattr(each, "state")], settings.checkpoint_every
                )
                epoch = checkpoint.restore(trainer)
                callbacks.append(checkpoint)
                stack.enter_context(checkpoint.on_signals())
            trainer.fit(
                training_batches(examples, settings.batch_size, seed, int(trainer.optimizer.iterations.numpy())),
                epochs=settings.epochs,
                initial_epoch=epoch,
                steps_per_epoch=-(-steps // trainer.steps_per_call),
                validation_data=ordered_batches(validation, VALIDATION_BATCH).repeat(),
                validation_steps=1,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
    twin = build()
    twin.set_weights(trainer.net.get_weights())
    curves = {**history.history, **(curve.curve if curve else {})}
    return Trained(twin, {key: [float(value) for value in values] for key, values in curves.items()})


def _judged(
    trainer: Trainer, validation: Examples, judge: Callable[[np.ndarray], Mapping[str, float]]
) -> Mapping[str, float]:
    predict = models.predictor(lambda inputs: trainer.objective.logits(trainer(inputs, training=False)))
    return judge(predict(validation.split, validation.ids))


def _trainer(net: keras.Model, objective: Objective, settings: TrainingSection, steps: int) -> Trainer:
    """The net under training, with its optimizer; made under the strategy."""
    per_step = 3 * models.multiply_adds(net, net.input_shape[1:]) * settings.batch_size
    at_most = min(MAXIMUM_STEPS_PER_CALL, settings.checkpoint_every or steps, steps)
    per_call = int(min(at_most, max(1, MULTIPLY_ADDS_PER_CALL // max(per_step, 1))))
    rate = _rate(settings, steps)
    trainer = Trainer(net, objective, steps, per_call)
    trainer.schedule = None if isinstance(rate, float) else rate
    trainer.compile(optimizer=_optimizer(settings, rate), jit_compile=False)
    trainer.optimizer.build(net.trainable_variables)
    return trainer


def _rate(settings: TrainingSection, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The rate as a function of the step, or the first rate where only epochs change it."""
    rate, schedule = float(settings.optimizer.learning_rate), settings.schedule
    if isinstance(schedule, CosineDecay):
        return keras.optimizers.schedules.CosineDecay(rate, settings.epochs * steps, schedule.final_fraction)
    if isinstance(schedule, StepDecay):
        return keras.optimizers.schedules.ExponentialDecay(
            rate, schedule.every * steps, schedule.factor, staircase=True
        )
    return rate


def _optimizer(settings: TrainingSection, rate: Any) -> keras.optimizers.Optimizer:
    section = settings.optimizer
    arguments = section.model_dump(exclude={"name", "learning_rate"})
    return {Sgd: keras.optimizers.SGD, Adam: keras.optimizers.Adam}[type(section)](rate, **arguments)


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    """Keras' global dtype policy for the time of a `with` block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
