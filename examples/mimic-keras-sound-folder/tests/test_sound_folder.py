"""The data set keeps its contract, on images that the tests draw."""

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_image_folder import ImageFolder
from PIL import Image

from mimic_keras.contracts import InputError
from mimic_keras.testing import conformance

CLASSES = ("circle", "square", "star")


def draw(folder, count=20, classes=CLASSES, size=(12, 10), seed=0):
    """Random images, `count` of each class, half of them PNG and half of them BMP."""
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name / "more").mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (*size, 3), np.uint8)
            place = folder / name / ("more" if number % 3 == 0 else "") / f"{number}.{('png', 'bmp')[number % 2]}"
            Image.fromarray(pixels).save(place)
    return folder


def images(folder):
    """What an experiment would write, and the files that it names."""
    draw(folder / "images")
    draw(folder / "extra", 5, ["any"], seed=1)
    arguments = {"root": str(folder / "images"), "unlabelled": str(folder / "extra")}
    return {**arguments, "height": 8, "width": 6, "validation": 0.2, "test": 0.2}


test_conformance = conformance("mimic-keras-image-folder", {"dataset/image_folder": images})


def prepared(folder, **arguments):
    dataset = ImageFolder(folder, **{"height": 12, "width": 10, **arguments})
    dataset.prepare(folder)
    return dataset


def all_of(split):
    return split.batch(tf.range(split.num_examples, dtype=tf.int64)).numpy()


def test_pixels_and_labels_are_those_of_the_files(tmp_path):
    dataset = prepared(draw(tmp_path / "images"))
    found = {}
    for name in ("train", "validation", "test"):
        split = dataset.split(name)
        for row, label in zip(all_of(split), split.labels, strict=True):
            found[row.tobytes()] = label
    assert len(found) == 60
    for label, name in enumerate(CLASSES):
        for file in (tmp_path / "images" / name).rglob("*.*"):
            pixels = np.asarray(Image.open(file), np.float32) / np.float32(127.5) - np.float32(1)
            assert found[pixels.tobytes()] == label


def test_copies_of_an_image_are_in_one_split_and_adding_images_moves_none(tmp_path):
    folder = draw(tmp_path / "images")
    before = {name: {row.tobytes() for row in all_of(prepared(folder).split(name))} for name in ("train", "test")}
    for file in list(folder.rglob("*.png")):
        file.with_name(f"copy of {file.name}").write_bytes(file.read_bytes())
    draw(tmp_path / "new", 10, seed=5)
    (tmp_path / "new" / "star").rename(folder / "star" / "new")
    dataset = prepared(folder)
    after = {name: {row.tobytes() for row in all_of(dataset.split(name))} for name in ("train", "test")}
    assert before["train"] <= after["train"]
    assert before["test"] <= after["test"]
    assert not after["train"] & after["test"]


def test_unlabelled_images_join_the_transfer_set_behind_the_training_images(tmp_path):
    dataset = prepared(draw(tmp_path / "images"), unlabelled=draw(tmp_path / "extra", 4, ["any"], seed=1))
    train, transfer = dataset.split("train"), dataset.split("transfer")
    assert transfer.num_examples == train.num_examples + 4
    assert transfer.labels[-4:].tolist() == [-1] * 4


def test_unlabelled_images_that_are_held_out_are_refused(tmp_path):
    folder = draw(tmp_path / "images")
    with pytest.raises(InputError, match=r"unlabelled: \d+ of the 60 images of .* are validation or test images"):
        prepared(folder, unlabelled=folder)


def test_files_that_are_no_images_are_listed(tmp_path):
    folder = draw(tmp_path / "images")
    (folder / "star" / "broken.png").write_bytes(b"no image")
    (folder / "star" / "0.jpg").write_bytes((folder / "star" / "1.bmp").read_bytes()[:100])
    with pytest.raises(InputError, match=r"2 of 62 files cannot be read as images:\n  .*0.jpg: .*\n  .*broken.png: "):
        prepared(folder)


def test_a_root_without_classes_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a folder with one folder per class, got"):
        prepared(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"expected at least two class folders in .*, found 1"):
        prepared(draw(tmp_path / "images", classes=["one"]))


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="falls into '"):
        prepared(draw(tmp_path / "images", 1, ["a", "b"]))


@pytest.mark.parametrize("arguments", [{"height": 0}, {"validation": 0.0}, {"validation": 0.5, "test": 0.5}])
def test_wrong_arguments(arguments, tmp_path):
    with pytest.raises(ValueError, match="must be"):
        ImageFolder(tmp_path, **arguments)


def test_grey_images_have_one_channel(tmp_path):
    dataset = prepared(draw(tmp_path / "images"), grey=True)
    assert dataset.info.input_shape == (12, 10, 1)
    assert all_of(dataset.split("test")).shape[1:] == (12, 10, 1)
