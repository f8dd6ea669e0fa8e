"""Stage 4: the student, trained on the teacher's logits, and its baseline, trained on the labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.planning.plan import NetPlan
from mimic_keras.stages.data import Data
from mimic_keras.stages.logits import TeacherLogits
from mimic_keras.stages.workspace import STATES, Workspace
from mimic_keras.storage.store import Store, Wanted
from mimic_keras.training import models
from mimic_keras.training.batches import Examples
from mimic_keras.training.models import Cost, FinishedNet
from mimic_keras.training.objective import Objective
from mimic_keras.training.stability import write_stability
from mimic_keras.training.trainer import Train

ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Net(FinishedNet):
    """A finished student or baseline; the model gives real logits. `steps`: of its training; None if only loaded."""

    folder: Path
    model: keras.Model
    steps: int | None = None


def make_nets(
    plans: Sequence[NetPlan], teacher: TeacherLogits | None, train: Train, store: Store, workspace: Workspace
) -> list[Net]:
    """Train each net, or find it: with a loss it mimics the teacher, if there is one, on "transfer", else it learns the
    labels on "train".
    """
    sources = [(plan, workspace.prepare(*plan.learns_from), teacher if plan.loss else None) for plan in plans]
    made = store.get_or_make_all([_want_net(*source, train) for source in sources])
    return [_load_trained(*source, artifact.folder) for source, artifact in zip(sources, made, strict=True)]


def _load_trained(plan: NetPlan, data: Data, teacher: TeacherLogits | None, folder: Path) -> Net:
    net, examples = load(folder, plan.name), _select_examples(plan, data, teacher, "transfer" if teacher else "train")
    return replace(net, steps=len(net.history["loss"]) * examples.steps_per_pass(plan.training.batch_size))


def _want_net(plan: NetPlan, data: Data, teacher: TeacherLogits | None, train: Train) -> Wanted:
    inputs = {
        "architecture": plan.architecture.key_inputs(),
        "training": plan.training.key_inputs(),
        "seed": plan.seed,
        "data": data.identity,
    }
    if plan.loss:
        inputs |= {
            **({"teacher": teacher.key} if teacher else {}),
            "loss": plan.loss.key_inputs(),
            "standardize_logits": plan.standardize_logits,
            "hard_label_weight": plan.hard_label_weight,
        }

    def check() -> None:
        data.check_unchanged()
        for component in (plan.architecture, *([plan.loss] if plan.loss else [])):
            component.check_unchanged()

    return Wanted("students", inputs, plan.name, lambda folder: _train_net(plan, data, teacher, train, folder), check)


def _train_net(plan: NetPlan, data: Data, teacher: TeacherLogits | None, train: Train, folder: Path) -> None:
    """Train a net and save it into `folder`, with an affine head if its outputs are standardised."""
    info, objective, state = data.dataset.info, _make_objective(plan, teacher), folder / f"{STATES}.npz"
    trained = train(
        lambda: plan.architecture(info.input_shape, info.num_classes),
        _select_examples(plan, data, teacher, "transfer" if teacher else "train"),
        _select_examples(plan, data, teacher, "validation"),
        objective,
        plan.training,
        plan.seed,
        plan.name,
        judge=data.validation_metrics,
        state=state,
    )
    model = trained.model
    if objective.scale is not None and objective.offset is not None:
        model = models.with_affine_head(model, objective.scale, objective.offset)
    models.save(folder, model, trained.history)
    write_stability(folder, trained.stability)
    models.load(folder)  # a file that cannot be read back is no artefact
    for file in (state, state.with_suffix(".json")):
        file.unlink(missing_ok=True)


def load(folder: Path, name: str = "student") -> Net:
    """The net of an artefact's folder."""
    cost, history = (json.loads((folder / f"{part}.json").read_text(encoding="utf-8")) for part in ("cost", "history"))
    return Net(name, folder.name, Cost(**cost), folder, history, models.load(folder))


def _select_examples(plan: NetPlan, data: Data, teacher: TeacherLogits | None, split: str) -> Examples:
    if not plan.loss or not teacher:
        return Examples(data.split(split))
    return (
        Examples(teacher.split, teacher.transfer)
        if split == "transfer"
        else Examples(data.split(split), teacher.mean[split])
    )


def _make_objective(plan: NetPlan, teacher: TeacherLogits | None) -> Objective:
    if not plan.loss:
        return Objective()
    scale = offset = None
    if plan.standardize_logits and teacher:
        scale, offset = compute_standardisation(teacher.transfer)
    return Objective(plan.loss(), plan.hard_label_weight, scale, offset)


def compute_standardisation(logits: tf.Variable) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation and mean per class over the transfer set, float64; a constant class gets deviation 1.

    Ba & Caruana 2014, section 2.2: subtract the mean of each target and divide by its standard deviation.
    """

    def total(transform: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        blocks = (tf.range(start, min(start + ROWS_AT_ONCE, rows)) for start in range(0, rows, ROWS_AT_ONCE))
        return sum(transform(tf.gather(logits, block).numpy().astype(np.float64)).sum(0) for block in blocks)

    rows = logits.shape[0]
    mean = total(lambda part: part) / rows
    deviation = np.sqrt(total(lambda part: (part - mean) ** 2) / rows)
    return np.where(deviation > 1e-6, deviation, 1.0), mean
