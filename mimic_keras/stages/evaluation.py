"""Stage 5: every model evaluated on validation and test: the data set's metrics, and fidelity to the teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mimic_keras.contracts import Confusion
from mimic_keras.reporting.tables import format_count
from mimic_keras.stages.data import Data
from mimic_keras.stages.logits import TeacherLogits
from mimic_keras.stages.student import Net
from mimic_keras.stages.teachers import TeacherMember
from mimic_keras.training.models import Cost, add_counts, inference_call, log_softmax, make_predictor

SPLITS: tuple[str, ...] = ("validation", "test")


@dataclass(frozen=True)
class Evaluation:
    """`models` as in metrics.json. For the report, `logits` {model: {split: float32 [examples, num_classes]}} and
    `confusions` {model: {split: {name: Confusion}}}."""

    models: dict[str, dict[str, Any]]
    logits: dict[str, dict[str, np.ndarray]]
    confusions: dict[str, dict[str, dict[str, Confusion]]]


def evaluate(
    data: Data,
    members: Sequence[TeacherMember],
    teacher: TeacherLogits | None,
    nets: Sequence[Net],
    splits: Sequence[str] = SPLITS,
) -> Evaluation:
    """Evaluate the teacher, its members and the nets on `splits`; a search must not see the test set."""
    costs: dict[str, Cost] = {}
    logits: dict[str, dict[str, np.ndarray]] = {}
    if teacher:
        costs["teacher"] = Cost(
            add_counts(member.cost.parameters for member in members),
            add_counts(member.cost.multiply_adds for member in members),
        )
        logits["teacher"] = {split: teacher.mean[split] for split in splits}
        costs |= {member.name: member.cost for member in members}
        logits |= {name: {split: found[split] for split in splits} for name, found in teacher.members.items()}
    for net in nets:
        predict = make_predictor(inference_call(net.model))
        costs[net.name] = net.cost
        logits[net.name] = {
            split: predict(data.split(split), np.arange(data.split(split).num_examples)) for split in splits
        }
    results: dict[str, dict[str, Any]] = {}
    confusions: dict[str, dict[str, dict[str, Confusion]]] = {}
    for name, of_split in logits.items():
        results[name] = asdict(costs[name]) | ({"members": len(members)} if name == "teacher" else {})
        for split, metrics in data.evaluate(of_split).items():
            tables = {key: value for key, value in metrics.items() if isinstance(value, Confusion)}
            confusions.setdefault(name, {})[split] = tables
            numbers = {key: float(value) for key, value in metrics.items() if not isinstance(value, Confusion)}
            if name != "teacher" and teacher:
                numbers |= measure_fidelity(logits["teacher"][split], of_split[split])
            results[name][split] = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    return Evaluation(results, logits, confusions)


def measure_fidelity(teacher: np.ndarray, student: np.ndarray) -> dict[str, float]:
    """How closely a model's logits [N, num_classes] follow the teacher's.

    `agreement`: share of examples that get the teacher's class. `kl`: mean KL(teacher || student), in nats.
    `logit_mse`: mean squared difference per logit.
    """
    z, s = teacher.astype(np.float64), student.astype(np.float64)
    log_p, log_q = log_softmax(z), log_softmax(s)
    return {
        "agreement": float(np.mean(z.argmax(-1) == s.argmax(-1))),
        "kl": float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), -1))),
        "logit_mse": float(np.mean((z - s) ** 2)),
    }


def tabulate(models: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the table at the end of a run."""
    rows = []
    for name, values in models.items():
        counts = {key.replace("_", "-"): format_count(values[key]) for key in ("parameters", "multiply_adds")}
        row = {"model": name, **counts}
        for split in SPLITS:
            row |= {f"{split} {key.replace('_', ' ')}": value for key, value in values[split].items()}
        rows.append({key: value for key, value in row.items() if key not in HIDDEN_COLUMNS})
    return list(dict.fromkeys(key for row in rows for key in row)), rows


HIDDEN_COLUMNS = ("validation agreement", "validation kl", "validation logit mse")  # only in metrics.json
