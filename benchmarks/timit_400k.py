"""Some steps of Ba & Caruana's largest student: time against its matrix products alone, memory, and loss."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
PRECISIONS = ("float32", "mixed_bfloat16")
GB = 1e9


def memory(name: str) -> float:
    """GB of this process, from /proc/self/status: `VmRSS` is in memory now, `VmHWM` was at most."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024 / GB


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


class Job(NamedTuple):
    """What every contender is told."""

    root: str
    folder: str
    hidden_units: int
    batch_size: int
    steps: int

    def layers(self, section: StudentSection) -> list[tuple[int, int]]:
        """(inputs, outputs) of every fully connected layer."""
        inputs = INPUT_SHAPE[0] * INPUT_SHAPE[1]
        linear = section.architecture.model_extra["linear_units"]
        return list(itertools.pairwise([inputs, linear, self.hidden_units, STATES]))

    def operations(self, section: StudentSection) -> int:
        """Floating-point operations of a step's matrix products."""
        return measuring.training_operations(self.layers(section)) * self.batch_size

    def speed(self, seconds: Sequence[float], section: StudentSection) -> dict[str, float]:
        """The least disturbed step, as README.md says, and the median step."""
        fastest, median = float(min(seconds)), float(np.median(seconds))
        return {"seconds": fastest, "median": median, "gflops": self.operations(section) / fastest / 1e9}


def train_student(precision: str, job: Job) -> dict[str, float]:
    """The student of experiments/timit_400k.yaml, trained as there: optimizer, learning rate, best weights kept."""
    measuring.configure()
    home = Path(job.folder)
    data = prepared(Path(job.root), home)
    teacher = labelled(data, home)
    section = student_section("timit_400k.yaml")
    section.architecture.model_extra["hidden_units"] = [job.hidden_units]
    # One step more than is measured, since a step lasts from note to note.
    examples = drawn(teacher, data, job.batch_size * (job.steps + 1))
    figures = {"before": memory("VmRSS")}
    forget_peak()
    notes = train_noting(section, examples, teacher.transfer, batch_size=job.batch_size, precision=precision)
    figures |= {"stepping": notes[-1].peak, "peak": memory("VmHWM"), "first": notes[0].loss, "last": notes[-1].loss}
    return figures | job.speed(np.diff([note.time for note in notes]), section)


def multiply_matrices(precision: str, job: Job) -> dict[str, float]:
    measuring.configure()
    figures = {"before": memory("VmRSS")}
    section = student_section("timit_400k.yaml")
    step = measuring.matrix_products(job.layers(section), job.batch_size, precision.removeprefix("mixed_"))
    seconds = measuring.repeated(lambda: step()[-1].numpy(), job.steps)
    figures |= {"stepping": memory("VmHWM"), "peak": memory("VmHWM")}
    return figures | job.speed(seconds, section)


CONTENDERS: dict[str, Callable[[str, Job], dict[str, float]]] = {
    "training": train_student,
    "matrix products": multiply_matrices,
}


def print_table(job: Job, figures: measuring.Figures) -> None:
    section = student_section("timit_400k.yaml")
    parameters = sum((inputs + 1) * outputs for inputs, outputs in job.layers(section))
    parameters -= section.architecture.model_extra["linear_units"]  # whose layer has no bias
    print(f"\n{parameters:,} parameters, batch {job.batch_size}: {job.operations(section) / 1e9:.4g} GFLOP a step\n")
    titles = ["contender", "seconds, fastest step", "median step", "GFLOP/s", "it / its products"]
    titles += ["resident before, GB", "peak of the steps", "peak", "loss of the first step", "of the last"]
    print(f"| {' | '.join(titles)} |\n|---|{'---:|' * (len(titles) - 1)}")
    for contender, results in figures.items():
        rate, *seconds = (measuring.spread(results, key)[0] for key in ("gflops", "seconds", "median"))
        share = measuring.ratio(figures, "gflops", contender, contender.replace("training", "matrix products"))
        peaks = [measuring.spread(results, key)[0] for key in ("before", "stepping", "peak")]
        losses = [f"{results[0][key]:.4f}" if key in results[0] else "" for key in ("first", "last")]
        row = [*(f"{value:.3f}" for value in seconds), f"{rate:.4g}", f"{share:.3f}"]
        print(f"| {' | '.join([contender, *row, *(f'{value:.2f}' for value in peaks), *losses])} |")
    print(f"\n{measuring.load_of_others(figures)}")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        contender, _, precision = sys.argv[2].partition(", ")
        return print(json.dumps(CONTENDERS[contender](precision, Job(*json.loads(sys.argv[3])))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="TIMIT, or a part of it")
    parser.add_argument("--scratch", type=Path, help="where a temporary folder for features and logits is made")
    parser.add_argument("--rounds", type=int, default=1, help="fresh processes of every contender (default 1)")
    parser.add_argument("--steps", type=int, default=20, help="in each that are timed (default 20)")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--hidden-units", type=int, default=400_000, help="fewer to try it")
    options = parser.parse_args()
    contenders = [f"{contender}, {precision}" for precision in PRECISIONS for contender in CONTENDERS]
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        job = Job(str(options.root.resolve()), folder, options.hidden_units, options.batch_size, options.steps)

        def command(contender: str) -> list[str]:
            return [sys.executable, str(Path(__file__)), "measure", contender, json.dumps(job)]

        print_table(job, measuring.take_turns(options.rounds, contenders, command))


if __name__ == "__main__":
    main()
