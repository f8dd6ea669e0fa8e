"""Folded nets compute what the nets compute, with the weights that NumPy gives in float64."""

from unittest import mock

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from mimic_keras_architectures import bottleneck, cnn, conv_student, mlp

from mimic_keras.serving import folding
from mimic_keras.serving.folding import fold
from mimic_keras.training import models

IMAGES, CLASSES = (8, 8, 3), 5


def shaken(model, seed=0):
    """The model with weights as after a training: biases, means and offsets that are not 0."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.dtype == "float32":
            noise = (
                random.uniform(0.1, 3, weight.shape) if "variance" in weight.path else random.normal(size=weight.shape)
            )
            weight.assign(weight.numpy() + 0.1 * noise)
    return model


def spread(model, folded, inputs):
    """The largest change of the logits as a share of their spread."""
    expected = models.float32_logits(model(inputs, training=False)).numpy()
    return np.abs(models.float32_logits(folded(inputs, training=False)).numpy() - expected).max() / expected.std()


def names(model):
    return [type(layer).__name__ for layer in model.layers if type(layer).__name__ != "_Nothing"]


NETS = {
    "mlp": lambda: mlp(
        IMAGES, CLASSES, hidden_units=[12, 9], batch_normalization=True, dropout=0.2, output_base_width=4
    ),
    "bottleneck": lambda: bottleneck(IMAGES, CLASSES, linear_units=4, hidden_units=[30], batch_normalization=True),
    "conv_student": lambda: conv_student(
        IMAGES, CLASSES, filters=[4, [3, 3]], linear_units=4, hidden_units=[10], batch_normalization=True
    ),
    "cnn": lambda: cnn(IMAGES, CLASSES, filters=[[4, 4]], hidden_units=[10], batch_normalization=True, input_scale=0.5),
}


@pytest.mark.parametrize("absorb", ["auto", "always", "never"])
@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_folded_net_computes_the_same(name, standardised, absorb):
    random = np.random.default_rng(1)
    model = shaken(NETS[name]())
    if standardised:
        model = models.with_affine_head(model, random.uniform(1, 3, CLASSES), random.normal(size=CLASSES))
    folded, notes = fold(model, absorb)
    assert spread(model, folded, random.normal(size=(64, *IMAGES)).astype("f4")) <= 1e-5
    assert "BatchNormalization" not in names(folded)
    assert ("standardisation folded into the last layer" in notes) == standardised
    assert "Rescaling" not in names(folded) or name == "cnn"
    has_bottleneck = name in ("bottleneck", "conv_student")
    assert any("absorbed" in note for note in notes) == (absorb == "always" and has_bottleneck)
    assert folded.count_params() <= model.count_params() or absorb == "always"


def test_batch_normalisation_by_hand():
    net = shaken(
        keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False), layers.BatchNormalization(epsilon=0.5)])
    )
    kernel, gamma, beta, mean, variance = (weight.astype("f8") for weight in net.get_weights())
    folded, notes = fold(net)
    scale = gamma / np.sqrt(variance + 0.5)
    found = folded.layers[0].get_weights()
    np.testing.assert_allclose(found[0], kernel * scale, rtol=1e-6)
    np.testing.assert_allclose(found[1], beta - mean * scale, rtol=1e-6)
    assert notes == [f"{net.layers[1].name} folded into {net.layers[0].name}"]


def test_a_factor_by_hand():
    net = shaken(keras.Sequential([keras.Input((3,)), layers.Rescaling(0.25), layers.Dropout(0.5), layers.Dense(2)]))
    kernel, bias = net.layers[-1].get_weights()
    folded, notes = fold(net)
    np.testing.assert_array_equal(folded.layers[-1].get_weights()[0], kernel * np.float32(0.25))
    np.testing.assert_array_equal(folded.layers[-1].get_weights()[1], bias)
    assert notes == [f"the factor {net.layers[0].name} folded into {net.layers[-1].name}"]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.booleans())
@settings(max_examples=25)
def test_a_bottleneck_is_absorbed_where_that_takes_no_more_multiply_adds(inputs, units, outputs, has_bias):
    net = shaken(
        keras.Sequential([keras.Input((inputs,)), layers.Dense(units, use_bias=has_bias), layers.Dense(outputs)])
    )
    first, *offset, second, bias = (weight.astype("f8") for weight in net.get_weights())
    before = models.count_multiply_adds(net, (inputs,))
    folded, notes = fold(net)
    assert bool(notes) == (inputs * outputs <= inputs * units + units * outputs)
    assert models.count_multiply_adds(folded, (inputs,)) == (inputs * outputs if notes else before)
    if notes:
        kernel, absorbed = folded.layers[-1].get_weights()
        np.testing.assert_allclose(kernel, first @ second, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(absorbed, bias + (offset[0] @ second if has_bias else 0), rtol=1e-5, atol=1e-6)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 9), st.integers(1, 400))
def test_a_product_in_blocks_is_the_product_rounded_once(rows, units, columns, block_bytes):
    random = np.random.default_rng(rows + 10 * columns)
    first, second = random.normal(size=(rows, units)), random.normal(size=(units, columns))
    with mock.patch.object(folding, "BLOCK_BYTES", block_bytes):
        product = folding._multiply(first, second)
    assert product.dtype == np.float32
    np.testing.assert_allclose(product, np.einsum("ik,kj->ij", first, second), rtol=1e-6, atol=1e-7)


def test_a_sum_of_many_terms_may_change_by_its_rounding():
    assert folding.rounding_tolerance([(1845, 8000), (8000,), (8000, 183), ()]) == 1e-5
    assert folding.rounding_tolerance([(1845, 400_000), (400_000, 183)]) == pytest.approx(3.77e-5, rel=1e-3)
    assert folding.rounding_tolerance([]) == 1e-5


def test_the_papers_400k_student_keeps_its_bottleneck():
    # D k + k H = 1,845 * 250 + 250 * 400,000 against 1,845 * 400,000; here a fiftieth of it.
    net = bottleneck((15, 123), 183, linear_units=250, hidden_units=[8000])
    assert fold(net)[1] == []


def shared_layer():
    inputs = keras.Input((4,))
    shared = layers.Dense(3, name="shared")
    return keras.Model(inputs, layers.Dense(2)(shared(inputs)) + layers.Dense(2)(shared(inputs)))


def two_readers():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3)(inputs)
    return keras.Model(inputs, layers.Dense(2)(hidden) + layers.Dense(2)(layers.BatchNormalization()(hidden)))


def activated():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.BatchNormalization(), layers.Dense(2)])


def normalised_by_rows():
    return keras.Sequential([keras.Input((4, 3)), layers.Dense(2), layers.BatchNormalization(axis=1), layers.Flatten()])


@pytest.mark.parametrize("build", [shared_layer, two_readers, activated, normalised_by_rows])
def test_what_does_not_fit_stays(build):
    net = shaken(build())
    folded, notes = fold(net, "always")
    assert notes == []
    assert folded is net


@pytest.mark.parametrize("other", ["auxiliary", "zauxiliary"])
def test_a_head_is_folded_into_the_logits_and_no_other_output(other):
    inputs = keras.Input((5,))
    hidden = layers.Dense(4, activation="relu")(inputs)
    net = keras.Model(inputs, {"logits": layers.Dense(3)(hidden), other: layers.Dense(3)(hidden)})
    model = models.with_affine_head(net, np.array([2.0, 3.0, 4.0]), np.array([1.0, 0.0, -1.0]))
    folded, notes = fold(model)
    assert notes == ["standardisation folded into the last layer"]
    assert spread(model, folded, np.random.default_rng(0).normal(size=[7, 5]).astype("f4")) <= 1e-6


@pytest.mark.parametrize("use_bias", [False, True])
def test_a_head_by_hand(use_bias):
    net = shaken(keras.Sequential([keras.Input((4,)), layers.Dense(3, use_bias=use_bias)]))
    scale, offset = np.array([2.0, 3.0, 4.0]), np.array([1.0, 0.0, -1.0])
    kernel, *bias = net.get_weights()
    folded, _ = fold(models.with_affine_head(net, scale, offset))
    np.testing.assert_allclose(folded.get_weights()[0], kernel * scale, rtol=1e-6)
    np.testing.assert_allclose(folded.get_weights()[1], (bias[0] if use_bias else 0) * scale + offset, rtol=1e-6)


def test_a_layer_that_serves_twice_keeps_its_weights():
    inputs, shared = keras.Input((3,)), layers.Dense(3)
    model = models.with_affine_head(keras.Model(inputs, shared(shared(inputs))), np.full(3, 2.0), np.ones(3))
    folded, notes = fold(model)
    assert folded is model
    assert notes == ["standardisation kept as a layer: the last Dense layer serves something else too"]


@pytest.mark.parametrize("last", [[layers.Dense(3, "tanh")], [layers.Dense(3), layers.ReLU()]])
def test_a_head_behind_something_else_stays_a_layer(last):
    net = keras.Sequential([keras.Input((4,)), *last])
    model = models.with_affine_head(net, np.full(3, 2.0), np.ones(3))
    folded, notes = fold(model, "never")
    assert folded is model
    assert notes == ["standardisation kept as a layer: the logits are not a linear Dense layer's"]


def test_a_layer_that_serves_something_else_keeps_its_scale():
    inputs = keras.Input((4,))
    logits = layers.Dense(3)(inputs)
    net = keras.Model(inputs, {"logits": logits, "confidence": layers.Softmax()(logits)})
    _, notes = fold(models.with_affine_head(net, np.full(3, 2.0), np.ones(3)))
    assert notes == ["standardisation kept as a layer: the last Dense layer serves something else too"]


def test_what_would_change_the_logits_is_not_done(monkeypatch):
    right = folding._find_bottlenecks

    def wrong(graph, absorb):
        for change in right(graph, absorb):
            yield folding.Change(change.removed, change.kept, [2 * weight for weight in change.weights], change.note)

    monkeypatch.setattr(folding, "_find_bottlenecks", wrong)
    net = shaken(keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)]))
    folded, (note,) = fold(net)
    assert folded is net
    assert note.startswith("not done, since the logits would change by ")
