"""The range of inputs that a Keras model suggests by beginning with a layer that scales them."""

from __future__ import annotations

import keras
import numpy as np

# They move values, and change none; Resizing only mixes neighbours.
KEEPS_RANGE = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape, keras.layers.Resizing)
DEVIATIONS = 3  # around the mean, of what Normalization has seen


def expected_inputs(model: keras.Model) -> tuple[float, float] | None:
    """(low, high) over all features if the model begins with Rescaling or Normalization, else None.

    Rescaling suggests the inputs that it maps to 0 to 1 without an offset, and to -1 to 1 with one, as the models of
    keras.applications do. Normalization suggests three standard deviations around its mean.

    Example:
        >>> expected_inputs(keras.Sequential([keras.Input((4,)), keras.layers.Rescaling(1 / 127.5, offset=-1)]))
        (0.0, 255.0)
    """
    layer = _first_layer(model)
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
        first = -1.0 if offset.any() else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack(np.broadcast_arrays((first - offset) / scale, (1.0 - offset) / scale))
    elif isinstance(layer, keras.layers.Normalization) and not layer.invert and layer.mean is not None:
        mean, deviation = np.asarray(layer.mean, np.float64), np.sqrt(np.asarray(layer.variance, np.float64))
        ends = np.stack([mean - DEVIATIONS * deviation, mean + DEVIATIONS * deviation])
    else:
        return None
    low, high = float(ends.min()), float(ends.max())
    return (low, high) if np.isfinite([low, high]).all() and low < high else None


def _first_layer(model: keras.Model) -> keras.Operation | None:
    """The first layer that may change values; within the first model, if models are nested."""
    parts = getattr(model, "operations", model.layers)  # of a functional model, with those that are no layers
    layer = next((each for each in parts if not isinstance(each, KEEPS_RANGE)), None)
    return _first_layer(layer) if isinstance(layer, keras.Model) else layer
