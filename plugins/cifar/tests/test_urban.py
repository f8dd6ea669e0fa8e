"""Colours and crops against the standard library's colorsys and SciPy's splines, and that no bit depends on a batch."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_cifar import Cifar10, augmentation, urban
from mimic_keras_cifar.colours import change_colours
from mimic_keras_cifar.crops import crop
from mimic_keras_cifar.urban import Variation
from scipy.ndimage import map_coordinates
from scipy.stats import chisquare, kstest

from mimic_keras.contracts import SPLITS
from mimic_keras.training.distribution import split_processor
from plugins.cifar.tests import fake
from plugins.cifar.tests.test_augmentation import drawn, moved

COLOURS = {
    "hue_shift": 0.06,
    "saturation_shift": 0.26,
    "value_shift": 0.20,
    "saturation_factor": 0.21,
    "value_factor": 0.13,
}
PROTOCOL = {"mirror": True, "smallest_crop": 24, **COLOURS}
SEED = 6


def to_tensors(*arrays, dtype=tf.float32):
    return [tf.constant(np.asarray(array), dtype) for array in arrays]


def some_images(count, seed=0):
    """float32 [count, 32, 32, 3] from 0 to 1: smooth ones with hard edges, grey, black and white patches."""
    generator = np.random.default_rng(seed)
    images = generator.random([count, 8, 8, 3], np.float32).repeat(4, 1).repeat(4, 2)
    images = np.clip(images + generator.normal(scale=0.05, size=[count, 32, 32, 3]), 0, 1).astype(np.float32)
    images[:, :4, :4] = images[:, :4, :4, :1]
    images[:, 4:6, :4], images[:, 6:8, :4] = 0, 1
    return images


def recoloured(image, hue_shift, saturation_factor, saturation_shift, value_factor, value_shift):
    """`image` [height, width, 3] pixel by pixel."""
    found = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[place].tolist())
        saturation = min(max(saturation * saturation_factor + saturation_shift, 0), 1)
        value = min(max(value * value_factor + value_shift, 0), 1)
        found[place] = colorsys.hsv_to_rgb((hue + hue_shift) % 1, saturation, value)
    return found


def window(image, side, top, left):
    """The window of `image` [32, 32, channels], scaled to 32 x 32 by SciPy, which counts from the first centre."""
    steps = (np.arange(32) + 0.5) * side / 32 - 0.5
    places = np.meshgrid(top + steps, left + steps, indexing="ij")
    channels = np.moveaxis(image.astype(np.float64), 2, 0)
    return np.stack([map_coordinates(channel, places, order=3, mode="mirror") for channel in channels], 2)


# Colours


def test_colours_are_those_of_colorsys():
    images, generator = some_images(12), np.random.default_rng(1)
    ranges = (-0.5, 0.5), (0.3, 3), (-1, 1), (0.3, 3), (-1, 1)
    changes = [generator.uniform(*ends, 12).astype(np.float32) for ends in ranges]

    found = change_colours(*to_tensors(images, *changes))

    assert found.dtype == tf.float32
    expected = [recoloured(image, *map(float, of_image)) for image, *of_image in zip(images, *changes, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((1 / 3, 1, 0, 1, 0), (0.2, 0.8, 0.5)),  # a third of a turn: red becomes green, green blue, blue red
        ((-2 / 3, 1, 0, 1, 0), (0.2, 0.8, 0.5)),
        ((0, 1, 0, 0.5, 0.1), (0.5, 0.3125, 0.125)),  # value 0.8 to 0.5, saturation 0.75 as it was
        ((0, 0, 0, 1, 0), (0.8, 0.8, 0.8)),
        ((0, 9, 0, 1, 0), (0.8, 0.4, 0)),  # the saturation is clipped to 1, hue 30 degrees as it was
        ((0, 1, 0, 9, 0), (1, 0.625, 0.25)),  # the value too
    ],
)
def test_colours_by_hand(changes, expected):
    found = change_colours(*to_tensors([[[[0.8, 0.5, 0.2]]]], *([change] for change in changes)))

    np.testing.assert_allclose(np.ravel(found), expected, atol=1e-6)


def test_every_colour_of_8_bits_survives_no_change():
    levels = np.arange(0, 256, 5)
    images = np.stack(np.meshgrid(levels, levels, levels), -1).astype(np.uint8)
    nothing = to_tensors(*(np.full(len(levels), number) for number in (0, 1, 0, 1, 0)))

    found = change_colours(tf.constant(images, tf.float32) / 255, *nothing).numpy()

    np.testing.assert_array_equal(np.round(found * 255), images)


# Crops


@settings(max_examples=25, derandomize=True)
@given(side=st.floats(1, 32, width=32), top=st.floats(0, 1, width=32), left=st.floats(0, 1, width=32))
def test_any_window_is_scipys(side, top, left):
    image = some_images(1, seed=2)
    side, top, left = (np.float32(number) for number in (side, top * (32 - side), left * (32 - side)))

    found = crop(*to_tensors(image, [side], [top], [left]))

    np.testing.assert_allclose(found[0], window(image[0], *map(float, (side, top, left))), rtol=0, atol=2e-5)


def test_each_image_of_a_batch_has_its_own_window():
    images, generator = some_images(20, seed=3), np.random.default_rng(4)
    side = generator.uniform(24, 32, 20).astype(np.float32)
    top, left = (generator.uniform(0, 32 - side).astype(np.float32) for _ in range(2))

    found = crop(*to_tensors(images, side, top, left))

    expected = [window(*of_image) for of_image in zip(images, side, top, left, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_the_whole_image_is_a_window_that_changes_nothing():
    images = some_images(3)

    found = crop(*to_tensors(images, [32] * 3, [0] * 3, [0] * 3))

    np.testing.assert_allclose(found, images, rtol=0, atol=1e-6)


def test_a_scaled_slope_is_a_slope():
    # The spline reproduces polynomials, away from the mirrored ends.
    slope = np.broadcast_to(2.0 * np.arange(32)[:, None, None], [32, 32, 1])

    found = crop(*to_tensors([slope], [16], [8], [8]))

    expected = 2 * (8 + (np.arange(32) + 0.5) / 2 - 0.5)
    np.testing.assert_allclose(found[0, :, 5, 0], expected, rtol=0, atol=1e-3)


# Draws


def varied_places(count=20_000, copy=3):
    return tf.fill([count], tf.constant(copy, tf.int64)), tf.range(count, dtype=tf.int64)


def test_draws_are_fractions_of_whole_numbers():
    copies, rows = varied_places(30)

    found = augmentation.draw_fractions(SEED, copies, rows, tf.constant([[3], [9]])).numpy()

    expected = [[drawn(SEED, 3, row, stream, 2**24) / 2**24 for row in range(30)] for stream in (3, 9)]
    assert found.dtype == np.float32
    assert found.tolist() == expected


def test_colours_are_drawn_uniformly_from_the_papers_ranges():
    changes = np.stack(Variation(**COLOURS).draw_colours(SEED, *varied_places()))

    ranges = (-0.06, 0.06), (1 / 1.21, 1.21), (-0.26, 0.26), (1 / 1.13, 1.13), (-0.20, 0.20)
    for values, (low, high) in zip(changes, ranges, strict=True):
        assert low - 1e-6 <= values.min() < values.max() <= high + 1e-6
        assert kstest(values, "uniform", (low, high - low)).pvalue > 0.001
    assert np.abs(np.corrcoef(changes) - np.eye(5)).max() < 4 / 20_000**0.5


def test_windows_are_drawn_uniformly_and_lie_in_the_image():
    side, top, left = (values.numpy() for values in Variation(smallest_crop=24).draw_windows(SEED, *varied_places()))

    for values in (side, top, left):
        np.testing.assert_array_equal(values, np.round(values))
    assert chisquare(np.bincount(side.astype(int), minlength=33)[24:]).pvalue > 0.001
    for start in (top, left):
        for size in range(24, 33):
            counts = np.bincount(start[side == size].astype(int))
            assert len(counts) == 33 - size
            assert size == 32 or chisquare(counts).pvalue > 0.001
    inner = side < 32
    places = [(start / np.maximum(32 - side, 1))[inner] for start in (top, left)]
    assert np.abs(np.corrcoef([side[inner], *places]) - np.eye(3)).max() < 4 / inner.sum() ** 0.5


@settings(max_examples=40, derandomize=True)
@given(
    smallest=st.one_of(st.none(), st.integers(1, 32)),
    seed=st.integers(0, 2**31 - 1),
    places=st.lists(st.tuples(st.integers(0, 159), st.integers(0, 2**40)), min_size=1, max_size=9),
)
def test_any_drawn_window_lies_in_the_image(smallest, seed, places):
    copies, rows = to_tensors(*zip(*places, strict=True), dtype=tf.int64)

    side, top, left = (values.numpy() for values in Variation(smallest).draw_windows(seed, copies, rows))

    assert ((side >= (smallest or 32)) & (side <= 32)).all()
    for start in (top, left):
        assert ((start >= 0) & (start + side <= 32)).all()


def test_streams_are_no_ones_but_theirs():
    streams = [0, 1, 2, *urban.COLOUR_STREAMS, *urban.WINDOW_STREAMS]

    assert len(set(streams)) == 11


# Through the data set


def made(folder, **arguments):
    with pytest.MonkeyPatch.context() as patch:
        small = fake.take_the_place_of(Cifar10, patch)
        root = folder / "files" / small.layout.folder
        data = Cifar10(root if root.exists() else small.write(folder / "files"), validation=30, **arguments)
        data.prepare(folder)
    return data, small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("urban")


@pytest.fixture(scope="module")
def small(folder):
    return made(folder)[1]


@pytest.fixture(scope="module")
def split(folder):
    data, _ = made(folder, copies=4, **PROTOCOL)
    return data.split("train", seed=SEED)


@pytest.fixture(scope="module")
def expected(split):
    """{id: the bytes of its example}, in batches of one size."""
    return [image.tobytes() for image in split.batch(tf.constant(fake.every(split))).numpy()]


def check(expected, ids, images):
    assert [image.tobytes() for image in np.asarray(images)] == [expected[place] for place in ids]


@pytest.mark.parametrize(
    "arguments",
    [{"smallest_crop": 24, **COLOURS}, COLOURS, {"smallest_crop": 20}, {"hue_shift": 0.5}, {"value_factor": 0.5}],
)
def test_copies_are_coloured_then_crop(small, arguments):
    variation, rows = Variation(**arguments), np.arange(0, 100, 9)
    images, places = small.images[rows], to_tensors(np.full(len(rows), 7), rows, dtype=tf.int64)
    changes, cuts = (
        np.stack(values, 1).astype(np.float64)
        for values in (variation.draw_colours(SEED, *places), variation.draw_windows(SEED, *places))
    )

    found = variation(tf.constant(images), SEED, *places)

    assert found.dtype == tf.uint8
    chosen = zip(images / 255, changes, cuts, strict=True)
    expected = np.stack([window(recoloured(image, *changed), *cut) for image, changed, cut in chosen])
    # In steps of the 255: half of one for rounding, and what float32 adds.
    np.testing.assert_allclose(found, np.clip(expected, 0, 1) * 255, rtol=0, atol=0.505)


@pytest.mark.parametrize("moves", [{"mirror": True, "smallest_crop": 24}, {"mirror": True, "shift": 3}, {"shift": 31}])
def test_copies_are_then_mirrored_standardised_and_shifted(folder, small, moves):
    data, _ = made(folder, copies=3, **moves, **COLOURS)
    rows = np.random.RandomState(0).permutation(100)[:70]
    mirror, shift = moves.get("mirror", False), moves.get("shift", 0)

    found = data.split("train", seed=SEED).batch(np.arange(140, 210)).numpy()

    varied = data.variation(tf.constant(small.images[rows]), SEED, *to_tensors([2] * 70, rows, dtype=tf.int64)).numpy()
    mirrors = np.array([mirror and drawn(SEED, 2, int(row), 0, 2) for row in rows], bool)
    varied[mirrors] = varied[mirrors, :, ::-1]
    paths = [[drawn(SEED, 2, int(row), axis, 2 * shift + 1) - shift for axis in (1, 2)] for row in rows]
    expected = [moved(image, *path) for image, path in zip(fake.standardized(varied), paths, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_the_first_copy_is_the_image(folder, split):
    plain, _ = made(folder)

    found = split.batch(np.arange(70)).numpy()

    assert found.tobytes() == plain.split("train").batch(np.arange(70)).numpy().tobytes()


def test_other_copies_differ_from_the_image_and_each_other(expected):
    assert len(set(expected)) == 280


def test_a_seed_gives_the_same_copies_again_and_another_one_others(folder, split, expected):
    again, _ = made(folder, copies=160, **PROTOCOL)
    ids = fake.every(split)

    check(expected, ids, again.split("train", seed=SEED).batch(ids))
    other = again.split("train", seed=SEED + 1).batch(ids).numpy()
    same = [image.tobytes() == known for image, known in zip(other, expected, strict=True)]
    assert same == [True] * 70 + [False] * 210


def test_160_copies_are_160_passes(folder):
    data, _ = made(folder, copies=160, **PROTOCOL)
    splits = {name: data.split(name) for name in SPLITS}

    assert {name: data.info.num_examples[name] for name in ("train", "transfer")} == {
        "train": 11_200,
        "transfer": 11_200,
    }
    assert [splits[name].repeats for name in SPLITS] == [160, 1, 1, 160]
    ids = np.array([11_199, 0])
    train, transfer = (splits[name].batch(ids).numpy() for name in ("train", "transfer"))
    assert train.shape == (2, 32, 32, 3)
    assert train.tobytes() == transfer.tobytes()


@pytest.mark.parametrize("name", ["validation", "test"])
def test_validation_and_test_images_stay_as_they_are(folder, name):
    varied, plain = (made(folder, **arguments)[0].split(name, SEED) for arguments in ({"copies": 2, **PROTOCOL}, {}))

    ids = fake.every(plain)
    assert varied.batch(ids).numpy().tobytes() == plain.batch(ids).numpy().tobytes()


# Bits


@pytest.mark.parametrize("size", [1, 2, 7, 64, 512])
def test_an_id_gives_the_same_bits_in_batches_of_any_size(split, expected, size):
    # Ids come several times, in no order.
    ids = np.random.default_rng(size).integers(0, 280, min(10 * size, 600))
    in_graph = tf.function(split.batch, input_signature=[tf.TensorSpec([None], tf.int64)])

    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        check(expected, part, split.batch(tf.constant(part)))
        check(expected, part, in_graph(tf.constant(part)))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 512])
def test_nor_do_values_before_they_are_rounded_depend_on_the_batch(size):
    images = tf.constant(some_images(512, seed=5))
    copies, rows = varied_places(512)
    variation = Variation(smallest_crop=24, **COLOURS)

    def varied(images, rows):
        places = SEED, copies[: tf.size(rows)], rows
        return crop(change_colours(images, *variation.draw_colours(*places)), *variation.draw_windows(*places))

    in_graph = tf.function(varied, input_signature=[tf.TensorSpec([None, 32, 32, 3]), tf.TensorSpec([None], tf.int64)])
    known = varied(images, rows).numpy()

    for start in range(0, min(8 * size, 512), size):
        part = slice(start, start + size)
        for function in (varied, in_graph):
            assert function(images[part], rows[part]).numpy().tobytes() == known[part].tobytes()


def test_none_gives_none(split):
    assert split.batch(tf.zeros([0], tf.int64)).shape == (0, 32, 32, 3)


def test_two_devices_are_given_the_same_bits(split, expected):
    strategy = tf.distribute.MirroredStrategy(
        split_processor(4)[:2], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    parts = tf.constant(np.random.default_rng(1).permutation(280)[:66].reshape(2, 33))
    ids = strategy.experimental_distribute_values_from_function(lambda context: parts[context.replica_id_in_sync_group])

    images = strategy.experimental_local_results(strategy.run(tf.function(split.batch), (ids,)))

    for part, values in zip(parts.numpy(), images, strict=True):
        check(expected, part, values)


# Arguments


MORE = "so augmentation needs copies above 1, and copies above 1 need one of mirror, shift, " + ", ".join(
    Variation.__dataclass_fields__
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smallest_crop": 0}, "smallest_crop must be from 1 to 32 pixels, got 0"),
        ({"smallest_crop": 33, "copies": 2}, "smallest_crop must be from 1 to 32 pixels, got 33"),
        ({"hue_shift": -0.1}, "hue_shift must be from 0 to 0.5, got -0.1"),
        ({"hue_shift": 0.51}, "hue_shift must be from 0 to 0.5, got 0.51"),
        ({"hue_shift": float("nan")}, "hue_shift must be from 0 to 0.5, got nan"),
        *(
            ({name: wrong, "copies": 2}, f"{name} must be from 0 to {largest}, got {wrong}")
            for name, largest in (
                ("saturation_shift", 1),
                ("value_shift", 1),
                ("saturation_factor", 9),
                ("value_factor", 9),
            )
            for wrong in (-1e-9, largest + 0.5, float("inf"))
        ),
        *(
            (
                {"copies": copies, **arguments},
                f"copies: {copies} with mirror: false and shift: 0{told}; the first copy is the image itself, {MORE}",
            )
            for copies, arguments, told in (
                (1, {"smallest_crop": 24}, " and smallest_crop: 24"),
                (1, {"value_factor": 0.1, "hue_shift": 0.2}, " and hue_shift: 0.2 and value_factor: 0.1"),
                (2, {"smallest_crop": 32}, ""),
                (2, {"hue_shift": 0.0}, ""),
            )
        ),
        (
            {"copies": 2, "shift": 3, "smallest_crop": 24},
            "shift: 3 with smallest_crop: 24; both move the image: give one of them",
        ),
        *(
            (
                {"copies": 2, "preparation": "zca", "mirror": True, **{name: value}},
                f"preparation: zca with mirror: true and shift: 0 and {name}: {value}; its statistics are of unchanged "
                "images, so that it only allows mirror and shift; preparation: standardize allows everything",
            )
            for name, value in (("smallest_crop", 24), ("saturation_factor", 0.2))
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=r"\d") as caught:
        Cifar10(**arguments)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ({"smallest_crop": 32}, {}),
        ({"smallest_crop": 32, "shift": 3, "copies": 2}, {}),
        ({"smallest_crop": 1, "copies": 2}, {"smallest_crop": 1}),
        ({"hue_shift": 0.5, "copies": 2}, {"hue_shift": 0.5}),
        ({"saturation_shift": 1, "value_shift": 1, "copies": 2}, {"saturation_shift": 1, "value_shift": 1}),
        ({"saturation_factor": 9, "value_factor": 9, "copies": 2}, {"saturation_factor": 9, "value_factor": 9}),
        ({"preparation": "zca", "smallest_crop": 32, "copies": 2, "mirror": True}, {}),
        ({"copies": 160, **PROTOCOL}, {"smallest_crop": 24, **COLOURS}),
    ],
)
def test_arguments_at_the_ends_of_their_ranges_are_accepted(arguments, given):
    assert Cifar10(**arguments).variation.given == given
