"""The losses against independent float64 implementations in NumPy and SciPy, and against values computed by hand."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from mimic_keras_losses import KL, LogitL2, ProbabilityL2, SquaredHinge, StandardizedTemperature, Temperature
from scipy.special import log_softmax, softmax
from scipy.stats import zscore
from sklearn.svm import LinearSVC

TEMPERATURES = [1.0, 2.0, 4.0, 20.0]
# Each loss, with its temperature where it has one.
LOSSES = [
    pytest.param(LogitL2(), None, id="LogitL2"),
    pytest.param(ProbabilityL2(), None, id="ProbabilityL2"),
    pytest.param(KL(), 1.0, id="KL"),
    *[pytest.param(Temperature(temperature=t), t, id=f"Temperature-{t:g}") for t in TEMPERATURES],
]
every_loss = pytest.mark.parametrize(("loss", "temperature"), LOSSES)


def expected(loss, temperature, teacher, student):
    """The loss by its definition in the paper, float64 [batch]."""
    teacher, student = np.asarray(teacher, np.float64), np.asarray(student, np.float64)
    if temperature is not None:
        log_p, log_q = log_softmax(teacher / temperature, axis=-1), log_softmax(student / temperature, axis=-1)
        return temperature**2 * np.sum(softmax(teacher / temperature, axis=-1) * (log_p - log_q), axis=-1)
    if isinstance(loss, ProbabilityL2):
        teacher, student = softmax(teacher, axis=-1), softmax(student, axis=-1)
    return 0.5 * np.sum((student - teacher) ** 2, axis=-1)


def expected_gradient(loss, temperature, teacher, student):
    """Of the loss with respect to the student's logits, by hand: float64 [batch, num_classes]."""
    teacher, student = np.asarray(teacher, np.float64), np.asarray(student, np.float64)
    if temperature is not None:
        p, q = softmax(teacher / temperature, axis=-1), softmax(student / temperature, axis=-1)
        return temperature * (q - p)
    if isinstance(loss, LogitL2):
        return student - teacher
    p, q = softmax(teacher, axis=-1), softmax(student, axis=-1)
    return q * ((q - p) - np.sum(q * (q - p), axis=-1, keepdims=True))


def logits(classes, scale, seed, batch=16):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, classes)) * scale, rng.normal(size=(batch, classes)) * scale


def float32_tolerance(temperature, teacher, student):
    """1e-6 (T^2 + T max |z|) per row: what rounding the logits and the logarithms to float32 costs."""
    t = temperature or 1.0
    largest = np.maximum(np.abs(teacher).max(-1), np.abs(student).max(-1)).astype(np.float64)
    return 1e-6 * (t**2 + t * largest)


def differentiated(loss, teacher, student, dtype):
    student = tf.constant(student, dtype)
    with tf.GradientTape() as tape:
        tape.watch(student)
        values = loss.call(tf.constant(teacher, dtype), student)
    return values.numpy(), tape.gradient(values, student).numpy()


@pytest.mark.parametrize("classes", [2, 10, 183])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1e4])
@every_loss
def test_float64_logits_give_the_definition_to_1e_6(loss, temperature, scale, classes):
    teacher, student = logits(classes, scale, seed=classes)

    found = loss.call(tf.constant(teacher), tf.constant(student))

    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, expected(loss, temperature, teacher, student), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 183])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1e4])
@every_loss
def test_float32_logits_give_the_definition_to_rounding(loss, temperature, scale, classes):
    teacher, student = (values.astype(np.float32) for values in logits(classes, scale, seed=100 + classes))

    found = loss.call(tf.constant(teacher), tf.constant(student))

    assert found.dtype == tf.float32
    wanted = expected(loss, temperature, teacher, student)
    allowed = 1e-5 * np.abs(wanted) + float32_tolerance(temperature, teacher, student)
    np.testing.assert_array_less(np.abs(found.numpy() - wanted), allowed)


@every_loss
@settings(max_examples=30, derandomize=True)
@given(data=st.data())
def test_any_two_float32_rows_give_the_definition(loss, temperature, data):
    classes = data.draw(st.sampled_from([2, 3, 10]))
    rows = hnp.arrays(np.float32, (2, classes), elements=st.floats(-1e4, 1e4, width=32))
    teacher, student = data.draw(rows), data.draw(rows)

    found = loss.call(tf.constant(teacher), tf.constant(student)).numpy()

    wanted = expected(loss, temperature, teacher, student)
    tolerance = float32_tolerance(temperature, teacher, student)
    np.testing.assert_array_less(np.abs(found - wanted), 1e-5 * np.abs(wanted) + tolerance)
    assert (found >= -tolerance).all()


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@every_loss
def test_gradient_equals_the_one_derived_by_hand(loss, temperature, scale):
    teacher, student = logits(10, scale, seed=5)

    _, gradient = differentiated(loss, teacher, student, tf.float64)

    wanted = expected_gradient(loss, temperature, teacher, student)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-9, atol=1e-12)


def test_logit_l2_by_hand():
    # ((1 - 3)^2 + (2 - 2)^2 + (-1 - 4)^2) / 2 and ((0 - 1)^2 + 0 + 0) / 2
    found = LogitL2().call(tf.constant([[3.0, 2.0, 4.0], [1.0, 5.0, 6.0]]), tf.constant([[1.0, 2, -1], [0.0, 5, 6]]))

    np.testing.assert_array_equal(found, np.float32([14.5, 0.5]))


def test_probability_l2_by_hand():
    # Teacher (3/4, 1/4), student (1/2, 1/2): (1/16 + 1/16) / 2.
    found = ProbabilityL2().call(tf.constant([[np.log(3.0), 0.0]]), tf.constant([[7.0, 7.0]], tf.float64))

    np.testing.assert_allclose(found, [1 / 16], rtol=1e-12)


def test_kl_by_hand():
    # Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2) = 0.75 log 3 - log 2 nats.
    found = KL().call(tf.constant([[np.log(3.0), 0.0]]), tf.constant([[0.0, 0.0]], tf.float64))

    np.testing.assert_allclose(found, [0.75 * np.log(3) - np.log(2)], rtol=1e-12)
    np.testing.assert_allclose(found, [0.13081203594113697], rtol=1e-12)


def test_temperature_by_hand():
    # At T = 2 the teacher's logits (2 log 3, 0) give (3/4, 1/4): 2^2 times the KL divergence above.
    teacher, student = tf.constant([[2 * np.log(3.0), 0.0]]), tf.constant([[0.0, 0.0]], tf.float64)

    np.testing.assert_allclose(Temperature(temperature=2.0).call(teacher, student), [0.5232481437645479], rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 183])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_standardized_temperature_is_temperature_of_z_scores(temperature, scale, classes):
    teacher, student = logits(classes, scale, seed=classes)
    teacher += 7.0

    found = StandardizedTemperature(temperature=temperature).call(tf.constant(teacher), tf.constant(student))

    wanted = expected(None, temperature, zscore(teacher, axis=-1), zscore(student, axis=-1))
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_standardized_temperature_by_hand():
    # (2, 0) and (0, 6) become (1, -1) and (-1, 1), at T = 2 (1/2, -1/2) and (-1/2, 1/2): 4 (2p - 1) with
    # p = e / (1 + e), since KL((p, 1 - p) || (1 - p, p)) = (2p - 1) log(p / (1 - p)).
    found = StandardizedTemperature().call(tf.constant([[2.0, 0.0]], tf.float64), tf.constant([[0.0, 6.0]], tf.float64))

    np.testing.assert_allclose(found, [4 * (2 * np.e / (1 + np.e) - 1)], rtol=1e-12)


def test_neither_the_scale_nor_the_mean_of_an_example_changes_standardized_temperature():
    teacher, student = logits(10, 3.0, seed=2)
    scale = np.random.default_rng(0).uniform(0.1, 10, (16, 1))

    found = StandardizedTemperature().call(tf.constant(teacher), tf.constant(scale * student + 5 * scale))

    np.testing.assert_allclose(found, StandardizedTemperature().call(teacher, student), rtol=1e-9)


def test_equal_logits_have_a_finite_gradient_under_standardized_temperature():
    values, gradient = differentiated(StandardizedTemperature(), [[3.0, 1.0]], [[5.0, 5.0]], tf.float32)

    assert np.isfinite(values).all()
    assert np.isfinite(gradient).all()
    assert gradient[0, 0] < 0 < gradient[0, 1]


def test_the_teacher_is_the_first_argument_of_kl():
    # KL((1/2, 1/2) || (3/4, 1/4)) = log(2/3) / 2 + log(2) / 2 = log 2 - log(3) / 2, not the value above.
    found = KL().call(tf.constant([[0.0, 0.0]], tf.float64), tf.constant([[np.log(3.0), 0.0]]))

    np.testing.assert_allclose(found, [np.log(2) - np.log(3) / 2], rtol=1e-12)


def test_kl_is_temperature_at_one():
    teacher, student = logits(10, 3.0, seed=1)

    np.testing.assert_array_equal(KL().call(teacher, student), Temperature(temperature=1.0).call(teacher, student))


def test_the_default_temperature_is_4():
    assert Temperature().temperature == 4.0
    assert StandardizedTemperature().temperature == 2.0


@pytest.mark.parametrize("classes", [2, 10, 183])
def test_temperature_tends_to_half_the_mean_squared_centred_difference(classes):
    teacher, student = logits(classes, 2.0, seed=3)
    difference = student - teacher
    limit = np.sum((difference - difference.mean(-1, keepdims=True)) ** 2, axis=-1) / (2 * classes)

    def worst(temperature):
        return np.max(np.abs(Temperature(temperature=temperature).call(teacher, student) - limit)) / limit.max()

    errors = [worst(temperature) for temperature in (1e1, 1e2, 1e3, 1e4)]
    # The first term left out is of the order of 1 / T: ten times the temperature, about a tenth of the error.
    assert all(after < before / 5 for before, after in itertools.pairwise(errors)), errors
    assert errors[-1] < 1e-3


@every_loss
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_one_value_per_example(loss, temperature, batch):
    teacher, student = logits(5, 1.0, seed=0, batch=batch)

    assert loss.call(tf.constant(teacher), tf.constant(student)).shape == (batch,)


@every_loss
def test_no_other_row_of_the_batch_changes_a_value(loss, temperature):
    teacher, student = (values.astype(np.float32) for values in logits(10, 5.0, seed=8))
    together = loss.call(tf.constant(teacher), tf.constant(student)).numpy()

    for row in (0, 7, 15):
        alone = loss.call(tf.constant(teacher[[row]]), tf.constant(student[[row]])).numpy()
        np.testing.assert_allclose(alone, together[[row]], rtol=1e-6)
        spoiled = np.full_like(teacher, np.nan), np.full_like(student, np.nan)
        spoiled[0][row], spoiled[1][row] = teacher[row], student[row]
        np.testing.assert_array_equal(loss.call(*map(tf.constant, spoiled)).numpy()[row], together[row])


@every_loss
def test_logits_of_ten_thousand_give_finite_values_and_the_right_gradients(loss, temperature):
    teacher = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4]], np.float32)
    student = np.array([[-1e4, 1e4, 0.0], [-1e4, -1e4, 1e4], [-1e4, 1e4, 1e4]], np.float32)

    values, gradients = differentiated(loss, teacher, student, tf.float32)

    assert np.isfinite(values).all()
    assert np.isfinite(gradients).all()
    np.testing.assert_allclose(values, expected(loss, temperature, teacher, student), rtol=1e-5)
    wanted = expected_gradient(loss, temperature, teacher, student)
    np.testing.assert_allclose(gradients, wanted, rtol=1e-5, atol=1e-6 * (temperature or 1.0))


@every_loss
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_equal_logits_cost_exactly_nothing_and_pull_nowhere(loss, temperature, scale):
    teacher = logits(10, scale, seed=2)[0].astype(np.float32)

    values, gradients = differentiated(loss, teacher, teacher, tf.float32)

    np.testing.assert_array_equal(values, np.zeros(16))
    np.testing.assert_allclose(gradients, np.zeros([16, 10]), atol=1e-6 * (temperature or 1.0))


@pytest.mark.parametrize("loss", [ProbabilityL2(), KL(), Temperature()], ids=lambda loss: type(loss).__name__)
def test_losses_of_probabilities_ignore_a_constant_added_to_the_logits(loss):
    teacher, student = logits(10, 3.0, seed=4)
    moved = loss.call(teacher + 100.0, student - 50.0)

    np.testing.assert_allclose(moved, loss.call(teacher, student), rtol=1e-10)


def test_logit_l2_sees_a_constant_added_to_the_logits():
    teacher, _ = logits(10, 3.0, seed=4)

    np.testing.assert_allclose(LogitL2().call(teacher, teacher + 2.0), np.full(16, 10 * 2.0**2 / 2), rtol=1e-12)


@every_loss
def test_from_config_of_get_config_gives_the_same_loss(loss, temperature):
    again = type(loss).from_config(loss.get_config())

    teacher, student = logits(10, 3.0, seed=6)
    np.testing.assert_array_equal(again.call(teacher, student), loss.call(teacher, student))
    assert again.get_config() == loss.get_config()
    assert getattr(again, "temperature", None) == temperature


@pytest.mark.parametrize("kind", [LogitL2, ProbabilityL2, Temperature, KL, StandardizedTemperature])
def test_the_configuration_keeps_what_keras_losses_have(kind):
    again = kind.from_config(kind(name="mimic", reduction="sum").get_config())

    assert (type(again), again.name, again.reduction) == (kind, "mimic", "sum")


@every_loss
def test_works_in_a_plain_keras_compile(loss, temperature):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    inputs = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    teacher = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32) * 3
    kernel, bias = (weights.astype(np.float64) for weights in model.get_weights())
    outputs = inputs @ kernel + bias
    before = expected(loss, temperature, teacher, outputs).mean()
    model.compile(keras.optimizers.SGD(0.05), loss=loss)

    found = [float(model.train_on_batch(inputs, teacher)) for _ in range(10)]

    assert found[0] == pytest.approx(before, rel=1e-5, abs=float32_tolerance(temperature, teacher, outputs).mean())
    assert found[-1] < found[0]


def test_only_logit_l2_may_be_given_standardised_logits():
    kinds = (LogitL2, ProbabilityL2, Temperature, KL, StandardizedTemperature)
    standardizable = [kind for kind in kinds if getattr(kind, "standardizable", 0)]

    assert standardizable == [LogitL2]


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_0_is_refused(temperature):
    with pytest.raises(ValueError, match=f"^temperature must be above 0 and finite, got {temperature}$"):
        Temperature(temperature=temperature)


def test_squared_hinge_by_hand():
    values = SquaredHinge().call(None, ops.array([[0.5, -2.0, 0.0], [3.0, 1.0, -1.0]]), ops.array([0, -1]))
    assert values.numpy().tolist() == [0.25 + 0 + 1, 0]


def test_the_minimum_of_squared_hinge_is_scikit_learns_support_vector_machine():
    """One class against the others, C = 0.7: at its weights our mean loss with decay 1 / (C N) has no gradient."""
    random = np.random.default_rng(0)
    inputs, labels = random.normal(size=[40, 6]), random.integers(0, 3, 40)
    machine = LinearSVC(C=0.7, loss="squared_hinge", dual=False, fit_intercept=False, tol=1e-10, max_iter=10_000)
    weights = tf.Variable(machine.fit(inputs, labels).coef_.T)

    def objective():
        losses = SquaredHinge(dtype="float64").call(None, tf.constant(inputs) @ weights, tf.constant(labels))
        return tf.reduce_mean(losses) + tf.reduce_sum(weights**2) / (2 * 0.7 * 40)

    with tf.GradientTape() as tape:
        value = objective()
    np.testing.assert_allclose(tape.gradient(value, weights), 0, atol=1e-6)
    assert float(value) < 3
