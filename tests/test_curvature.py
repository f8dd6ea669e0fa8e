"""The largest curvature against an eigenvalue solver, and the limit of SGD against its recursion on a parabola."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from mimic_keras.training.curvature import largest_curvature, stability_limit
from mimic_keras.training.objective import Objective
from tests.small_training import LogitL2

CLASSES = 3


class KL(keras.losses.Loss):
    """With a temperature T, T² times the divergence of the softened probabilities."""

    def __init__(self, temperature=1.0):
        super().__init__()
        self.temperature = temperature

    def call(self, teacher_logits, student_logits):
        teacher, student = (keras.ops.log_softmax(z / self.temperature) for z in (teacher_logits, student_logits))
        return self.temperature**2 * keras.ops.sum(keras.ops.exp(teacher) * (teacher - student), axis=-1)


class Concave(keras.losses.Loss):
    """Curved downwards by the first logit, four times as much as upwards by the others."""

    def call(self, teacher_logits, student_logits):
        return 0.5 * keras.ops.sum(keras.ops.square(student_logits) * np.array([-4.0, 1.0, 1.0], np.float32), axis=-1)


def identity(outputs):
    return np.eye(CLASSES)[None].repeat(len(outputs), 0)


def of_softmax(outputs, temperature=1.0):
    """The Hessian of cross-entropy by the logits, diag(p) - p p'; T² KL at T has that of p at T."""
    shifted = np.exp((outputs - outputs.max(-1, keepdims=True)) / temperature)
    p = shifted / shifted.sum(-1, keepdims=True)
    return np.einsum("bi,ij->bij", p, np.eye(CLASSES)) - np.einsum("bi,bj->bij", p, p)


SCALE = np.array([1.0, 2.0, 3.0])
# name: (objective, Hessian of an example's loss by the outputs [B, 3, 3] from the outputs [B, 3])
OBJECTIVES = {
    "squared distance": (Objective(LogitL2()), identity),
    "divergence": (Objective(KL()), of_softmax),
    "temperature 4": (Objective(KL(4.0)), lambda outputs: of_softmax(outputs, 4.0)),
    "labels": (Objective(), of_softmax),
    "standardised and labels": (
        Objective(LogitL2(), 0.25, SCALE, np.zeros(3)),
        lambda z: 0.75 * identity(z) + 0.25 * of_softmax(z * SCALE) * np.outer(SCALE, SCALE),
    ),
    "concave in a logit": (Objective(Concave()), lambda z: identity(z) * np.diag([-4.0, 1.0, 1.0])),
}


def dense(*stack):
    return keras.Sequential([keras.Input((6,)), *stack, layers.Dense(CLASSES)])


NETS = {
    "mlp": lambda: dense(layers.Dense(9, "relu"), layers.Dense(7, "relu")),
    "bottleneck": lambda: dense(layers.Dense(4, use_bias=False), layers.Dense(24, "relu")),
    "convolution": lambda: keras.Sequential(
        [keras.Input((6,)), layers.Reshape((3, 2, 1)), layers.Conv2D(4, 2, padding="same", activation="relu"),
         layers.MaxPooling2D(2, 1), layers.Flatten(), layers.Dense(CLASSES)]
    ),
    "batch normalisation": lambda: dense(layers.Dense(8, use_bias=False), layers.BatchNormalization(), layers.ReLU()),
}  # fmt: skip


def make_batch(count, seed):
    rng = np.random.default_rng(seed)
    return {
        "inputs": tf.constant(rng.normal(0.3, size=[count, 6]), tf.float32),
        "labels": tf.constant(rng.integers(0, CLASSES, count), tf.int32),
        "teacher_logits": tf.constant(rng.normal(0, 3, size=[count, CLASSES]), tf.float32),
    }


BATCHES = [make_batch(10, 0), make_batch(6, 1)]


def gauss_newton(net, hessians):
    """The mean over all examples of J' H J, float64, from the Jacobian that TensorFlow gives row by row."""
    total = 0.0
    for batch in BATCHES:
        with tf.GradientTape(persistent=True) as tape:
            outputs = net(batch["inputs"], training=True)
            rows = tf.unstack(tf.reshape(outputs, [-1]))
        weights = [each.value for each in net.trainable_variables]
        slopes = [tape.gradient(row, weights) for row in rows]
        jacobian = np.array([np.concatenate([np.ravel(each) for each in slope]) for slope in slopes], np.float64)
        jacobian = jacobian.reshape(len(outputs), CLASSES, -1)
        total += np.einsum("bip,bij,bjq->pq", jacobian, hessians(outputs.numpy().astype(np.float64)), jacobian)
    return total / 16


@pytest.mark.parametrize(
    ("net", "objective"),
    [*(("mlp", name) for name in OBJECTIVES), *((name, "squared distance") for name in NETS if name != "mlp"),
     ("bottleneck", "divergence"), ("convolution", "labels")],
)  # fmt: skip
def test_the_estimate_is_the_largest_eigenvalue(net, objective):
    keras.utils.set_random_seed(1)
    model, (chosen, hessians) = NETS[net](), OBJECTIVES[objective]
    before = [each.numpy() for each in model.variables]
    exact = np.linalg.eigvalsh(gauss_newton(model, hessians))[-1]
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)

    assert largest_curvature(model, chosen, BATCHES) == pytest.approx(exact, rel=0.02)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_examples_without_a_label_do_not_count():
    model = NETS["mlp"]()
    known = BATCHES[0]
    unknown = BATCHES[1] | {"labels": tf.constant([-1] * 6)}
    alone = largest_curvature(model, Objective(), [known])
    assert largest_curvature(model, Objective(), [known, unknown]) == pytest.approx(alone, rel=1e-3)
    assert largest_curvature(model, Objective(), [unknown]) == 0.0


def test_masks_are_the_same_in_every_product_and_no_seed_moves():
    model = dense(layers.Dense(30, "relu"), layers.Dropout(0.5))
    seeds = [each.numpy() for each in model.non_trainable_variables]
    first, second = (largest_curvature(model, Objective(LogitL2()), BATCHES) for _ in range(2))
    assert first == second
    np.testing.assert_array_equal([each.numpy() for each in model.non_trainable_variables], seeds)


def test_the_measured_limit_of_a_wide_output():
    """4.1 / H with Nesterov's momentum of 0.9, where the curvature is 0.33 H."""
    assert stability_limit(0.33 * 8000, 0.9, nesterov=True) == pytest.approx(4.1 / 8000, rel=0.01)


def goes_to_infinity(rate, momentum, nesterov, curvature):
    """Keras' own SGD, on curvature * w² / 2 from w = 1."""
    weight = keras.Variable(1.0)
    optimizer = keras.optimizers.SGD(rate, momentum, nesterov)
    optimizer.build([weight])
    distances = []
    for _ in range(40):
        optimizer.apply([curvature * weight.value], [weight])
        distances.append(abs(float(weight.numpy())))
    return max(distances[-10:]) > max(distances[:10])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_limit_is_that_of_keras(momentum, nesterov):
    limit = stability_limit(7.0, momentum, nesterov)
    assert not goes_to_infinity(0.9 * limit, momentum, nesterov, 7.0)
    assert goes_to_infinity(1.1 * limit, momentum, nesterov, 7.0)


@given(
    st.floats(1e-3, 1e6), st.floats(0, 0.99), st.booleans(), st.floats(0.01, 0.99) | st.floats(1.01, 3)
)  # fmt: skip
def test_the_roots_of_the_recursion_leave_the_unit_circle_at_the_limit(curvature, momentum, nesterov, share):
    a = share * stability_limit(curvature, momentum, nesterov) * curvature
    p, q = ((1 + momentum) * (1 - a), momentum * (1 - a)) if nesterov else (1 + momentum - a, momentum)
    assert (np.abs(np.roots([1, -p, q])).max() < 1) == (share < 1)
