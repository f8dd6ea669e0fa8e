"""Virtual copies of images: mirrored, shifted and cropped, as a function of (seed, copy, image)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mimic_keras_cifar.augmentation import draw_fractions, draw_variants, mirror_some, move

CROP_STREAMS = (3, 4, 5)  # `draw_variants` uses 0 to 2


@dataclass(frozen=True)
class Copies:
    """How many virtual copies of each training image there are, and how all but the first differ from it.

    Args:
        copies: at least 1. The first is the image itself.
        mirror: the other copies are mirrored left to right with probability 1/2.
        shift: they are moved by up to this many pixels on each axis, and filled with 0.
        smallest_crop: they are windows of U(smallest_crop, 1) times the image's sides, anywhere in the image, scaled
            back by bilinear interpolation. Above 0, at most 1, which is no crop.

    Raises:
        ValueError: an argument is out of its range, or `copies` above 1 without a difference, or the reverse.
    """

    copies: int = 1
    mirror: bool = False
    shift: int = 0
    smallest_crop: float = 1.0

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ValueError(f"copies must be at least 1, got {self.copies}")
        if self.shift < 0:
            raise ValueError(f"shift must be at least 0 pixels, got {self.shift}")
        if not 0 < self.smallest_crop <= 1:
            raise ValueError(f"smallest_crop must be above 0 and at most 1, got {self.smallest_crop}")
        if (self.copies > 1) != (self.mirror or self.shift > 0 or self.smallest_crop < 1):
            given = f"mirror: {str(self.mirror).lower()}, shift: {self.shift}, smallest_crop: {self.smallest_crop}"
            raise ValueError(
                f"copies: {self.copies} with {given}; the first copy is the image itself, so copies above 1 need one "
                "of these to differ by, and these need copies above 1"
            )

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError unless inputs of `shape`, without the batch, can be varied."""
        if self.copies > 1 and len(shape) != 3:
            raise ValueError(
                f"copies: {self.copies} is for images, [height, width, channels], but the inputs are {list(shape)}"
            )
        if self.copies > 1 and self.shift >= min(shape[:2]):
            raise ValueError(f"shift must be below the image's sides, {shape[0]} x {shape[1]}, got {self.shift}")

    def __call__(self, images: Any, scale: Callable[[Any], Any], seed: int, copies: Any, originals: Any) -> Any:
        """Copy `copies[b]` of image `originals[b]`, both int64 [B]: images [B, height, width, C] to scaled float32.

        `scale` maps to float32 [B, height, width, C]; the border of a moved image is 0 after it.
        """
        import tensorflow as tf

        if self.copies == 1:
            return scale(images)
        is_mirrored, down, right = draw_variants(seed, copies, originals, self.mirror, self.shift)
        if self.smallest_crop < 1:
            cropped = self._crop(images, seed, copies, originals)
            images = tf.where((copies == 0)[:, None, None, None], tf.cast(images, tf.float32), cropped)
        return move(scale(mirror_some(images, is_mirrored)), down, right, self.shift)

    def _crop(self, images: Any, seed: int, copies: Any, originals: Any) -> Any:
        import tensorflow as tf

        streams = tf.constant(CROP_STREAMS, tf.int64)[:, None]
        size, top, left = tf.unstack(draw_fractions(seed, copies, originals, streams), num=len(CROP_STREAMS))
        side = 1 - (1 - self.smallest_crop) * size
        top, left = (1 - side) * top, (1 - side) * left
        boxes = tf.stack([top, left, top + side, left + side], 1)
        # TensorFlow has no kernel for bool, and none for all integers.
        floats = tf.cast(images, tf.float32)
        return tf.image.crop_and_resize(floats, boxes, tf.range(tf.shape(images)[0]), images.shape[1:3])
