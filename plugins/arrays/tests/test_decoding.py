"""Images of one size, from files of any size, format and number of channels."""

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_arrays.decoding import Decoder

COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 4), np.uint8)


def decoded(pixels, *arguments):
    return Decoder(*arguments)(tf.io.encode_png(pixels)).numpy()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_channels_becomes_three(count):
    pixels = COLOURS[..., :count]
    expected = pixels[..., :3] if count >= 3 else np.repeat(pixels[..., :1], 3, -1)
    np.testing.assert_array_equal(decoded(pixels, 4, 6, 3, "stretch"), expected)


def test_grey_is_the_luma_of_red_green_and_blue():
    expected = np.round(COLOURS[..., :3].astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32))
    np.testing.assert_array_equal(decoded(COLOURS, 4, 6, 1, "stretch"), expected)
    np.testing.assert_array_equal(decoded(COLOURS[..., :1], 4, 6, 1, "stretch"), COLOURS[..., :1])


def test_sixteen_bits_become_eight():
    pixels = np.array([[[0], [256 * 7 + 99], [65535]]], np.uint16)
    assert decoded(pixels, 1, 3, 1, "stretch").ravel().tolist() == [0, 7, 255]


def test_halving_averages_with_the_triangle_filter():
    """Weights 1, 3, 3, 1 of 8 around each centre; at the border, those that are in the image."""
    row = np.array([0, 80, 160, 240, 16, 64], np.uint8)
    expected = [(3 * 0 + 3 * 80 + 160) / 7, (80 + 3 * 160 + 3 * 240 + 16) / 8, (240 + 3 * 16 + 3 * 64) / 7]
    found = decoded(row[None, :, None], 1, 3, 1, "stretch").ravel()
    assert found.tolist() == np.round(expected).tolist()


@pytest.mark.parametrize(
    ("shape", "size", "window"),
    [
        ((4, 6), (2, 2), (slice(0, 4), slice(1, 5))),
        ((6, 4), (2, 2), (slice(1, 5), slice(0, 4))),
        ((4, 6), (4, 3), (slice(0, 4), slice(1, 4))),
        ((4, 6), (2, 3), (slice(0, 4), slice(0, 6))),
        ((1, 6), (50, 1), (slice(0, 1), slice(2, 3))),
    ],
)
def test_crop_takes_the_largest_window_in_the_centre(shape, size, window):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    expected = decoded(np.ascontiguousarray(pixels[window]), *size, 3, "stretch")
    np.testing.assert_array_equal(decoded(pixels, *size, 3, "crop"), expected)


def test_the_first_frame_of_a_gif():
    """One black pixel; the smallest GIF there is."""
    gif = bytes.fromhex("47494638396101000100800000000000ffffff2c00000000010001000002024401003b")
    np.testing.assert_array_equal(Decoder(2, 2, 3, "stretch")(tf.constant(gif)), np.zeros([2, 2, 3]))


def test_a_batch_in_a_graph_has_the_bits_of_single_files_outside():
    decoder = Decoder(3, 2, 3, "crop")
    random = np.random.default_rng(2)
    files = [tf.io.encode_png(random.integers(0, 256, (4 + size, 5, 3), np.uint8)) for size in range(4)]
    found = tf.function(decoder.decode_batch)(tf.stack(files)).numpy()
    np.testing.assert_array_equal(found, [decoder(file) for file in files])
    assert tf.function(decoder.decode_batch)(tf.stack(files)[:0]).shape == (0, 3, 2, 3)
