"""Arrays from files: which row is in which split, what makes a new identity, mapped or not, and what is refused."""

import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_arrays import arrays as module
from mimic_keras_arrays.arrays import Arrays

from mimic_keras.contracts import SPLITS, InputError, MappedSplit

X = np.arange(80, dtype=np.float32).reshape(20, 4)
Y = np.arange(20) % 3


@pytest.fixture
def save(tmp_path):
    """A function that saves an array or the arrays of a .npz, and returns the file."""

    def write(name: str, array=None, **members) -> Path:
        if members:
            np.savez_compressed(tmp_path / name, **members)
        else:
            np.save(tmp_path / name, array)
        return tmp_path / name

    return write


@pytest.fixture
def files(save):
    """Three splits of 10, 5 and 5 rows, and 2 unlabelled rows."""
    parts = {"train": slice(10), "validation": slice(10, 15), "test": slice(15, 20)}
    given = {name: {"x": save(f"{name}_x.npy", X[of]), "y": save(f"{name}_y.npy", Y[of])} for name, of in parts.items()}
    return {**given, "unlabelled": save("more.npy", -X[:2])}


def prepared(folder, **arguments):
    data = Arrays(**arguments)
    folder.mkdir(exist_ok=True)
    return data, data.prepare(folder)


def rows_of(data, name, seed=0):
    split = data.split(name, seed)
    return split.batch(tf.range(split.num_examples * split.repeats, dtype=tf.int64)).numpy()


def test_files_are_the_splits(files, tmp_path):
    data, _ = prepared(tmp_path / "data", **files)
    assert data.info.input_shape == (4,)
    assert data.info.class_names == ("0", "1", "2")
    assert data.info.num_examples == {"train": 10, "validation": 5, "test": 5, "transfer": 12}
    np.testing.assert_array_equal(rows_of(data, "train"), X[:10])
    np.testing.assert_array_equal(rows_of(data, "validation"), X[10:15])
    np.testing.assert_array_equal(data.split("test").labels, Y[15:])
    np.testing.assert_array_equal(rows_of(data, "transfer"), [*X[:10], *-X[:2]])
    np.testing.assert_array_equal(data.split("transfer").labels, [*Y[:10], -1, -1])


def test_shares_of_one_file_and_rows_without_a_label(save, tmp_path):
    labels = np.where(np.arange(20) < 5, -1, Y)[:, None]
    file = save("all.npz", x=X, y=labels)
    data, _ = prepared(tmp_path / "data", train=file, shares={"validation": 0.2, "test": 0.2}, classes=["a", "b", "c"])
    splits = {name: {tuple(row) for row in rows_of(data, name)} for name in SPLITS}
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 9,
        "validation": 3,
        "test": 3,
        "transfer": 14,
    }
    assert splits["train"] | splits["validation"] | splits["test"] == {tuple(row) for row in X[5:]}
    assert splits["transfer"] == splits["train"] | {tuple(row) for row in X[:5]}
    for name in SPLITS:
        rows = (rows_of(data, name)[:, 0] / 4).astype(int)
        np.testing.assert_array_equal(data.split(name).labels, labels[rows, 0])
    assert data.info.class_names == ("a", "b", "c")


def test_validation_is_a_share_beside_a_file_for_test(files, tmp_path):
    given = {"train": files["train"], "test": files["test"], "shares": {"validation": 0.3}}
    data, _ = prepared(tmp_path / "data", **given)
    assert {name: len(rows_of(data, name)) for name in SPLITS} == {
        "train": 7,
        "validation": 3,
        "test": 5,
        "transfer": 7,
    }


def test_memory_mapped_it_is_the_same_to_the_bit(save, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, [49, 5, 5, 2], np.uint8)
    given = {
        "train": {"x": save("x.npy", images[:40]), "y": save("y.npy", np.arange(40) % 2)},
        "unlabelled": save("more.npz", x=images[40:]),
        "shares": {"validation": 0.2, "test": 0.2},
        "standardize": True,
        "copies": 2,
        "mirror": True,
    }
    held, fingerprint = prepared(tmp_path / "held", **given)
    monkeypatch.setattr(module, "MAPPED_BYTES", 49 * 50 - 1)
    mapped, again = prepared(tmp_path / "mapped", **given)
    assert again == fingerprint
    for name in SPLITS:
        assert isinstance(mapped.split(name), MappedSplit)
        assert not isinstance(held.split(name), MappedSplit)
        np.testing.assert_array_equal(rows_of(mapped, name, 1), rows_of(held, name, 1))
        np.testing.assert_array_equal(mapped.split(name).labels, held.split(name).labels)
    one, other = held.raw_signatures()["serve_images"], mapped.raw_signatures()["serve_images"]
    np.testing.assert_array_equal(one.examples["images"], other.examples["images"])


def test_moments_are_those_of_the_labelled_training_rows(files, tmp_path):
    data, _ = prepared(tmp_path / "data", **files, standardize=True)
    mean, deviation = X[:10].mean(0), X[:10].std(0)
    np.testing.assert_allclose(rows_of(data, "test"), (X[15:] - mean) / deviation, rtol=1e-5)


def test_the_identity_is_of_what_is_in_the_arrays(files, save, tmp_path):
    _, first = prepared(tmp_path / "data", **files)

    def changed(**other):
        return prepared(tmp_path / "data", **{**files, **other})[1]

    x, y = X[:10].copy(), Y[:10].copy()
    moved = {"x": save("moved.npy", x), "y": save("moved_y.npy", y.astype(np.uint8))}
    assert changed(train=moved) == first
    assert changed(train=save("train.npz", x=x, y=y)) == first
    assert changed(train={**moved, "x": save("fortran.npy", np.asfortranarray(x))}) == first
    x[9, 3] += 1
    y[9] = (y[9] + 1) % 3
    others = [
        changed(train={**moved, "x": save("row.npy", x)}),
        changed(train={**moved, "y": save("label.npy", y)}),
        changed(unlabelled=None),
        changed(validation=files["test"], test=files["validation"]),
        changed(standardize=True),
        changed(inputs={"scale": 2.0}),
    ]
    assert len({first, *others}) == 7


def test_another_seed_draws_other_splits(save, tmp_path):
    given = {"train": save("all.npz", x=X, y=Y), "shares": {"validation": 0.3, "test": 0.3}}
    found = [prepared(tmp_path / "data", **given, split_seed=seed)[1] for seed in (0, 1)]
    assert found[0] != found[1]


def test_the_file_may_be_replaced_after_it_was_read(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAPPED_BYTES", 0)
    data, _ = prepared(tmp_path / "data", **files)
    np.save(tmp_path / "new.npy", X[:10] + 1)
    (tmp_path / "new.npy").replace(files["train"]["x"])
    np.testing.assert_array_equal(rows_of(data, "train"), X[:10])


def test_the_rows_of_the_files_that_each_split_has(files, save, tmp_path):
    """X has 20 rows, in files of 10, 5 and 5; then one file, of which validation and test are drawn."""
    data, _ = prepared(tmp_path / "data", **files)
    assert [data.given_rows(name).tolist() for name in ("validation", "test")] == [[*range(10, 15)], [*range(15, 20)]]
    file = save("all.npz", x=X, y=Y)
    data, _ = prepared(tmp_path / "data", train=file, shares={"validation": 0.2, "test": 0.2})
    for name in ("transfer", "validation", "test"):
        np.testing.assert_array_equal(rows_of(data, name), X[data.given_rows(name)])


def test_it_warns_of_classes_without_examples(save, tmp_path, caplog):
    file = save("all.npz", x=X.astype(np.uint8), y=Y)
    given = {"train": file, "shares": {"validation": 0.2, "test": 0.2}}
    with caplog.at_level(logging.WARNING, "absl"):
        prepared(tmp_path / "data", **given, classes=["a", "b", "c", "d"])
        assert "no training example of 1 of 4 classes: d" in caplog.text
        caplog.clear()
        prepared(tmp_path / "data", **given)
        assert not caplog.text


WRONG = {
    r"train.x: expected an array \[examples, ...\] .*, got float32 \[20\]": {"x": X[:, 0]},
    r"train.x: expected an array \[examples, ...\] .*, got float32 \[0, 4\]": {"x": X[:0], "y": Y[:0]},
    r"train.x: expected numbers, .* got <U3 \[20, 1\]": {"x": np.full([20, 1], "abc")},
    r"train.x: expected numbers, .* got >f4 \[20, 4\]": {"x": X.astype(">f4")},
    r"train.x: expected numbers, .* got complex64 \[20, 4\]": {"x": X.astype("complex64")},
    r"train.x: expected numbers, .* got object \[20, 4\]": {"x": X.astype(object)},
    r"train.x: 2 of 20 rows have values that are NaN or infinite; the first is row 3": {
        "x": np.where(X % 40 == 12, np.nan, X)
    },
    r"train.y: expected integers .* got float32 \[20, 3\]; .* by y.argmax\(1\)": {"y": np.eye(3, dtype="f4")[Y]},
    r"train.y: expected integers .* got <U1 \[20\]; texts become labels by np.unique": {"y": Y.astype("U1")},
    r"train.y: expected integers .* got float64 \[20\]; .* by y.astype\(int\)": {"y": Y / 1},
    r"train: x has 20 rows, but y has 19 labels": {"y": Y[1:]},
    r"train.y: 6 of 20 labels are not from 0 to 1 .*; the first is 2, in row 2": {"classes": 2},
    r"train.y: 1 of 20 labels are not from 0 to 2147483647 .*; the first is -2, in row 0": {"y": np.append(-2, Y[1:])},
    r"none of the 20 training examples has a label": {"y": Y * 0 - 1, "classes": 2},
    r"leaves none for": {"y": np.arange(20)},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arrays_are_refused(message, save, tmp_path):
    changed = {"x": X, "y": Y, **WRONG[message]}
    train = {name: save(f"{name}.npy", changed.pop(name)) for name in ("x", "y")}
    with pytest.raises(InputError, match=message):
        prepared(tmp_path / "data", train=train, shares={"validation": 0.2, "test": 0.2}, **changed)


def test_missing_files_are_listed_together(files):
    files["train"] = {"x": Path("no_x.npy"), "y": Path("no_y.npy")}
    with pytest.raises(InputError) as caught:
        _ = Arrays(**files).info
    assert str(caught.value) == "train.x: no such file: no_x.npy\ntrain.y: no such file: no_y.npy"


def test_splits_that_do_not_fit_are_refused_together(files, save, tmp_path):
    files["test"]["x"] = save("other.npy", X[15:, :3])
    files["validation"]["x"] = save("double.npy", X[10:15].astype(float))
    with pytest.raises(InputError) as caught:
        _ = Arrays(**files).info
    assert str(caught.value).split("\n") == [
        "validation.x: float64 [5, 4] does not fit train.x, float32 [10, 4]; expected one dtype and one shape of rows",
        "test.x: float32 [5, 3] does not fit train.x, float32 [10, 4]; expected one dtype and one shape of rows",
    ]


def test_held_out_examples_need_labels(files, save, tmp_path):
    files["test"]["y"] = save("unknown.npy", np.array([0, 1, -1, 2, -1]))
    with pytest.raises(InputError, match=r"test.y: 2 of 5 labels are not from 0 to 2 \(every example of this split"):
        prepared(tmp_path / "data", **files)


def test_damaged_files_are_refused(files, save, tmp_path):
    files["train"]["x"].write_bytes(files["train"]["x"].read_bytes()[:-4])
    files["test"]["x"].write_bytes(b"PK\x03\x04 no array")
    with pytest.raises(InputError, match=r"test.x: expected a .npy file of np.save, .* cannot be read"):
        _ = Arrays(**files).info
    files["test"] = tmp_path / "broken.npz"
    files["test"].write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"test.x: expected a .npz file of np.savez, .* File is not a zip file"):
        _ = Arrays(**files).info
    files["test"] = save("half.npz", x=X[:5])
    with pytest.raises(InputError, match=r"test.y: .*half.npz has no array 'y'; it has x"):
        _ = Arrays(**files).info
    files["test"] = save("whole.npz", x=X[:5], y=Y[:5])
    with pytest.raises(InputError, match=r"train.x: .* cannot be read"):
        prepared(tmp_path / "data", **files)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 4)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (18446744073709551616, 4)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (20, 4)}",
        "{'descr': [('a', '|u1', (2,))], 'fortran_order': False, 'shape': (20, 4)}",
        "{'descr': '|u1'}",
        "{" * 2000,
    ],
)
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_headers_that_promise_what_is_not_there_are_refused(name, header, save, tmp_path):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(80)
    file, y = tmp_path / name, save("y.npy", Y)
    if name == "x.npy":
        file.write_bytes(content)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x.npy", content)
            archive.write(y, "y.npy")
    with pytest.raises(InputError, match="train"):
        prepared(
            tmp_path / "data",
            train={"x": file, "y": y} if name == "x.npy" else file,
            shares={"validation": 0.2, "test": 0.2},
        )


def test_a_mapped_array_in_fortran_order_is_refused(files, save, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAPPED_BYTES", 0)
    files["train"]["x"] = save("fortran.npy", np.asfortranarray(X[:10]))
    with pytest.raises(InputError, match=r"train.x: .* is in Fortran order"):
        prepared(tmp_path / "data", **files)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"validation": None},
            ValueError,
            "validation: expected the split itself, or shares: {validation: 0.1}, got neither",
        ),
        ({"shares": {"test": 0.1}}, ValueError, "test: expected the split itself, or shares: {test: 0.1}, got both"),
        (
            {"train": Path("x.npy")},
            InputError,
            "train: expected {x: FILE.npy, y: FILE.npy}, or a .npz file .* got x.npy",
        ),
        ({"train": {"x": Path("a.npz"), "y": Path("b.npy")}}, InputError, "train.x: expected a .npy file, got a.npz"),
        ({"unlabelled": Path("a.csv")}, InputError, "unlabelled.x: expected a .npy file, got a.csv"),
        ({"classes": 1}, ValueError, "classes: expected at least 2, got 1"),
        ({"classes": ["a", "b", "a"]}, ValueError, "classes: each name must be there once, but a is repeated"),
        ({"copies": 2, "mirror": True}, ValueError, r"copies: 2 is for images, .* but the inputs are \[4\]"),
    ],
)
def test_wrong_arguments_are_refused(changes, error, message, files):
    with pytest.raises(error, match=message):
        _ = Arrays(**{**files, **changes}).info
