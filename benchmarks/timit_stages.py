"""The stages of a run on TIMIT that `timit_data.py` measures, with a linear map in place of each teacher."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import measuring
import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

    from mimic_keras.experiment.schema import StudentSection
    from mimic_keras.stages.data import Data
    from mimic_keras.stages.logits import TeacherLogits
    from mimic_keras.training.batches import Examples
    from mimic_keras.training.objective import Objective

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
INPUT_SHAPE, STATES, CENTRE = (15, 123), 183, 7


def memory(name: str) -> float:
    """GB of this process, from /proc/self/status: `VmRSS` is in memory now, `VmHWM` was at most."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024 / measuring.GB


def forget_peak() -> None:
    """From now on, `VmHWM` is the peak of what follows."""
    Path("/proc/self/clear_refs").write_text("5")


def prepared(root: Path, home: Path) -> Data:
    """The stage "data" of a run."""
    from mimic_keras.experiment.places import Place
    from mimic_keras.experiment.problems import Problems
    from mimic_keras.planning import components
    from mimic_keras.stages import data

    problems = Problems("benchmark")
    component = components.bind("dataset", {"name": "timit", "root": str(root)}, Place("dataset"), problems)
    problems.check()
    assert component
    return data.prepare(component, home, measuring.SEED)


def labelled(data: Data, home: Path, members: int = 1) -> TeacherLogits:
    """The stage "logits" of a run; a random linear map of the middle frame stands in for each member."""
    import tensorflow as tf

    from mimic_keras.stages import logits
    from mimic_keras.stages.teachers import TeacherMember
    from mimic_keras.storage.store import Store
    from mimic_keras.training.models import Cost

    def load() -> Callable[[tf.Tensor], tf.Tensor]:
        shape = [INPUT_SHAPE[-1], STATES]
        kernel = tf.constant(np.random.default_rng(measuring.SEED).standard_normal(shape, np.float32))
        return lambda inputs: inputs[:, CENTRE] @ kernel

    names = [f"teacher/{number}" for number in range(members)]  # one key: the same shards are read for each
    nets = [TeacherMember(name, "linear", Cost(0, 0), None, {}, 0, 1.0, data, load) for name in names]
    store = Store(home, {})
    teacher = logits.compute_teacher_logits(nets, data, store, logits.label_validation(nets, data, store))
    assert teacher
    return teacher


def student_section(experiment: str) -> StudentSection:
    """The student's section of an experiment."""
    from mimic_keras.experiment import file as experiment_file
    from mimic_keras.experiment.schema import parse_experiment

    parsed = parse_experiment(experiment_file.read(EXPERIMENTS / experiment).source())
    assert parsed
    return parsed.student


class Note(NamedTuple):
    """When a batch's loss was known, in seconds; the mean loss of its examples; the peak memory so far, in GB."""

    time: float
    loss: float
    peak: float


def noting(objective: Objective, notes: list[Note]) -> Objective:
    """The objective, noting every batch as it goes, since `train` takes no callbacks."""
    import tensorflow as tf

    def note(loss: tf.Tensor) -> None:
        notes.append(Note(time.perf_counter(), float(loss), memory("VmHWM")))

    class Noting(type(objective)):  # type: ignore[misc]
        def __call__(self, outputs: tf.Tensor, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            per_example, weight = super().__call__(outputs, batch)
            tf.py_function(note, [tf.reduce_mean(per_example)], [])
            return per_example, weight

    return Noting(*(getattr(objective, field.name) for field in dataclasses.fields(objective)))


def train_noting(section: StudentSection, examples: Examples, logits: tf.Variable, **settings: Any) -> list[Note]:
    """One epoch of our trainer on standardised logits, then a validation of 64 examples; notes of the epoch's steps.

    Between two notes: the backward pass, the update, the next batch and its forward pass.
    """
    import tensorflow as tf
    from mimic_keras_architectures import bottleneck
    from mimic_keras_losses import LogitL2

    from mimic_keras.stages.student import compute_standardisation
    from mimic_keras.training.batches import Examples
    from mimic_keras.training.objective import Objective
    from mimic_keras.training.trainer import train

    notes: list[Note] = []
    training = section.training.model_copy(update={**settings, "epochs": 1})
    validation = Examples(examples.split, logits, np.arange(measuring.VALIDATION_EXAMPLES))
    train(
        lambda: bottleneck(INPUT_SHAPE, STATES, **section.architecture.model_extra),
        examples,
        validation,
        noting(Objective(LogitL2(), 0.0, *compute_standardisation(logits)), notes),
        training,
        measuring.SEED,
        "student",
        strategy=tf.distribute.get_strategy(),
    )
    return notes[: examples.steps_per_pass(training.batch_size)]


def drawn(teacher: TeacherLogits, data: Data, count: int) -> Examples:
    """`count` frames drawn from all, with their logits."""
    from mimic_keras.training.batches import Examples

    split = data.split("transfer")
    ids = np.random.default_rng(measuring.SEED).permutation(split.num_examples)
    return Examples(split, teacher.transfer, ids[:count])
