"""Tables: what is a number and what a category, missing values, splits, identity, requests by column names."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from absl import logging as absl_logging
from mimic_keras_arrays.table import Table
from pyarrow import parquet
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mimic_keras.contracts import InputError
from mimic_keras.serving.session_loader import ServedModel
from plugins.arrays.tests.tables import make_rows, write, write_rows
from tests.tiny import run, tiny

SHARES = {"validation": 0.2, "test": 0.2}


@pytest.fixture
def people(tmp_path):
    return write(tmp_path / "people.csv", 60, unlabelled=3)


def prepared(file, **arguments):
    """(data set, fingerprint)"""
    dataset = Table(file, **{"target": "income", "shares": SHARES, **arguments})
    return dataset, dataset.prepare(file.parent)


def all_of(split):
    return split.batch(tf.range(split.num_examples, dtype=tf.int64)).numpy()


def read(folder, text, **arguments):
    """A data set whose three splits are one file."""
    file = folder / "table.csv"
    file.write_text(text, encoding="utf-8")
    dataset = Table(file, **{"target": "y", "validation": file, "test": file, **arguments})
    dataset.prepare(folder)
    return dataset


def inputs(folder, text, **arguments):
    return all_of(read(folder, text, **arguments).split("train")).tolist()


def test_inputs_are_those_of_scikit_learn(tmp_path):
    """Standardised numbers, whether age is missing, and one-hot texts that training has."""
    train, other = write(tmp_path / "train.csv", 60), write(tmp_path / "other.csv", 20, seed=1)
    dataset, _ = prepared(train, validation=other, test=other, shares=None)
    rows = {"train": np.array(make_rows(60)[1:], object), "test": np.array(make_rows(20, seed=1)[1:], object)}
    numbers = {
        name: np.where(of[:, [0, 1, 3]] == "", "nan", of[:, [0, 1, 3]]).astype(float) for name, of in rows.items()
    }
    scaler = StandardScaler().fit(numbers["train"])
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(rows["train"][:, [2]])
    for name, of in rows.items():
        scaled = np.nan_to_num(scaler.transform(numbers[name]))
        expected = np.concatenate([scaled, of[:, [0]] == "", encoder.transform(of[:, [2]])], 1)
        np.testing.assert_allclose(all_of(dataset.split(name)), expected, atol=1e-5)
        assert dataset.split(name).labels.tolist() == [("high", "low").index(row[-1]) for row in of]
    assert dataset.info.class_names == ("high", "low")
    assert dataset.info.input_shape == (3 + 1 + 4,)


def test_rows_without_a_target_are_in_transfer_alone(people):
    dataset, _ = prepared(people)
    assert dataset.info.num_examples == {"train": 36, "validation": 12, "test": 12, "transfer": 39}
    assert dataset.split("transfer").labels[-3:].tolist() == [-1] * 3
    assert (dataset.split("transfer").labels[:-3] == dataset.split("train").labels).all()


def test_the_rows_of_the_file_that_each_split_has(people):
    dataset, _ = prepared(people)
    lines = [line.split(",")[-1] for line in people.read_text().splitlines()[1:]]
    rows = {name: dataset.given_rows(name) for name in ("transfer", "validation", "test")}
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(63))
    for name, of in rows.items():
        labels = [("high", "low", "").index(lines[row]) for row in of]
        assert labels == [label if label >= 0 else 2 for label in dataset.split(name).labels]


def test_numbers_that_name_something_are_categories_on_request(tmp_path):
    text = "zip,y\n10,a\n9,b\n10,b\n"
    assert inputs(tmp_path, text, standardize=False) == [[10], [9], [10]]
    assert inputs(tmp_path, text, categories=["zip"]) == [[1, 0], [0, 1], [1, 0]]


def test_classes_that_are_numbers_are_sorted_by_value(tmp_path):
    assert read(tmp_path, "x,y\n1,10\n2,9\n3,-1\n").info.class_names == ("-1", "9", "10")
    assert read(tmp_path, "x,y\n1,nan\n2,9\n3,inf\n").info.class_names == ("9", "inf", "nan")


def test_classes_are_in_the_order_that_is_given(tmp_path):
    dataset = read(tmp_path, "x,y\n1,10\n2,9\n3,-1\n", classes=["10", "-1", "9"])
    assert dataset.info.class_names == ("10", "-1", "9")
    assert dataset.split("train").labels.tolist() == [0, 2, 1]
    with pytest.raises(InputError) as caught:
        read(tmp_path, "x,y\n1,b\n2,a\n", classes=["a", "c"])
    file = tmp_path / "table.csv"
    assert str(caught.value) == f"classes: expected those of column 'y' of {file}, in any order: a, b; got a, c"


def test_spaces_around_names_and_texts_byte_order_marks_and_empty_lines_are_dropped(tmp_path):
    dataset = read(tmp_path, '\ufeffx , y\n 1, a\n\n"2","b "\n', standardize=False)
    assert all_of(dataset.split("train")).tolist() == [[1], [2]]
    assert dataset.info.class_names == ("a", "b")


def test_texts_for_missing_values_and_another_separator(tmp_path):
    text = "x;c;y\n1;?;a\n?;u;b\n3;;b\n"
    found = inputs(tmp_path, text, separator=";", missing=["?"], standardize=False)
    # x, whether it is missing, c is missing, c is u
    assert found == [[1, 0, 1, 0], [0, 1, 0, 1], [3, 0, 1, 0]]


def test_a_text_that_training_lacks_is_zero_everywhere(tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("c,y\nw,a\n,b\n")
    assert all_of(read(tmp_path, "c,y\nu,a\nv,b\n", test=other).split("test")).tolist() == [[0, 0], [0, 0]]


def test_parquet_and_csv_with_the_same_values_are_the_same_data(tmp_path):
    csv = tmp_path / "table.csv"
    csv.write_text("n,i,t,b,y\n0.5,3,u,true,1\n,4,,false,0\n2.5,5,v,,1\n")
    columns = {"n": [0.5, None, 2.5], "i": [3, 4, 5], "t": ["u", None, "v"], "b": [True, False, None], "y": [1, 0, 1]}
    table = pa.table(columns).append_column("__index_level_0__", pa.array([0, 1, 2]))
    table = table.set_column(2, "t", table["t"].dictionary_encode())
    parquet.write_table(table, tmp_path / "table.parquet")
    found = []
    for file in (csv, tmp_path / "table.parquet"):
        dataset = Table(file, "y", validation=file, test=file)
        found.append((dataset.prepare(tmp_path), dataset.info))
    assert found[0] == found[1]
    assert found[0][1].input_shape == (2 + 1 + 3 + 3,)


def test_only_what_is_read_makes_other_data(people):
    first = prepared(people)[1]
    moved = people.rename(people.with_name("moved.csv"))
    assert prepared(moved)[1] == first
    text = moved.read_text()
    different = {first}
    for old, new in (("cook, or chef", "tailor"), (",high\n", ",low\n"), (",3,", ",2,"), ("hours", "hour")):
        assert old in text
        moved.write_text(text.replace(old, new, 1))
        different.add(prepared(moved)[1])
    write_rows(moved, [[*row[:-1], "7" if number else "more", row[-1]] for number, row in enumerate(make_rows(60))])
    different.add(prepared(moved)[1])
    assert len(different) == 6


@pytest.mark.parametrize(
    "arguments", [{"ignore": ["town"]}, {"categories": ["town"]}, {"standardize": False}, {"split_seed": 1}], ids=str
)
def test_every_argument_makes_other_data(arguments, people):
    assert prepared(people)[1] != prepared(people, **arguments)[1]


def test_an_ignored_column_changes_nothing(people):
    first = prepared(people, ignore=["town"])[1]
    rows = make_rows(63)
    for number, row in enumerate(rows[1:]):
        row[3] = f"any {number}"
        row[4] = row[4] if number < 60 else ""
    write_rows(people, rows)
    assert prepared(people, ignore=["town"])[1] == first


def test_requests_by_names_compute_the_same_in_a_graph(people):
    dataset, _ = prepared(people, missing=["?"])
    signature = dataset.raw_signatures()["serve_rows"]
    assert {name: spec.dtype.name for name, spec in signature.inputs.items()} == {
        "age": "float32", "hours": "float32", "job": "string", "town": "float32"
    }  # fmt: skip
    given = {key: tf.constant(value) for key, value in signature.examples.items()}
    found = tf.function(signature.prepare)(**given).numpy()
    np.testing.assert_allclose(found, all_of(dataset.split("validation")), rtol=1e-6)
    texts = {**given, "job": tf.constant([" baker ", "?", "nobody"] + [""] * 9)}
    jobs = signature.prepare(**texts).numpy()[:3, -4:]
    assert jobs.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_names_of_columns_become_names_of_inputs(tmp_path):
    dataset = read(tmp_path, "sepal length (cm),2nd,class,y\n1,2,3,a\n2,3,4,b\n")
    assert list(dataset.raw_signatures()["serve_rows"].inputs) == ["sepal_length_cm", "column_2nd", "column_class"]


def test_rows_of_test_that_are_in_train_are_reported(tmp_path, caplog):
    absl_logging.use_absl_handler()
    read(tmp_path, "x,y\n1,a\n2,b\n")
    assert [record.getMessage() for record in caplog.records] == [
        f"table: 2 of 2 rows of {name} are also in train" for name in ("validation", "test")
    ]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("", {}, r"train: .*table.csv cannot be read as a table: it has no columns"),
        ("x,y\n", {}, "train: .*table.csv has no rows"),
        ("x,y\n1,a\n2\n", {}, "cannot be read as a table: CSV parse error: Expected 2 columns, got 1: 2"),
        ("x,y\n1,a,3\n", {}, "cannot be read as a table: CSV parse error: Expected 2 columns, got 3: 1,a,3"),
        ("x,x,y\n1,2,a\n", {}, "cannot be read as a table: it has several columns 'x'"),
        (",x,y\n0,2,a\n", {}, "column 1 has no name, as pandas writes an index; save without it"),
        ("x;y\n1;a\n2;b\n", {}, "target: no column 'y' in .*table.csv; its columns are x;y"),
        ("x,y\n1,a\n2,b\n", {"ignore": ["z"]}, "ignore: no column 'z' in .*; its columns are x, y"),
        ("x,y\n1,a\n2,b\n", {"categories": ["z"]}, "categories: no column 'z' in "),
        ("x,y\n1,a\n2,b\n", {"ignore": ["x"]}, "table.csv has no columns but target and those in ignore"),
        ("x,y\n1,a\n2,a\n", {}, "target: expected at least two different values of 'y', got 1"),
        (
            "x,y\n1,a\n2,b\nn/a,b\n",
            {},
            "train: column 'x' of .*: 2 of 3 values are numbers, but not 'n/a'; list these texts in missing, or the "
            "column in categories or ignore",
        ),
        ("x,y\n,a\n,b\n", {}, "train: column 'x' of .* has no values; list it in ignore"),
        ("x,y\n1e39,a\n1,b\n", {}, "1 numbers are infinite or too large for float32; the first is 1e[+]39, in row 1"),
        ("a b,a_b,y\n1,2,a\n1,2,b\n", {}, "columns 'a b' and 'a_b' would both be 'a_b' in requests"),
        (
            "c,y\n" + "".join(f"t{number},{'ab'[number % 2]}\n" for number in range(1001)),
            {},
            "column 'c' has 1,001 different texts in 1,001 training rows, at most 1,000 can be categories",
        ),
    ],
)  # fmt: skip
def test_other_tables_are_refused(text, arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text, **arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,z\n1,a\n", r"test: no column 'y' in .*other.csv, which .*table.csv has"),
        ("x,y\n1,c\n", r"test: 1 rows of .*other.csv have a 'y' that is no class of train \(a, b\); the first is 'c'"),
        ("x,y\n1,\n", r"the first is '', in row 1"),
        ("x,y\nu,a\n", r"test: column 'x' of .*other.csv: numbers in the training rows, but here 'u'; list these"),
    ],
)  # fmt: skip
def test_other_files_that_do_not_fit_are_refused(text, message, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path, "x,y\n1,a\n2,b\n", test=other)


def test_a_parquet_column_of_times_is_refused_unless_ignored(tmp_path):
    file = tmp_path / "table.parquet"
    times = pa.array([0, 1], pa.timestamp("s"))
    parquet.write_table(pa.table({"when": times, "x": [1, 2], "y": ["a", "b"]}), file)
    with pytest.raises(InputError, match=r"column 'when' of .* is timestamp\[ms\]; expected numbers, texts or truth"):
        Table(file, "y", validation=file, test=file).prepare(tmp_path)
    Table(file, "y", validation=file, test=file, ignore=["when"]).prepare(tmp_path)


def test_all_missing_files_are_named(tmp_path):
    with pytest.raises(
        InputError, match=r"^train: .*a cannot be read .*\ntest: .*b cannot be read as a table: No such"
    ):
        _ = Table(tmp_path / "a", "y", test=tmp_path / "b", shares={"validation": 0.2}).info


@pytest.mark.parametrize("content", [b"PAR1 and nothing else", b"x,y\n\xff,a\n", None])
def test_damaged_files_are_refused(content, tmp_path):
    file = tmp_path / "table"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"train: .*table cannot be read as a table: ."):
        _ = Table(file, "y", shares=SHARES).info


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shares": None}, "validation: expected the split itself, or shares: {validation: 0.1}, got neither"),
        ({"test": "test.csv"}, "test: expected the split itself, or shares: {test: 0.1}, got both"),
        ({"ignore": ["town"], "categories": ["town"]}, "column 'town' can be only one of target, in categories and in"),
        ({"ignore": ["income"]}, "column 'income' can be only one of target"),
        ({"separator": ""}, "separator: expected one character, got ''"),
        ({"shares": {"validation": 0.5, "test": 0.5}}, "expected a sum below 1"),
    ],
)
def test_wrong_arguments(arguments, message, people):
    with pytest.raises(ValueError, match=message):
        prepared(people, **arguments)


@pytest.mark.long
def test_a_run_exports_a_student_that_takes_texts_and_numbers(people):
    dataset = {"name": "table", "train": str(people), "target": "income", "shares": SHARES}
    experiment = tiny(dataset=dataset, baseline=None, export={"minimum_agreement": 0})
    experiment["teacher"]["members"][0]["copies"] = 1
    run(people.parent, experiment)
    served = ServedModel(people.parent / "saved_models" / "tiny" / "1")
    rows = {
        "age": np.array([40, np.nan], np.float32),
        "hours": np.array([20, 30], np.float32),
        "job": np.array([b"cook, or chef", b""], object),
        "town": np.array([1, 2], np.float32),
    }
    answer = served.run("serve_rows", rows)
    prepared_rows = prepared(people)[0].raw_signatures()["serve_rows"].prepare(**rows).numpy()
    expected = served.run("serving_default", {"inputs": prepared_rows})
    np.testing.assert_allclose(answer["logits"], expected["logits"], rtol=1e-5, atol=1e-6)
    assert set(answer["label"]) <= {b"high", b"low"}
