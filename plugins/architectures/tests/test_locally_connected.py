"""The locally connected layer against NumPy, window by window."""

import keras
import numpy as np
from mimic_keras_architectures import cnn
from mimic_keras_architectures.locally_connected import LocallyConnected2D

from mimic_keras.training.models import measure_cost


def test_every_place_has_its_own_filters():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    layer = LocallyConnected2D(4, 3)
    layer.build(x.shape)
    layer.bias.assign(np.random.default_rng(1).normal(size=layer.bias.shape))
    kernel, bias = layer.kernel.numpy().astype(np.float64), layer.bias.numpy()

    expected = np.zeros([2, 3, 4, 4])
    for row in range(3):
        for column in range(4):
            window = x[:, row : row + 3, column : column + 3]
            expected[:, row, column] = np.tensordot(window, kernel[row, column], 3) + bias[row, column]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


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
    local = 1 * 1 * (9 * 64 * 16 + 16)
    assert net.count_params() == convolutions + local + 16 * 10 + 10
    products = 32 * 32 * 25 * 3 * 64 + (15 * 15 + 7 * 7) * 25 * 64 * 64 + 9 * 64 * 16 + 160
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
