"""The locally connected layer against NumPy, window by window."""

import keras
import numpy as np
import pytest
from mimic_keras_architectures import cnn
from mimic_keras_architectures.locally_connected import LocallyConnected2D

from mimic_keras.training.models import measure_cost


@pytest.mark.parametrize(("size", "before", "after"), [(3, 1, 1), (2, 0, 1), (1, 0, 0)])
def test_every_place_has_its_own_filters(size, before, after):
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    layer = LocallyConnected2D(4, size)
    layer.build(x.shape)
    layer.bias.assign(np.random.default_rng(1).normal(size=layer.bias.shape))
    kernel, bias = layer.kernel.numpy().astype(np.float64), layer.bias.numpy()

    expected = np.zeros([2, 5, 6, 4])
    padded = np.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
    for row in range(5):
        for column in range(6):
            window = padded[:, row : row + size, column : column + size]
            expected[:, row, column] = np.tensordot(window, kernel[row, column], 3) + bias[row, column]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_equal_filters_everywhere_are_a_convolution():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    layer, convolution = LocallyConnected2D(4, 4), keras.layers.Conv2D(4, 4, padding="same")
    layer.build(x.shape)
    convolution.build(x.shape)
    layer.kernel.assign(np.broadcast_to(convolution.kernel, layer.kernel.shape))
    np.testing.assert_allclose(layer(x), convolution(x), rtol=1e-4, atol=1e-5)


def test_the_net_of_hinton_et_al_has_the_parameters_counted_by_hand_and_survives_saving(tmp_path):
    net = cnn(
        (32, 32, 3),
        10,
        filters=[64, 64, 64],
        local_filters=[16],
        hidden_units=[],
        kernel_size=5,
        pool_size=3,
        pool_stride=2,
        dropout=[0.0, 0.0, 0.0, 0.5],
    )

    convolutions = 25 * 3 * 64 + 64 + 2 * (25 * 64 * 64 + 64)  # on 32, 15 and 7 rows; the last pooling leaves 3
    local = 3 * 3 * (9 * 64 * 16 + 16)
    assert net.count_params() == convolutions + local + 3 * 3 * 16 * 10 + 10
    products = 32 * 32 * 25 * 3 * 64 + (15 * 15 + 7 * 7) * 25 * 64 * 64 + 9 * (9 * 64 * 16 + 160)
    assert measure_cost(net).multiply_adds == products
    assert [type(layer).__name__ for layer in net.layers[-5:]] == [
        "LocallyConnected2D",
        "Activation",
        "Dropout",
        "Flatten",
        "Dense",
    ]
    net.save(tmp_path / "net.keras")
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "net.keras")(x), net(x))
