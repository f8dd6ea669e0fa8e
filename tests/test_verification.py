"""What verification finds in an export, and that a graph which kills its process does not kill ours."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from mimic_keras.serving import saved_model, verification
from mimic_keras.serving.verification import VerificationError
from tests.small_export import NAMES, write_export


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(an export's folder, its net)"""
    folder = tmp_path_factory.mktemp("written")
    return folder, write_export(folder)


@pytest.fixture
def export(written, tmp_path):
    """A copy to damage."""
    return shutil.copytree(written[0], tmp_path / "copy")


@pytest.mark.long
def test_a_sound_export_is_described(written):
    found = verification.verify(written[0])
    assert set(found["signatures"]) == {"serving_default", "serve_images"}
    for each in found["signatures"].values():
        assert each["examples"] == 8
        assert each["largest_difference"] <= 1e-5
        assert each["refused"] >= 8
    assert found["warmup_requests"] == 2


def test_examples_come_back(tmp_path):
    inputs, logits = {"a": np.arange(3), "b": np.zeros([3, 2], np.float32)}, np.ones([3, 4], np.float32)
    verification.write_examples(tmp_path, {"serve": (inputs, logits)})
    ((name, (found, found_logits)),) = verification.read_examples(tmp_path).items()
    assert (name, set(found)) == ("serve", {"a", "b"})
    np.testing.assert_array_equal(found["a"], inputs["a"])
    np.testing.assert_array_equal(found_logits, logits)


def test_texts_come_back_with_the_zero_bytes_at_their_end(tmp_path):
    texts = np.array([b"RIFF\0\0", b"", b"\0"], object)
    verification.write_examples(tmp_path, {"serve": ({"sounds": texts, "words": np.array(["é", "", "a"])}, np.ones(3))})
    found = verification.read_examples(tmp_path)["serve"][0]
    assert found["sounds"].tolist() == [b"RIFF\0\0", b"", b"\0"]
    assert found["words"].tolist() == ["é".encode(), b"", b"a"]


@pytest.mark.parametrize("content", [None, b"", b"examples"])
def test_damaged_examples_are_named(content, tmp_path):
    file = tmp_path / verification.EXAMPLES
    if content is not None:
        file.parent.mkdir()
        file.write_bytes(content)
    with pytest.raises(VerificationError, match=r"examples\.npz cannot be read: "):
        verification.read_examples(tmp_path)


def test_malformed_requests_are_wrong_in_shape_or_values():
    right = {"inputs": np.ones([2, 3], np.float32), "lengths": np.array([3, 3], np.int32)}
    found = dict(verification.malformed_requests(right))
    assert found["inputs without the batch dimension"]["inputs"].shape == (3,)
    assert found["inputs with another size of axis 1"]["inputs"].shape == (2, 6)
    assert found["inputs with nothing on axis 1"]["inputs"].shape == (2, 0)
    assert found["lengths of fewer examples"]["lengths"].shape == (1,)
    assert np.isnan(found["inputs all nan"]["inputs"]).all()
    assert (found["lengths all -2147483648"]["lengths"] < 0).all()
    assert found["no examples"]["inputs"].shape == (0, 3)
    texts = dict(verification.malformed_requests({"sounds": np.array([b"a", b"b"], object)}))
    assert texts["sounds a single value"]["sounds"].shape == ()
    assert texts["sounds all b''"]["sounds"].tolist() == [b"", b""]


# What it finds is looked for in this process; the two tests after these have what a process of its own adds.


def test_verification_finds_another_students_numbers(export):
    examples = verification.read_examples(export)
    inputs, logits = examples["serve_images"]
    verification.write_examples(export, {**examples, "serve_images": (inputs, logits + 0.01)})
    with pytest.raises(VerificationError, match="serve_images: its logits differ from the student's by"):
        verification._verify(export, lambda what: None)


def test_verification_finds_a_signature_without_examples(export):
    examples = verification.read_examples(export)
    del examples["serve_images"]
    verification.write_examples(export, examples)
    with pytest.raises(VerificationError, match=r"examples for \['serving_default'\], signatures"):
        verification._verify(export, lambda what: None)


@pytest.mark.long
def test_verification_finds_missing_weights(export):
    (export / "variables" / "variables.index").unlink()
    with pytest.raises(VerificationError, match="copy: "):
        verification.verify(export)


@pytest.mark.long
def test_verification_survives_a_graph_that_kills_its_process(export, monkeypatch):
    """oneDNN's convolution aborts on a request without the batch dimension if nothing checks its input."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")  # which is the default on some processors only
    net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(10, 8), keras.layers.Flatten()])
    kernel, bias = net.get_weights()

    class Unguarded(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="inputs")])
        def serve(self, inputs):
            inputs = tf.raw_ops.EnsureShape(input=inputs, shape=tf.TensorShape(None))
            logits = tf.nn.conv2d(inputs, kernel, 1, "VALID")[:, 0, 0] + bias
            return saved_model.make_outputs(logits, NAMES)

    module = Unguarded()
    tf.saved_model.save(module, str(export), {"serving_default": module.serve})
    inputs = verification.read_examples(export)["serving_default"][0]["inputs"]
    verification.write_examples(export, {"serving_default": ({"inputs": inputs}, net(inputs).numpy())})
    with pytest.raises(VerificationError) as error:
        verification.verify(export)
    assert "died (SIGABRT) at serving_default: inputs without the batch dimension" in str(error.value)


@pytest.mark.parametrize("change", ["probabilities", "class", "label", "shape"])
def test_outputs_have_to_go_together(change):
    logits = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, 1.0]], np.float32)
    outputs = {
        key: value.numpy() for key, value in saved_model.make_outputs(tf.constant(logits), ("a", "b", "c")).items()
    }
    assert outputs["label"].tolist() == [b"c", b"a"]
    assert verification.compare(outputs, logits, ("a", "b", "c")) == 0
    wrong = {
        "probabilities": {"probabilities": outputs["probabilities"][::-1]},
        "class": {"class": np.array([1, 0], np.int32)},
        "label": {"label": np.array([b"c", b"b"], object)},
        "shape": {"logits": logits[:1]},
    }
    with pytest.raises(VerificationError, match=change):
        verification.compare({**outputs, **wrong[change]}, logits, ("a", "b", "c"))
