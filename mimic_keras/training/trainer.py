"""The one trainer: teacher members, baselines and students differ in their objective alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import InputError
from mimic_keras.experiment.training import PlateauHalving, TrainingSection
from mimic_keras.reporting.console import progress
from mimic_keras.training import models, workers
from mimic_keras.training.batches import Examples
from mimic_keras.training.callbacks import Averages, BestWeights, Curve, History, Judge, Monitor, Plateau, Progress
from mimic_keras.training.checkpoint import Checkpoint
from mimic_keras.training.feeding import Feed, Passes, make_feeds
from mimic_keras.training.objective import Objective
from mimic_keras.training.optimizers import make_optimizer, make_rate
from mimic_keras.training.stability import Stability, find_stability
from mimic_keras.training.steps import Trainer, TrainingDiverged

# Part of every cache key: raise it when the same experiment would give other weights. 4: XLA compiles the updates of
# large weights, and rounds a product and a sum at once. 5: but not SGD's, which gain nothing.
TRAINER_VERSION = 5
VALIDATION_BATCH = 512
# One graph call runs as many steps as fit in about this much arithmetic, so that Python's overhead does not count for
# small nets and the progress bar does not stand still for large ones.
MULTIPLY_ADDS_PER_CALL = 20e9
MAXIMUM_STEPS_PER_CALL = 100


@dataclass(frozen=True)
class Trained:
    """A float32 model outside any distribution scope, its curves, {metric: one value per epoch}, and the stability of
    its start, where that is known."""

    model: keras.Model
    history: dict[str, list[float]]
    stability: Stability | None = None


class Train(Protocol):
    """`train` as a stage receives it: the devices and TensorBoard's folder are filled in."""

    def __call__(
        self,
        build: Callable[[], keras.Model],
        examples: Examples,
        validation: Examples,
        objective: Objective,
        settings: TrainingSection,
        seed: int,
        name: str,
        *,
        judge: Judge | None = None,
        state: Path | None = None,
    ) -> Trained: ...


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
    judge: Judge | None = None,
    logs: Path | None = None,
    state: Path | None = None,
) -> Trained:
    """Train the net that `build()` returns.

    Args:
        build: makes the uncompiled net; called under the strategy in the training's precision, then once more in
            float32 for the net that is returned.
        examples: the training examples, in an order that follows from `seed`.
        validation: decides the best epoch and the plateau, by `settings.monitor`.
        objective: what the net is trained for.
        settings: the `training` section.
        seed: of the initial weights, the dropout masks and the order of the examples.
        name: of the net, for the progress bar and TensorBoard.
        strategy: the devices; if they are of several workers, each of them calls this function alike, at once.
        judge: all metrics on validation, for `evaluate_every` and `monitor`.
        logs: TensorBoard's folder; None writes nothing.
        state: a file that keeps the state of the training, which is resumed if the file exists; None keeps none. The
            curvature at the start is kept beside it, as .json.

    Raises:
        TrainingDiverged: the loss, or a weight, became infinite or NaN; names the step and the learning rate.
        RunError: another worker has ended, or resumes at another step.
        InputError: the net learns the labels or is judged by them, and there are none; or the rate is a share of the
            largest stable one, and there is none.

    Example:
        >>> devices = tf.distribute.get_strategy()
        >>> trained = train(build, examples, validation, Objective(), settings, 0, "baseline", strategy=devices)
        >>> sorted(trained.history)
        ['error_rate', 'learning_rate', 'loss', 'val_error_rate', 'val_loss']
    """
    if objective.learns_labels and not (examples.has_labels and validation.has_labels):
        raise InputError(f"{name}: learns the labels, but the training or the validation examples have none")
    monitor = _choose_monitor(settings, validation, name)
    passes = (Passes(examples, settings.batch_size, seed), Passes(validation, VALIDATION_BATCH))
    feed, validation_feed = make_feeds(passes, strategy)
    with _precision(settings.precision):
        with strategy.scope():
            keras.utils.set_random_seed(seed)
            net = build()
        replicas, kept = strategy.num_replicas_in_sync, state and state.with_suffix(".json")
        stability, settings = find_stability(net, objective, examples, settings, seed, name, replicas, kept)
        with strategy.scope():
            trainer = _make_trainer(net, objective, feed, validation_feed, settings)
    calls = tf.data.Dataset.from_tensors([0]).repeat()  # Keras only counts them: the trainer has its feeds
    with progress(name, settings.epochs * feed.steps_per_pass, "steps") as advance:
        folder = logs / name if logs and workers.rank_of(strategy) == 0 else None
        callbacks = _make_callbacks(trainer, validation, settings, monitor, advance, judge, folder)
        keeping_state = _keeping_state(trainer, callbacks, state, settings.checkpoint_every)
        with keeping_state as first_epoch, workers.noticing_losses(strategy):
            trainer.fit(
                calls,
                epochs=settings.epochs,
                initial_epoch=first_epoch,
                steps_per_epoch=-(-feed.steps_per_pass // trainer.steps_per_call),
                validation_data=calls,
                validation_steps=1,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
        curves = _gather_curves(callbacks)
        if settings.restore == "best":
            advance(0, note=_describe_best(curves, monitor))
    weights = trainer.net.get_weights()
    if not all(np.isfinite(weight).all() for weight in weights if weight.dtype.kind == "f"):
        # A rectifier makes a number of NaN, so that the loss may be finite.
        raise TrainingDiverged(f"weights of {name} are infinite or NaN after {len(curves['loss'])} epochs")
    float32_net = build()
    float32_net.set_weights(weights)
    return Trained(float32_net, curves, stability)


def _make_trainer(
    net: keras.Model, objective: Objective, feed: Feed, validation: Feed, settings: TrainingSection
) -> Trainer:
    """The net under training, with its optimizer; called under the strategy."""
    steps = feed.steps_per_pass
    counted = models.count_multiply_adds(net, net.input_shape[1:]) or 0
    multiply_adds = 3 * counted * settings.batch_size
    at_most = min(MAXIMUM_STEPS_PER_CALL, settings.checkpoint_every or steps, steps)
    steps_per_call = int(min(at_most, max(1, MULTIPLY_ADDS_PER_CALL // max(multiply_adds, 1))))
    rate = make_rate(settings, steps)
    trainer = Trainer(net, objective, feed, validation, steps_per_call, settings.clip_norm)
    trainer.schedule = None if isinstance(rate, float) else rate
    trainer.compile(optimizer=make_optimizer(settings, rate), jit_compile=False)
    trainer.optimizer.build(net.trainable_variables)
    return trainer


def _make_callbacks(
    trainer: Trainer,
    validation: Examples,
    settings: TrainingSection,
    monitor: Monitor,
    advance: Callable[..., None],
    judge: Judge | None,
    logs: Path | None,
) -> list[keras.callbacks.Callback]:
    """In the order in which Keras calls them: what changes the logs comes before what keeps them."""
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: setattr(trainer, "epoch", epoch))
    ]
    if judge:
        predict = models.make_predictor(lambda inputs: trainer.objective.logits(trainer(inputs, training=False)))
        is_own = monitor.metric not in [metric.name for metric in trainer.metrics]
        callbacks.append(
            Curve(
                settings.evaluate_every,
                lambda: judge(predict(validation.split, validation.ids)),
                monitor.metric if is_own else None,
            )
        )
    callbacks.append(Progress(advance, monitor))
    if isinstance(settings.schedule, PlateauHalving):
        callbacks.append(Plateau(settings.schedule, monitor))
    if settings.restore == "best":
        callbacks.append(BestWeights(monitor))
    callbacks.append(History())
    if logs:
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
    if settings.exponential_moving_average is not None:
        callbacks.append(Averages())
    return callbacks


def _choose_monitor(settings: TrainingSection, validation: Examples, net: str) -> Monitor:
    """The metric that decides.

    Raises:
        InputError: it is the error rate, and the validation examples have no labels.
    """
    name = settings.monitor or ("error_rate" if validation.has_labels else "loss")
    monitor = Monitor(name.removeprefix("-"), -1.0 if name.startswith("-") else 1.0)
    if monitor.metric == "error_rate" and not validation.has_labels:
        raise InputError(f"{net}: monitor: the validation examples have no labels, so no error_rate; accepted: loss")
    return monitor


@contextlib.contextmanager
def _keeping_state(
    trainer: Trainer, callbacks: list[keras.callbacks.Callback], state: Path | None, every: int | None
) -> Iterator[int]:
    """Resume from the file `state`, if there is one, and keep the state in it within the block; the first epoch."""
    if state is None:
        yield 0
        return
    checkpoint = Checkpoint(state, [each for each in callbacks if hasattr(each, "state")], every)
    first_epoch = checkpoint.restore(trainer)
    checkpoint.check_same_step(trainer)
    callbacks.append(checkpoint)
    with checkpoint.handle_signals():
        yield first_epoch


def _gather_curves(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, list[float]]:
    curves: dict[str, list[float]] = {}
    for each in callbacks:
        curves |= each.history if isinstance(each, History) else each.curve if isinstance(each, Curve) else {}
    return {key: [float(value) for value in values] for key, values in curves.items()}


def _describe_best(curves: Mapping[str, Sequence[float]], monitor: Monitor) -> str:
    """Which epoch's weights `BestWeights` has put back."""
    scores = [monitor({monitor.key: value}) for value in curves[monitor.key]]
    epoch = min(range(len(scores)), key=lambda place: (not scores[place] < math.inf, scores[place]))
    return f"the best of {len(scores)} epochs, {epoch + 1}, {monitor.key} {curves[monitor.key][epoch]:.4g}"


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    """Keras' global dtype policy within the block; "tensor_float_32" is float32 whose products the tensor cores of GPUs
    from Ampere on compute from 10 bits of each mantissa."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if name == "tensor_float_32" else name)
    tf.config.experimental.enable_tensor_float_32_execution(name == "tensor_float_32")
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)
        keras.config.set_dtype_policy(before)
