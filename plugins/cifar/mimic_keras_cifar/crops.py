"""Square windows of images, scaled back to the images' size by third-order spline interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np

# The weights of the coefficients at -1, 0, 1 and 2 pixels from the one before a place, times 6, as polynomials of the
# distance t from there, highest power first: (1 - t)^3, 4 - 6 t^2 + 3 t^3, the same of 1 - t, and t^3.
CUBIC = np.array([[-1, 3, -3, 1], [3, -6, 3, 0], [-3, 0, 3, 0], [1, 4, 1, 0]], np.float32)


def cropped(images: Any, side: Any, top: Any, left: Any) -> Any:
    """Images float32 [B, size, size, channels], each one's own window of it, scaled to the whole size.

    Windows have real-valued sides and corners, float32 [B], in pixels: pixel i covers i to i + 1 and its value belongs
    to its centre, so that the window of `side` = size is the image, and output pixel j takes the value at
    top + (j + 0.5) * side / size. The interpolation is that of SciPy's `map_coordinates(order=3, mode="mirror")`,
    which counts from the first centre, half a pixel later: per channel, the cubic B-spline that goes through every
    pixel, the image being mirrored at the centres of its outermost ones. Cubic convolution (Keys 1981) would need no
    linear system, but is no spline and blurs more. The spline overshoots at edges: values may leave 0 to 1.

    Every value is a sum in a fixed order, so that an image has the same bits in every batch; a matrix product's order
    depends on its size. A graph reorders sums and products in which constants can meet, so here they do not.
    """
    import tensorflow as tf

    rows = _resampled(images, side, top)
    return tf.transpose(_resampled(tf.transpose(rows, [0, 2, 1, 3]), side, left), [0, 2, 1, 3])


def _resampled(images: Any, side: Any, start: Any) -> Any:
    """The same along the first axis of each image alone."""
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
    """Of the spline through float32 [B, size, values] along the second axis: c with c[i-1] + 4 c[i] + c[i+1] = lines.

    Gaussian elimination, line by line (Unser et al. 1993, "B-spline signal processing", have the system). The
    weights of the four coefficients around a place, which add up to 6, are 6 times those of the B-spline.
    """
    import tensorflow as tf

    size = lines.shape[1]
    # Beyond the ends, c[-1] = c[1] and c[size] = c[size - 2].
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
    # Divided at the end, where no other constant is multiplied with the result.
    return tf.stack(solved, axis=1) * tf.constant(1 / pivots[:, None], tf.float32)
