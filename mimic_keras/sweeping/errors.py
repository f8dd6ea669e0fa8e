"""What a net gets wrong on test, small enough to be kept with the results of a cell: one bit for each example, and the
errors in each group where the data set tells them by group."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mimic_keras.contracts import GroupedRate, array_digest
from mimic_keras.storage.files import hash_json

INVERSES = {"accuracy": "error_rate"}  # a metric whose errors are those of another


@dataclass(frozen=True, eq=False)
class Tally:
    """A model's errors on test in each independent unit, an example or a group of them.

    `errors`: numbers [units]; `counts`: integers [units]. `units`: "examples" or "groups". Tallies with the same
    `digest` have the same units.
    """

    errors: np.ndarray
    counts: np.ndarray
    units: str
    digest: str


def pack(
    labels: np.ndarray, logits: Mapping[str, np.ndarray], rates: Mapping[str, Mapping[str, GroupedRate]]
) -> dict[str, Any]:
    """What each model gets wrong, as JSON: {"examples", "labels": a digest, "wrong": {model: bits}, "groups": {metric:
    {model: {"errors", "counts"}}}}.

    `labels` is int [N], -1 where unknown; `logits` is {model: float [N, num_classes]}, `rates` {model: {metric: its
    rate by group}}.
    """
    known = labels >= 0
    wrong = {name: (rows.argmax(-1) != labels)[known] for name, rows in logits.items() if "/" not in name}
    bits = {name: base64.b64encode(np.packbits(each).tobytes()).decode() for name, each in wrong.items()}
    groups: dict[str, dict[str, Any]] = {}
    for name in wrong:
        for metric, rate in rates.get(name, {}).items():
            content = {"errors": rate.errors.tolist(), "counts": rate.counts.tolist()}
            groups.setdefault(metric, {})[name] = content
    return {"examples": int(known.sum()), "labels": array_digest(labels), "wrong": bits, "groups": groups}


def unpack(packed: Mapping[str, Any], model: str, metric: str) -> Tally | None:
    """What a model got wrong, of `pack`; by group if they are known. None: not known for this model or metric."""
    metric = INVERSES.get(metric, metric)
    if metric in packed["groups"]:
        if model not in packed["groups"][metric]:
            return None
        found = packed["groups"][metric][model]
        digest = hash_json([packed["labels"], found["counts"]])
        return Tally(np.array(found["errors"]), np.array(found["counts"]), "groups", digest)
    if metric != "error_rate" or model not in packed["wrong"] or not packed["examples"]:
        return None
    bits = np.frombuffer(base64.b64decode(packed["wrong"][model]), np.uint8)
    errors = np.unpackbits(bits, count=packed["examples"]).astype(np.int64)
    return Tally(errors, np.ones_like(errors), "examples", packed["labels"])
