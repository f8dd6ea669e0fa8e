"""The losses of the papers: squared distance of logits or probabilities, KL divergence, and temperature distillation
as it was published, with logits standardised per example, and decoupled.

All take teacher_logits and student_logits, float [batch, num_classes], and return one value per example, [batch].
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from mimic_keras_losses.decoupled import DecoupledDistillation

__all__ = [
    "KL",
    "DecoupledDistillation",
    "LogitL2",
    "ProbabilityL2",
    "SquaredHinge",
    "StandardizedTemperature",
    "Temperature",
]

SMALLEST_VARIANCE = 1e-6  # of an example's logits; the gradient of equal logits would be infinite


class LogitL2(keras.losses.Loss):
    """Half the squared distance of the logits, summed over classes: Ba & Caruana 2014, equation 1.

    With z the teacher's and s the student's logits: sum_c (s_c - z_c)^2 / 2. They may be standardised: section 2.2.

    Example:
        >>> LogitL2().call(ops.array([[1.0, 2.0]]), ops.array([[1.0, 5.0]]))
        4.5
    """

    standardizable = True

    def call(self, teacher_logits: Any, student_logits: Any) -> Any:
        return 0.5 * ops.sum(ops.square(student_logits - teacher_logits), axis=-1)


class ProbabilityL2(keras.losses.Loss):
    """Half the squared distance of the softmax probabilities, summed over classes.

    Ba & Caruana 2014, section 2.2, compares logits with probabilities as targets.

    Example:
        >>> ProbabilityL2().call(ops.array([[0.0, 0.0]]), ops.array([[200.0, 0.0]]))
        0.25
    """

    def call(self, teacher_logits: Any, student_logits: Any) -> Any:
        return 0.5 * ops.sum(ops.square(ops.softmax(student_logits) - ops.softmax(teacher_logits)), axis=-1)


class SquaredHinge(keras.losses.Loss):
    """The L2-SVM's loss of one class against the others, summed over classes: sum_c max(0, 1 - y_c s_c)^2.

    y_c is 1 for the example's label and -1 otherwise. For a student without a teacher; 0 without a label. With an
    architecture's `weight_decay` of 1 / (C N), N training examples, a linear net is the SVM of cost C (Fan et al. 2008,
    "LIBLINEAR").

    Example:
        >>> SquaredHinge().call(None, ops.array([[0.5, -2.0, 0.0]]), ops.array([0]))
        1.25
    """

    needs_teacher = False

    def call(self, teacher_logits: Any, student_logits: Any, labels: Any) -> Any:
        signs = 2 * ops.one_hot(labels, student_logits.shape[-1], dtype=student_logits.dtype) - 1
        margins = ops.sum(ops.square(ops.relu(1 - signs * student_logits)), axis=-1)
        return ops.where(labels >= 0, margins, 0.0)


class Temperature(keras.losses.Loss):
    """T^2 KL(teacher || student) of the softmax probabilities of the logits divided by T.

    Hinton, Vinyals & Dean 2015, section 2: the gradients of softened targets scale with 1 / T^2, so the loss is
    multiplied by T^2. For N classes and T much larger than the logits, it tends to
    ||centred student - centred teacher||^2 / (2 N).

    Args:
        temperature: T, above 0 and finite.

    Raises:
        ValueError: T is not above 0 and finite.

    Example:
        >>> Temperature(temperature=1.0).call(ops.array([[0.0, 0.0]]), ops.array([[0.0, 0.0]]))
        0.0
    """

    def __init__(self, temperature: float = 4.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
        self.temperature = temperature

    def call(self, teacher_logits: Any, student_logits: Any) -> Any:
        log_p = ops.log_softmax(teacher_logits / self.temperature)
        log_q = ops.log_softmax(student_logits / self.temperature)
        return self.temperature**2 * ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}


class KL(Temperature):
    """KL(teacher || student) of the softmax probabilities, in nats: `Temperature` at T = 1.

    Example:
        >>> KL().call(ops.array([[1.0, 1.0]]), ops.array([[3.0, 3.0]]))
        0.0
    """

    def __init__(self, **kwargs: Any):
        super().__init__(temperature=1.0, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return keras.losses.Loss.get_config(self)


class StandardizedTemperature(Temperature):
    """`Temperature` of logits that are standardised per example: (z - mean(z)) / deviation(z), over the classes.

    Sun et al. 2024, "Logit standardization in knowledge distillation", CVPR, arXiv:2403.01427, algorithm 1: the student
    has to match the relations between the teacher's logits, but neither their mean nor their scale. So its own
    probabilities mean little; the paper adds the loss of the labels (`hard_label_weight`). The
    deviation divides by the number of classes (the authors' code: less one); below 0.001 it counts as 0.001. Not to be
    confused with `standardize_logits`, which is per class, over all examples.

    Args:
        temperature: T, above 0 and finite; 2 in the commands that the authors published with their code.

    Raises:
        ValueError: T is not above 0 and finite.

    Example:
        >>> StandardizedTemperature().call(ops.array([[1.0, 2.0]]), ops.array([[10.0, 30.0]]))
        0.0
    """

    def __init__(self, temperature: float = 2.0, **kwargs: Any):
        super().__init__(temperature=temperature, **kwargs)

    def call(self, teacher_logits: Any, student_logits: Any) -> Any:
        return super().call(_standardize(teacher_logits), _standardize(student_logits))


def _standardize(logits: Any) -> Any:
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    return centred / ops.sqrt(ops.maximum(variance, SMALLEST_VARIANCE))
