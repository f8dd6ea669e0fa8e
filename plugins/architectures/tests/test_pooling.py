"""Poolings against NumPy, stochastic pooling in expectation and in what it draws, and the papers' parameter counts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_architectures import cnn, conv_student
from mimic_keras_architectures.pooling import StochasticPooling2D, make_pooling


def windows_of(x, size, stride):
    """[rows, columns, B, size * size, C]: every window, cut out one by one."""
    _, height, width, channels = x.shape
    return np.array(
        [
            [
                x[:, row : row + size, column : column + size].reshape(len(x), -1, channels)
                for column in range(0, width - size + 1, stride)
            ]
            for row in range(0, height - size + 1, stride)
        ]
    )


def images(shape=(3, 7, 9, 2), seed=0):
    """Half of the values are 0, as after a rectifier."""
    return np.maximum(np.random.default_rng(seed).normal(size=shape), 0).astype(np.float32)


def weighted_mean(windows):
    """Zeiler & Fergus 2013, equation 6."""
    total = windows.sum(-2)
    return np.where(total > 0, (windows**2).sum(-2) / np.where(total > 0, total, 1), 0)


REFERENCES = {"max": lambda w: w.max(-2), "average": lambda w: w.mean(-2), "stochastic": weighted_mean}


@settings(max_examples=15, derandomize=True)
@given(st.sampled_from(sorted(REFERENCES)), st.integers(1, 4), st.integers(1, 4))
def test_every_pooling_equals_numpy(pooling, size, stride):
    x = images()
    expected = REFERENCES[pooling](windows_of(x, size, stride).astype(np.float64)).transpose(2, 0, 1, 3)

    layer = make_pooling(pooling, size, stride)()

    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape(x.shape) == expected.shape


def test_windows_do_not_overlap_unless_told_to():
    assert make_pooling("max", 3, None)()(keras.Input((9, 9, 1))).shape == (None, 3, 3, 1)


def test_training_draws_values_in_proportion_to_them():
    values = np.array([[1.0, 0.0], [3.0, 4.0]], np.float32)
    many = np.broadcast_to(values[None, :, :, None], (40_000, 2, 2, 1))
    keras.utils.set_random_seed(0)

    drawn = np.asarray(StochasticPooling2D(2)(many, training=True)).ravel()

    shares = {value: np.mean(drawn == value) for value in (0.0, 1.0, 3.0, 4.0)}
    assert sum(shares.values()) == 1.0
    assert shares[0.0] == 0.0
    for value in (1.0, 3.0, 4.0):  # equation 4: 1/8, 3/8, 4/8; four standard errors of 40,000 draws
        assert abs(shares[value] - value / 8) < 4 * np.sqrt(0.25 / 40_000)


def test_a_window_of_zeros_gives_zero():
    zeros = np.zeros([2, 4, 4, 3], np.float32)

    for training in (True, False):
        np.testing.assert_array_equal(StochasticPooling2D(2)(zeros, training=training), np.zeros([2, 2, 2, 3]))


def test_the_gradient_goes_to_the_drawn_value_alone():
    x = tf.Variable(images((2, 4, 4, 1)) + 0.1)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(drawn := StochasticPooling2D(2)(x, training=True))
    gradient = tape.gradient(total, x).numpy()

    assert set(np.unique(gradient)) == {0.0, 1.0}
    chosen = (windows_of(gradient, 2, 2) * windows_of(x.numpy(), 2, 2)).sum(-2).transpose(2, 0, 1, 3)
    np.testing.assert_allclose(chosen, drawn, rtol=1e-6)


def test_draws_follow_the_global_seed_and_a_saved_net_is_the_same(tmp_path):
    def build():
        keras.utils.set_random_seed(3)
        return cnn((8, 8, 1), 3, filters=[4], hidden_units=[5], pooling="stochastic", pool_size=3, pool_stride=2)

    one, other, x = build(), build(), images((4, 8, 8, 1))
    np.testing.assert_array_equal(one(x, training=True), other(x, training=True))
    assert not np.array_equal(one(x, training=True), one(x, training=True))
    one.save(tmp_path / "net.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "net.keras")(x), one(x))


@pytest.mark.parametrize(("filters", "millions"), [(128, 70.9), (64, 53.6)])
def test_windows_of_three_with_a_stride_of_two_give_ba_and_caruanas_counts(filters, millions):
    net = conv_student(
        (32, 32, 3), 10, filters=[filters], linear_units=1200, hidden_units=[30000], pool_size=3, pool_stride=2
    )

    convolution = 5 * 5 * 3 * filters + filters
    assert net.count_params() == convolution + 15 * 15 * filters * 1200 + 1200 * 30000 + 30000 + 30000 * 10 + 10
    assert round(net.count_params() / 1e6, 1) == millions


def test_another_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling must be one of max, average, stochastic, got 'median'"):
        cnn((8, 8, 1), 3, filters=[4], hidden_units=[5], pooling="median")
