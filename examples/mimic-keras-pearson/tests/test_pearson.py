"""The loss keeps its contract, and equals NumPy's correlation of the probabilities."""

import numpy as np
import pytest
from mimic_keras_pearson import PearsonDistance

from mimic_keras.testing import conformance

test_conformance = conformance("mimic-keras-pearson")


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 3, 100])
def test_the_correlation_of_numpy(classes, temperature):
    teacher, student = np.random.default_rng(classes).normal(0, 3, (2, 8, classes))
    found = PearsonDistance(temperature).call(teacher.astype("f4"), student.astype("f4"))
    pairs = zip(softmax(teacher / temperature), softmax(student / temperature), strict=True)
    expected = [temperature**2 * (1 - np.corrcoef(p, q)[0, 1]) for p, q in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * temperature**2)


def test_values_by_hand():
    # Of two classes, the centred probabilities point the same way or the opposite way: 0, or T^2 times 2.
    teacher, student = np.array([[2.0, 0.0], [2.0, 0.0]], "f4"), np.array([[9.0, 0.0], [0.0, 1.0]], "f4")
    np.testing.assert_allclose(PearsonDistance(2.0).call(teacher, student), [0.0, 8.0], atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_wrong_arguments(temperature):
    with pytest.raises(ValueError, match=f"^temperature must be a finite number above 0, got {temperature}$"):
        PearsonDistance(temperature)
