"""Virtual copies against plain slices, SciPy's interpolation, and integers drawn from the same hash."""

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_arrays.images import CROP_STREAMS, Copies
from mimic_keras_cifar.augmentation import draw_fractions, draw_variants
from scipy.ndimage import map_coordinates

IMAGES = np.random.default_rng(0).integers(0, 256, [12, 6, 5, 2], np.uint8)
IDS = np.arange(12, dtype=np.int64)
SEED = 5


def halve(values):
    return tf.cast(values, tf.float32) * 0.5


def varied(copies, copy, ids=IDS):
    number = tf.fill([len(ids)], np.int64(copy))
    return copies(tf.constant(IMAGES[ids]), halve, SEED, number, tf.constant(ids)).numpy()


@pytest.mark.parametrize("copies", [Copies(), Copies(3, True, 2), Copies(2, smallest_crop=0.4)])
def test_the_first_copy_is_the_scaled_image(copies):
    np.testing.assert_array_equal(varied(copies, 0), IMAGES * np.float32(0.5))


def test_the_others_are_mirrored_and_shifted_after_scaling():
    found = varied(Copies(3, mirror=True, shift=2), 2)
    drawn = draw_variants(SEED, tf.fill([12], np.int64(2)), tf.constant(IDS), True, 2)
    mirrored, down, right = (each.numpy() for each in drawn)
    assert set(mirrored) == {False, True}
    for index, image in enumerate(IMAGES):
        image = image[:, ::-1] if mirrored[index] else image
        padded = np.pad(image, [(2, 2), (2, 2), (0, 0)])
        moved = padded[2 - down[index] :, 2 - right[index] :][:6, :5]
        np.testing.assert_array_equal(found[index], moved * np.float32(0.5))


def test_crops_are_windows_interpolated_as_scipy_does():
    found = varied(Copies(2, smallest_crop=0.4), 1)
    streams = tf.constant(CROP_STREAMS, tf.int64)[:, None]
    size, top, left = draw_fractions(SEED, tf.ones_like(IDS), tf.constant(IDS), streams).numpy()
    side = 1 - 0.6 * size
    assert side.min() < 0.6
    assert side.max() > 0.8
    for index, image in enumerate(IMAGES):
        rows = ((1 - side[index]) * top[index] + side[index] * np.linspace(0, 1, 6)) * 5
        columns = ((1 - side[index]) * left[index] + side[index] * np.linspace(0, 1, 5)) * 4
        grid = np.meshgrid(rows, columns, indexing="ij")
        expected = np.stack([map_coordinates(image[..., c].astype(float), grid, order=1) for c in range(2)], -1)
        np.testing.assert_allclose(found[index], expected * 0.5, atol=1e-3)


def test_a_copy_does_not_depend_on_the_batch():
    copies = Copies(2, True, 1, 0.5)
    np.testing.assert_array_equal(varied(copies, 1)[[7, 3]], varied(copies, 1, IDS[[7, 3]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"copies": 0}, "copies must be at least 1, got 0"),
        ({"copies": 2, "shift": -1}, "shift must be at least 0 pixels, got -1"),
        ({"copies": 2, "smallest_crop": 0.0}, "smallest_crop must be above 0 and at most 1, got 0.0"),
        (
            {"copies": 2},
            "copies: 2 with mirror: false, shift: 0, smallest_crop: 1.0; the first copy is the image itself",
        ),
        ({"mirror": True}, "copies: 1 with mirror: true"),
    ],
)
def test_copies_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Copies(**arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8,), r"copies: 2 is for images, \[height, width, channels\], but the inputs are \[8\]"),
        ((4, 3, 1), "shift must be below the image's sides, 4 x 3, got 3"),
    ],
)
def test_copies_of_what_is_no_image_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        Copies(2, shift=3).check_shape(shape)
