"""What a net is trained for: the labels, the teacher's logits, or a mixture, as one loss per example."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Objective:
    """What a net is trained for, per example.

    Without `loss`: the cross-entropy of the labels. With it: (1 - w) times the loss against the teacher's logits plus
    w times the cross-entropy, where w is `hard_label_weight` (0 for an example without a label).
    With `scale` and `offset` (both [num_classes]) the net's outputs are standardised logits: the loss sees them and
    the teacher's (z - offset) / scale; the labels and the metrics see outputs * scale + offset.
    """

    loss: keras.losses.Loss | None = None
    hard_label_weight: float = 0.0
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        if self.scale is None:
            return outputs
        return outputs * tf.constant(self.scale, tf.float32) + tf.constant(self.offset, tf.float32)

    def __call__(self, outputs: tf.Tensor, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """(loss, weight in the mean), both float32 [B]."""
        known = tf.cast(batch["labels"] >= 0, tf.float32)
        if self.loss is None:
            return self._cross_entropy(outputs, batch) * known, known
        teacher, extra = batch["teacher_logits"], {}
        if self.scale is not None:
            teacher = (teacher - tf.constant(self.offset, tf.float32)) / tf.constant(self.scale, tf.float32)
        if "labels" in inspect.signature(self.loss.call).parameters:
            extra["labels"] = batch["labels"]
        mimic = tf.cast(self.loss.call(teacher, outputs, **extra), tf.float32)
        if mimic.shape.rank != 1:
            raise TypeError(f"{type(self.loss).__name__}.call must return one value per example, got {mimic.shape}")
        if not self.hard_label_weight:
            return mimic, tf.ones_like(mimic)
        weight = self.hard_label_weight * known
        return (1.0 - weight) * mimic + weight * self._cross_entropy(outputs, batch), tf.ones_like(mimic)

    def _cross_entropy(self, outputs: tf.Tensor, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        labels = tf.maximum(batch["labels"], 0)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self.logits(outputs))
