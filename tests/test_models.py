"""What a model costs, and what folding its head into its last layer leaves unchanged."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mimic_keras.contracts import ArraySplit, count_parameters, logits_of
from mimic_keras.training import models

# (layers, input shape, multiply-adds by hand)
COSTS = {
    "dense": ([layers.Dense(7)], (5,), 35),
    "two dense": ([layers.Dense(7), layers.ReLU(), layers.Dense(3)], (5,), 35 + 21),
    "convolution, same": ([layers.Conv2D(4, 3, padding="same")], (8, 6, 2), 8 * 6 * 4 * 3 * 3 * 2),
    "convolution, strided": ([layers.Conv2D(4, 3, strides=2)], (9, 7, 2), 4 * 3 * 4 * 9 * 2),
    "depthwise": ([layers.DepthwiseConv2D(3, padding="same")], (8, 6, 2), 8 * 6 * 2 * 9),
    "separable": ([layers.SeparableConv2D(4, 3, padding="same")], (8, 6, 2), 8 * 6 * 2 * 9 + 8 * 6 * 2 * 4),
    "convolution, 1-D": ([layers.Conv1D(4, 3)], (10, 2), 8 * 4 * 3 * 2),
    "einsum": ([layers.EinsumDense("abc,cd->abd", output_shape=(None, 5))], (4, 3), 4 * 3 * 5),
    "nothing but elementwise": ([layers.ReLU(), layers.Flatten()], (4, 3), 0),
}


@pytest.mark.parametrize("name", COSTS)
def test_multiply_adds(name):
    stack, shape, expected = COSTS[name]
    assert models.count_multiply_adds(keras.Sequential([keras.Input(shape), *stack]), shape) == expected


@pytest.mark.parametrize("function", [tf.numpy_function, tf.py_function])
def test_multiply_adds_of_python_are_not_counted(function):
    def call(x):
        return function(lambda rows: rows, [tf.matmul(x, tf.ones([5, 3]))], tf.float32)

    assert models.count_multiply_adds(call, (5,)) is None


def test_multiply_adds_of_a_loaded_saved_model(tmp_path):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(7), layers.Dense(3)])
    model.export(str(tmp_path), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    assert models.count_multiply_adds(lambda x: loaded.signatures["serving_default"](x)["output_0"], (5,)) == 35 + 21


def test_parameters_count_trainable_weights_alone():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(7, use_bias=False), layers.BatchNormalization()])
    assert count_parameters(model.trainable_weights) == 35 + 14


def test_logits_shape_reads_dicts():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, {"logits": layers.Dense(3)(inputs), "hidden": layers.Dense(9)(inputs)})
    assert models.logits_shape(model, (5,)) == (1, 3)
    assert models.float32_logits(model(np.ones([2, 5], "f4"))).shape == (2, 3)


def test_outputs_are_not_cast():
    values = np.ones([2, 3], np.float16)
    assert logits_of({"logits": values, "hidden": None}) is values
    assert logits_of(values) is values


def test_a_net_is_built_without_values():
    def build():
        net = keras.Sequential([keras.Input((4,)), layers.Dense(10**9)])
        return count_parameters(net.trainable_weights)

    assert models.build_without_values(build, lambda _: None) == 5 * 10**9, "20 GB, if it had values"


def test_a_net_that_needs_its_values_is_built_in_full():
    def build():
        return float(keras.ops.sum(layers.Dense(1, kernel_initializer="ones")(np.ones([1, 3], np.float32))))

    given = []
    assert models.build_without_values(build, lambda build: given.append(build) or build()) == 3.0


def net_with_head(*last):
    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input((5,)), layers.Dense(16, activation="relu"), *last])
    scale, offset = np.array([0.5, 30.0, 1e-3]), np.array([-4.0, 100.0, 0.0])
    return net, models.with_affine_head(net, scale, offset), scale, offset


def test_affine_head_gives_real_logits():
    net, model, scale, offset = net_with_head(layers.Dense(3))
    inputs = np.random.default_rng(0).normal(size=[7, 5]).astype("f4")
    np.testing.assert_allclose(model(inputs), net(inputs).numpy() * scale + offset, rtol=1e-6)


def test_affine_head_survives_its_file(tmp_path):
    _, model, _, _ = net_with_head(layers.Dense(3))
    models.save(tmp_path, model, {"loss": [1.0]})
    inputs = np.ones([2, 5], "f4")
    np.testing.assert_array_equal(models.load(tmp_path)(inputs), model(inputs))


def test_undefined_values_of_a_curve_are_null(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    models.save(tmp_path, model, {"val_a": [0.5, math.nan, math.inf]})
    assert json.loads((tmp_path / "history.json").read_text()) == {"val_a": [0.5, None, None]}


def test_layers_that_are_random_in_training_are_not_in_use():
    net = keras.Sequential([keras.Input((4, 4, 1)), layers.RandomFlip(), layers.Dropout(0.5), layers.Flatten()])
    inputs = np.random.default_rng(0).normal(size=[3, 4, 4, 1]).astype("f4")
    split = ArraySplit(inputs)
    predicted = models.make_predictor(models.inference_call(net))(split, np.arange(3))
    np.testing.assert_array_equal(predicted, inputs.reshape(3, 16))


def test_predictor_keeps_order_and_takes_virtual_ids():
    split = ArraySplit(
        np.zeros([3, 2]), prepare=lambda rows, ids: tf.cast(ids, tf.float32)[:, None] + [0.0, 0.5], repeats=2
    )
    ids = np.array([5, 0, 3], np.int64)
    predicted = models.make_predictor(lambda x: x * 2)(split, ids)
    np.testing.assert_array_equal(predicted, [[10, 11], [0, 1], [6, 7]])
    assert predicted.dtype == np.float32
