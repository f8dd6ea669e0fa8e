"""Each objective's loss per example, computed by hand or in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mimic_keras.training.objective import Objective
from tests.small_training import LogitL2

OUTPUTS = np.array([[0.0, 0.0], [np.log(3.0), 0.0], [2.0, -1.0]], np.float32)
TEACHER = np.array([[1.0, 0.0], [np.log(3.0), 0.0], [0.0, 1.0]], np.float32)
LABELS = np.array([0, 1, -1], np.int32)
# By hand: ln 2, and -ln(1/4) of the second class, whose probability is 1 / (3 + 1); the third has no label.
CROSS_ENTROPY = [np.log(2.0), np.log(4.0), 0.0]
DISTANCE = [0.5, 0.0, 4.0]  # half the sum of the squared differences


class Asks(keras.losses.Loss):
    """The student's logit of the label, 0 without one."""

    def call(self, teacher_logits, student_logits, labels):
        picked = tf.gather(student_logits, tf.maximum(labels, 0), batch_dims=1)
        return tf.where(labels >= 0, picked, tf.zeros_like(picked))


def evaluate(objective, outputs=OUTPUTS, teacher=TEACHER):
    batch = {"labels": tf.constant(LABELS), "teacher_logits": tf.constant(teacher)}
    loss, weight = objective(tf.constant(outputs), batch)
    assert loss.dtype == weight.dtype == tf.float32
    return loss.numpy(), weight.numpy()


def test_labels():
    loss, weight = evaluate(Objective())
    np.testing.assert_allclose(loss, CROSS_ENTROPY, rtol=1e-6)
    assert weight.tolist() == [1, 1, 0], "an example without a label does not count"


class OfLabels(Asks):
    needs_teacher = False


def test_a_loss_that_needs_no_teacher():
    objective = Objective(OfLabels())
    loss, weight = objective(tf.constant(OUTPUTS), {"labels": tf.constant(LABELS)})
    np.testing.assert_allclose(loss, [0, 0, 0], atol=1e-6)
    assert weight.numpy().tolist() == [1, 1, 0], "an example without a label does not count"
    assert [each.learns_labels for each in (objective, Objective(), Objective(Asks()))] == [True, True, False]


def test_a_teacher():
    loss, weight = evaluate(Objective(LogitL2()))
    np.testing.assert_allclose(loss, DISTANCE, atol=1e-6)
    assert weight.tolist() == [1, 1, 1]


def test_a_mixture_takes_the_teacher_alone_where_there_is_no_label():
    loss, weight = evaluate(Objective(LogitL2(), 0.25))
    expected = [0.75 * DISTANCE[0] + 0.25 * np.log(2), 0.75 * DISTANCE[1] + 0.25 * np.log(4), DISTANCE[2]]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert weight.tolist() == [1, 1, 1]


def test_standardised_outputs():
    scale, offset = np.array([2.0, 4.0]), np.array([1.0, -3.0])
    objective = Objective(LogitL2(), 0.25, scale, offset)
    real = OUTPUTS * scale.astype("f4") + offset.astype("f4")
    np.testing.assert_allclose(objective.logits(tf.constant(OUTPUTS)), real)
    # The loss compares standardised logits, the labels see real ones.
    loss, _ = evaluate(objective)
    distance = 0.5 * np.square(OUTPUTS - (TEACHER - offset) / scale).sum(-1)
    hard, _ = evaluate(Objective(), real)
    share = np.where(LABELS >= 0, 0.25, 0.0)
    np.testing.assert_allclose(loss, (1 - share) * distance + share * hard, rtol=1e-6)


def test_without_standardisation_the_outputs_are_the_logits():
    outputs = tf.constant(OUTPUTS)
    assert Objective(LogitL2()).logits(outputs) is outputs


def test_a_loss_is_given_the_labels_if_it_asks_for_them():
    loss, _ = evaluate(Objective(Asks()))
    np.testing.assert_array_equal(loss, [0.0, 0.0, 0.0])
    loss, _ = evaluate(Objective(Asks()), OUTPUTS + 5)
    np.testing.assert_array_equal(loss, [5.0, 5.0, 0.0])


def test_a_loss_that_is_not_per_example_is_refused():
    class Scalar(keras.losses.Loss):
        def call(self, teacher_logits, student_logits):
            return tf.reduce_mean(tf.square(teacher_logits - student_logits))

    with pytest.raises(TypeError, match=r"Scalar.call must return one value per example, got \(\)"):
        evaluate(Objective(Scalar()))
