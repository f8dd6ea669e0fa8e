"""What a net is trained for, as one loss per example: the labels, the teacher's logits, or a mixture."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.training.batches import Batch


@dataclass(frozen=True)
class Objective:
    """What a net is trained for, per example.

    Args:
        loss: compares teacher and student logits, one value per example; or, if its `needs_teacher` is False, the
            student's with the labels. None: the cross-entropy of the labels.
        hard_label_weight: w in (1 - w) * loss + w * cross-entropy of the labels; 0 for an example without a label.
        scale: float64 [num_classes], with `offset`: the net's outputs are standardised logits. The loss is given them
            and the teacher's (z - offset) / scale; labels and metrics are given outputs * scale + offset.
        offset: float64 [num_classes].

    Example:
        >>> batch = {"labels": tf.constant([0, -1])}
        >>> Objective()(tf.constant([[0.0, 0.0], [0.0, 0.0]]), batch)[1].numpy().tolist()
        [1.0, 0.0]
    """

    loss: keras.losses.Loss | None = None
    hard_label_weight: float = 0.0
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None

    @property
    def learns_labels(self) -> bool:
        """Whether only the labels are learnt, not a teacher's logits."""
        return self.loss is None or not getattr(self.loss, "needs_teacher", True)

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Real logits from the net's outputs, both float32 [B, num_classes]."""
        if self.scale is None:
            return outputs
        return outputs * tf.constant(self.scale, tf.float32) + tf.constant(self.offset, tf.float32)

    def __call__(self, outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """(loss, weight in the mean), both float32 [B], from the net's outputs, float32 [B, num_classes].

        Raises:
            TypeError: the loss does not return one value per example.
        """
        known = tf.cast(batch["labels"] >= 0, tf.float32)
        if self.loss is None:
            return self._cross_entropy(outputs, batch) * known, known
        teacher, extra = batch.get("teacher_logits"), {}
        if self.scale is not None:
            teacher = (teacher - tf.constant(self.offset, tf.float32)) / tf.constant(self.scale, tf.float32)
        if "labels" in inspect.signature(self.loss.call).parameters:
            extra["labels"] = batch["labels"]
        mimic = tf.cast(self.loss.call(teacher, outputs, **extra), tf.float32)
        if mimic.shape.rank != 1:
            raise TypeError(f"{type(self.loss).__name__}.call must return one value per example, got {mimic.shape}")
        if self.learns_labels:
            return mimic * known, known
        if not self.hard_label_weight:
            return mimic, tf.ones_like(mimic)
        weight = self.hard_label_weight * known
        return (1.0 - weight) * mimic + weight * self._cross_entropy(outputs, batch), tf.ones_like(mimic)

    def _cross_entropy(self, outputs: tf.Tensor, batch: Batch) -> tf.Tensor:
        labels = tf.maximum(batch["labels"], 0)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self.logits(outputs))
