"""Which test examples a net gets wrong, small enough to be kept with the results of a cell: one bit for each."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from mimic_keras.contracts import array_digest


def pack(labels: np.ndarray, logits: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Which labelled examples each model gets wrong, as JSON: {"examples", "labels": a digest, "wrong": {model: bits}}.

    `labels` is int [N], -1 where unknown; `logits` is {model: float [N, num_classes]}.
    """
    known = labels >= 0
    wrong = {name: (rows.argmax(-1) != labels)[known] for name, rows in logits.items() if "/" not in name}
    bits = {name: base64.b64encode(np.packbits(each).tobytes()).decode() for name, each in wrong.items()}
    return {"examples": int(known.sum()), "labels": array_digest(labels), "wrong": bits}


def unpack(errors: Mapping[str, Any], model: str) -> np.ndarray:
    """What a model got wrong, bool [examples], of `pack`."""
    bits = np.frombuffer(base64.b64decode(errors["wrong"][model]), np.uint8)
    return np.unpackbits(bits, count=errors["examples"]).astype(bool)
