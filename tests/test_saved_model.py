"""The SavedModel of a net: its signatures, its weights and its outputs."""

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_digits import Digits

from mimic_keras.contracts import DatasetInfo
from mimic_keras.serving import saved_model
from mimic_keras.serving.session_loader import ServedModel
from tests.small_export import small_net, write_export


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(an export's folder, its net)"""
    folder = tmp_path_factory.mktemp("written")
    return folder, write_export(folder)


def test_the_shapes_of_the_signatures_are_returned(tmp_path):
    dataset = Digits()
    found = saved_model.write(tmp_path, small_net(), dataset.info, dataset.raw_signatures())
    outputs = {"logits": [-1, 10], "probabilities": [-1, 10], "class": [-1], "label": [-1]}
    assert found == {
        "serving_default": {"inputs": {"inputs": [-1, 8, 8, 1]}, "outputs": outputs},
        "serve_images": {"inputs": {"images": [-1, 8, 8, 1]}, "outputs": outputs},
    }


def test_two_signatures_share_each_weight(written):
    variables = tf.train.list_variables(str(written[0] / "variables" / "variables"))
    stored = [shape for name, shape in variables if "OBJECT" not in name and shape]
    assert sum(int(np.prod(shape)) for shape in stored) == 64 * 10 + 10


def test_what_is_no_number_stays_with_its_example(written):
    inputs = np.random.default_rng(0).random([3, 8, 8, 1], np.float32)
    clean = ServedModel(written[0]).run("serving_default", {"inputs": inputs})
    inputs[1, 2, 2] = np.nan
    found = ServedModel(written[0]).run("serving_default", {"inputs": inputs})
    assert np.isnan(found["logits"][1]).all()
    assert (found["class"][1], found["label"][1]) == (-1, b"")
    np.testing.assert_array_equal(found["logits"][[0, 2]], clean["logits"][[0, 2]])


def test_rows_of_an_example_are_padded():
    info = DatasetInfo("x", "1", (2,), 3, ("a", "b", "c"))
    logits = tf.constant([[1.0, 0, 0], [0, 0, 5], [0, 2, 0]])
    found = saved_model.make_outputs(logits, info.class_names, tf.constant([0, 2, 2, 3], tf.int64))
    assert found["class"].numpy().tolist() == [[0, 2], [-1, -1], [1, -1]]
    assert found["label"].numpy().tolist() == [[b"a", b"c"], [b"", b""], [b"b", b""]]
    assert found["row_counts"].numpy().tolist() == [2, 0, 1]
    assert found["logits"].numpy()[2].tolist() == [[0, 2, 0], [0, 0, 0]]
