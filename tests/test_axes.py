"""References to a cell's values: what they are, what they stand for, and what is said where they stand for nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.sweeping.axes import has_value, is_key_of, is_reference, resolve_references

VALUES = {"loss": "kl", "seed": 1, "width": 2.5, "deep": True, "share": None}


def resolve(value, values=VALUES):
    """(value, {place: message})"""
    problems = Problems("x.yaml")
    found = resolve_references(value, values, Place("set"), problems)
    return found, {str(place): message for place, message in problems.found.items()}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"axis": "seed"}, True),
        ({"axis": "no such axis", "a": 1}, True),
        ({"axis": 3}, False),
        ({"axis": None}, False),
        ({"name": "softmax", "axis": "last"}, False),
        ({"otherwise": 3}, False),
        ("axis", False),
        (["axis"], False),
        (None, False),
    ],
)
def test_what_is_a_reference(value, expected):
    assert is_reference(value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"axis": "loss"}, "kl"),
        ({"axis": "share"}, None),
        ({"axis": "loss", "kl": 3, "otherwise": 4}, 3),
        ({"axis": "loss", "l2": 3, "otherwise": 4}, 4),
        ({"axis": "loss", "kl": None}, None),
        ({"axis": "seed", "0": "a", "1": "b"}, "b"),
        ({"axis": "width", "2.5": [1]}, [1]),
        ({"axis": "deep", "true": "yes", "false": "no"}, "yes"),
        ({"axis": "share", "null": "none"}, "none"),
        ({"axis": "loss", "kl": {"axis": "seed", "1": {"axis": "width"}}}, 2.5),
        ({"axis": "loss", "otherwise": [{"axis": "seed"}, {"a": {"axis": "deep"}}]}, [1, {"a": True}]),
        ([{"name": "x", "axis": "loss", "b": {"axis": "loss"}}], [{"name": "x", "axis": "loss", "b": "kl"}]),
        (3, 3),
    ],
)
def test_what_a_reference_stands_for(value, expected):
    assert resolve(value) == (expected, {})


@pytest.mark.parametrize(
    ("value", "place", "message"),
    [
        ({"axis": "sed"}, "set.axis", "no axis 'sed'; accepted: loss, seed, width, deep, share"),
        ({"a": [{"axis": "x", "y": 1}]}, "set.a[0].axis", "no axis 'x'; accepted: loss, seed, width, deep, share"),
        ({"axis": "loss", "l2": 3}, "set", "nothing for 'kl' on the axis 'loss', and no 'otherwise'"),
        ({"axis": "deep", "True": 3}, "set", "nothing for true on the axis 'deep', and no 'otherwise'"),
        (
            {"axis": "seed", "1": {"axis": "loss", "l2": 3}},
            "set.1",
            "nothing for 'kl' on the axis 'loss', and no 'otherwise'",
        ),
    ],
)
def test_references_that_stand_for_nothing(value, place, message):
    assert resolve(value)[1] == {place: message}


def test_a_reference_inside_of_another_value_is_not_looked_at():
    assert resolve({"axis": "loss", "kl": 1, "l2": {"axis": "no such axis"}}) == (1, {})


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (3, True),
        ({"a": 1}, True),
        ({"axis": "loss"}, True),
        ({"axis": "loss", "kl": 1}, True),
        ({"axis": "loss", "l2": 1}, False),
        ({"axis": "loss", "l2": 1, "otherwise": None}, True),
        ({"axis": "seed", "1": 1}, True),
        ({"axis": "loss", "kl": {"axis": "seed", "1": 1}}, True),
        ({"axis": "loss", "kl": {"axis": "seed", "2": 1}}, False),
        ({"axis": "loss", "otherwise": {"axis": "seed", "2": 1}}, False),
        ({"axis": "loss", "l2": 1, "otherwise": {"axis": "seed", "2": 1, "otherwise": 2}}, True),
        ({"axis": "no such axis", "l2": 1}, True),  # a problem for `resolve_references`
    ],
)
def test_a_cell_without_a_value_keeps_the_experiments(reference, expected):
    assert has_value(reference, VALUES) is expected


@given(st.none() | st.booleans() | st.integers() | st.text(max_size=4))
def test_the_key_of_a_value_is_its_text_in_yaml(value):
    text = (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )
    assert is_key_of(text, value)
    assert not is_key_of(f"{text}x", value)
    assert resolve({"axis": "a", text: "found", "otherwise": 0}, {"a": value}) == ("found", {}) or text == "axis"


def test_values_are_copied_and_the_original_stays():
    original = {"a": [{"axis": "seed"}], "b": {"c": 1}}
    found, _ = resolve(original)
    assert found == {"a": [1], "b": {"c": 1}}
    assert found["b"] is not original["b"]
    assert original == {"a": [{"axis": "seed"}], "b": {"c": 1}}
