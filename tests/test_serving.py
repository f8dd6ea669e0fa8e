"""Exports answer as their students do, through the loader that TensorFlow Serving uses, and survive any request."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_digits import Digits
from tensorflow_serving.apis import prediction_log_pb2

from mimic_keras.contracts import RawSignature
from mimic_keras.serving import verification, warmup
from mimic_keras.serving.session_loader import ServedModel, ServingError
from tests.tiny import command, run, tiny, write

NAMES = tuple(str(digit) for digit in range(10))
# Sends so many random requests of any shape, and says how they ended.
SENDER = """
import collections, json, sys
import numpy as np
from pathlib import Path
from mimic_keras.serving.session_loader import ServedModel, ServingError
served, random = ServedModel(Path(sys.argv[1])), np.random.default_rng(int(sys.argv[3]))
for name, signature in served.signatures.items():
    ended = collections.Counter()
    for _ in range(int(sys.argv[2])):
        request = {}
        for key, info in signature.inputs.items():
            shape = [random.integers(0, 9) if each.size < 0 else each.size for each in info.tensor_shape.dim]
            for _ in range(random.integers(0, 3)):
                if shape and random.random() < 0.7:
                    shape[random.integers(len(shape))] = random.integers(0, 40)
                elif random.random() < 0.5:
                    shape.insert(random.integers(len(shape) + 1), random.integers(0, 4))
                elif shape:
                    shape.pop(random.integers(len(shape)))
            kind = {1: "f4", 3: "i4", 4: "u1", 5: "i2"}[info.dtype]
            value = random.normal(size=shape) * 10.0 ** random.integers(-3, 38 if kind == "f4" else 3)
            if kind == "f4" and random.random() < 0.3:
                value = np.where(random.random(shape) < 0.5, random.choice([np.nan, np.inf, -np.inf]), value)
            with np.errstate(all="ignore"):
                request[key] = value.astype(kind)
        try:
            served.run(name, request)
            ended["answered"] += 1
        except ServingError:
            ended["refused"] += 1
    print(json.dumps([name, ended]))
"""


def send_anything(export, count, seed=0):
    arguments = [sys.executable, "-c", SENDER, str(export), str(count), str(seed)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(folder of a run on digits, the export's folder, the student)"""
    folder = tmp_path_factory.mktemp("exported")
    metrics = run(folder, tiny())
    student = json.loads((folder / "runs" / "tiny" / "artifacts.json").read_text())["student"]["model"]
    return folder, folder / "saved_models" / "tiny" / "1", keras.models.load_model(f"{student}/model.keras"), metrics


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """The export's folder of a student of synthetic speech."""
    folder = tmp_path_factory.mktemp("speech")
    corpus = {"name": "timit_synthetic", "training_speakers": 2, "test_speakers": 2, "utterances": 2}
    experiment = tiny(dataset=corpus, export={"minimum_agreement": 0})
    experiment["student"]["training"]["optimizer"] = {"name": "adam", "learning_rate": 0.001}
    run(folder, experiment)
    return folder / "saved_models" / "tiny" / "1"


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 64])
def test_every_signature_gives_the_students_logits(exported, count):
    _, export, student, _ = exported
    served, split = ServedModel(export), Digits().split("test")
    inputs = split.batch(tf.range(count, dtype=tf.int64)).numpy()
    expected = student(inputs, training=False).numpy()
    pixels = np.round(inputs * 16).astype(np.uint8)
    for signature, request in {"serving_default": {"inputs": inputs}, "serve_images": {"images": pixels}}.items():
        found = served.run(signature, request)
        assert verification.compare(found, expected, NAMES) <= 1e-5
        assert sorted(found) == ["class", "label", "logits", "probabilities"]


@pytest.mark.long
def test_the_record_says_what_was_verified_and_done(exported):
    _, export, _, metrics = exported
    record = json.loads((export / "export.json").read_text())
    assert record["folding"] == ["standardisation folded into the last layer"]
    assert set(record["verified"]["signatures"]) == {"serving_default", "serve_images"} == set(record["signatures"])
    for found in record["verified"]["signatures"].values():
        assert found["examples"] == 64
        assert found["largest_difference"] <= 1e-5
        assert found["refused"] >= 8
    assert record["verified"]["warmup_requests"] == 4
    assert metrics["export"]["signatures"] == record["signatures"]
    assert {"assets.extra/examples.npz", "assets.extra/tf_serving_warmup_requests"} <= set(record["files"])


def test_every_signature_is_warmed_up_with_one_example_and_with_all(exported):
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(exported[1] / warmup.FILE))]
    found = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]
    assert [each.model_spec.name for each in found] == ["tiny"] * 4
    sizes = {(each.model_spec.signature_name, each.inputs.popitem()[1].tensor_shape.dim[0].size) for each in found}
    assert sizes == {(name, size) for name in ("serving_default", "serve_images") for size in (1, 64)}


def test_each_weight_is_there_once_and_nothing_else(exported):
    export = exported[1]
    stored = [
        shape
        for name, shape in tf.train.list_variables(str(export / "variables" / "variables"))
        if "OBJECT" not in name
    ]
    # By hand: 64 * 8 + 8 * 32 + 32 + 32 * 10 + 10; nothing is absorbed, since 64 * 32 is more than 64 * 8 + 8 * 32.
    assert sum(int(np.prod(shape)) for shape in stored if shape) == 1130
    graph = (export / "saved_model.pb").read_bytes()
    for name in (b"Adam", b"SGD", b"momentum", b"PyFunc", b"RandomUniform", b"seed_generator"):
        assert name not in graph


@pytest.mark.long
def test_no_request_takes_the_process_down(exported, speech):
    for export in (exported[1], speech):
        for ended in send_anything(export, 40).values():
            assert sum(ended.values()) == 40
            assert ended["refused"] > 0


@pytest.mark.long
def test_sound_is_prepared_as_for_the_training(speech):
    served = ServedModel(speech)
    inputs, logits = verification.read_examples(speech)["serve_pcm16"]
    whole = served.run("serve_pcm16", inputs)
    counts = whole["row_counts"]
    assert counts.tolist() == [1 + (length - 400) // 160 for length in inputs["lengths"]]
    assert (whole["class"][0, counts[0] :] == -1).all()
    assert (whole["label"][0, counts[0] :] == b"").all()
    for row, length in enumerate(inputs["lengths"]):
        alone = {"pcm": inputs["pcm"][row : row + 1, :length], "lengths": inputs["lengths"][row : row + 1]}
        one = served.run("serve_pcm16", alone)["logits"][0]
        np.testing.assert_allclose(one, logits[row, : counts[row]], atol=1e-5 * logits.std())
    # Padding that is no silence changes nothing: it is not the utterance's.
    noisy = np.where(np.arange(inputs["pcm"].shape[1]) < inputs["lengths"][:, None], inputs["pcm"], 9999)
    padded = served.run("serve_pcm16", {**inputs, "pcm": noisy.astype(np.int16)})
    np.testing.assert_array_equal(padded["logits"], whole["logits"])


@pytest.mark.parametrize(("samples", "length", "frames"), [(0, 0, 0), (399, 399, 0), (400, 400, 1), (900, 0, 0)])
def test_sound_shorter_than_a_frame_has_no_rows(speech, samples, length, frames):
    request = {"waveform": np.zeros([1, samples], np.float32), "lengths": np.array([length], np.int32)}
    found = ServedModel(speech).run("serve_waveform", request)
    assert found["row_counts"].tolist() == [frames]
    assert found["logits"].shape == (1, frames, 183)


@pytest.mark.parametrize("lengths", [[-1], [901], [2**31 - 1], [900, 900], []])
def test_lengths_that_do_not_fit_are_refused(speech, lengths):
    request = {"waveform": np.zeros([1, 900], np.float32), "lengths": np.array(lengths, np.int32)}
    with pytest.raises(ServingError, match="length"):
        ServedModel(speech).run("serve_waveform", request)


@pytest.mark.long
def test_a_signature_that_prepares_otherwise_than_the_data_set_is_not_published(tmp_path, monkeypatch, capsys):
    right = Digits.raw_signatures

    def wrong(self):
        (signature,) = right(self).values()
        prepare = lambda images: signature.prepare(images) * 1.0001  # noqa: E731
        return {"serve_images": RawSignature(signature.inputs, prepare, signature.examples, signature.ids)}

    monkeypatch.setattr(Digits, "raw_signatures", wrong)
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports")
    assert command("run", write(tmp_path, tiny()), *places) == 1
    assert "serve_images prepares its examples differently from the data set" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "exports" / "tiny").iterdir() if path.is_dir()]


def copied(export, tmp_path):
    return shutil.copytree(export, tmp_path / "copy")


# The commands


def test_a_finished_run_is_exported_again_with_other_options(exported, capsys):
    folder, export, student, _ = exported
    places = ("--home", folder / "home", "--saved_models_dir", folder / "saved_models")
    run_folder = folder / "runs" / "tiny"
    before = json.loads((export / "export.json").read_text())["multiply_adds"]
    assert command("export", run_folder, "--set", "export.absorb_bottleneck=never", "--set", "name=kept", *places) == 0
    record = json.loads((folder / "saved_models" / "kept" / "1" / "export.json").read_text())
    assert record["folding"] == ["standardisation folded into the last layer"]
    assert record["multiply_adds"] >= before
    inputs = np.random.default_rng(0).random([8, 8, 8, 1], np.float32)
    found = ServedModel(folder / "saved_models" / "kept" / "1").run("serving_default", {"inputs": inputs})
    assert verification.compare(found, student(inputs).numpy(), NAMES) <= 1e-5
    assert command("export", run_folder, *places) == 0
    assert f"Export:    {export}" in capsys.readouterr().out, "the same export is not published twice"
    assert command("export", run_folder, "--set", "student.seed=1", *places) == 2
    assert "the student is trained already; accepted: export.KEY=VALUE, name=NAME" in capsys.readouterr().err
    assert command("export", folder / "runs", *places) == 2


@pytest.mark.long
def test_verify_says_what_it_found(exported, tmp_path, capsys):
    assert command("verify", exported[1]) == 0
    said = capsys.readouterr().out
    assert "serve_images" in said
    assert "4 warm-up requests replayed" in said
    export = copied(exported[1], tmp_path)
    (export / "saved_model.pb").write_bytes(b"")
    assert command("verify", export) == 2
    assert "is damaged: saved_model.pb" in capsys.readouterr().err
    assert command("verify", tmp_path) == 2
    assert "is not an export" in capsys.readouterr().err
