"""Members that are suspicious before they label anything: at chance, twice as wrong as the best, other inputs, and
classes in another order."""

import types

import numpy as np
import pytest

from mimic_keras.stages.plausibility import CAUSES, find_other_order, find_other_scales, find_poor_members

LABELS = np.array([0] * 60 + [1] * 40 + [-1] * 100)  # always answering class 0 is wrong on 40 of 100
CHANCE = f"no better than always answering the most frequent class (0.4000); {CAUSES}"


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ({"a": 0.1, "b": 0.12}, {}),
        ({"a": 0.4, "b": 0.1}, {"a": CHANCE}),
        ({"a": 0.39}, {}),
        ({"a": 0.9}, {"a": CHANCE}),
        # Of 100: 10 errors, against 21 (11 more, less than 2 * sqrt(31) = 11.1) and 22 (12 more, 2 * sqrt(32) = 11.3).
        ({"a": 0.1, "b": 0.21}, {}),
        ({"a": 0.1, "b": 0.22}, {"b": f"more than twice that of a (0.1000); of a net from elsewhere, {CAUSES}"}),
        # None against 4, which is no more than 2 * sqrt(4), and against 5.
        ({"a": 0.0, "b": 0.04}, {}),
        ({"a": 0.0, "b": 0.05}, {"b": f"more than twice that of a (0.0000); of a net from elsewhere, {CAUSES}"}),
        # A lot more, but not twice as many.
        ({"a": 0.19, "b": 0.38}, {}),
    ],
)
def test_poor_members(errors, expected):
    assert find_poor_members(LABELS, errors) == expected


def test_one_class_alone_is_no_chance():
    assert find_poor_members(np.zeros(9, int), {"a": 0.0}) == {}


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([0, 1, 2], None),
        ([1, 2, 0], ([2, 0, 1], 0.0)),  # output 1 is class 0, output 2 class 1, output 0 class 2
        ([1, 0, 2], ([1, 0, 2], 0.0)),
        ([1, 1, 1], None),  # no order makes a constant right
    ],
)
def test_another_order_of_the_classes_is_found_if_it_is_far_better(outputs, expected):
    labels = np.array([0, 1, 2, -1] * 20)
    assert find_other_order(labels, np.array(outputs)[labels], num_classes=3) == expected


def test_an_order_that_fits_a_few_examples_or_noise_is_not_believed():
    assert find_other_order(np.array([0, 1, 2] * 2), np.array([1, 2, 0] * 2), num_classes=3) is None
    labels, noise = np.random.default_rng(0).integers(0, 10, [2, 40])
    assert find_other_order(labels, noise, num_classes=10) is None


def test_the_error_of_another_order_is_that_of_all_of_validation():
    labels = np.arange(100) % 2
    predicted = 1 - labels
    predicted[:4] = labels[:4]  # the other order is wrong on these
    assert find_other_order(labels, predicted, num_classes=2) == ([1, 0], 0.04)


def member(expects, low, high):
    rows = np.array([[low, 0.5 * (low + high)], [high, low]], np.float32)
    data = types.SimpleNamespace(sample=lambda name: {"validation": rows}[name])
    return types.SimpleNamespace(name="teacher/0", expects=expects, data=data)


@pytest.mark.parametrize(
    ("expects", "low", "high", "is_far"),
    [
        (None, 0, 255, False),
        ((0.0, 255.0), 0, 255, False),
        ((0.0, 255.0), 10, 40, False),  # dark
        ((0.0, 255.0), 0, 1, True),
        ((0.0, 255.0), -2, 2, True),
        ((0.0, 1.0), 0, 255, True),
        ((-1.0, 1.0), -1, 1, False),
        ((100.0, 200.0), 0, 99, True),  # as wide, but elsewhere
        ((-10.0, 50.0), 0, 40, False),
        ((0.0, 1.0), 0.5, 0.5, True),  # constant
    ],
)
def test_inputs_that_are_far_from_what_the_first_layers_suggest(expects, low, high, is_far):
    found = list(find_other_scales([member(expects, low, high)]))
    assert bool(found) == is_far


def test_the_warning_names_both_ranges():
    assert list(find_other_scales([member((0.0, 255.0), 0, 1)])) == [
        (
            "teacher/0",
            "its first layers suggest inputs from 0 to 255, but those of validation are 0 to 1; its entry can have "
            "inputs of its own, as dataset: {inputs: {scale: 1}}",
        )
    ]
