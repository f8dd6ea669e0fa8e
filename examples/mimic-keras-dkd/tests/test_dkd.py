"""The loss keeps its contract, and equals the paper's formulas, written out in NumPy."""

import numpy as np
import pytest
from mimic_keras_dkd import DecoupledDistillation

from mimic_keras.testing import conformance

test_conformance = conformance("mimic-keras-dkd")


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
    found = loss.call(teacher.astype("f4"), student.astype("f4"), labels.astype("i4"))
    parts = [by_the_paper(*row, temperature) for row in zip(teacher, student, labels, strict=True)]
    expected = [temperature**2 * (1.5 * target + 8.0 * others) for target, others, _ in parts]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_example_without_a_label_gets_the_usual_loss():
    random = np.random.default_rng(0)
    teacher, student = random.normal(0, 3, (2, 4, 5))
    found = DecoupledDistillation(1.0, 8.0, 2.0).call(teacher.astype("f4"), student.astype("f4"), np.full(4, -1, "i4"))
    for row in range(4):
        target, others, right = by_the_paper(teacher[row], student[row], 2, 2.0)
        np.testing.assert_allclose(found[row], 4 * (target + (1 - right) * others), rtol=1e-4)


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
