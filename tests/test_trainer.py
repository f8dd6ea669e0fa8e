"""The one trainer: the same curve on any number of devices, exact objectives, schedules and seeds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mimic_keras.contracts import ArraySplit, InputError
from mimic_keras.training import trainer
from mimic_keras.training.batches import Examples, shuffled_ids
from mimic_keras.training.callbacks import Monitor
from mimic_keras.training.objective import Objective
from mimic_keras.training.steps import TrainingDiverged
from tests.small_training import (
    ADAM,
    CLASSES,
    SGD,
    LogitL2,
    data,
    hidden,
    linear,
    mirrored,
    noisy,
    normalised,
    settings,
    train,
)

TRAININGS = {
    "mimic": (hidden, Objective(LogitL2()), SGD),
    "labels": (hidden, Objective(), SGD),
    "mixed with weight decay": (
        lambda: hidden(decay=0.01),
        Objective(LogitL2(), hard_label_weight=0.3),
        ADAM,
    ),
    "standardised": (hidden, Objective(LogitL2(), 0.0, np.array([1.0, 2, 3, 4, 5]), np.full(5, 7.0)), SGD),
    "batch normalisation": (normalised, Objective(LogitL2()), ADAM),
}
# 101 = 6 * 16 + 5: the last batch gives four replicas 2, 2, 1 and 0 examples; 97 leaves one of two replicas empty.
UNEQUAL, EMPTY, OTHER = (4, 101), (2, 97), (2, 101)
QUICK = [*((*UNEQUAL, name) for name in TRAININGS), (*EMPTY, "mixed with weight decay")]
EVERY = [(*shares, name) for shares in (UNEQUAL, EMPTY, OTHER) for name in TRAININGS]


@pytest.mark.long
@pytest.mark.parametrize(
    ("devices", "count", "name"),
    [each if each in QUICK else pytest.param(*each, marks=pytest.mark.slow) for each in EVERY],
)
def test_any_number_of_devices_gives_the_same_curve(devices, count, name):
    build, objective, optimizer = TRAININGS[name]
    chosen = settings(optimizer=optimizer)
    one = train(build, data(count, unlabelled=10), objective, chosen)
    many = train(build, data(count, unlabelled=10), objective, chosen, strategy=mirrored(devices))
    assert set(one.history) == set(many.history)
    for metric, curve in one.history.items():
        np.testing.assert_allclose(many.history[metric], curve, rtol=1e-5, atol=1e-7, err_msg=metric)
    for ours, theirs in zip(one.model.get_weights(), many.model.get_weights(), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def reference(examples, chosen, seed, weights, gradient):
    """SGD with momentum on a linear net, in float64: Keras' velocity = momentum * velocity - rate * gradient."""
    kernel, bias = (np.asarray(weight, np.float64) for weight in weights)
    velocities, rate, momentum = [0.0, 0.0], chosen.optimizer.learning_rate, chosen.optimizer.momentum
    inputs = examples.split.batch(np.arange(examples.split.num_examples)).numpy().astype(np.float64)
    steps = chosen.epochs * examples.steps_per_pass(chosen.batch_size)
    for ids in shuffled_ids(examples, chosen.batch_size, seed).take(steps).as_numpy_iterator():
        delta = gradient(inputs[ids] @ kernel + bias, ids)
        for index, slope in enumerate((inputs[ids].T @ delta, delta.sum(0))):
            velocities[index] = momentum * velocities[index] - rate * slope
        kernel, bias = kernel + velocities[0], bias + velocities[1]
    return kernel, bias


def softmax(values):
    exponentials = np.exp(values - values.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_steps_equal_an_independent_implementation(weight):
    examples, chosen = data(unlabelled=30), settings(optimizer={**SGD, "nesterov": False})
    logits, labels = examples._columns["teacher_logits"].numpy().astype(np.float64), examples.split.labels

    def gradient(outputs, ids):
        share = np.where(labels[ids] >= 0, weight, 0.0)[:, None]
        correct = np.eye(CLASSES)[np.maximum(labels[ids], 0)]
        mimic, hard = outputs - logits[ids], softmax(outputs) - correct
        return ((1 - share) * mimic + share * hard) / len(ids)

    keras.utils.set_random_seed(4)
    kernel, bias = reference(examples, chosen, 4, linear().get_weights(), gradient)
    trained = train(linear, examples, Objective(LogitL2(), weight), chosen, seed=4).model
    np.testing.assert_allclose(trained.get_weights()[0], kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained.get_weights()[1], bias, rtol=1e-4, atol=1e-5)


def test_unlabelled_examples_do_not_count_for_the_labels():
    examples, chosen = data(unlabelled=40, teacher=False), settings(optimizer={**SGD, "nesterov": False})
    labels = examples.split.labels

    def gradient(outputs, ids):
        known = labels[ids] >= 0
        slope = softmax(outputs) - np.eye(CLASSES)[np.maximum(labels[ids], 0)]
        return slope * known[:, None] / max(known.sum(), 1)

    keras.utils.set_random_seed(4)
    kernel, _ = reference(examples, chosen, 4, linear().get_weights(), gradient)
    trained = train(linear, examples, Objective(), chosen, seed=4).model
    np.testing.assert_allclose(trained.get_weights()[0], kernel, rtol=1e-4, atol=1e-5)


def test_a_standardised_run_regresses_standardised_targets_step_for_step():
    examples = data(64)
    logits = examples._columns["teacher_logits"].numpy()
    scale, offset = logits.std(0).astype(np.float64), logits.mean(0).astype(np.float64)
    targets = ((logits - offset.astype("f4")) / scale.astype("f4")).astype("f4")
    one_step_an_epoch = settings(epochs=12, batch_size=64)
    ours = train(hidden, examples, Objective(LogitL2(), 0.0, scale, offset), one_step_an_epoch)
    plain = train(hidden, Examples(examples.split, targets), Objective(LogitL2()), one_step_an_epoch)
    np.testing.assert_allclose(ours.history["loss"], plain.history["loss"], rtol=1e-6)
    for left, right in zip(ours.model.get_weights(), plain.model.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)


@pytest.mark.long
@pytest.mark.parametrize("strategy", [None, 2], ids=["one device", "mirrored"])
def test_the_same_seed_gives_the_same_bits(strategy):
    def run(seed):
        devices = mirrored(strategy) if strategy else None
        return train(noisy, data(), Objective(LogitL2()), settings(), seed=seed, strategy=devices)

    tf.config.experimental.enable_op_determinism()
    first, again, other = run(1), run(1), run(2)
    assert first.history == again.history
    for left, right, different in zip(*(x.model.get_weights() for x in (first, again, other)), strict=True):
        np.testing.assert_array_equal(left, right)
        assert not np.array_equal(left, different) or left.size == CLASSES


def test_a_share_of_the_ids_is_all_that_is_trained_on():
    examples = data()
    logits = examples._columns["teacher_logits"].numpy()
    ids = np.arange(0, 60, 2)
    share = Examples(examples.split, logits, ids)
    wrong = logits.copy()
    wrong[np.setdiff1d(np.arange(101), ids)] = 1e6
    left = train(hidden, share, Objective(LogitL2()), settings(), validation=examples).model.get_weights()
    other = Examples(examples.split, wrong, ids)
    right = train(hidden, other, Objective(LogitL2()), settings(), validation=examples).model.get_weights()
    for one, two in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, two)


def test_labels_that_are_not_there_can_not_be_learnt():
    with pytest.raises(InputError, match="net: learns the labels, but the training or"):
        train(linear, data(20, unlabelled=20), Objective(), settings())


def test_mixed_precision_trains_nearly_the_same_and_returns_float32():
    exact = train(hidden, data(), Objective(LogitL2()), settings(epochs=20))
    mixed = train(hidden, data(), Objective(LogitL2()), settings(epochs=20, precision="mixed_bfloat16"))
    assert {layer.dtype_policy.name for layer in mixed.model.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    assert mixed.history["loss"] != exact.history["loss"]
    assert mixed.history["loss"][-1] < 0.1 * mixed.history["loss"][0]
    # How bfloat16 sums are rounded differs between processors: 4 to 5.2 % was seen.
    np.testing.assert_allclose(mixed.history["loss"][:5], exact.history["loss"][:5], rtol=0.06)


def test_the_tensor_cores_format_is_on_in_the_training_alone():
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    seen = []

    def build():
        seen.append(enabled())
        return hidden()

    tf.config.experimental.enable_tensor_float_32_execution(False)
    exact = train(build, data(), Objective(LogitL2()), settings())
    assert seen == [False, False]  # the net under training, and the one that is returned
    fast = train(build, data(), Objective(LogitL2()), settings(precision="tensor_float_32"))
    assert seen[2:] == [True, False]
    assert not enabled()
    if not tf.config.list_physical_devices("GPU"):
        assert fast.history == exact.history
    assert settings().key_inputs() != settings(precision="tensor_float_32").key_inputs()


RATES = {
    "constant": ({"name": "constant"}, [0.02] * 6),
    "step": ({"name": "step", "every": 2, "factor": 0.5}, [0.02, 0.02, 0.01, 0.01, 0.005, 0.005]),
    "cosine": (
        {"name": "cosine", "final_fraction": 0.1},
        [0.02 * (0.9 * 0.5 * (1 + np.cos(np.pi * (7 * epoch - 1) / 42)) + 0.1) for epoch in range(1, 7)],
    ),
}


@pytest.mark.parametrize("name", RATES)
def test_schedules(name):
    schedule, expected = RATES[name]
    trained = train(linear, data(), Objective(LogitL2()), settings(epochs=6, schedule=schedule))
    np.testing.assert_allclose(trained.history["learning_rate"], expected, rtol=1e-5)


def test_restore_best_returns_the_weights_of_the_best_epoch():
    chosen = {"batch_size": 101, "optimizer": {"name": "sgd", "learning_rate": 0.9}}
    last = train(linear, data(), Objective(), settings(epochs=30, **chosen))
    best = train(linear, data(), Objective(), settings(epochs=30, restore="best", **chosen))
    assert best.history == last.history
    epoch = int(np.argmin(last.history["val_error_rate"]))
    assert epoch < 29
    shorter = train(linear, data(), Objective(), settings(epochs=epoch + 1, **chosen))
    for left, right in zip(best.model.get_weights(), shorter.model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("sign", "values", "said"),
    [
        (1.0, [0.5, 0.25, 0.25], "the best of 3 epochs, 2, val_x 0.25"),
        (-1.0, [float("nan"), 0.5, 0.75], "the best of 3 epochs, 3, val_x 0.75"),
        (1.0, [float("nan")], "the best of 1 epochs, 1, val_x nan"),
    ],
)
def test_which_epoch_was_kept_is_said(sign, values, said):
    assert trainer._describe_best({"val_x": values}, Monitor("x", sign)) == said


def test_weights_that_are_no_numbers_are_no_net():
    """An input that is NaN, behind a rectifier: the loss is a number at every step."""

    def net():
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), RectifiedNan(), keras.layers.Dense(2)])

    class RectifiedNan(keras.layers.Layer):
        def call(self, inputs):
            return tf.where(tf.math.is_nan(inputs), 0.0, inputs)

    inputs = np.zeros([8, 3], np.float32)
    inputs[0, 0] = np.nan
    labels = np.arange(8) % 2
    examples = Examples(ArraySplit(inputs, labels))
    with pytest.raises(TrainingDiverged, match="weights of net are infinite or NaN after 1 epochs"):
        train(net, examples, Objective(), settings(epochs=1))


def test_the_monitored_metric_decides_which_epoch_is_best():
    """The data set's metric grows until epoch 2, the error rate is ignored."""
    values = iter([{"share": 0.1}, {"share": 0.9, "other": 1.0}, {}, {"share": 0.5}])
    examples, chosen = data(), settings(epochs=4, restore="best", monitor="-share")
    best = trainer.train(
        linear, examples, examples, Objective(LogitL2()), chosen, 0, "net",
        strategy=tf.distribute.get_strategy(), judge=lambda logits: next(values),
    )  # fmt: skip
    np.testing.assert_array_equal(best.history["val_share"], [0.1, 0.9, np.nan, 0.5])
    second = train(linear, examples, Objective(LogitL2()), settings(epochs=2))
    for left, right in zip(best.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_student_is_judged_by_its_agreement():
    chosen = settings(epochs=8, restore="best", monitor="-agreement")
    best = train(linear, data(), Objective(LogitL2()), chosen)
    epoch = int(np.argmax(best.history["val_agreement"]))
    last = train(linear, data(), Objective(LogitL2()), settings(epochs=epoch + 1))
    np.testing.assert_array_equal(best.model.get_weights()[0], last.model.get_weights()[0])


def test_validation_without_labels_cannot_be_judged_by_them():
    chosen = settings(monitor="-error_rate")
    message = "^net: monitor: the validation examples have no labels, so no error_rate; accepted: loss$"
    with pytest.raises(InputError, match=message):
        train(linear, data(), Objective(LogitL2()), chosen, validation=data(50, unlabelled=50))


def test_validation_without_labels_is_judged_by_the_loss():
    unlabelled = data(50, unlabelled=50)
    chosen = settings(epochs=3, restore="best", schedule={"name": "plateau_halving"})
    history = train(linear, data(), Objective(LogitL2()), chosen, validation=unlabelled).history
    assert history["val_loss"][-1] < history["val_loss"][0]


@pytest.mark.parametrize(
    "loss", [keras.losses.Huber(), keras.losses.CosineSimilarity(), keras.losses.MeanSquaredError()]
)
def test_keras_own_losses_work_as_they_are(loss):
    history = train(hidden, data(), Objective(loss), settings(epochs=3)).history
    assert history["loss"][-1] < history["loss"][0]
