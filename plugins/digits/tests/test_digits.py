"""The digits against scikit-learn's own arrays, and their shifts against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_digits import Digits
from sklearn.datasets import load_digits

from mimic_keras.contracts import SPLITS, ArraySplit

SIZES = {"train": 1097, "validation": 350, "test": 350, "transfer": 1097}
STARTS = {"train": 0, "validation": 1097, "test": 1447, "transfer": 0}


@pytest.fixture(scope="module")
def raw():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def shifted():
    return Digits(copies=3, shift=2).split("train", seed=11)


def every(split):
    return np.arange(split.num_examples * split.repeats, dtype=np.int64)


def moved(image, down, right):
    """`image` [8, 8, 1] moved by whole pixels, the border filled with 0."""
    found = np.zeros_like(image)
    for row in range(8):
        for column in range(8):
            if 0 <= row - down < 8 and 0 <= column - right < 8:
                found[row, column] = image[row - down, column - right]
    return found


def offsets(seed, ids, largest):
    """Pairs drawn one after the other, in the order of the ids; those of copy 0 are drawn and not used."""
    drawn = np.random.default_rng(seed).integers(-largest, largest + 1, (ids.max() + 1, 2), np.int32)
    return drawn[ids]


@pytest.mark.parametrize("name", SPLITS)
def test_splits_are_consecutive_parts_of_sklearns_file(name, raw):
    pixels, digits = raw
    part = slice(STARTS[name], STARTS[name] + SIZES[name])

    split = Digits().split(name)

    assert (split.num_examples, split.repeats) == (SIZES[name], 1)
    images = split.batch(every(split)).numpy()
    assert images.dtype == np.float32
    assert images.shape == (SIZES[name], 8, 8, 1)
    np.testing.assert_array_equal(images.astype(np.float64), pixels[part].reshape(-1, 8, 8, 1) / 16)
    assert split.labels.dtype == np.int32
    np.testing.assert_array_equal(split.labels, digits[part])


def test_no_image_is_in_two_splits_or_twice_in_one():
    # All 1,797 images of the file differ from each other.
    splits = {name: Digits().split(name) for name in ("train", "validation", "test")}
    contents = {
        name: [image.tobytes() for image in split.batch(every(split)).numpy()] for name, split in splits.items()
    }

    assert {name: len(set(images)) for name, images in contents.items()} == {
        "train": 1097,
        "validation": 350,
        "test": 350,
    }
    assert len(set().union(*contents.values())) == 1797


def test_every_split_has_every_class_in_nearly_equal_numbers():
    # The counts of the file, so that another order or edition of the data is noticed.
    counts = {name: np.bincount(Digits().split(name).labels).tolist() for name in ("train", "validation", "test")}

    assert counts == {
        "train": [109, 110, 108, 113, 109, 111, 111, 109, 107, 110],
        "validation": [35, 36, 35, 34, 36, 35, 34, 35, 35, 35],
        "test": [34, 36, 34, 36, 36, 36, 36, 35, 32, 35],
    }


def test_pixels_are_from_0_to_1_and_reach_both():
    split = Digits().split("train")
    images = split.batch(every(split)).numpy()

    assert (images.min(), images.max()) == (0.0, 1.0)


@pytest.mark.parametrize("name", SPLITS)
def test_info_says_what_the_splits_hold(name):
    data = Digits()
    info, split = data.info, data.split(name)

    assert (info.name, info.version) == ("digits", "1")
    assert info.num_examples[name] == split.num_examples
    assert split.batch(every(split)[:2]).shape[1:] == info.input_shape == (8, 8, 1)
    assert info.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert info.num_classes == 10 == len(set(split.labels.tolist()))


def test_info_counts_virtual_copies():
    assert Digits(copies=3).info.num_examples == {"train": 3291, "validation": 350, "test": 350, "transfer": 3291}


@pytest.mark.parametrize(("name", "repeats"), [("train", 3), ("transfer", 3), ("validation", 1), ("test", 1)])
def test_only_train_and_transfer_have_copies(name, repeats):
    split = Digits(copies=3).split(name)

    assert (split.num_examples, split.repeats, len(split.labels)) == (SIZES[name], repeats, SIZES[name])


@pytest.mark.parametrize("name", ["validation", "test"])
def test_validation_and_test_are_never_shifted(name):
    split, plain = Digits(copies=3, shift=3).split(name, seed=4), Digits().split(name)

    np.testing.assert_array_equal(split.batch(every(split)), plain.batch(every(plain)))


def test_transfer_is_train_with_the_same_copies():
    data = Digits(copies=2)
    train, transfer = data.split("train", seed=3), data.split("transfer", seed=3)

    ids = every(train)[::7]

    np.testing.assert_array_equal(transfer.batch(ids), train.batch(ids))
    np.testing.assert_array_equal(transfer.labels, train.labels)


def test_copy_0_is_the_image_itself(shifted):
    plain = Digits().split("train")

    np.testing.assert_array_equal(shifted.batch(np.arange(1097)), plain.batch(np.arange(1097)))


@pytest.mark.parametrize(("largest", "seed"), [(1, 0), (2, 11), (7, 2**40)])
def test_copies_are_moved_by_offsets_drawn_from_seed_and_id(raw, largest, seed):
    split = Digits(copies=3, shift=largest).split("train", seed=seed)
    ids = np.concatenate([[1097, 2194, 3290], np.random.default_rng(0).integers(1097, 3291, 200)])
    images = (raw[0].reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    drawn = offsets(seed, ids, largest)

    found = split.batch(tf.constant(ids)).numpy()

    wanted = [moved(images[id_ % 1097], *by) for id_, by in zip(ids, drawn, strict=True)]
    np.testing.assert_array_equal(found, wanted)
    # The offsets take each value of their range along each axis.
    assert {int(by) for by, _ in drawn} == {int(by) for _, by in drawn} == set(range(-largest, largest + 1))


def test_more_copies_leave_the_first_ones_as_they_are():
    few, many = (Digits(copies=copies, shift=2).split("train", seed=5) for copies in (2, 5))
    ids = np.arange(2 * 1097)

    np.testing.assert_array_equal(few.batch(ids), many.batch(ids))


def test_another_seed_gives_other_shifts_of_the_same_images():
    data, ids = Digits(copies=2, shift=2), np.arange(1097, 1197)
    one, same, other = (data.split("train", seed=seed).batch(ids).numpy() for seed in (1, 1, 2))

    np.testing.assert_array_equal(one, same)
    # 24 of 25 pairs of draws differ on average.
    assert np.mean(np.any(one != other, axis=(1, 2, 3))) > 0.8


def test_no_shift_leaves_every_copy_as_it_is():
    split, plain = Digits(copies=2, shift=0).split("train", seed=1), Digits().split("train")

    np.testing.assert_array_equal(split.batch(np.arange(1097, 1397)), plain.batch(np.arange(300)))


@settings(max_examples=15, derandomize=True)
@given(ids=st.lists(st.integers(0, 3 * 1097 - 1), min_size=1, max_size=20))
def test_an_id_gives_the_same_bits_in_any_batch(shifted, ids):
    found = shifted.batch(tf.constant(ids, tf.int64)).numpy()

    for id_, image in zip(ids, found, strict=True):
        assert image.tobytes() == shifted.batch(tf.constant([id_], tf.int64)).numpy()[0].tobytes()


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_an_id_gives_the_same_bits_eagerly_in_a_graph_and_in_a_pipeline(shifted, size):
    ids = np.random.default_rng(size).permutation(3 * 1097)[:200].astype(np.int64)
    eager = shifted.batch(tf.constant(ids)).numpy()

    in_graph = tf.function(shifted.batch, input_signature=[tf.TensorSpec([None], tf.int64)])
    pieces = [in_graph(tf.constant(ids[start : start + size])).numpy() for start in range(0, 200, size)]
    pipeline = tf.data.Dataset.from_tensor_slices(ids).batch(size).map(shifted.batch, num_parallel_calls=2)

    assert np.concatenate(pieces).tobytes() == eager.tobytes()
    assert np.concatenate(list(pipeline.as_numpy_iterator())).tobytes() == eager.tobytes()


def test_an_empty_batch_is_empty(shifted):
    assert shifted.batch(tf.zeros([0], tf.int64)).shape == (0, 8, 8, 1)


def test_global_seeds_change_nothing(shifted):
    ids = np.arange(1097, 1197)
    tf.random.set_seed(1)
    one = shifted.batch(ids).numpy()
    tf.random.set_seed(2)

    np.testing.assert_array_equal(shifted.batch(ids), one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"copies": 0}, "copies must be at least 1, got 0"),
        ({"copies": -2}, "copies must be at least 1, got -2"),
        ({"shift": -1}, "shift must be from 0 to 7 pixels, got -1"),
        ({"shift": 8}, "shift must be from 0 to 7 pixels, got 8"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Digits(**arguments)


def test_an_unknown_split_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match=r"^no split 'dev'; accepted: train, validation, test, transfer$"):
        Digits().split("dev")


def test_prepare_gives_one_digest_and_writes_nothing(tmp_path):
    folder = tmp_path / "data"
    digests = {Digits().prepare(folder), Digits().prepare(folder), Digits(copies=3, shift=2).prepare(folder)}

    assert len(digests) == 1
    assert len(digests.pop()) == 64
    assert list(tmp_path.iterdir()) == []


def test_the_digest_is_of_the_images_and_labels(tmp_path, monkeypatch):
    pixels, digits = load_digits(return_X_y=True)
    before = Digits().prepare(tmp_path)

    def changed(pixel, label):
        other = pixels.copy(), digits.copy()
        other[0][1796, 63] += pixel
        other[1][1796] += label
        monkeypatch.setattr("sklearn.datasets.load_digits", lambda **_: other)
        return Digits().prepare(tmp_path)

    assert changed(0, 0) == before
    assert len({before, changed(1, 0), changed(0, 1)}) == 3


def test_array_split_refuses_labels_of_another_length():
    with pytest.raises(ValueError, match=r"^3 inputs but 2 labels$"):
        ArraySplit(np.zeros([3, 4]), np.zeros([2]))


@pytest.mark.parametrize("repeats", [0, -1])
def test_array_split_refuses_less_than_one_copy(repeats):
    with pytest.raises(ValueError, match=f"^repeats must be at least 1, got {repeats}$"):
        ArraySplit(np.zeros([3, 4]), repeats=repeats)


def test_array_split_without_labels_and_prepare_is_unlabelled_and_cast():
    rows = np.array([[0, 255], [7, 8], [1, 2]], np.uint8)
    split = ArraySplit(rows, repeats=2)

    found = split.batch(tf.constant([5, 0, 1], tf.int64))

    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, [[1, 2], [0, 255], [7, 8]])
    assert (split.num_examples, split.repeats) == (3, 2)
    assert split.labels.dtype == np.int32
    np.testing.assert_array_equal(split.labels, [-1, -1, -1])
