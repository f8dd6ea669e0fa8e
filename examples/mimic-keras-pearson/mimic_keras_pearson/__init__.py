"""The relation between classes of DIST: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher"."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

SMALLEST = 1e-8  # squared length of the centred probabilities; equal probabilities correlate with nothing


class PearsonDistance(keras.losses.Loss):
    """T^2 (1 - Pearson's correlation of teacher's and student's probabilities, over the classes).

    The probabilities are the softmax of the logits divided by T. A student whose probabilities are the teacher's scaled
    and shifted loses nothing. This is the paper's inter-class relation, with the factor T^2 of its authors' code; the
    intra-class relation, between the examples of a batch, is left out.

    Args:
        temperature: T, above 0; 1 by default, as in the authors' code.

    Raises:
        ValueError: `temperature` is not a finite number above 0.

    Example:
        >>> same = ops.array([[2.0, 0.0, 1.0]])
        >>> round(float(PearsonDistance().call(same, same)[0]), 5)
        0.0
    """

    def __init__(self, temperature: float = 1.0, **keras_arguments: Any):
        super().__init__(**keras_arguments)
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be a finite number above 0, got {temperature}")
        self.temperature = temperature

    def call(self, teacher_logits: Any, student_logits: Any) -> Any:
        """float [batch, classes] twice to [batch]."""
        teacher, student = self._direction(teacher_logits), self._direction(student_logits)
        return self.temperature**2 * (1.0 - ops.sum(teacher * student, -1))

    def _direction(self, logits: Any) -> Any:
        """The centred probabilities, divided by their length."""
        probabilities = ops.softmax(logits / self.temperature)
        centred = probabilities - ops.mean(probabilities, -1, keepdims=True)
        return centred * ops.rsqrt(ops.maximum(ops.sum(ops.square(centred), -1, keepdims=True), SMALLEST))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}
