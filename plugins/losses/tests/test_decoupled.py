"""Decoupled distillation equals the paper's formulas, written out in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_losses import DecoupledDistillation


def softmax(z):
    return np.exp(z) / np.exp(z).sum()


def by_the_paper(teacher, student, label, temperature):
    """(TCKD, NCKD, p_t) of one example: eqs. 1 to 6, with no logarithm of a softmax in sight."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    b, c = np.array([p[label], 1 - p[label]]), np.array([q[label], 1 - q[label]])
    p_hat, q_hat = np.delete(p, label) / (1 - p[label]), np.delete(q, label) / (1 - q[label])
    return (b * np.log(b / c)).sum(), (p_hat * np.log(p_hat / q_hat)).sum(), p[label]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 3, 100])
def test_the_papers_formula(classes, temperature):
    random = np.random.default_rng(classes)
    teacher, student = random.normal(0, 3, (2, 8, classes))
    labels = random.integers(0, classes, 8)
    loss = DecoupledDistillation(1.5, 8.0, temperature)
    found = loss.call(tf.constant(teacher), tf.constant(student), tf.constant(labels, tf.int32))
    parts = [by_the_paper(*row, temperature) for row in zip(teacher, student, labels, strict=True)]
    expected = [temperature**2 * (1.5 * target + 8.0 * others) for target, others, _ in parts]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_an_example_without_a_label_gets_the_usual_loss():
    random = np.random.default_rng(0)
    teacher, student = random.normal(0, 3, (2, 4, 5))
    found = DecoupledDistillation(1.0, 8.0, 2.0).call(tf.constant(teacher), tf.constant(student), tf.constant([-1] * 4))
    for row in range(4):
        target, others, right = by_the_paper(teacher[row], student[row], 2, 2.0)
        np.testing.assert_allclose(found[row], 4 * (target + (1 - right) * others), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_weight": -1.0}, "target_weight must be a finite number from 0, got -1.0"),
        ({"others_weight": float("inf")}, "others_weight must be a finite number from 0, got inf"),
        ({"target_weight": 0.0, "others_weight": 0.0}, "nothing would be learnt"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0, got 0.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DecoupledDistillation(**arguments)


def test_a_value_by_hand():
    # Teacher (1/2, 1/4, 1/4), student (1/4, 1/4, 1/2), the right class first. Target: 1/2 log 2 + 1/2 log(2/3); others:
    # (1/2, 1/2) against (1/3, 2/3), 1/2 log(3/2) + 1/2 log(3/4).
    teacher, student = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.25, 0.5]])
    found = DecoupledDistillation(1.0, 8.0, 1.0).call(tf.constant(teacher), tf.constant(student), tf.constant([0]))
    target = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    np.testing.assert_allclose(found, [target + 8 * (0.5 * np.log(3 / 2) + 0.5 * np.log(3 / 4))], rtol=1e-12)
