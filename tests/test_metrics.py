"""Metrics by hand and against scikit-learn: performance on the labels, by class, and fidelity to the teacher."""

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mimic_keras.training import metrics


def test_log_softmax_by_hand():
    found = metrics.log_softmax(np.array([[0.0, np.log(3.0)], [np.log(3.0), 0.0]]))
    np.testing.assert_allclose(found, np.log([[0.25, 0.75], [0.75, 0.25]]), rtol=1e-15)


def test_log_softmax_is_float64_and_finite_for_large_logits():
    found = metrics.log_softmax(np.array([[1e30, -1e30], [5.0, 5.0]], np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[1], np.log([0.5, 0.5]))
    assert np.isfinite(found).all()


def test_fidelity_by_hand():
    teacher = np.log([[0.5, 0.5], [0.9, 0.1]])
    student = np.log([[0.25, 0.75], [0.8, 0.2]])
    found = metrics.measure_fidelity(teacher, student)
    assert found["agreement"] == 0.5
    kl = [0.5 * np.log(2) + 0.5 * np.log(2 / 3), 0.9 * np.log(9 / 8) + 0.1 * np.log(0.5)]
    assert found["kl"] == pytest.approx(np.mean(kl), rel=1e-12)
    mse = np.mean([np.log(2) ** 2, np.log(2 / 3) ** 2, np.log(9 / 8) ** 2, np.log(0.5) ** 2])
    assert found["logit_mse"] == pytest.approx(mse, rel=1e-12)


@given(arrays.arrays(np.float64, (3, 4), elements=st.floats(-1e4, 1e4)))
def test_log_softmax_equals_scipys(logits):
    expected = scipy.special.log_softmax(logits, axis=-1)
    np.testing.assert_allclose(metrics.log_softmax(logits), expected, rtol=1e-12, atol=1e-12)


def random_logits(seed=0, examples=5000, classes=9):
    """Logits that are right about half of the time, more examples than one block has, and a third without labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, examples)
    logits = generator.normal(size=(examples, classes)) * 3
    logits[np.arange(examples), labels] += 4
    return np.where(generator.random(examples) < 0.3, -1, labels), logits.astype(np.float32)


def test_performance_equals_scikit_learns():
    labels, logits = random_logits()
    known = labels >= 0
    truth, chosen = labels[known], logits[known].astype(np.float64)
    probabilities = scipy.special.softmax(chosen, -1)
    found = metrics.measure_performance(labels, logits)
    assert list(found) == ["error_rate", "accuracy", "top_5_accuracy", "nll", "calibration_error"]
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, chosen.argmax(-1)), rel=1e-12)
    assert found["error_rate"] == pytest.approx(1 - found["accuracy"], rel=1e-12)
    assert found["nll"] == pytest.approx(sklearn.metrics.log_loss(truth, probabilities, labels=range(9)), rel=1e-9)
    top = sklearn.metrics.top_k_accuracy_score(truth, chosen, k=5, labels=range(9))
    assert found["top_5_accuracy"] == pytest.approx(top, rel=1e-12)
    assert 0.4 < found["accuracy"] < top < 1


def calibration_by_hand(probabilities, labels):
    """Guo et al. 2017, equation 3, bin by bin and example by example."""
    total = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [row for row, p in enumerate(probabilities) if low < max(p) <= high]
        if inside:
            accuracy = np.mean([np.argmax(probabilities[row]) == labels[row] for row in inside])
            confidence = np.mean([max(probabilities[row]) for row in inside])
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@given(st.integers(0, 2**32 - 1), st.integers(2, 7))
def test_calibration_error_equals_a_loop_over_the_bins(seed, classes):
    labels, logits = random_logits(seed, examples=60, classes=classes)
    labels = np.maximum(labels, 0)
    expected = calibration_by_hand(scipy.special.softmax(logits.astype(np.float64), -1), labels)
    assert metrics.measure_performance(labels, logits)["calibration_error"] == pytest.approx(expected, abs=1e-12)


def test_calibration_error_by_hand():
    """A confidence of 1 / 15 is in the first bin, of 1 in the last; two bins with gaps of 0.5 and 0.1."""
    confidences = np.array([1.0, 1.0, 0.7, 0.7, 1 / 15])
    is_right = np.array([True, False, True, False, False])
    expected = (2 * 0.5 + 2 * 0.2 + 1 / 15) / 5
    assert metrics.expected_calibration_error(confidences, is_right) == pytest.approx(expected, rel=1e-12)


def test_top_5_counts_the_first_of_equal_logits_as_argmax_does():
    found = metrics.measure_performance(np.array([0, 4, 5]), np.zeros([3, 6]))
    assert (found["accuracy"], found["top_5_accuracy"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert "top_5_accuracy" not in metrics.measure_performance(np.array([0]), np.zeros([1, 5]))


def test_without_labels_or_with_infinite_logits_the_numbers_are_undefined():
    undefined = metrics.measure_performance(np.array([-1, -1]), np.zeros([2, 6]))
    assert len(undefined) == 5
    assert all(np.isnan(value) for value in undefined.values())
    infinite = metrics.measure_performance(np.array([1, 0]), np.array([[0, np.inf], [np.nan, 0]]))
    assert np.isnan([infinite["nll"], infinite["calibration_error"]]).all()
    assert infinite["error_rate"] == 0  # NumPy's argmax takes infinity, and NaN, for the largest


@pytest.mark.parametrize("classes", [5, 6])
def test_the_list_of_metrics_is_what_is_measured(classes):
    """A metric that the list lacked would be refused before a sweep, though its nets have it."""
    logits = np.eye(classes)
    measured = metrics.measure_performance(np.arange(classes), logits)
    assert set(metrics.list_metrics(classes, has_teacher=False)) == set(measured)
    followed = measured | metrics.measure_fidelity(logits, logits)
    assert set(metrics.list_metrics(classes, has_teacher=True)) == set(followed)


def test_classes_by_hand():
    labels = np.array([0, 0, 1, 1, 1, 1, -1])
    teacher = np.eye(3)[[0, 0, 1, 1, 1, 2, 2]]
    student = np.eye(3)[[0, 1, 1, 1, 2, 2, 0]]
    rows = metrics.count_by_class(["a", "b", "c"], labels, {"teacher": teacher, "student": student})
    assert rows == [
        {"class": "a", "examples": 2, "error_rate": {"teacher": 0.0, "student": 0.5}, "agreement": 0.5},
        {"class": "b", "examples": 4, "error_rate": {"teacher": 0.25, "student": 0.5}, "agreement": 0.75},
        {"class": "c", "examples": 0, "error_rate": {"teacher": None, "student": None}, "agreement": None},
    ]
    assert "agreement" not in metrics.count_by_class(["a", "b", "c"], labels, {"student": student})[0]


def test_classes_add_up_to_the_whole():
    labels, logits = random_logits()
    rows = metrics.count_by_class([str(place) for place in range(9)], labels, {"student": logits})
    errors = sum(row["examples"] * row["error_rate"]["student"] for row in rows)
    assert errors / (labels >= 0).sum() == pytest.approx(metrics.measure_performance(labels, logits)["error_rate"])
