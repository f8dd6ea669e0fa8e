"""The colours and crops of Urban et al. 2017, section 2.5, as a function of (seed, copy, image)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mimic_keras_cifar import augmentation
from mimic_keras_cifar.colours import change_colours
from mimic_keras_cifar.crops import crop
from mimic_keras_cifar.records import SHAPE

SIDE = SHAPE[0]
LARGEST = {
    "hue_shift": 0.5,  # half a turn either way reaches every hue
    "saturation_shift": 1.0,
    "value_shift": 1.0,
    "saturation_factor": 9.0,
    "value_factor": 9.0,
}
COLOUR_STREAMS, WINDOW_STREAMS = (3, 4, 5, 6, 7), (8, 9, 10)  # `draw_variants` uses 0 to 2


@dataclass(frozen=True)
class Variation:
    """How much copies of an image vary; by default not at all.

    Args:
        smallest_crop: side of the smallest window in pixels, 1 to 32; 32 or None: no crop.
        hue_shift: Dh, in turns: h + U(-Dh, Dh). 0 to 0.5.
        saturation_shift: Ds: s * U(1 / (1 + As), 1 + As) + U(-Ds, Ds). 0 to 1.
        value_shift: Dv, the same for v. 0 to 1.
        saturation_factor: As. 0 to 9.
        value_factor: Av. 0 to 9.

    Raises:
        ValueError: an argument is out of its range.
    """

    smallest_crop: int | None = None
    hue_shift: float = 0.0
    saturation_shift: float = 0.0
    value_shift: float = 0.0
    saturation_factor: float = 0.0
    value_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.smallest_crop is not None and not 1 <= self.smallest_crop <= SIDE:
            raise ValueError(f"smallest_crop must be from 1 to {SIDE} pixels, got {self.smallest_crop}")
        for name, largest in LARGEST.items():
            if not 0 <= getattr(self, name) <= largest:
                raise ValueError(f"{name} must be from 0 to {largest:g}, got {getattr(self, name)}")

    @property
    def given(self) -> dict[str, float]:
        """{argument: value} of the arguments that have an effect."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value and (name, value) != ("smallest_crop", SIDE)}

    def draw_colours(self, seed: int, copies: Any, rows: Any) -> tuple[Any, ...]:
        """Arguments of `change_colours`, float32 [B] each, for copy `copies[b]` of image `rows[b]`, both int64 [B]."""
        drawn = _draw(seed, copies, rows, COLOUR_STREAMS)

        def shift(largest: float, fraction: Any) -> Any:
            return largest * (2 * fraction - 1)

        def factor(largest: float, fraction: Any) -> Any:
            smallest = 1 / (1 + largest)
            return smallest + (1 + largest - smallest) * fraction

        return (
            shift(self.hue_shift, drawn[0]),
            factor(self.saturation_factor, drawn[1]),
            shift(self.saturation_shift, drawn[2]),
            factor(self.value_factor, drawn[3]),
            shift(self.value_shift, drawn[4]),
        )

    def draw_windows(self, seed: int, copies: Any, rows: Any) -> tuple[Any, Any, Any]:
        """Arguments of `crop`, whole numbers: side from smallest_crop to 32, top and left from 0 to 32 - side.

        Every number is as likely as another. float32 [B] each.
        """
        drawn = _draw(seed, copies, rows, WINDOW_STREAMS)
        smallest = self.smallest_crop or SIDE
        side = smallest + _pick(drawn[0], SIDE - smallest)
        return side, _pick(drawn[1], SIDE - side), _pick(drawn[2], SIDE - side)

    def __call__(self, images: Any, seed: int, copies: Any, rows: Any) -> Any:
        """uint8 [B, 32, 32, 3] to the same: first the colours change, then the crop; copy 0 is the image.

        The result is rounded to 8 bits like any image, so that later steps stay exact.
        """
        import tensorflow as tf

        given = self.given
        if not given:
            return images
        varied = tf.cast(images, tf.float32) * (1 / 255)
        if given.keys() & LARGEST.keys():
            varied = change_colours(varied, *self.draw_colours(seed, copies, rows))
        if "smallest_crop" in given:
            varied = crop(varied, *self.draw_windows(seed, copies, rows))
        rounded = tf.cast(tf.round(tf.clip_by_value(varied, 0.0, 1.0) * 255), images.dtype)
        return tf.where((copies == 0)[:, None, None, None], images, rounded)


def _draw(seed: int, copies: Any, rows: Any, streams: tuple[int, ...]) -> list[Any]:
    """A float32 [B] from 0 to 1 for each stream."""
    import tensorflow as tf

    stream = tf.constant(streams, tf.int64)[:, None]
    return tf.unstack(augmentation.draw_fractions(seed, copies, rows, stream), num=len(streams))


def _pick(fraction: Any, largest: Any) -> Any:
    """A whole number from 0 to `largest`, from a fraction in [0, 1)."""
    import tensorflow as tf

    return tf.minimum(tf.floor(fraction * (largest + 1)), largest)  # the product may be rounded up to largest + 1
