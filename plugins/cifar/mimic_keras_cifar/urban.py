"""The colours and crops of Urban et al. 2017, section 2.5, as a function of (seed, copy, image)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mimic_keras_cifar import augmentation
from mimic_keras_cifar.colours import coloured
from mimic_keras_cifar.crops import cropped
from mimic_keras_cifar.records import SHAPE

SIDE = SHAPE[0]
LARGEST = {
    "hue_shift": 0.5,  # half a turn either way is every hue
    "saturation_shift": 1.0,
    "value_shift": 1.0,
    "saturation_factor": 9.0,
    "value_factor": 9.0,
}
COLOUR_STREAMS, WINDOW_STREAMS = (3, 4, 5, 6, 7), (8, 9, 10)  # `augmentation.variants` has 0 to 2


@dataclass(frozen=True)
class Variation:
    """How much copies of images vary; by default not at all.

    Args:
        smallest_crop: side s of the smallest window in pixels, 1 to 32; 32 or None: no crop.
        hue_shift: Dh, in turns: h + U(-Dh, Dh). 0 to 0.5.
        saturation_shift: Ds: s * U(1 / (1 + As), 1 + As) + U(-Ds, Ds). 0 to 1.
        value_shift: Dv, of v likewise. 0 to 1.
        saturation_factor: As. 0 to 9.
        value_factor: Av. 0 to 9.

    Raises:
        ValueError: one is out of its range.
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
        """{argument: value} of those that change something."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value and (name, value) != ("smallest_crop", SIDE)}

    def colours(self, seed: int, copies: Any, rows: Any) -> tuple[Any, ...]:
        """What `coloured` takes, float32 [B] each, of the copies `copies` of the images `rows`, both int64 [B]."""
        drawn = _drawn(seed, copies, rows, COLOUR_STREAMS)

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

    def windows(self, seed: int, copies: Any, rows: Any) -> tuple[Any, Any, Any]:
        """What `cropped` takes: the side, U(smallest_crop, 32), top and left, U(0, 32 - side); float32 [B] each."""
        drawn = _drawn(seed, copies, rows, WINDOW_STREAMS)
        side = SIDE - (SIDE - (self.smallest_crop or SIDE)) * drawn[0]
        return side, (SIDE - side) * drawn[1], (SIDE - side) * drawn[2]

    def __call__(self, images: Any, seed: int, copies: Any, rows: Any) -> Any:
        """uint8 [B, 32, 32, 3] to the same: first other colours, then a crop; copy 0 is the image.

        The result is rounded to 8 bits again, as images are, so that what follows is exact whatever came before.
        """
        import tensorflow as tf

        given = self.given
        if not given:
            return images
        varied = tf.cast(images, tf.float32) * (1 / 255)
        if given.keys() & LARGEST.keys():
            varied = coloured(varied, *self.colours(seed, copies, rows))
        if "smallest_crop" in given:
            varied = cropped(varied, *self.windows(seed, copies, rows))
        rounded = tf.cast(tf.round(tf.clip_by_value(varied, 0.0, 1.0) * 255), images.dtype)
        return tf.where((copies == 0)[:, None, None, None], images, rounded)


def _drawn(seed: int, copies: Any, rows: Any, streams: tuple[int, ...]) -> list[Any]:
    """float32 [B] for each stream, from 0 to 1."""
    import tensorflow as tf

    stream = tf.constant(streams, tf.int64)[:, None]
    return tf.unstack(augmentation.uniform(seed, copies, rows, stream), num=len(streams))
