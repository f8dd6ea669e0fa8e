"""The parts that chains of layers are built from, for the nets of this package and of plugins that depend on it.

The arguments mean the same as in the package's own nets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import keras
from keras import layers

from mimic_keras_architectures.locally_connected import LocallyConnected2D

Initialization = Literal["glorot", "he"]


@dataclass(frozen=True)
class Chain:
    """What all layers of a net have in common. Every method adds layers after the tensor `x` and returns their output.

    Example:
        >>> chain = Chain(weight_decay=1e-4)
        >>> x = chain.add_hidden(keras.Input((20,)), [100, 100], rate=0.5)
        >>> chain.add_logits(x, 10).shape
        (None, 10)
    """

    activation: str = "relu"
    weight_decay: float = 0.0
    batch_normalization: bool = False
    initialization: Initialization = "glorot"
    initialization_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.initialization not in get_args(Initialization):
            accepted = ", ".join(get_args(Initialization))
            raise ValueError(f"initialization must be one of {accepted}, got {self.initialization!r}")

    def add_blocks(
        self,
        x: Any,
        filters: list[int | list[int]] | tuple[()],
        rates: list[float],
        make_convolution: Callable[..., Callable[[Any], Any]],
        make_pooling: Callable[[], layers.Layer],
    ) -> Any:
        """Blocks of convolutions, a pooling and a dropout after each: one entry of `filters` and of `rates` per block.

        `make_convolution(width, **options)` takes the options of its kernel and bias.
        """
        for block, rate in zip(filters, rates, strict=True):
            for width in [block] if isinstance(block, int) else block:
                x = self._add_activated(x, make_convolution, width)
            x = add_dropout(make_pooling()(x), rate)
        return x

    def add_hidden(self, x: Any, units: list[int], rate: float) -> Any:
        """Fully connected layers of these widths, each with its activation and a dropout."""
        for width in units:
            x = add_dropout(self._add_activated(x, layers.Dense, width), rate)
        return x

    def add_local(self, x: Any, filters: list[int], kernel_size: int, rate: float) -> Any:
        """Locally connected layers of these widths, each with its activation and a dropout."""
        for width in filters:
            x = self._add_activated(
                x, lambda count, **options: LocallyConnected2D(count, kernel_size, **options), width
            )
            x = add_dropout(x, rate)
        return x

    def add_linear(self, x: Any, units: int) -> Any:
        """A fully connected layer without bias or activation."""
        return layers.Dense(units, use_bias=False, **self._kernel_options(1.0))(x)

    def add_logits(self, x: Any, num_classes: int, base_width: int | None = None) -> Any:
        """float32 logits [batch, num_classes], in mixed precision too.

        With `base_width` B, the last layer of H inputs learns as one of B inputs does: they are multiplied by
        sqrt(B / H), and the initial kernel is divided by it, so that the net starts as without.
        """
        factor = 1.0 if base_width is None else math.sqrt(base_width / x.shape[-1])
        if factor != 1.0:
            x = layers.Rescaling(factor)(x)
        options = self._kernel_options(1.0, factor**-2)
        return layers.Dense(num_classes, dtype="float32", name="logits", **options)(x)

    def _add_activated(self, x: Any, make_layer: Callable[..., Callable[[Any], Any]], width: int) -> Any:
        x = make_layer(width, use_bias=not self.batch_normalization, **self._kernel_options(2.0))(x)
        if self.batch_normalization:
            x = layers.BatchNormalization(synchronized=True)(x)
        return layers.Activation(self.activation)(x)

    def _kernel_options(self, gain: float, factor: float = 1.0) -> dict[str, Any]:
        """`gain` is He's factor on 1 / inputs: 2 before a rectifier, 1 without an activation (LeCun's).

        `factor` multiplies the variance, whatever the initialisation.
        """
        scale = factor * self.initialization_scale**2
        return {
            "kernel_initializer": keras.initializers.VarianceScaling(gain * scale, "fan_in")
            if self.initialization == "he"
            else keras.initializers.VarianceScaling(scale, "fan_avg", "uniform"),
            "kernel_regularizer": keras.regularizers.L2(self.weight_decay / 2) if self.weight_decay else None,
        }


def add_dropout(x: Any, rate: float) -> Any:
    """A dropout layer, or none if the rate is 0."""
    return layers.Dropout(rate)(x) if rate else x


def dropout_rates(dropout: float | list[float], blocks: int) -> tuple[list[float], float]:
    """The rates after the blocks, and the rate after hidden layers, which `dropout` is if it is a single number.

    Raises:
        ValueError: `dropout` is a list, but not of blocks + 1 rates.

    Example:
        >>> dropout_rates([0.1, 0.2, 0.5], 2)
        ([0.1, 0.2], 0.5)
    """
    if not isinstance(dropout, list):
        return [0.0] * blocks, dropout
    if len(dropout) != blocks + 1:
        raise ValueError(
            f"dropout has {len(dropout)} rates; {blocks + 1} are needed: one per block, one for hidden layers"
        )
    return dropout[:-1], dropout[-1]
