"""Hue, saturation and value of images, changed image by image: Smith 1978, "Color gamut transform pairs"."""

from __future__ import annotations

from typing import Any


def coloured(
    images: Any, hue_shift: Any, saturation_factor: Any, saturation_shift: Any, value_factor: Any, value_shift: Any
) -> Any:
    """Images float32 [B, height, width, 3], red, green, blue from 0 to 1, to the same with changed colours.

    All other arguments are float32 [B]. Hue + hue_shift counts in turns and wraps modulo 1; saturation and value, both
    times their factor plus their shift, are clipped to 0 and 1. Grey has hue 0 (red), black has saturation 0 as well.

    Only operations that IEEE 754 rounds correctly, value by value: an image has the same bits in every batch. A
    reciprocal, as in `tf.image.rgb_to_hsv`, need not be rounded so where many values are computed at once.
    """
    import tensorflow as tf

    red, green, blue = tf.unstack(images, axis=3)
    value = tf.maximum(red, tf.maximum(green, blue))
    chroma = value - tf.minimum(red, tf.minimum(green, blue))
    divisor = tf.where(chroma > 0, chroma, 1.0)
    sextant = tf.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    turns = tf.where(value == red, (green - blue) / divisor, sextant) * (1 / 6) + _of_image(hue_shift)
    sextant = (turns - tf.floor(turns)) * 6
    saturation = tf.math.divide_no_nan(chroma, value) * _of_image(saturation_factor) + _of_image(saturation_shift)
    value = tf.clip_by_value(value * _of_image(value_factor) + _of_image(value_shift), 0.0, 1.0)
    chroma = value * tf.clip_by_value(saturation, 0.0, 1.0)
    # How far each channel is below the value, in units of the chroma, is piecewise linear in the hue.
    below = 2 - tf.abs(sextant - 3), tf.abs(sextant - 2) - 1, tf.abs(sextant - 4) - 1
    return tf.stack([value - chroma * tf.clip_by_value(part, 0.0, 1.0) for part in below], axis=3)


def _of_image(number: Any) -> Any:
    return number[:, None, None]
