"""Files become requests of the signature that takes them, and answers become rows."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from mimic_keras.contracts import InputError
from mimic_keras.serving import prediction
from mimic_keras.serving.prediction import Examples
from mimic_keras.serving.runtimes import Input
from mimic_keras.storage.files import write_json
from tests.small_export import COUNT, NAMES, write_export
from tests.tiny import command

FLOAT, BYTE, TEXT = np.dtype(np.float32), np.dtype(np.uint8), np.dtype(object)
IMAGES = {
    "serving_default": {"inputs": Input(FLOAT, (None, 8, 8, 1))},
    "serve_images": {"images": Input(BYTE, (None, 8, 8, 1))},
}
SOUNDS = {
    "serving_default": {"inputs": Input(FLOAT, (None, 15, 123))},
    "serve_pcm16": {"pcm": Input(np.dtype(np.int16), (None, None)), "lengths": Input(np.dtype(np.int32), (None,))},
}


def png(folder, height=8, width=8):
    file = folder / "digit.png"
    pixels = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)
    file.write_bytes(tf.io.encode_png(pixels).numpy())
    return file, pixels


@pytest.mark.parametrize(
    ("dtype", "signature"), [("f4", "serving_default"), ("f8", "serving_default"), ("u1", "serve_images")]
)
def test_the_type_of_an_array_chooses_the_signature(tmp_path, dtype, signature):
    np.save(tmp_path / "a.npy", np.ones([3, 8, 8, 1], dtype))
    found = prediction.read([tmp_path / "a.npy"])
    assert found.names == ["a.npy[0]", "a.npy[1]", "a.npy[2]"]
    chosen, request = prediction.choose(IMAGES, found)
    assert chosen == signature
    ((name, array),) = request.items()
    assert array.dtype == IMAGES[signature][name].dtype
    assert array.shape == (3, 8, 8, 1)


def test_named_arrays_go_to_the_signature_with_these_names(tmp_path):
    np.savez(tmp_path / "a.npz", pcm=np.zeros([2, 900], np.int16), lengths=np.array([900, 800], np.int32))
    chosen, request = prediction.choose(SOUNDS, prediction.read([tmp_path / "a.npz"]))
    assert chosen == "serve_pcm16"
    assert request["lengths"].tolist() == [900, 800]


def test_images_are_decoded_where_no_signature_takes_files(tmp_path):
    file, pixels = png(tmp_path)
    chosen, request = prediction.choose(IMAGES, prediction.read([file, file]))
    assert chosen == "serve_images"
    np.testing.assert_array_equal(request["images"], [pixels, pixels])


def test_files_go_as_they_are_to_a_signature_of_texts(tmp_path):
    file, _ = png(tmp_path)
    encoded = {**IMAGES, "serve_encoded": {"encoded": Input(TEXT, (None,))}}
    chosen, request = prediction.choose(encoded, prediction.read([file]))
    assert chosen == "serve_encoded"
    assert request["encoded"].tolist() == [file.read_bytes()]


def test_rows_have_columns_by_place_or_by_name(tmp_path):
    (tmp_path / "plain.csv").write_text("1,2\n3,4.5\n")
    chosen, request = prediction.choose(
        {"serving_default": {"inputs": Input(FLOAT, (None, 2))}}, prediction.read([tmp_path / "plain.csv"])
    )
    assert request["inputs"].tolist() == [[1, 2], [3, 4.5]]
    (tmp_path / "named.csv").write_text("colour,age\nred,30\n,\n")
    row = {"age": Input(FLOAT, (None,)), "colour": Input(TEXT, (None,))}
    chosen, request = prediction.choose({"serve_rows": row}, prediction.read([tmp_path / "named.csv"]))
    assert chosen == "serve_rows"
    assert request["colour"].tolist() == ["red", ""]
    np.testing.assert_array_equal(request["age"], np.array([30, np.nan], np.float32))


def test_columns_that_are_no_inputs_are_skipped_and_named(tmp_path, caplog):
    (tmp_path / "named.csv").write_text("target,age,note\n1,30,a\n0,40,b\n")
    caplog.set_level("INFO", logger="absl")
    row = {"serve_rows": {"age": Input(FLOAT, (None,))}}
    chosen, request = prediction.choose(row, prediction.read([tmp_path / "named.csv"]))
    assert (chosen, list(request), request["age"].tolist()) == ("serve_rows", ["age"], [30, 40])
    assert [each.message for each in caplog.records] == ["serve_rows: no inputs, skipped: note, target"]


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "none").mkdir()
    for name, text in (("b.csv", "3,4\n"), ("a.csv", "1,2\n"), (".hidden", "x")):
        (tmp_path / name).write_text(text)
    found = prediction.read([tmp_path])
    assert (found.names, found.arrays[""].tolist()) == (["a.csv", "b.csv"], [[1, 2], [3, 4]])
    with pytest.raises(InputError, match="none: it has no files; folders inside of it are not searched"):
        prediction.read([tmp_path / "none"])


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2), min_size=1, max_size=5))
def test_rows_of_numbers_come_back(rows):
    found = prediction._parse_rows([[repr(number) for number in row] for row in rows])
    np.testing.assert_array_equal(found[""], np.array(rows, np.float32))


def test_what_fits_nothing_is_answered_with_what_would():
    examples = Examples(["x"], {"": np.zeros([1, 9], np.int64)})
    with pytest.raises(InputError) as error:
        prediction.choose(IMAGES, examples)
    assert str(error.value) == (
        "no signature takes int64[1, 9]; accepted\n"
        "  serving_default: inputs float32[any, 8, 8, 1]\n"
        "  serve_images: images uint8[any, 8, 8, 1]"
    )


def test_a_table_without_a_column_is_told_which():
    columns = {"serve_rows": {name: Input(FLOAT, (None,)) for name in ("ash", "hue", "proline")}}
    examples = Examples(["x"], {"hue": np.zeros(1, np.float32), "proline": np.zeros(1, np.float32)})
    with pytest.raises(
        InputError, match=r"^no signature takes hue float32\[1\], proline float32\[1\] without ash; accep"
    ):
        prediction.choose(columns, examples)


def test_a_column_has_the_name_that_it_has_in_the_table(tmp_path, caplog):
    (tmp_path / "named.csv").write_text("mean radius (mm),target\n1.5,0\n")
    caplog.set_level("INFO", logger="absl")
    row = {"serve_rows": {"mean_radius_mm": Input(FLOAT, (None,))}}
    chosen, request = prediction.choose(row, prediction.read([tmp_path / "named.csv"]))
    assert (chosen, request["mean_radius_mm"].tolist()) == ("serve_rows", [1.5])
    assert [each.message for each in caplog.records] == ["serve_rows: no inputs, skipped: target"]


def test_which_of_two_signatures_prepares_is_said():
    two = {name: {"inputs": Input(FLOAT, (None, 2))} for name in ("serving_default", "serve_rows")}
    with pytest.raises(InputError, match="; serving_default takes prepared inputs, the others raw ones\n"):
        prediction.choose(two, Examples(["x"], {"": np.zeros([1, 2], np.float32)}))


def test_what_fits_several_signatures_is_the_users_choice():
    two = {name: {"inputs": Input(FLOAT, (None, 2))} for name in ("a", "b")}
    with pytest.raises(InputError, match=r"^a, b take these examples; choose with --signature\n  a: inputs float32"):
        prediction.choose(two, Examples(["x"], {"": np.zeros([1, 2], np.float32)}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"", r"a\.npy cannot be read: "),
        ("a.npz", b"zip", r"a\.npz cannot be read: "),
        ("a.csv", b"", r"a\.csv cannot be read: it has no rows"),
        ("a.csv", b"1,2\n3\n", "different numbers of columns"),
        ("a.csv", b"x,y\n", "it has names of columns and no rows"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        prediction.read([tmp_path / name])


def test_images_of_another_size_and_files_that_are_none_are_named(tmp_path):
    file, _ = png(tmp_path, height=9)
    with pytest.raises(InputError, match=r"digit\.png: an image of \[9, 8, 1\]; the signature takes \[8, 8, 1\]"):
        prediction.choose(IMAGES, prediction.read([file]))
    file.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"digit\.png: expected an image, a PNG, JPEG, GIF or BMP file"):
        prediction.choose(IMAGES, prediction.read([file]))


def test_files_have_to_go_together(tmp_path):
    for name, dtype in (("a.npy", "f4"), ("b.npy", "u1")):
        np.save(tmp_path / name, np.zeros([1, 8, 8, 1], dtype))
    with pytest.raises(InputError, match=r"b\.npy: other names, types or sizes than .*a\.npy"):
        prediction.read([tmp_path / "a.npy", tmp_path / "b.npy"])


class Frames:
    """A runtime whose examples have rows, the second one fewer; the last row's class is unknown."""

    def run(self, inputs):
        probabilities = np.array([[[0.9, 0.1], [0.3, 0.7]], [[np.nan, np.nan], [0, 0]]], np.float32)
        return {"class": np.array([[0, 1], [-1, -1]]), "probabilities": probabilities, "row_counts": np.array([2, 1])}


def test_examples_of_several_rows_have_a_line_for_each():
    rows = list(prediction.predict(Frames(), {"sound": np.zeros([2, 5])}, ["a.wav", "b.wav"], ["aa", "sil"]))
    probabilities = [row.pop("probabilities") for row in rows]
    assert rows == [
        {"example": "a.wav", "row": 0, "class": 0, "label": "aa", "probability": pytest.approx(0.9)},
        {"example": "a.wav", "row": 1, "class": 1, "label": "sil", "probability": pytest.approx(0.7)},
        {"example": "b.wav", "row": 0, "class": -1, "label": "", "probability": None},
    ]
    assert probabilities == [
        {"aa": pytest.approx(0.9), "sil": pytest.approx(0.1)},
        {"aa": pytest.approx(0.3), "sil": pytest.approx(0.7)},
        {"aa": None, "sil": None},
    ]


# The command


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """(an export's folder, its net)"""
    folder = tmp_path_factory.mktemp("export")
    net = write_export(folder)
    write_json(folder / "export.json", {"key": "a key", "class_names": NAMES})
    return folder, net


def test_the_command_prints_the_nets_classes(export, tmp_path, capsys):
    folder, net = export
    inputs = np.random.default_rng(0).random([COUNT, 8, 8, 1], np.float32)
    np.save(tmp_path / "rows.npy", inputs)
    assert command("predict", folder, tmp_path / "rows.npy") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "serving_default, saved_model"
    probabilities = tf.nn.softmax(net(inputs)).numpy()
    for place, (line, row) in enumerate(zip(lines[-COUNT:], probabilities, strict=True)):
        name, number, label, probability = line.split()
        assert (name, int(number), label) == (f"rows.npy[{place}]", row.argmax(), str(row.argmax()))
        assert float(probability) == pytest.approx(row.max(), rel=5e-3)


def test_programs_get_the_probability_of_every_class(export, tmp_path, capsys):
    folder, net = export
    inputs = np.random.default_rng(0).random([COUNT, 8, 8, 1], np.float32)
    np.save(tmp_path / "rows.npy", inputs)
    expected = tf.nn.softmax(net(inputs)).numpy()
    assert command("predict", folder, tmp_path / "rows.npy", "--output", "json") == 0
    answers = json.loads(capsys.readouterr().out)
    assert [list(each["probabilities"]) for each in answers] == [list(NAMES)] * COUNT
    np.testing.assert_allclose([[*each["probabilities"].values()] for each in answers], expected, rtol=1e-4)
    assert command("predict", folder, tmp_path / "rows.npy", "--output", "csv") == 0
    head, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert head == ["example", "class", "label", *(f"probability of {name}" for name in NAMES)]
    assert [row[:3] for row in rows] == [[each["example"], str(each["class"]), each["label"]] for each in answers]
    np.testing.assert_allclose([[float(cell) for cell in row[3:]] for row in rows], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onnx"], "has no onnx; it has saved_model"),
        (["--signature", "serve"], "--signature serve: saved_model has serve_images, serving_default"),
    ],
)
def test_what_the_export_does_not_have_is_named(export, tmp_path, capsys, options, message):
    np.save(tmp_path / "rows.npy", np.zeros([1, 8, 8, 1], np.float32))
    assert command("predict", export[0], tmp_path / "rows.npy", *options) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_an_export_is_refused(tmp_path, capsys):
    assert command("predict", tmp_path, tmp_path / "rows.npy") == 2
    assert "is not an export" in capsys.readouterr().err
