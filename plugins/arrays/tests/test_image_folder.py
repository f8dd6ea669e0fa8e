"""Images in class folders, on images that the tests draw."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl import logging as absl_logging
from mimic_keras_arrays.image_folder import ImageFolder

from mimic_keras.contracts import InputError
from plugins.arrays.tests.drawing import CLASSES, draw, encode

SIZE = (6, 5)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn") / "images")


@pytest.fixture
def images(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "images")


@pytest.fixture
def divided(tmp_path):
    """Folders train, validation and test, of two classes."""
    for seed, (name, count) in enumerate({"train": 6, "validation": 2, "test": 2}.items()):
        draw(tmp_path / "divided" / name, count, CLASSES[:2], seed)
    return tmp_path / "divided"


def prepared(path, data_dir=None, **arguments):
    """(data set, fingerprint)"""
    if not (path / "train").exists():
        arguments = {"shares": {"validation": 0.25, "test": 0.25}, **arguments}
    dataset = ImageFolder(path, **{"image_size": SIZE, **arguments})
    folder = data_dir or path.parent / "data"
    folder.mkdir(exist_ok=True)
    return dataset, dataset.prepare(folder)


def all_of(split):
    return split.batch(tf.range(split.num_examples, dtype=tf.int64)).numpy()


def warnings_of(caplog):
    absl_logging.use_absl_handler()
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_pixels_of_the_inputs_size_and_labels_are_those_of_the_files(tmp_path):
    random = np.random.default_rng(0)
    expected = {}
    for label, name in enumerate(("cat", "dog")):
        for number in range(8):
            pixels = random.integers(0, 256, (6, 5, 3), np.uint8)
            file = tmp_path / "images" / name / f"{number}.{('png', 'bmp')[number % 2]}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(pixels, file.suffix[1:]))
            expected[pixels.tobytes()] = label
    dataset, _ = prepared(tmp_path / "images")
    assert dataset.info.class_names == ("cat", "dog")
    assert dataset.info.num_examples == {"train": 8, "validation": 4, "test": 4, "transfer": 8}
    found = {}
    for name in ("train", "validation", "test"):
        split = dataset.split(name)
        pixels = np.round(all_of(split) * 255).astype(np.uint8)
        found |= {row.tobytes(): int(label) for row, label in zip(pixels, split.labels, strict=True)}
    assert found == expected


def test_classes_are_sorted_unless_their_order_is_given(images):
    sorted_by_name, first = prepared(images)
    in_order, other = prepared(images, classes=["star", "circle", "square"])
    assert sorted_by_name.info.class_names == ("circle", "square", "star")
    assert in_order.info.class_names == ("star", "circle", "square")
    assert other != first

    def images_of(dataset, label):
        splits = [dataset.split(name) for name in ("train", "validation", "test")]
        return {row.tobytes() for split in splits for row in all_of(split)[split.labels == label]}

    for label, was in enumerate((2, 0, 1)):
        assert images_of(in_order, label) == images_of(sorted_by_name, was) != set()


def test_classes_that_are_not_the_folders_are_refused(images):
    with pytest.raises(InputError) as caught:
        prepared(images, classes=["star", "circle", "triangle"])
    expected = f"classes: expected those of the class folders of {images}, in any order: circle, square, star"
    assert str(caught.value) == f"{expected}; got star, circle, triangle"


def test_folders_of_splits_are_the_splits(divided):
    dataset, _ = prepared(divided)
    assert dataset.info.num_examples == {"train": 12, "validation": 4, "test": 4, "transfer": 12}
    assert [dataset.split(name).labels.tolist().count(1) for name in ("train", "validation", "test")] == [6, 2, 2]


def test_validation_can_be_drawn_where_only_train_and_test_have_folders(divided):
    shutil.rmtree(divided / "validation")
    dataset, _ = prepared(divided, shares={"validation": 0.5})
    assert dataset.info.num_examples == {"train": 6, "validation": 6, "test": 4, "transfer": 6}
    assert np.bincount(dataset.split("validation").labels).tolist() == [3, 3]


def test_unlabelled_images_follow_the_training_images_in_transfer(images):
    draw(images, 3, ["unlabelled"], seed=9)
    dataset, _ = prepared(images)
    train, transfer = dataset.split("train"), dataset.split("transfer")
    assert transfer.num_examples == train.num_examples + 3
    assert transfer.labels[-3:].tolist() == [-1] * 3
    assert dataset.info.class_names == CLASSES


def test_names_and_places_do_not_matter_but_contents_do(images):
    data_dir = images.parent / "data"
    _, first = prepared(images)
    made = {file: file.stat().st_mtime_ns for file in data_dir.rglob("*.npy")}
    moved = images.rename(images.with_name("moved"))
    (moved / "star" / "1.jpg").rename(moved / "star" / "another.jpg")
    shutil.copy(moved / "star" / "another.jpg", moved / "star" / "again.jpg")  # identical: one example
    (moved / "star" / ".hidden.txt").write_text("no image")
    assert prepared(moved, data_dir)[1] == first
    assert {file: file.stat().st_mtime_ns for file in data_dir.rglob("*.npy")} == made  # nothing is decoded again
    (moved / "star" / "another.jpg").rename(moved / "circle" / "another.jpg")
    (moved / "star" / "again.jpg").unlink()
    relabelled = prepared(moved, data_dir)[1]
    assert relabelled != first
    (moved / "circle" / "another.jpg").write_bytes(encode(np.zeros([4, 4, 3], np.uint8), "png"))
    assert prepared(moved, data_dir)[1] not in (first, relabelled)


@pytest.mark.parametrize(
    "arguments",
    [{"image_size": (5, 5)}, {"resize": "crop"}, {"channels": 1}, {"split_seed": 1}, {"inputs": {"scale": 2.0}},
     {"standardize": True}],
    ids=str,
)  # fmt: skip
def test_every_argument_makes_other_data(arguments, images):
    assert prepared(images)[1] != prepared(images, **arguments)[1]


def test_standardized_channels_have_mean_0_and_deviation_1_over_the_training_images(images):
    rows = all_of(prepared(images, standardize=True)[0].split("train"))
    np.testing.assert_allclose(rows.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std((0, 1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_is_served_as_it_was_prepared(resize, channels, images):
    dataset, _ = prepared(images, resize=resize, channels=channels)
    validation = dataset.split("validation")
    expected = {row.tobytes() for row in all_of(validation)}
    files = [file for file in images.rglob("*") if file.is_file()]
    contents = tf.constant([file.read_bytes() for file in files])
    served = tf.function(dataset.raw_signatures()["serve_encoded"].prepare)(contents).numpy()
    assert served.shape == (len(files), *SIZE, channels)
    assert expected <= {row.tobytes() for row in served}


def test_an_unfinished_preparation_is_done_again(images):
    data_dir = images.parent / "data"
    _, first = prepared(images)
    (place,) = data_dir.iterdir()
    place.rename(place.with_name(f".{place.name}"))
    assert prepared(images)[1] == first
    assert [folder.name for folder in data_dir.iterdir()] == [place.name]


def test_files_that_are_no_images_are_listed_together(images):
    for number in range(11):
        (images / "star" / f"note{number:02}.txt").write_text(f"no image {number}")
    whole = (images / "star" / "1.jpg").read_bytes()
    (images / "star" / "cut.jpg").write_bytes(whole[:100])
    with pytest.raises(InputError) as error:
        prepared(images)
    lines = str(error.value).splitlines()
    assert lines[0] == "path: 12 of 48 files are not usable:"
    assert lines[1].endswith("cut.jpg: no JPEG, PNG, BMP or GIF image that TensorFlow can decode")
    assert (len(lines), lines[-1]) == (12, "  and 2 more")


def test_images_in_two_classes_are_refused(divided):
    shutil.copy(divided / "train" / "square" / "1.jpg", divided / "test" / "circle" / "copy.jpg")
    with pytest.raises(InputError, match=r"path: 1 images are in two classes:\n  .*copy.jpg = .*square/1.jpg$"):
        prepared(divided)


def test_images_in_two_splits_are_reported(divided, caplog):
    shutil.copy(divided / "train" / "square" / "1.jpg", divided / "test" / "square" / "copy.jpg")
    prepared(divided)
    (warning,) = warnings_of(caplog)
    assert "1 images are in several splits, so that results on validation or test are too good:" in warning
    assert warning.endswith(f"{divided}/test/square/copy.jpg = {divided}/train/square/1.jpg")


def test_a_class_without_training_images_is_reported(divided, caplog):
    (divided / "train" / "triangle").mkdir()
    prepared(divided)
    assert warnings_of(caplog) == ["no training example of 1 of 3 classes: triangle"]


def test_unlabelled_images_that_are_held_out_are_refused(divided):
    shutil.copytree(divided / "test", divided / "unlabelled")
    with pytest.raises(
        InputError, match=r"4 images of .*unlabelled are also .*\n  .*test/circle/1.jpg = .*circle/1.jpg"
    ):
        prepared(divided)


def spoil(path, what):
    if what == "no validation":
        shutil.rmtree(path / "validation")
    elif what == "other class":
        draw(path / "test", 1, ["hexagon"])
    elif what == "one class":
        shutil.rmtree(path / "train" / "square")
    elif what == "no images":
        for name in CLASSES[:2]:
            shutil.rmtree(path / "test" / name)
            (path / "test" / name).mkdir()
    else:
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "no validation",
            r"path: no folder validation in .*divided, which has test, train; expected train, validation",
        ),
        ("other class", r"path: .*test has the class folder hexagon, which the training images do not have"),
        ("one class", r"path: expected at least two class folders in .*train, found 1"),
        ("no images", r"path: no images for 'test' in the class folders of .*test"),
        ("nothing", r"path: no such folder: .*divided"),
    ],
)
def test_other_folders_are_refused_before_anything_is_read(what, message, divided):
    spoil(divided, what)
    with pytest.raises(InputError, match=message):
        _ = ImageFolder(divided, SIZE).info


def test_a_split_that_has_a_folder_cannot_be_drawn(divided):
    with pytest.raises(InputError, match=r"has a folder validation, but shares draws validation; remove one of them"):
        _ = ImageFolder(divided, SIZE, shares={"validation": 0.2}).info


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (0, 32)}, r"image_size: expected a height and a width of at least 1, got \[0, 32\]"),
        ({"shares": {"validation": 1.5}}, "shares: validation must be above 0 and below 1, got 1.5"),
        ({"inputs": {"scale": 2.0}, "standardize": True}, "give one of them"),
        ({"copies": 2}, "copies: 2 with mirror: false, shift: 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(Path("images"), **{"image_size": SIZE, **arguments})
