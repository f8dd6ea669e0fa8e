"""Numbers as text, and rows as CSV and Markdown."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_keras.reporting.tables import format_bytes, format_value, to_csv, to_markdown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        ("", ""),
        ("a b", "a b"),
        (0, "0"),
        (-1234567, "-1,234,567"),
        (0.0, "0"),
        (0.012345, "0.0123"),
        (1234.5, "1.23e+03"),
        (1e-7, "1e-07"),
        (float("nan"), "nan"),
        (np.float64(0.5), "0.5"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_values(value, shown):
    assert format_value(value) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_000, "999 kB"),
        (10**6, "1 MB"),
        (696_245_732, "696 MB"),
        (10**9, "1 GB"),
        (123_456_789_012, "123 GB"),
    ],
)
def test_bytes_are_in_decimal_units(count, shown):
    assert format_bytes(count) == shown


def test_csv_by_hand():
    rows = [{"a": 1, "b": 'x,"y"'}, {"b": None}]
    assert to_csv(["a", "b"], rows) == b'a,b\n1,"x,""y"""\n,\n'
    assert to_csv(["a"], []) == b"a\n"


cells = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=5)


@given(st.lists(st.fixed_dictionaries({"a": cells, "b": cells}), max_size=3))
def test_csv_is_read_back(rows):
    assert list(csv.DictReader(io.StringIO(to_csv(["b", "a"], rows).decode(), newline=""))) == rows


def test_a_row_with_a_column_that_is_not_shown_is_refused():
    with pytest.raises(ValueError, match="fields not in fieldnames: 'c'"):
        to_csv(["a"], [{"a": 1, "c": 2}])


def test_markdown_by_hand():
    assert to_markdown(["a", "b c"], [{"a": "x|y", "b c": "two\nlines"}, {"a": "1"}]) == [
        "| a | b c |",
        "|---|---|",
        "| x\\|y | two lines |",
        "| 1 |  |",
    ]
