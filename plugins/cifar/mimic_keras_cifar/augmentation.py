"""Mirroring and shifts as a function of (seed, copy, image): the same variant in any batch, on any machine."""

from __future__ import annotations

from typing import Any


def varied(images: Any, seed: int, copies: Any, rows: Any, mirror: bool, shift: int) -> Any:
    """The virtual copies `copies` (int64 [B]) of prepared images (float32 [B, height, width, channels]).

    Copy 0 is the image. Another is mirrored left to right with probability 1/2 if `mirror`, then moved down and to the
    right by whole pixels drawn from -shift to shift; what moves in is 0. `rows` (int64 [B]) says which image it is.
    """
    import tensorflow as tf

    width = images.shape[2]
    is_original = copies == 0
    shift = tf.constant(shift, tf.int64)
    is_mirrored = tf.logical_and(draw(seed, copies, rows, 0, 2) == 1, mirror) & ~is_original
    moves = [tf.where(is_original, shift, draw(seed, copies, rows, axis, 2 * shift + 1)) - shift for axis in (1, 2)]
    down, right = moves[0][:, None], moves[1][:, None]
    padded = tf.pad(images, [[0, 0], [shift, shift], [shift, shift], [0, 0]])
    columns = tf.range(width, dtype=tf.int64)[None] - right
    columns = tf.where(is_mirrored[:, None], width - 1 - columns, columns)
    picked = tf.gather(padded, tf.range(images.shape[1], dtype=tf.int64)[None] - down + shift, axis=1, batch_dims=1)
    return tf.gather(picked, columns + shift, axis=2, batch_dims=1)


def draw(seed: int, copies: Any, rows: Any, stream: int, upper: int) -> Any:
    """int64 [B] from 0 to `upper` - 1, uniform, of each (seed, copy, row, stream): SplitMix64, a hash of a counter.

    Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators". TensorFlow's stateless generators draw
    a whole batch from one seed, so that an example's numbers would follow from its place in the batch.
    """
    import tensorflow as tf

    state = tf.zeros_like(rows, tf.uint64)
    for counter in (seed, stream, copies, rows):
        state = _mixed(state + (tf.cast(counter, tf.uint64) + 1) * tf.constant(0x9E3779B97F4A7C15, tf.uint64))
    high = tf.cast(tf.bitwise.right_shift(state, tf.constant(32, tf.uint64)), tf.int64)
    return tf.bitwise.right_shift(high * upper, tf.constant(32, tf.int64))


def _mixed(value: Any) -> Any:
    import tensorflow as tf

    def folded(value: Any, bits: int) -> Any:
        return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(bits, tf.uint64)))

    value = folded(value, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    value = folded(value, 27) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return folded(value, 31)
