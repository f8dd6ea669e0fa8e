"""The content of an image file to pixels of one size, in the graph: the same in preparation and in serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

# ITU-R BT.601: luma of red, green and blue.
LUMA = (0.299, 0.587, 0.114)

Resize = Literal["stretch", "crop"]


@dataclass(frozen=True)
class Decoder:
    """Decodes JPEG, PNG, BMP and GIF (its first frame) to uint8 [height, width, channels].

    Transparency is dropped, and 16 bits are reduced to 8. The orientation that a camera noted in the file is not
    applied.

    Args:
        height, width: of the result, in pixels.
        channels: 3 (red, green, blue) or 1 (luma).
        resize: "stretch": the whole image, whatever its aspect ratio. "crop": the largest window in its centre that has
            the result's aspect ratio.
    """

    height: int
    width: int
    channels: int
    resize: Resize

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    def __call__(self, content: Any) -> Any:
        """One file's content, a string [].

        Raises:
            tf.errors.InvalidArgumentError: it is damaged, or none of these formats.
        """
        import tensorflow as tf

        image = tf.ensure_shape(tf.io.decode_image(content, expand_animations=False), [None, None, None])
        # Not `channels=3`: TensorFlow refuses it for grey BMP files, and 1 for coloured ones.
        is_coloured = tf.shape(image)[-1] >= 3
        image = tf.cond(is_coloured, lambda: image[..., :3], lambda: tf.repeat(image[..., :1], 3, -1))
        if self.resize == "crop":
            image = self._crop(image)
        size = [self.height, self.width]
        pixels = tf.image.resize(tf.cast(image, tf.float32), size, "bilinear", antialias=True)
        if self.channels == 1:
            pixels = tf.reduce_sum(pixels * tf.constant(LUMA), -1, keepdims=True)
        pixels = tf.saturate_cast(tf.round(pixels), tf.uint8)
        return tf.ensure_shape(pixels, self.shape)

    def decode_batch(self, contents: Any) -> Any:
        """Strings [B] to uint8 [B, height, width, channels]."""
        import tensorflow as tf

        specification = tf.TensorSpec(self.shape, tf.uint8)
        return tf.map_fn(self, contents, fn_output_signature=specification)

    def _crop(self, image: Any) -> Any:
        import tensorflow as tf

        height, width = tf.shape(image)[0], tf.shape(image)[1]
        tall = tf.clip_by_value(_rounded_ratio(width, self.height, self.width), 1, height)
        wide = tf.clip_by_value(_rounded_ratio(height, self.width, self.height), 1, width)
        top, left = (height - tall) // 2, (width - wide) // 2
        return image[top : top + tall, left : left + wide]


def _rounded_ratio(length: Any, numerator: int, denominator: int) -> Any:
    """length * numerator / denominator in int32, rounded to the nearest; exact."""
    import tensorflow as tf

    return tf.cast((2 * tf.cast(length, tf.int64) * numerator + denominator) // (2 * denominator), tf.int32)
