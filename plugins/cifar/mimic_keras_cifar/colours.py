"""Change hue, saturation and value image by image: Smith 1978, "Color gamut transform pairs"."""

from __future__ import annotations

from typing import Any


def change_colours(
    images: Any, hue_shift: Any, saturation_factor: Any, saturation_shift: Any, value_factor: Any, value_shift: Any
) -> Any:
    """Images float32 [B, height, width, 3], red, green and blue from 0 to 1, to the same shape and range.

    All other arguments are float32 [B]. Hue + hue_shift is in turns and wraps modulo 1; saturation and value are
    multiplied by their factor, shifted and clipped to [0, 1]. Grey has hue 0 (red); black also has saturation 0.

    Uses only elementwise operations that IEEE 754 rounds correctly, so that an image has the same bits in every batch.
    A reciprocal, as in `tf.image.rgb_to_hsv`, may be rounded differently in vectorised code.
    """
    import tensorflow as tf

    red, green, blue = tf.unstack(images, axis=3)
    value = tf.maximum(red, tf.maximum(green, blue))
    chroma = value - tf.minimum(red, tf.minimum(green, blue))
    divisor = tf.where(chroma > 0, chroma, 1.0)
    sextant = tf.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    turns = tf.where(value == red, (green - blue) / divisor, sextant) * (1 / 6) + _per_image(hue_shift)
    sextant = (turns - tf.floor(turns)) * 6
    saturation = tf.math.divide_no_nan(chroma, value) * _per_image(saturation_factor) + _per_image(saturation_shift)
    value = tf.clip_by_value(value * _per_image(value_factor) + _per_image(value_shift), 0.0, 1.0)
    chroma = value * tf.clip_by_value(saturation, 0.0, 1.0)
    # Each channel's distance below the value, in units of chroma, is piecewise linear in the hue.
    below = 2 - tf.abs(sextant - 3), tf.abs(sextant - 2) - 1, tf.abs(sextant - 4) - 1
    return tf.stack([value - chroma * tf.clip_by_value(part, 0.0, 1.0) for part in below], axis=3)


def _per_image(number: Any) -> Any:
    return number[:, None, None]
