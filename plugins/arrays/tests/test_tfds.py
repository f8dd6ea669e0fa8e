"""Sets of TensorFlow Datasets: pairs as arrays, converted once, and what is refused."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_arrays import tfds as module
from mimic_keras_arrays.tfds import Tfds

from mimic_keras.contracts import SPLITS, InputError
from plugins.arrays.tests import tiny_set

GIVEN = {"builder": "tiny_images", "test": "test", "shares": {"validation": 0.2}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of two sets."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    tiny_set.write("several_sizes", folder)
    return tiny_set.write("tiny_images", folder)


def prepared(folder, **arguments):
    data = Tfds(**arguments)
    return data, data.prepare(folder)


def rows_of(data, name):
    split = data.split(name)
    return split.batch(tf.range(split.num_examples, dtype=tf.int64)).numpy()


def test_pairs_are_examples_and_what_has_no_split_is_a_share(root, tmp_path):
    data, _ = prepared(tmp_path, **GIVEN, root=root)
    assert (data.info.version, data.info.input_shape) == ("1.2.0", (6, 5, 3))
    assert data.info.class_names == ("cat", "dog", "owl")
    assert data.info.num_examples == {"train": 24, "validation": 6, "test": 10, "transfer": 24}
    for name in SPLITS:
        rows = rows_of(data, name)
        assert (rows == rows[:, :1, :1, :1]).all()
        np.testing.assert_array_equal(data.split(name).labels, rows[:, 0, 0, 0] % 100 % 3)
    assert sorted(rows_of(data, "test")[:, 0, 0, 0]) == list(range(100, 110))


def test_it_is_converted_once(root, tmp_path, monkeypatch):
    _, first = prepared(tmp_path, **GIVEN, root=root)
    monkeypatch.setattr(Tfds, "_convert", None)
    data, again = prepared(tmp_path, **GIVEN, root=root)
    assert again == first
    assert len(rows_of(data, "train")) == 24
    with pytest.raises(TypeError):
        prepared(tmp_path, **{**GIVEN, "test": "test[:5]"}, root=root)


def test_parts_of_splits_are_splits(root, tmp_path):
    given = {"train": "train[:10]", "validation": "train[10:20]", "test": "test", "unlabelled": "train[20:]"}
    data, _ = prepared(tmp_path, builder="tiny_images", root=root, **given)
    assert {name: len(rows_of(data, name)) for name in SPLITS} == {
        "train": 10,
        "validation": 10,
        "test": 10,
        "transfer": 20,
    }
    np.testing.assert_array_equal(data.split("transfer").labels[10:], -1)


def test_images_of_several_sizes_are_resized(root, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAPPED_BYTES", 0)
    data, _ = prepared(tmp_path, **{**GIVEN, "builder": "several_sizes"}, root=root, image_size=(8, 7))
    assert data.info.input_shape == (8, 7, 3)
    np.testing.assert_array_equal(np.unique(rows_of(data, "test")), range(100, 110))
    assert data.raw_signatures()["serve_images"].examples["images"].dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"builder": "tiny_imagse"}, "builder: no set 'tiny_imagse' in tensorflow-datasets: Dataset tiny_imagse not"),
        ({"builder": "without_pairs"}, r"\(numbers, class label\) pairs, but without_pairs/1.2.0 has .* pairs None"),
        ({"builder": "several_sizes"}, r"several_sizes/1.2.0 have no common shape, \[None, None, 3\]; .* image_size"),
        ({"train": "training"}, "train: tiny_images/1.2.0 has no split 'training'; accepted: train, test, and parts"),
        ({"train": "train[:x]"}, r"train: tiny_images/1.2.0 has no split 'train\[:x\]'"),
    ],
)  # fmt: skip
def test_wrong_sets_are_refused(changes, message, root):
    with pytest.raises(InputError, match=message):
        _ = Tfds(**{**GIVEN, **changes}, root=root).info


def test_a_set_that_cannot_be_downloaded_is_refused(tmp_path, monkeypatch):
    def refused(*_):
        raise RuntimeError("no network\nand a long explanation")

    monkeypatch.setattr(tiny_set.TinyImages, "_split_generators", refused)
    with pytest.raises(InputError, match=r"tiny_images/1.2.0 is not in .*, and cannot be downloaded: no network$"):
        prepared(tmp_path, **GIVEN, root=tmp_path)


def test_without_the_package_one_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"tfds needs tensorflow-datasets: pip install 'mimic-keras\[tfds\]'"):
        Tfds(**GIVEN)


def test_a_size_of_nothing_is_refused(root):
    with pytest.raises(ValueError, match=r"image_size: expected a height and a width of at least 1, got \[0, 3\]"):
        Tfds(**GIVEN, root=root, image_size=(0, 3))
