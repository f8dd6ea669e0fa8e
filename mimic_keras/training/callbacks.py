"""What happens between epochs: the plateau schedule, the best weights, curves and progress.

`state` names the attributes that a checkpoint keeps; renaming one makes the checkpoints of running trainings useless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from mimic_keras.experiment.schema import PlateauHalving

# Validation logits, float32 [examples, num_classes], to {metric: value}.
Judge = Callable[[np.ndarray], Mapping[str, float]]


class Plateau(keras.callbacks.Callback):
    """Halves the learning rate on a plateau, and stops (Urban et al. 2017, section 2.6).

    The rate is halved when `monitor` has not dropped for `patience` epochs, but not within `cooldown` epochs of a
    halving. Training stops after `stop_after` epochs without a drop, or below `smallest_fraction` of the first rate.
    """

    state = ("best", "since_best", "since_halving", "first_rate")

    def __init__(self, section: PlateauHalving, monitor: str):
        super().__init__()
        self.section, self.monitor = section, monitor
        self.best, self.since_best, self.since_halving = math.inf, 0, section.cooldown
        self.first_rate = math.nan

    def on_train_begin(self, logs: Any = None) -> None:
        if math.isnan(self.first_rate):
            self.first_rate = float(self.model.optimizer.learning_rate.numpy())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.since_best, self.since_halving = self.since_best + 1, self.since_halving + 1
        if logs[self.monitor] < self.best:
            self.best, self.since_best = logs[self.monitor], 0
        rate = float(self.model.optimizer.learning_rate.numpy())
        if self.since_best >= self.section.patience and self.since_halving > self.section.cooldown:
            rate, self.since_halving = rate / 2, 0
            self.model.optimizer.learning_rate = rate
        if self.since_best >= self.section.stop_after or rate < self.section.smallest_fraction * self.first_rate:
            self.model.stop_training = True


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the first epoch with the smallest `monitor`, and puts them back at the end."""

    state = ("best", "weights")

    def __init__(self, monitor: str):
        super().__init__()
        self.monitor, self.best = monitor, math.inf
        self.weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs[self.monitor] < self.best:
            self.best, self.weights = logs[self.monitor], self.model.net.get_weights()

    def on_train_end(self, logs: Any = None) -> None:
        if self.weights is not None:
            self.model.net.set_weights(self.weights)


class History(keras.callbacks.History):
    """Keras' own: `history` is {metric: one value per epoch}."""

    state = ("history",)


class Curve(keras.callbacks.Callback):
    """Calls `judge` after every `every` epochs; None: never.

    `curve` is {"judged_<metric>": [value, ...], "judged_<metric>_epoch": [epoch, counted from 1, ...]}.
    """

    state = ("curve",)

    def __init__(self, every: int | None, judge: Callable[[], Mapping[str, float]]):
        super().__init__()
        self.every, self.judge = every, judge
        self.curve: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.every and (epoch + 1) % self.every == 0:
            for name, value in self.judge().items():
                self.curve.setdefault(f"judged_{name}", []).append(value)
                self.curve.setdefault(f"judged_{name}_epoch", []).append(epoch + 1)


class Progress(keras.callbacks.Callback):
    """Advances the progress bar, and adds the learning rate of an epoch's last step to its logs."""

    def __init__(self, advance: Callable[..., None], monitor: str):
        super().__init__()
        self.advance, self.monitor, self.done = advance, monitor, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = int(self.model.optimizer.iterations.numpy())
        self.advance(done - self.done)
        self.done = done

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["learning_rate"] = self.model.last_learning_rate()
        self.advance(0, note=f"epoch {epoch + 1}, {self.monitor} {logs[self.monitor]:.4g}")
