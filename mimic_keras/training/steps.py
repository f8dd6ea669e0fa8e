"""The Keras model that trains a net: several steps in one graph call, and one loss on any number of devices.

Keras' own step averages the replicas' means, which is wrong when a batch is divided unevenly. Here the loss is per
example, and the local sum is divided by the count over all replicas, so any number of devices gives the same curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from mimic_keras.contracts import RunError
from mimic_keras.training import models
from mimic_keras.training.feeding import Feed
from mimic_keras.training.objective import Batch, Objective
from mimic_keras.training.optimizers import Warmup
from mimic_keras.training.private_api import AlreadyBuilt

Logs = dict[str, tf.Tensor]


class TrainingDiverged(RunError):
    """The loss became infinite or NaN."""


class Trainer(AlreadyBuilt, keras.Model):
    """A net under training.

    One call of its train function runs `steps_per_call` steps, fewer at the end of a pass, on the batches of `feed`;
    what Keras iterates over is ignored. `epoch` is the running one, which the caller sets; `schedule` gives the rate of
    a step where one is used. `clip_norm` is the largest norm of the gradient over all replicas and weights.
    """

    def __init__(
        self,
        net: keras.Model,
        objective: Objective,
        feed: Feed,
        validation: Feed,
        steps_per_call: int,
        clip_norm: float | None = None,
    ):
        super().__init__()
        self.net, self.objective, self.clip_norm = net, objective, clip_norm
        self._feed, self._validation = feed, validation
        self.steps_per_call, self.epoch = steps_per_call, 0
        self.schedule: keras.optimizers.schedules.LearningRateSchedule | None = None
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", "error_rate")}
        if not objective.learns_labels:
            self._means["agreement"] = keras.metrics.Mean(name="agreement")
        self.built = True
        self.train_function: Callable[[Any], Logs] | None = None
        self.test_function: Callable[[Any], Logs] | None = None

    def last_learning_rate(self) -> float:
        """The learning rate of the last step."""
        if self.schedule is not None:
            return float(self.schedule(max(0, int(self.optimizer.iterations.numpy()) - 1)))
        return float(self.optimizer.learning_rate.numpy())

    @property
    def rate(self) -> keras.Variable:
        """The learning rate where no function of the step gives it, before the factor of a warm-up."""
        return self.schedule.rate if isinstance(self.schedule, Warmup) else self.optimizer.learning_rate

    @property
    def state_variables(self) -> list[keras.Variable]:
        """What the next steps depend on: the net's, the seeds of random layers included, and the optimizer's."""
        of_rate = self.schedule.variables if isinstance(self.schedule, Warmup) else []
        return [*self.net.variables, *self.optimizer.variables, *of_rate]

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The net's outputs, float32 [B, num_classes]."""
        return models.float32_logits(self.net(inputs, training=training))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._means.values())

    def train_step(self, batch: Batch) -> tf.Tensor:
        """Update the net on this replica's part of a batch; returns its share of the loss."""
        with tf.GradientTape() as tape:
            loss = self._loss(batch, training=True)
        variables = self.net.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply(self._clip(gradients) if self.clip_norm else gradients, variables)
        return loss

    def _clip(self, gradients: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """This replica's share of the gradient, whose norm over all replicas and weights is at most `clip_norm`.

        Keras' own `global_clipnorm` clips each replica's gradient by itself, before they are added.
        """
        replica = tf.distribute.get_replica_context()
        known = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        whole = replica.all_reduce(tf.distribute.ReduceOp.SUM, known)
        clipped, _ = tf.clip_by_global_norm(whole, self.clip_norm)
        shares = iter([gradient / replica.num_replicas_in_sync for gradient in clipped])  # the optimizer adds them
        return [None if gradient is None else next(shares) for gradient in gradients]

    def test_step(self, batch: Batch) -> tf.Tensor:
        """As `train_step`, without the update."""
        return self._loss(batch, training=False)

    def _loss(self, batch: Batch, training: bool) -> tf.Tensor:
        """This replica's share of the mean loss over all replicas' examples."""
        outputs = self(batch["inputs"], training=training)
        per_example, weight = self.objective(outputs, batch)
        self._update_metrics(batch, outputs, per_example, weight)
        replica = tf.distribute.get_replica_context()
        count = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(weight))
        penalties = tf.add_n(self.net.losses) / replica.num_replicas_in_sync if self.net.losses else 0.0
        return tf.reduce_sum(per_example * weight) / tf.maximum(count, 1.0) + penalties

    def _update_metrics(self, batch: Batch, outputs: tf.Tensor, per_example: tf.Tensor, weight: tf.Tensor) -> None:
        predicted = tf.argmax(self.objective.logits(outputs), -1, output_type=tf.int32)
        known = tf.cast(batch["labels"] >= 0, tf.float32)
        self._means["loss"].update_state(per_example, weight)
        self._means["error_rate"].update_state(tf.cast(predicted != batch["labels"], tf.float32), known)
        if "agreement" in self._means:
            same = predicted == tf.argmax(batch["teacher_logits"], -1, output_type=tf.int32)
            self._means["agreement"].update_state(tf.cast(same, tf.float32))

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is None or force:
            run = self._steps_function(self.train_step, self._feed, "loss")

            def function(_: Any) -> Logs:
                # 0 in the last calls of a resumed pass: Keras makes as many calls as for a whole one.
                done = int(self.optimizer.iterations.numpy())
                left = (self.epoch + 1) * self._feed.steps_per_pass - done
                return run(done, min(self.steps_per_call, left))

            self.train_function = function

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is None or force:
            run = self._steps_function(self.test_step, self._validation, "validation loss")
            self.test_function = lambda _: run(0, self._validation.steps_per_pass)

    def _steps_function(self, step: Callable[[Batch], tf.Tensor], feed: Feed, what: str) -> Callable[[int, int], Logs]:
        """A function of (first step, number of steps) that runs the steps in one graph call and returns the metrics.

        It stops at the first step whose loss is infinite or NaN, and raises TrainingDiverged; `what` names the loss.
        """
        strategy = self.distribute_strategy

        @tf.function(reduce_retracing=True, autograph=False)
        def run(given: Any, steps: tf.Tensor) -> tf.Tensor:
            def one(done: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                shares = strategy.run(lambda part: step(feed.batch(part)), args=(feed.part(given, done),))
                return done + 1, strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None)

            def more(done: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
                return (done < steps) & tf.math.is_finite(loss)

            return tf.while_loop(more, one, (tf.constant(0), tf.constant(0.0)))[1]

        def function(first: int, steps: int) -> Logs:
            loss = float(run(feed.start(first), tf.constant(steps)))
            if not math.isfinite(loss):
                at = f"at step {int(self.optimizer.iterations.numpy())}, learning rate {self.last_learning_rate():g}"
                raise TrainingDiverged(f"the {what} became {loss} {at}")
            return {metric.name: metric.result() for metric in self.metrics}

        return function
