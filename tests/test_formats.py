"""Students in other formats than the SavedModel: what is written, verified, measured, refused and left out."""

import json
import shutil
from types import SimpleNamespace

import ai_edge_litert.interpreter
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from mimic_keras_digits import Digits

from mimic_keras.contracts import RawSignature, error_rate
from mimic_keras.experiment.formats import FORMATS, describe_missing
from mimic_keras.experiment.schema import ExportSection
from mimic_keras.planning import preflight
from mimic_keras.serving import conversion, portable
from mimic_keras.serving.verification import VerificationError
from mimic_keras.stages import formats
from mimic_keras.stages.formats import Judge
from tests.small_export import small_net
from tests.tiny import command, run, tiny, write

EVERY = ["saved_model", "litert", "litert_dynamic", "litert_int8", "onnx"]
FILES = {
    "student.tflite",
    "student.serve_images.tflite",
    "student_dynamic.tflite",
    "student_int8.tflite",
    "student.onnx",
    "student.serve_images.onnx",
}


def experiment(**export):
    """A student large enough that 8 bits change its file, and no baseline."""
    made = tiny(export={"minimum_agreement": 0, **export})
    made["student"]["architecture"] = {"name": "mlp", "hidden_units": [64]}
    del made["baseline"]
    return made


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The folder of home, runs and exports."""
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(scope="module")
def exported(places):
    """(the export's folder with every format, its record, the student, metrics.json)"""
    metrics = run(places, experiment(formats=EVERY))
    student = json.loads((places / "runs" / "tiny" / "artifacts.json").read_text())["student"]["model"]
    export = places / "saved_models" / "tiny" / "1"
    record = json.loads((export / "export.json").read_text())
    return export, record, keras.models.load_model(f"{student}/model.keras"), metrics


def inputs(count):
    split = Digits().split("test")
    prepared = split.batch(tf.range(count, dtype=tf.int64)).numpy()
    return prepared, np.round(prepared * 16).astype(np.uint8)


def answers(file, count):
    """A file's outputs by its own runtime, called as its documentation says."""
    name, request = ("images", inputs(count)[1]) if "serve_images" in file.name else ("inputs", inputs(count)[0])
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_outputs()]
        return dict(zip(names, session.run(names, {name: request}), strict=True))
    runner = ai_edge_litert.interpreter.Interpreter(model_path=str(file)).get_signature_runner()
    return runner(**{name: request})


@pytest.mark.long
def test_every_format_has_a_file_for_each_signature_and_digests_of_them(exported):
    export, record, _, _ = exported
    found = {each.name for each in (export / "assets.extra").iterdir() if each.name.startswith("student")}
    assert found == FILES
    assert {f"assets.extra/{name}" for name in FILES} <= set(record["files"])
    listed = {each["file"] for form in record["formats"].values() for each in form["signatures"].values()}
    assert listed == {f"assets.extra/{name}" for name in FILES}
    assert record["formats"]["onnx"]["opset"] == 18


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("name", sorted(FILES))
def test_the_files_give_the_students_logits(exported, name, count):
    export, _, student, _ = exported
    logits = student(inputs(count)[0], training=False).numpy()
    found = answers(export / "assets.extra" / name, count)
    assert set(found) == {"logits", "probabilities", "class"}
    # Eight bits: a grid of 256 values over the logits' range, about six spreads; float32 to its last digits.
    share = {"student_int8.tflite": 0.3, "student_dynamic.tflite": 0.1}.get(name, 1e-5)
    np.testing.assert_allclose(found["logits"], logits, atol=share * student(inputs(64)[0]).numpy().std())
    np.testing.assert_array_equal(found["class"], found["logits"].argmax(-1))
    np.testing.assert_allclose(found["probabilities"].sum(-1), 1, atol=0.02)


def test_eight_bits_are_measured_on_all_of_validation(exported):
    export, record, student, _ = exported
    split = Digits().split("validation")
    prepared = split.batch(tf.range(split.num_examples, dtype=tf.int64)).numpy()
    expected = student(prepared, training=False).numpy()
    runner = ai_edge_litert.interpreter.Interpreter(
        model_path=str(export / "assets.extra" / "student_int8.tflite")
    ).get_signature_runner()
    logits = runner(inputs=prepared)["logits"]
    found = record["formats"]["litert_int8"]["validation"]
    assert found["error_rate"] == pytest.approx(np.mean(logits.argmax(-1) != split.labels))
    assert found["agreement"] == pytest.approx(np.mean(logits.argmax(-1) == expected.argmax(-1)))
    assert found["largest_difference"] == pytest.approx(np.abs(logits - expected).max() / expected.std(), rel=1e-3)
    assert found["largest_difference"] > 1e-4, "eight bits are not float32"


def test_the_graph_is_named_and_its_batch_too(exported):
    model = onnx.load(exported[0] / "assets.extra" / "student.serve_images.onnx")
    onnx.checker.check_model(model, full_check=True)
    (images,) = model.graph.input
    assert images.name == "images"
    assert [size.dim_param or size.dim_value for size in images.type.tensor_type.shape.dim] == ["batch", 8, 8, 1]
    assert {each.name for each in model.graph.output} == {"logits", "probabilities", "class"}
    assert [each.version for each in model.opset_import if not each.domain] == [18]


def test_report_and_metrics_show_what_one_would_deploy(exported, places):
    record, metrics = exported[1], exported[3]
    rows = record["deployment"]["rows"]
    assert list(rows) == ["teacher", *EVERY]
    assert record["deployment"]["threads"] == 1
    for row in rows.values():
        assert row["bytes"] > 0
        assert all(0 < row["milliseconds"][count]["p50"] <= row["milliseconds"][count]["p99"] for count in ("1", "64"))
    student, teacher = (metrics["models"][name]["validation"]["error_rate"] for name in ("student", "teacher"))
    assert rows["saved_model"]["validation_error_rate"] == rows["onnx"]["validation_error_rate"] == student
    assert rows["teacher"]["validation_error_rate"] == teacher
    assert rows["litert_int8"]["bytes"] < rows["litert"]["bytes"]
    assert metrics["export"]["deployment"] == record["deployment"]
    page = (places / "runs" / "tiny" / "report.html").read_text()
    assert "<td>litert_int8</td>" in page
    assert "is published after this page" not in page


@pytest.mark.long
def test_two_exports_of_one_student_are_the_same_bytes(exported, places, tmp_path):
    options = ("--home", places / "home", "--saved_models_dir", tmp_path)
    assert command("export", places / "runs" / "tiny", *options) == 0
    second = json.loads((tmp_path / "tiny" / "1" / "export.json").read_text())
    assert second["files"] == exported[1]["files"]
    assert {key for key in second if second[key] != exported[1][key]} <= {"created", "machine", "deployment"}
    assert list(second["deployment"]["rows"]) == EVERY, "there is no teacher to load"


@pytest.mark.long
def test_verify_runs_every_file_and_refuses_damaged_ones(exported, tmp_path, capsys):
    assert command("verify", exported[0]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in EVERY[1:])
    export = shutil.copytree(exported[0], tmp_path / "copy")
    for name in sorted(FILES):
        file = export / "assets.extra" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-8])
        assert command("verify", export) == 2
        assert f"is damaged: assets.extra/{name}\n" in capsys.readouterr().err
        file.write_bytes(whole)


@pytest.mark.parametrize(("form", "file"), [("onnx", "student.onnx"), ("litert_int8", "student_int8.tflite")])
def test_a_file_that_its_runtime_cannot_read_is_refused(exported, tmp_path, form, file):
    export = shutil.copytree(exported[0], tmp_path / "copy")
    (export / "assets.extra" / file).write_bytes(b"no model")
    with pytest.raises(VerificationError, match=rf"copy: {form}, serving_default: {file} cannot be loaded: "):
        portable.verify(export, exported[1])


def test_a_file_of_another_student_is_refused(exported, tmp_path):
    export = shutil.copytree(exported[0], tmp_path / "copy")
    model = onnx.load(export / "assets.extra" / "student.onnx")
    bias = next(each for each in model.graph.initializer if list(each.dims) == [10])
    changed = onnx.numpy_helper.to_array(bias) + np.float32(0.01) * np.eye(10, dtype=np.float32)[3]
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
    onnx.save(model, export / "assets.extra" / "student.onnx")
    with pytest.raises(VerificationError, match="onnx, serving_default: its logits differ from the student's by"):
        portable.verify(export, exported[1])


@pytest.mark.long
def test_a_format_that_loses_too_much_is_refused_with_the_figure(exported, places, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Judge, "measure", cost_half)
    options = ("--home", places / "home", "--saved_models_dir", tmp_path)
    formats = "export.formats=[litert_int8]"
    assert command("export", places / "runs" / "tiny", *options, "--set", formats) == 1
    said = capsys.readouterr().err
    assert "is published without litert_int8: its error rate on validation is " in said
    assert "an increase of 0.5000, and export.maximum_error_increase is 0.01" in said
    export = tmp_path / "tiny" / "1"
    assert not (export / "assets.extra" / "student_int8.tflite").exists()
    refused = json.loads((export / "export.json").read_text())["formats"]["litert_int8"]
    assert refused["signatures"] == {}
    assert refused["validation"]["error_rate"] > 0.5
    assert command("export", places / "runs" / "tiny", *options, "--set", formats) == 1, "it is still not there"
    assert "1 is published without litert_int8" in capsys.readouterr().err


def cost_half(judge, logits):
    """As if eight bits cost half of the examples: any logits but the student's own have an error rate 0.5 larger."""
    exact = np.abs(logits - judge.logits).max() < 1e-4
    rate = error_rate(judge.labels, judge.logits)
    return {"error_rate": rate if exact else rate + 0.5, "agreement": 1.0, "largest_difference": 0.0}


@pytest.mark.long
def test_a_signature_that_a_format_cannot_express_is_left_out_and_named(exported, places, tmp_path, monkeypatch):
    monkeypatch.setattr(Digits, "raw_signatures", with_hash(Digits.raw_signatures))
    options = ("--home", places / "home", "--saved_models_dir", tmp_path, "--set", "export.formats=[litert, onnx]")
    assert command("export", places / "runs" / "tiny", *options) == 0
    export = tmp_path / "tiny" / "1"
    found = json.loads((export / "export.json").read_text())["formats"]
    for name in ("litert", "onnx"):
        assert set(found[name]["signatures"]) == {"serving_default", "serve_images"}
        assert set(found[name]["left_out"]) == {"serve_hashed"}
        assert str(tmp_path) not in found[name]["left_out"]["serve_hashed"]
    assert found["litert"]["left_out"]["serve_hashed"].startswith("the converter says: 'tf.")
    assert found["onnx"]["left_out"]["serve_hashed"].startswith("student.serve_hashed.onnx cannot be loaded: ")
    assert not list(export.glob("assets.extra/*serve_hashed*"))


def with_hash(right):
    """The digits' own signatures, and one with an operation that neither LiteRT nor ONNX has."""

    def signatures(self):
        found = right(self)
        images = found["serve_images"]

        def prepare(images):
            values, _ = tf.unique(tf.reshape(images, [-1]))
            hashed = tf.strings.to_hash_bucket_fast(tf.strings.as_string(values[:1]), 1)
            return tf.cast(images, tf.float32) / 16 + tf.cast(hashed, tf.float32)

        return {**found, "serve_hashed": RawSignature(images.inputs, prepare, images.examples, images.ids)}

    return signatures


# Without an export


def test_signatures_of_text_are_left_to_the_saved_model(tmp_path, monkeypatch):
    dataset, wanted = Digits(), []
    monkeypatch.setattr(conversion, "convert", lambda *given: wanted.extend(given[-1]) or {})
    data = SimpleNamespace(dataset=dataset, split=dataset.split)
    texts = RawSignature({"texts": tf.TensorSpec([None], tf.string)}, None, {}, np.arange(1))
    raw = {**dataset.raw_signatures(), "serve_texts": texts}
    failures = formats._convert(tmp_path, tmp_path, small_net(), data, raw, ["litert_int8", "onnx"])
    assert wanted == [("litert_int8", "serving_default"), ("onnx", "serving_default"), ("onnx", "serve_images")]
    assert failures["onnx", "serve_texts"] == "its input 'texts' is text"
    assert np.load(tmp_path / "calibration.npy").shape == (300, 8, 8, 1)


def test_a_judge_without_labels_goes_by_the_students_classes():
    logits = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]], np.float32)
    other = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0]], np.float32)
    spread = np.std([0, 1, 1, 0, 0, 2])
    labelled, unlabelled = Judge(np.array([1, 1, -1]), logits), Judge(np.array([-1, -1, -1]), logits)
    expected = {"agreement": pytest.approx(2 / 3), "largest_difference": pytest.approx(1 / spread)}
    assert labelled.measure(other) == {"error_rate": 0.0, **expected}
    assert unlabelled.measure(other) == {"error_rate": pytest.approx(1 / 3), **expected}


def test_formats_stay_out_of_the_key_of_an_export_that_has_none():
    assert ExportSection().key_inputs() == {"absorb_bottleneck": "auto"}
    assert ExportSection(formats=["saved_model"], maximum_error_increase=0.5).key_inputs() == {
        "absorb_bottleneck": "auto"
    }
    assert ExportSection(formats=["onnx", "litert", "onnx"], maximum_error_increase=0.5).key_inputs() == {
        "absorb_bottleneck": "auto",
        "formats": ["litert", "onnx"],
    }
    assert ExportSection(formats=["litert_int8"]).key_inputs()["maximum_error_increase"] == 0.01


def test_what_is_missing_is_named_with_its_extra_once(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert describe_missing(["saved_model"]) == []
    assert describe_missing(FORMATS) == [
        "litert_int8 needs ai_edge_litert, which is not installed: pip install 'mimic-keras[litert]'",
        "onnx needs tf2onnx and onnxruntime, which is not installed: pip install 'mimic-keras[onnx]'",
    ]


def test_an_extra_that_is_missing_is_a_problem_of_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "describe_missing", lambda names: [f"{names[0]} needs something"])
    assert command("validate", write(tmp_path, experiment(formats=["onnx"]))) == 2
    assert "1 problem\n  export.formats: onnx needs something\n" in capsys.readouterr().err
