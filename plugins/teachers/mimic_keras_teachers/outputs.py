"""What models put out, and how it becomes logits: the same for every framework and for stored predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from mimic_keras_architectures.existing import check_outputs

from mimic_keras.contracts import InputError

Outputs = Literal["logits", "probabilities", "sigmoid"]
# About the precision of float32 probabilities; the logarithm of a smaller one would be noise.
SMALLEST_PROBABILITY = 1e-7


def to_logits(values: Any, outputs: Outputs) -> tf.Tensor:
    """float32 logits [B, num_classes] of a model's outputs [B, num_classes].

    Probabilities p become log(max(p, e)) with e = 1e-7. Sigmoids s become log(max(s, e)) - log(max(1 - s, e)), each its
    own; a single one [B, 1] is the probability of the second of two classes, whose logits are 0 and that.

    Example:
        >>> to_logits([[0.5], [0.75]], "sigmoid").numpy().round(3).tolist()
        [[0.0, 0.0], [0.0, 1.099]]
    """
    values = tf.cast(values, tf.float32)
    if outputs == "logits":
        return values
    logs = tf.math.log(tf.maximum(values, SMALLEST_PROBABILITY))
    if outputs == "probabilities":
        return logs
    logits = logs - tf.math.log(tf.maximum(1 - values, SMALLEST_PROBABILITY))
    return tf.concat([tf.zeros_like(logits), logits], -1) if logits.shape[-1] == 1 else logits


def check_values(place: str, path: Path, values: np.ndarray, outputs: Outputs, num_classes: int) -> None:
    """Check a model's outputs for some examples [B, ...]: their number, and that they are what `outputs` says.

    Logits mistaken for probabilities, or the reverse, would mislead silently; their values tell them apart.

    Raises:
        InputError: they are not.
    """
    single = values.shape[1:] == (1,) and num_classes == 2
    if single and outputs != "sigmoid":
        raise InputError(f"outputs: {path} gives one output for two classes: expected 'sigmoid', got '{outputs}'")
    if not single:
        check_outputs(place, values.shape, num_classes)
    values = values.astype(np.float64)
    between = bool((values >= 0).all() and (values <= 1).all())
    if not single and (values >= 0).all() and np.allclose(values.sum(-1), 100, atol=0.1):
        raise InputError(f"outputs: the outputs of {path} are per cent, they sum to 100: divide them by 100")
    are_probabilities = not single and bool((values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3))
    if are_probabilities and outputs != "probabilities":
        found, other = "sum to 1 and are not negative", "probabilities"
    elif not are_probabilities and outputs == "probabilities":
        found, other = "are negative or do not sum to 1", "sigmoid" if between else "logits"
    elif outputs == "sigmoid" and not between:
        found, other = "are not all between 0 and 1", "logits"
    else:
        return
    raise InputError(f"outputs: the outputs of {path} {found}: expected '{other}', got '{outputs}'")
