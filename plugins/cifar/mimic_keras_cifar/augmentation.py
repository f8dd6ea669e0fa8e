"""Mirroring and shifts as a function of (seed, copy, image): the same in every batch, on every machine."""

from __future__ import annotations

from typing import Any


def draw_variants(seed: int, copies: Any, rows: Any, mirror: bool, shift: int) -> tuple[Any, Any, Any]:
    """How copy `copies[b]` of image `rows[b]` (both int64 [B]) differs from the image: (is mirrored, down, right).

    Copy 0 is the image. The others are mirrored with probability 1/2 if `mirror` (bool [B]), then moved down and right
    by whole pixels from -shift to shift (int64 [B] each).
    """
    import tensorflow as tf

    largest = tf.constant([[int(mirror)], [2 * shift], [2 * shift]], tf.int64)
    drawn = draw_integers(seed, copies, rows, tf.constant([[0], [1], [2]]), largest + 1)  # [3, B]
    drawn -= tf.constant([[0], [shift], [shift]], tf.int64)
    is_mirrored, down, right = tf.unstack(tf.where(copies == 0, tf.zeros_like(drawn), drawn))
    return is_mirrored == 1, down, right


def mirror_some(images: Any, is_mirrored: Any) -> Any:
    """Mirror images [B, height, width, channels] of any dtype left to right where `is_mirrored` (bool [B])."""
    import tensorflow as tf

    count = tf.size(is_mirrored)
    # TensorFlow reverses the second of three dimensions several times faster than the third of four.
    reversed_rows = tf.reverse(tf.reshape(images, [-1, *images.shape[2:]]), [1])
    both = tf.concat([images, tf.reshape(reversed_rows, tf.shape(images))], 0)
    return tf.gather(both, tf.range(count) + count * tf.cast(is_mirrored, tf.int32))


def move(images: Any, down: Any, right: Any, shift: int) -> Any:
    """Move images [B, height, width, channels] by `down` and `right` pixels (int64 [B], -shift to shift); fill with 0.

    Each row of a moved image is a contiguous piece of a row of the padded image. The pieces are the odd rows of a
    ragged tensor (its even rows are the gaps), so that they are copied whole; `tf.gather` would copy pixel by pixel.
    """
    import tensorflow as tf

    _, height, width, channels = images.shape
    tall, wide = height + 2 * shift, width + 2 * shift
    lines = tf.reshape(images, [-1, height, width * channels])
    padded = tf.pad(lines, [[0, 0], [shift, shift], [shift * channels, shift * channels]])
    count = tf.size(down, tf.int64)
    first = tf.range(count) * tall + shift - down
    starts = (first[:, None] + tf.range(height, dtype=tf.int64)) * wide + (shift - right)[:, None]
    edges = tf.reshape(tf.stack([starts, starts + width], 2), [-1])
    splits = tf.concat([[0], edges, [count * tall * wide]], 0)
    pieces = tf.RaggedTensor.from_row_splits(tf.reshape(padded, [-1, channels]), splits, validate=False)
    return tf.reshape(tf.gather(pieces, tf.range(1, pieces.nrows(), 2)).flat_values, tf.shape(images))


def draw_integers(seed: int, copies: Any, rows: Any, stream: Any, upper: Any) -> Any:
    """Uniform int64 from 0 to `upper` - 1, a function of (seed, copy, row, stream).

    The arguments broadcast: `copies` and `rows`, int64 [B], with `stream` and `upper`, [3, 1], give [3, B].

    SplitMix64, a hash of a counter: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".
    TensorFlow's stateless generators draw a whole batch from one seed, so that an example's numbers would depend on its
    position in the batch.
    """
    import tensorflow as tf

    state = tf.zeros_like(rows, tf.uint64)
    for counter in (seed, stream, copies, rows):
        state = _mix(state + (tf.cast(counter, tf.uint64) + 1) * tf.constant(0x9E3779B97F4A7C15, tf.uint64))
    high = tf.cast(tf.bitwise.right_shift(state, tf.constant(32, tf.uint64)), tf.int64)
    return tf.bitwise.right_shift(high * upper, tf.constant(32, tf.int64))


def draw_fractions(seed: int, copies: Any, rows: Any, stream: Any) -> Any:
    """Uniform float32 from 0 to 1, 1 excluded: multiples of 2 ** -24; arguments as for `draw_integers`."""
    import tensorflow as tf

    return tf.cast(draw_integers(seed, copies, rows, stream, 2**24), tf.float32) * 2.0**-24


def _mix(value: Any) -> Any:
    import tensorflow as tf

    def fold(value: Any, bits: int) -> Any:
        return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(bits, tf.uint64)))

    value = fold(value, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    value = fold(value, 27) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return fold(value, 31)
