"""Whether SGD is stable at the start of a training: its limit, beside the rate that the training uses.

The limit is that of the loss's largest curvature at the initial weights. Not considered: that the curvature changes
while the net learns, mostly upwards to the limit itself (Cohen et al. 2021, arXiv:2103.00065), and the noise of
batches; clipping, which bounds a step above the limit; weight decay and other penalties, whose curvature is far
smaller; averages of the weights, which do not act on them.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from mimic_keras.contracts import InputError
from mimic_keras.experiment.optimizers import SGD, OfLimit
from mimic_keras.experiment.training import TrainingSection
from mimic_keras.storage.files import write_json
from mimic_keras.training.batches import Batch, Examples, training_batches
from mimic_keras.training.curvature import ITERATIONS, largest_curvature, stability_limit
from mimic_keras.training.objective import Objective
from mimic_keras.training.optimizers import peak_rate

FILE = "stability.json"  # of a net's artefact
# A product with half a batch costs about a step, and takes no more memory. So four of them, at most ITERATIONS times,
# are 2 % of this many steps.
HALF_BATCHES = 4
FEWEST_STEPS = 50 * HALF_BATCHES * ITERATIONS


@dataclass(frozen=True)
class Stability:
    """`curvature`: the largest of the loss at the start; `limit`: the rate above which SGD is unstable there;
    `learning_rate`: the largest of the training, after its warm-up and schedule."""

    curvature: float
    limit: float
    learning_rate: float


def find_stability(
    net: keras.Model,
    objective: Objective,
    examples: Examples,
    settings: TrainingSection,
    seed: int,
    name: str,
    replicas: int = 1,
    kept: Path | None = None,
) -> tuple[Stability | None, TrainingSection]:
    """(the stability of a training that begins with these weights, its settings with the rate as a number).

    None for other optimizers than SGD, and for a training of fewer than FEWEST_STEPS steps whose rate is a number
    anyway. The examples are those of the training's first steps.

    Args:
        net: with its initial weights.
        objective, examples, settings, seed, name: as of `trainer.train`.
        replicas: devices that share a batch; one of them works here.
        kept: a file that keeps what is found; a training that is resumed takes it from there.

    Raises:
        InputError: the rate is to be a share of the limit, and there is none.

    Example:
        >>> settings.optimizer.learning_rate
        OfLimit(of_limit=0.5)
        >>> stability, settings = find_stability(net, Objective(), examples, settings, 0, "student")
        >>> settings.optimizer.learning_rate == 0.5 * stability.limit
        True
    """
    optimizer, steps = settings.optimizer, examples.steps_per_pass(settings.batch_size)
    if not isinstance(optimizer, SGD):
        return None, settings
    share = optimizer.learning_rate.of_limit if isinstance(optimizer.learning_rate, OfLimit) else None
    if share is None and settings.epochs * steps < FEWEST_STEPS:
        return None, settings
    curvature = _read(kept)
    if curvature is None:
        rows = max(1, settings.batch_size // (2 * replicas))
        batches = list(itertools.islice(training_batches(examples, rows, seed), HALF_BATCHES))
        curvature = _estimate(net, objective, batches, name, is_needed=share is not None)
        if curvature is not None and kept:
            write_json(kept, {"curvature": curvature})
    if curvature is None:
        return None, settings
    limit = stability_limit(curvature, optimizer.momentum, optimizer.nesterov)
    if share is not None:
        chosen = optimizer.model_copy(update={"learning_rate": share * limit})
        settings = settings.model_copy(update={"optimizer": chosen})
    stability = Stability(curvature, limit, peak_rate(settings, steps))
    _tell(stability, optimizer, name)
    return stability, settings


def read_stability(folder: Path) -> dict[str, Any] | None:
    """What is known of the training of an artefact's net; None: nothing."""
    file = folder / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def write_stability(folder: Path, stability: Stability | None) -> None:
    """Keep what is known, if anything is, in an artefact's folder."""
    if stability:
        write_json(folder / FILE, asdict(stability))


def _estimate(
    net: keras.Model, objective: Objective, batches: list[Batch], name: str, *, is_needed: bool
) -> float | None:
    """The largest curvature; None, with a message, if it cannot be had and is not needed."""
    try:
        found = largest_curvature(net, objective, batches)
        problem = None if found > 0 else f"it is {found:g}"
    except (LookupError, NotImplementedError, tf.errors.OpError) as error:  # an operation without a second derivative
        problem = f"{type(error).__name__}: {error}"
    if problem is None:
        return found
    if is_needed:
        message = f"the loss has no largest curvature at the start ({problem}), so that there is no limit"
        raise InputError(f"{name}: learning_rate: {message}; expected a number")
    logging.warning("%s: the largest curvature of the loss is not known: %s", name, problem)
    return None


def _read(kept: Path | None) -> float | None:
    if kept is None or not kept.exists():
        return None
    try:
        return float(json.loads(kept.read_text(encoding="utf-8"))["curvature"])
    except (ValueError, KeyError, TypeError) as error:
        logging.warning("%s is damaged (%s); the curvature is estimated again", kept, error)
        return None


def _tell(stability: Stability, optimizer: SGD, name: str) -> None:
    momentum = f" with {'Nesterov ' * optimizer.nesterov}momentum {optimizer.momentum:g}" if optimizer.momentum else ""
    found = f"{name}: largest curvature of the loss {stability.curvature:.3g}, so that SGD{momentum} is stable up to "
    rates = f"a learning rate of {stability.limit:.3g}; this training's largest is {stability.learning_rate:.3g}"
    if stability.learning_rate > stability.limit:
        logging.warning("%s%s, which is above the limit", found, rates)
    else:
        logging.info("%s%s, %.0f %% of it", found, rates, 100 * stability.learning_rate / stability.limit)
