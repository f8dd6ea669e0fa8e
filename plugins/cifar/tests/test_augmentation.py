"""Mirroring and shifts against plain integers and slices, and how often each of them comes."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_cifar import Cifar10, augmentation
from scipy.stats import chisquare

from plugins.cifar.tests import fake

IMAGES = np.random.default_rng(0).normal(size=[300, 6, 5, 2]).astype(np.float32)
ROWS = np.arange(300, dtype=np.int64)
SEED = 2**31 - 1


def mixed(value):
    """SplitMix64's finaliser (Steele, Lea & Flood 2014, figure 17)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def drawn(seed, copy, row, stream, upper):
    """From 0 to upper - 1: each counter moves the state on by a golden gamma, counter + 1 times."""
    state = 0
    for counter in (seed, stream, copy, row):
        state = mixed((state + (counter + 1) * 0x9E3779B97F4A7C15) % 2**64)
    return (state >> 32) * upper >> 32


def moved(image, down, right):
    """`image` [height, width, channels] moved by whole pixels: padded with 0 on all sides, then sliced."""
    height, width, _ = image.shape
    room = max(abs(down), abs(right))
    padded = np.pad(image, [(room, room), (room, room), (0, 0)])
    return padded[room - down :, room - right :][:height, :width]


def variant(image, seed, copy, row, mirror, shift):
    if copy == 0:
        return image
    if mirror and drawn(seed, copy, row, 0, 2):
        image = image[:, ::-1]
    return moved(image, *(drawn(seed, copy, row, axis, 2 * shift + 1) - shift for axis in (1, 2)))


def varied(copies, mirror=False, shift=0, seed=SEED, rows=ROWS):
    copies = np.broadcast_to(np.asarray(copies, np.int64), len(rows))
    images = tf.constant(IMAGES[rows % len(IMAGES)])
    is_mirrored, *moves = augmentation.draw_variants(seed, tf.constant(copies), tf.constant(rows), mirror, shift)
    return augmentation.move(augmentation.mirror_some(images, is_mirrored), *moves, shift).numpy()


def draws(upper, stream=0, seed=SEED, copy=1, count=20_000):
    rows = tf.range(count, dtype=tf.int64)
    return augmentation.draw_integers(seed, tf.fill([count], tf.constant(copy, tf.int64)), rows, stream, upper).numpy()


# Draws


def test_the_finaliser_gives_splitmix64s_first_numbers():
    # Of Vigna's splitmix64.c from the state 0.
    golden = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    states = [(number + 1) * 0x9E3779B97F4A7C15 % 2**64 for number in range(4)]

    assert [mixed(state) for state in states] == golden
    assert augmentation._mix(tf.constant(states, tf.uint64)).numpy().tolist() == golden


@settings(max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    stream=st.integers(0, 2),
    upper=st.integers(1, 63),
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2**40)), min_size=1, max_size=8),
)
def test_draws_are_those_of_plain_integers(seed, stream, upper, places):
    copies, rows = (tf.constant(values, tf.int64) for values in zip(*places, strict=True))

    found = augmentation.draw_integers(seed, copies, rows, stream, upper)

    assert found.dtype == tf.int64
    assert found.numpy().tolist() == [drawn(seed, copy, row, stream, upper) for copy, row in places]


def test_draws_of_neighbouring_images_are_independent():
    values = draws(5)

    assert chisquare(np.bincount(values[::2] * 5 + values[1::2], minlength=25)).pvalue > 0.001


# Variants


@settings(max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    places=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 299)), min_size=1, max_size=9),
    mirror=st.booleans(),
    shift=st.integers(0, 31),
)
def test_any_variant_is_that_of_slices(seed, places, mirror, shift):
    copies, rows = (np.array(values, np.int64) for values in zip(*places, strict=True))

    found = varied(copies, mirror, shift, seed, rows)

    expected = [variant(IMAGES[row], seed, copy, row, mirror, shift) for copy, row in places]
    np.testing.assert_array_equal(found, expected)


def test_half_of_the_images_are_mirrored():
    found = varied(1, mirror=True)
    mirrored = (found == IMAGES[:, :, ::-1]).all((1, 2, 3))
    same = (found == IMAGES).all((1, 2, 3))

    assert (mirrored ^ same).all()
    # Four standard deviations of 300 throws.
    assert abs(mirrored.sum() - 150) < 4 * 75**0.5


def test_every_shift_comes_equally_often():
    # An image of one white pixel in the middle shows where it has been moved.
    rows = np.arange(20_000, dtype=np.int64)
    image = np.zeros([1, 7, 7, 1], np.float32)
    image[0, 3, 3, 0] = 1
    images = tf.tile(tf.constant(image), [len(rows), 1, 1, 1])
    _, down, right = augmentation.draw_variants(3, tf.ones_like(rows), tf.constant(rows), True, 3)
    found = augmentation.move(images, down, right, 3).numpy()

    assert (found.sum((1, 2, 3)) == 1).all()
    counts = found.sum((0, 3))
    assert chisquare(counts.ravel()).pvalue > 0.001
    assert counts.shape == (7, 7), "each of 7 shifts on each axis"


# Through the data set


@pytest.fixture
def prepare(cifar10, tmp_path):
    root = cifar10.write(tmp_path / "files")

    def made(**arguments):
        data = Cifar10(root, validation=30, **arguments)
        data.prepare(tmp_path)
        return data

    return made


def test_copies_of_a_split_are_variants_of_its_images(cifar10, prepare):
    data = prepare(copies=4, mirror=True, shift=3)
    rows = np.random.RandomState(0).permutation(100)[:70]
    split, plain = data.split("train", seed=9), prepare().split("train").batch(np.arange(70)).numpy()

    found = split.batch(fake.every(split)).numpy()

    assert split.repeats == 4
    expected = [variant(plain[place], 9, copy, int(rows[place]), True, 3) for copy in range(4) for place in range(70)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("labelled", [70, 21])
def test_an_image_has_the_same_variants_in_train_and_transfer(prepare, labelled, tmp_path):
    np.save(tmp_path / "own.npy", np.random.default_rng(3).integers(0, 256, [9, 32, 32, 3], np.uint8))
    data = prepare(copies=3, mirror=True, shift=3, labelled=labelled, unlabelled=tmp_path / "own.npy")
    train, transfer = data.split("train", seed=4), data.split("transfer", seed=4)
    assert (train.num_examples, transfer.num_examples) == (labelled, 79)

    for copy in range(3):
        places = np.arange(labelled)
        ours, theirs = (split.batch(copy * split.num_examples + places).numpy() for split in (train, transfer))
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", ["validation", "test"])
def test_validation_and_test_images_are_never_varied(prepare, name):
    split = prepare(copies=3, mirror=True, shift=3).split(name, seed=5)
    plain = prepare().split(name)

    assert split.repeats == 1
    assert split.batch(fake.every(split)).numpy().tobytes() == plain.batch(fake.every(plain)).numpy().tobytes()


def test_more_copies_leave_the_first_ones_as_they_are(prepare):
    few, many = (prepare(copies=copies, mirror=True, shift=2).split("train", seed=5) for copies in (2, 5))

    np.testing.assert_array_equal(few.batch(np.arange(140)), many.batch(np.arange(140)))


def test_an_image_has_the_same_variants_whatever_is_validated(prepare, cifar10):
    # The variant follows from the image, not from its place in the split.
    one, two = (prepare(copies=2, mirror=True, shift=3, split_seed=seed) for seed in (0, 1))
    rows = [np.random.RandomState(seed).permutation(100)[:70].tolist() for seed in (0, 1)]
    shared = [(rows[0].index(row), rows[1].index(row)) for row in sorted(set(rows[0]) & set(rows[1]))]

    found = [
        data.split("train", seed=1).batch(70 + np.array(places)).numpy()
        for data, places in zip((one, two), zip(*shared, strict=True), strict=True)
    ]

    assert len(shared) > 40
    assert found[0].tobytes() == found[1].tobytes()
