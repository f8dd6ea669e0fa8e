"""Crop square windows of images and scale them back to the image size by third-order spline interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np

# For a position t pixels after a pixel: 6 times the weights of the coefficients at -1, 0, 1 and 2 from that pixel, as
# polynomials of t, highest power first: (1 - t)^3, 4 - 6 t^2 + 3 t^3, the same with 1 - t for t, and t^3.
CUBIC = np.array([[-1, 3, -3, 1], [3, -6, 3, 0], [-3, 0, 3, 0], [1, 4, 1, 0]], np.float32)


def crop(images: Any, side: Any, top: Any, left: Any) -> Any:
    """Crop each image of float32 [B, size, size, channels] to its own window, scaled to the full size.

    `side`, `top` and `left` are real-valued, float32 [B], in pixels. Pixel i covers i to i + 1, and its value is at its
    centre: a window with `side` = size is the image, and output pixel j has the value at top + (j + 0.5) * side / size.

    Interpolates as SciPy's `map_coordinates(order=3, mode="mirror")`, whose coordinates start half a pixel later, at
    the first centre: per channel, the cubic B-spline through all pixels, with the image mirrored at the centres of its
    outermost pixels. Cubic convolution (Keys 1981) needs no linear system, but is not a spline and blurs more. The
    spline overshoots at edges: values may leave 0 to 1.

    Every value is a sum in a fixed order, so that an image has the same bits in every batch; the order in a matrix
    product depends on its size. The code keeps constants apart, because a graph reorders sums and products of them.
    """
    import tensorflow as tf

    rows = _resample(images, side, top)
    return tf.transpose(_resample(tf.transpose(rows, [0, 2, 1, 3]), side, left), [0, 2, 1, 3])


def _resample(images: Any, side: Any, start: Any) -> Any:
    """Crop along the first axis of each image only."""
    import tensorflow as tf

    _, size, width, channels = images.shape
    lines = _coefficients(tf.reshape(images, [-1, size, width * channels]))
    centres = tf.constant((np.arange(size) + 0.5) / size, tf.float32)
    position = (start - 0.5)[:, None] + side[:, None] * centres
    before = tf.floor(position)
    after = (position - before)[:, :, None]
    weights = ((CUBIC[0] * after + CUBIC[1]) * after + CUBIC[2]) * after + CUBIC[3]
    terms = []
    for offset, weight in enumerate(tf.unstack(weights[:, :, None], axis=3), -1):
        mirrored = size - 1 - tf.abs(size - 1 - tf.abs(tf.cast(before, tf.int32) + offset))
        terms.append(weight * tf.gather(lines, mirrored, batch_dims=1))
    return tf.reshape(tf.add_n(terms), tf.shape(images))


def _coefficients(lines: Any) -> Any:
    """Spline coefficients c of float32 [B, size, values] along the second axis: c[i-1] + 4 c[i] + c[i+1] = lines[i].

    The system of Unser et al. 1993, "B-spline signal processing", solved by Gaussian elimination, line by line. The
    weights of the four coefficients around a position sum to 6: they are 6 times the B-spline's.
    """
    import tensorflow as tf

    size = lines.shape[1]
    # Mirrored ends: c[-1] = c[1] and c[size] = c[size - 2].
    upper, lower = np.ones(size - 1), np.ones(size - 1)
    upper[0] = lower[-1] = 2
    pivots = np.full(size, 4.0)
    for line in range(1, size):
        pivots[line] -= lower[line - 1] * upper[line - 1] / pivots[line - 1]
    down, up = (lower / pivots[:-1]).tolist(), (upper / pivots[1:]).tolist()
    solved = tf.unstack(lines, axis=1)
    for line in range(1, size):
        solved[line] -= down[line - 1] * solved[line - 1]
    for line in range(size - 2, -1, -1):
        solved[line] -= up[line] * solved[line + 1]
    # Divided last, where the result meets no other constant.
    return tf.stack(solved, axis=1) * tf.constant(1 / pivots[:, None], tf.float32)
