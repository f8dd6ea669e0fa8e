"""The C++ loader: a written net's numbers, and a reason for what it refuses."""

import numpy as np
import pytest

from mimic_keras.serving.session_loader import ServedModel, ServingError
from tests.small_export import write_export


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(an export's folder, its net)"""
    folder = tmp_path_factory.mktemp("written")
    return folder, write_export(folder)


def test_the_loaded_net_gives_the_nets_numbers(written):
    folder, net = written
    served, inputs = ServedModel(folder), np.random.default_rng(0).random([5, 8, 8, 1], np.float32)
    found = served.run("serving_default", {"inputs": inputs})
    np.testing.assert_allclose(found["logits"], net(inputs), rtol=1e-5, atol=1e-6)
    assert found["label"].tolist() == [str(each).encode() for each in found["class"]]
    assert list(served.signatures) == ["serve_images", "serving_default"]


def test_no_examples_give_no_rows(written):
    found = ServedModel(written[0]).run("serving_default", {"inputs": np.zeros([0, 8, 8, 1], np.float32)})
    assert (found["logits"].shape, found["label"].shape) == ((0, 10), (0,))


def test_a_folder_without_a_saved_model_is_refused(tmp_path):
    with pytest.raises(ServingError) as error:
        ServedModel(tmp_path)
    assert error.value.code == 5  # TF_NOT_FOUND
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("serving_defualt", {}, "no signature 'serving_defualt'; there are serve_images, serving_default"),
        ("serve_images", {"image": np.zeros(3)}, r"inputs \['image'\]; serve_images has \['images'\]"),
        ("serve_images", {"images": np.zeros([1, 8, 8, 1])}, "'images' is float64, the signature has uint8"),
        ("serve_images", {"images": np.zeros([8, 8, 1], np.uint8)}, "not compatible with expected shape"),
    ],
)
def test_requests_that_do_not_fit_are_refused_with_a_reason(written, signature, inputs, message):
    with pytest.raises(ServingError, match=message):
        ServedModel(written[0]).run(signature, inputs)
