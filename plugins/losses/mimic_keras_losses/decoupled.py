"""Decoupled knowledge distillation: Zhao et al. 2022, "Decoupled Knowledge Distillation", CVPR, arXiv:2203.08679."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

HIDDEN = -1e9  # replaces the right class's logit, which removes it from the softmax over the others


class DecoupledDistillation(keras.losses.Loss):
    """T^2 (target_weight TCKD + others_weight NCKD), eq. 7, of the logits divided by T.

    TCKD is KL(teacher || student) of two probabilities: the right class's, and the sum of all others. NCKD is
    KL(teacher || student) of the softmax over the other classes only. The usual distillation loss is
    TCKD + (1 - teacher's probability of the right class) NCKD (eq. 6), which suppresses NCKD where the teacher is sure.
    An example without a label gets the usual loss, with the weight `target_weight`.

    Args:
        target_weight: alpha of the paper, at least 0.
        others_weight: beta of the paper, at least 0; 8 in its CIFAR-100 experiments (table 8).
        temperature: T, above 0; 4 in the paper.

    Raises:
        ValueError: a weight is negative or not finite, both are 0, or `temperature` is not above 0.

    Example:
        >>> same = ops.array([[2.0, 0.0, 1.0]])
        >>> float(DecoupledDistillation().call(same, same, ops.array([0]))[0])
        0.0
    """

    def __init__(
        self,
        target_weight: float = 1.0,
        others_weight: float = 8.0,
        temperature: float = 4.0,
        **keras_arguments: Any,
    ):
        super().__init__(**keras_arguments)
        for name, weight in (("target_weight", target_weight), ("others_weight", others_weight)):
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name} must be a finite number from 0, got {weight}")
        if not target_weight + others_weight:
            raise ValueError("target_weight and others_weight are both 0: nothing would be learnt")
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be a finite number above 0, got {temperature}")
        self.target_weight, self.others_weight, self.temperature = target_weight, others_weight, temperature

    def call(self, teacher_logits: Any, student_logits: Any, labels: Any) -> Any:
        """float [batch, classes] twice and int32 [batch], -1 where unknown, to [batch]."""
        teacher, student = teacher_logits / self.temperature, student_logits / self.temperature
        known = ops.cast(labels >= 0, student.dtype)
        right = ops.one_hot(ops.maximum(labels, 0), teacher.shape[-1]) > 0
        target, others = self._target(teacher, student, right), self._others(teacher, student, right)
        decoupled = self.target_weight * target + self.others_weight * others
        usual = self.target_weight * _divergence(ops.log_softmax(teacher), ops.log_softmax(student))
        return self.temperature**2 * (known * decoupled + (1.0 - known) * usual)

    @staticmethod
    def _target(teacher: Any, student: Any, right: Any) -> Any:
        def pair(z: Any) -> Any:
            """Logarithms of the right class's probability and of the sum of all others, [batch, 2]."""
            of_right = ops.sum(ops.where(right, z, 0.0), -1)
            of_others = ops.logsumexp(ops.where(right, HIDDEN, z), -1)
            return ops.log_softmax(ops.stack([of_right, of_others], -1))

        return _divergence(pair(teacher), pair(student))

    @staticmethod
    def _others(teacher: Any, student: Any, right: Any) -> Any:
        return _divergence(*(ops.log_softmax(ops.where(right, HIDDEN, z)) for z in (teacher, student)))

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("target_weight", "others_weight", "temperature")}
        return {**super().get_config(), **own}


def _divergence(log_p: Any, log_q: Any) -> Any:
    """KL(p || q) in nats, [batch], from logarithms of probabilities [batch, n]."""
    return ops.sum(ops.exp(log_p) * (log_p - log_q), -1)
