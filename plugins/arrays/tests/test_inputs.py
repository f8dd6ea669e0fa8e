"""Scaling by given numbers and by moments, against NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from mimic_keras_arrays.inputs import Scaling, check_inputs, compute_moments, stored_moments


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.integers(0, 1000))
def test_moments_of_pieces_are_those_of_the_whole(sizes, mean):
    random = np.random.default_rng(0)
    pieces = [random.normal(mean, 2, [size, 3, 4]) for size in sizes]
    whole = np.concatenate(pieces).reshape(-1, 4)
    np.testing.assert_allclose(compute_moments(pieces), [whole.mean(0), whole.std(0)], rtol=1e-9)


def test_standardised_inputs_have_mean_0_and_deviation_1_and_constants_are_0():
    values = np.random.default_rng(0).integers(0, 256, [500, 3, 2, 3], np.uint8)
    values[..., 1] = 7
    scaled = Scaling.standardizing(compute_moments([values[:200], values[200:]]))(values).numpy()
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.reshape(-1, 3).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.reshape(-1, 3).std(0), [1, 0, 1], atol=1e-5)


def test_moments_are_computed_once(tmp_path):
    first = stored_moments(tmp_path / "moments.npy", [np.array([[1.0], [3.0]])])
    np.testing.assert_array_equal(first, [[2.0], [1.0]])
    np.testing.assert_array_equal(stored_moments(tmp_path / "moments.npy", iter(())), first)


@pytest.mark.parametrize(
    ("inputs", "expected"), [(None, [0, 4]), ({"scale": 0.5}, [0, 2]), ({"scale": 0.25, "offset": -1.0}, [-1, 0])]
)
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int64", "float16", "float64"]
)
def test_stored_values_of_any_type_are_scaled_in_float32(dtype, inputs, expected):
    values = np.array([[0, 4]]).astype(dtype)
    found = tf.function(Scaling.of(inputs))(tf.constant(values))
    assert found.dtype == tf.float32
    if dtype != "bool":
        np.testing.assert_array_equal(found, [expected])


def test_scaling_is_refused_if_it_is_given_twice_or_ends_all_differences():
    with pytest.raises(ValueError, match=r"inputs: \{'scale': 2.0\} with standardize: true; .* give one of them"):
        check_inputs({"scale": 2.0}, True)
    with pytest.raises(ValueError, match="scale must not be 0"):
        check_inputs({"scale": 0.0}, False)
