"""What happens between epochs: the plateau schedule, the best weights, curves and progress.

`state` names the attributes that a checkpoint keeps; renaming one makes the checkpoints of running trainings useless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from mimic_keras.experiment.training import PlateauHalving

# Validation logits, float32 [examples, num_classes], to {metric: value}.
Judge = Callable[[np.ndarray], Mapping[str, float]]


@dataclass(frozen=True)
class Monitor:
    """What is judged after an epoch: a metric on validation; `sign` is -1 where larger is better.

    Example:
        >>> Monitor("accuracy", -1.0)({"val_accuracy": 0.5})
        -0.5
    """

    metric: str
    sign: float = 1.0

    @property
    def key(self) -> str:
        """Of the metric in the logs."""
        return f"val_{self.metric}"

    def __call__(self, logs: Mapping[str, float]) -> float:
        """The value that is to become small."""
        return self.sign * logs[self.key]


class Plateau(keras.callbacks.Callback):
    """Halves the learning rate on a plateau, and stops (Urban et al. 2017, section 2.6).

    The rate is halved when `monitor` has not dropped for `patience` epochs, but not within `cooldown` epochs of a
    halving. Training stops after `stop_after` epochs without a drop, or below `smallest_fraction` of the first rate.
    Epochs of warm-up count like others.
    """

    state = ("best", "since_best", "since_halving", "first_rate")

    def __init__(self, section: PlateauHalving, monitor: Monitor):
        super().__init__()
        self.section, self.monitor = section, monitor
        self.best, self.since_best, self.since_halving = math.inf, 0, section.cooldown
        self.first_rate = math.nan

    def on_train_begin(self, logs: Any = None) -> None:
        if math.isnan(self.first_rate):
            self.first_rate = float(self.model.rate.numpy())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.since_best, self.since_halving = self.since_best + 1, self.since_halving + 1
        if self.monitor(logs) < self.best:
            self.best, self.since_best = self.monitor(logs), 0
        rate = float(self.model.rate.numpy())
        if self.since_best >= self.section.patience and self.since_halving > self.section.cooldown:
            rate, self.since_halving = rate / 2, 0
            self.model.rate.assign(rate)
        if self.since_best >= self.section.stop_after or rate < self.section.smallest_fraction * self.first_rate:
            self.model.stop_training = True


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the first epoch with the smallest `monitor`, and puts them back at the end."""

    state = ("best", "weights")

    def __init__(self, monitor: Monitor):
        super().__init__()
        self.monitor, self.best = monitor, math.inf
        self.weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.monitor(logs) < self.best:
            self.best, self.weights = self.monitor(logs), self.model.net.get_weights()

    def on_train_end(self, logs: Any = None) -> None:
        if self.weights is not None:
            self.model.net.set_weights(self.weights)


class History(keras.callbacks.History):
    """Keras' own: `history` is {metric: one value per epoch}."""

    state = ("history",)


class Curve(keras.callbacks.Callback):
    """Calls `judge` after every `every` epochs; None: never.

    `curve` is {"judged_<metric>": [value, ...], "judged_<metric>_epoch": [epoch, counted from 1, ...]}.
    With `monitored`, one of the metrics, it is called after every epoch, and the logs get "val_<monitored>".
    """

    state = ("curve",)

    def __init__(self, every: int | None, judge: Callable[[], Mapping[str, float]], monitored: str | None = None):
        super().__init__()
        self.every, self.judge, self.monitored = every, judge, monitored
        self.curve: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        is_due = self.every is not None and (epoch + 1) % self.every == 0
        metrics = self.judge() if is_due or self.monitored else {}
        if self.monitored:
            logs[f"val_{self.monitored}"] = metrics.get(self.monitored, math.nan)  # infinite: never the best
        for name, value in metrics.items() if is_due else ():
            self.curve.setdefault(f"judged_{name}", []).append(value)
            self.curve.setdefault(f"judged_{name}_epoch", []).append(epoch + 1)


class Averages(keras.callbacks.Callback):
    """Puts the moving averages of the weights, which the optimizer keeps, in their place from validation to the end of
    the epoch. At the end of the training Keras puts them there for good.

    It comes after the callbacks that use the averages and before the checkpoint, whose state is the weights' own.
    """

    def on_test_begin(self, logs: Any = None) -> None:
        self.weights = self.model.net.get_weights()
        self.model.optimizer.finalize_variable_values(self.model.net.trainable_variables)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.net.set_weights(self.weights)


class Progress(keras.callbacks.Callback):
    """Advances the progress bar, and adds the learning rate of an epoch's last step to its logs."""

    def __init__(self, advance: Callable[..., None], monitor: Monitor):
        super().__init__()
        self.advance, self.monitor, self.done = advance, monitor, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = int(self.model.optimizer.iterations.numpy())
        self.advance(done - self.done)
        self.done = done

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["learning_rate"] = self.model.last_learning_rate()
        self.advance(0, note=f"epoch {epoch + 1}, {self.monitor.key} {logs[self.monitor.key]:.4g}")
