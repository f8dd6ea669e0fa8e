"""Any table of texts comes back from CSV and Parquet as it was written, without the spaces around texts."""

import csv
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mimic_keras_arrays.table_files import SPACES, TableFile, _are_numbers
from pyarrow import parquet

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
ROWS = st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1, max_size=6)
FAST = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def columns(file, separator=","):
    table = TableFile("train", file, [], separator)
    return [table.texts(name).tolist() for name in table.names]


@FAST
@given(rows=ROWS, separator=st.sampled_from(",;\t"))
def test_texts_of_a_csv_file(rows, separator, tmp_path):
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    file = tmp_path / "table.csv"
    file.write_bytes(stream.getvalue().encode())
    assert columns(file, separator) == [[row[place].strip(SPACES) for row in rows] for place in (0, 1)]


@FAST
@given(rows=ROWS)
def test_texts_of_a_parquet_file(rows, tmp_path):
    parquet.write_table(pa.table({name: [row[at] for row in rows] for at, name in enumerate("ab")}), tmp_path / "table")
    assert columns(tmp_path / "table") == [[row[place].strip(SPACES) for row in rows] for place in (0, 1)]


@FAST
@given(st.floats(width=32, allow_infinity=False) | st.integers(-(2**70), 2**70))
def test_numbers_as_python_writes_them_are_numbers(number):
    assert _are_numbers(np.array([str(number)], object)).tolist() == [True]


@pytest.mark.parametrize("text", ["1", "-2.", "+.5", "1e9", "1.5E-3", "nan", "NaN"])
def test_what_is_a_number(text):
    assert _are_numbers(np.array([text], object)).all()
    float(text)


@pytest.mark.parametrize("text", ["", ".", "e5", "1_000", "1,5", "inf", "0x10", "1 2", "12a", "١", "1\n"])
def test_what_is_none(text):
    assert not _are_numbers(np.array([text], object)).any()
