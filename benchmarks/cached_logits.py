"""A student's epoch on cached logits against one under `keras.distillation.Distiller` with nine live CNN teachers."""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import labelling
import measuring
import numpy as np
from nets import NETS, Net

if TYPE_CHECKING:
    import keras

STUDENTS, TEACHER, MEMBERS = ("conv_student", "shallow_student"), NETS["cnn"], 9


def build_members() -> list[keras.Model]:
    import keras

    nets = [TEACHER.build() for _ in range(MEMBERS)]
    return [keras.Model(net.inputs, net.outputs[0], name=f"member_{number}") for number, net in enumerate(nets)]


def random_examples(count: int) -> tuple[np.ndarray, np.ndarray]:
    return measuring.random_examples(count, TEACHER.input_shape, TEACHER.num_classes)


def train_on_cached_logits(student: Net, examples: int, epochs: int) -> float:
    """Our trainer as the program runs it: deterministic."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    return min(measuring.our_epochs(student.build, *random_examples(examples), student.batch_size, epochs))


def train_under_distiller(student: Net, examples: int, epochs: int) -> float:
    """The members' mean logits are computed in every step; the labels do not enter the loss."""
    import keras
    from mimic_keras_losses import LogitL2

    class Distance(keras.distillation.DistillationLoss):
        def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **_: Any) -> Any:
            return LogitL2()(teacher_outputs, student_outputs)

    keras.utils.set_random_seed(measuring.SEED)
    images = keras.Input(student.input_shape)
    teacher = keras.Model(images, keras.layers.Average()([member(images) for member in build_members()]))
    distiller = keras.distillation.Distiller(teacher, student.build(), Distance(), student_loss_weight=0.0)
    optimizer = keras.optimizers.SGD(measuring.LEARNING_RATE, momentum=measuring.MOMENTUM)
    distiller.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", jit_compile=False)
    inputs, labels = random_examples(examples)[0], np.zeros([examples], np.int32)
    return min(measuring.fit_epochs(distiller, inputs, labels, student.batch_size, epochs))


def label_once(_: Net, examples: int, epochs: int) -> float:
    """Seconds that all members take for the transfer set, tracing included."""
    import keras

    measuring.configure()
    keras.utils.set_random_seed(measuring.SEED)
    return labelling.label(build_members(), random_examples(examples)[0])[0]


CACHED, LIVE, LABELLING = "cached logits, an epoch", "Distiller, an epoch", "labelling, once"
CONTENDERS: dict[str, Callable[[Net, int, int], float]] = {
    CACHED: train_on_cached_logits,
    LIVE: train_under_distiller,
    LABELLING: label_once,
}


def print_table(student: Net, examples: int, figures: measuring.Figures) -> None:
    print(f"\n### {student.title}, of {MEMBERS} of {TEACHER.title}: {examples:,} examples\n")
    print("| contender | seconds: median | min | max |\n|---|---:|---:|---:|")
    for contender, results in figures.items():
        median, low, high = measuring.spread(results, "seconds")
        print(f"| {contender} | {median:.3f} | {low:.3f} | {high:.3f} |")
    rounds = zip(*(figures[contender] for contender in (LABELLING, LIVE, CACHED)), strict=True)
    paid = statistics.median(once["seconds"] / (live["seconds"] - cached["seconds"]) for once, live, cached in rounds)
    print(f"\nDistiller's epoch / ours: {measuring.ratio(figures, 'seconds', LIVE, CACHED):.1f};", end=" ")
    print(f"labelling has paid for itself after {paid:.2f} epochs\n\n{measuring.load_of_others(figures)}")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        student, contender, *told = sys.argv[2:]
        return print(json.dumps({"seconds": CONTENDERS[contender](NETS[student], *map(int, told))}))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=STUDENTS, help="default: both")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of every contender (default 3)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs in each, of which the fastest counts")
    parser.add_argument("--examples", type=int, default=4096, help="of an epoch; fewer to try it")
    options = parser.parse_args()

    told = [str(options.examples), str(options.epochs)]
    for student in options.students:
        command = functools.partial(_command, student, told)
        print_table(NETS[student], options.examples, measuring.take_turns(options.rounds, list(CONTENDERS), command))


def _command(student: str, told: list[str], contender: str) -> list[str]:
    return [sys.executable, str(Path(__file__)), "measure", student, contender, *told]


if __name__ == "__main__":
    main()
