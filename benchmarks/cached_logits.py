"""A student's epoch on cached logits against one under `keras.distillation.Distiller` with live teachers."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring
import numpy as np

if TYPE_CHECKING:
    import keras

INPUT_SHAPE, NUM_CLASSES = (32, 32, 3), 10
EXAMPLES, MEMBERS, BATCH_SIZE = 4096, 4, 128


def build_student() -> keras.Model:
    from mimic_keras_architectures import conv_student

    return conv_student(INPUT_SHAPE, NUM_CLASSES, filters=[32], linear_units=64, hidden_units=[1000], kernel_size=3)


def build_members() -> list[keras.Model]:
    import keras
    from mimic_keras_architectures import cnn

    nets = [cnn(INPUT_SHAPE, NUM_CLASSES, filters=[[32, 32], [64, 64]], hidden_units=[256]) for _ in range(MEMBERS)]
    return [keras.Model(net.inputs, net.outputs[0], name=f"member_{number}") for number, net in enumerate(nets)]


def random_inputs() -> np.ndarray:
    return measuring.random_examples(EXAMPLES, INPUT_SHAPE, NUM_CLASSES)[0]


def train_on_cached_logits(epochs: int) -> float:
    """Our trainer as the program runs it: deterministic."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    inputs, logits = measuring.random_examples(EXAMPLES, INPUT_SHAPE, NUM_CLASSES)
    return min(measuring.our_epochs(build_student, inputs, logits, BATCH_SIZE, epochs))


def train_under_distiller(epochs: int) -> float:
    """The members' mean logits are computed in every step; the labels do not enter the loss."""
    import keras
    from mimic_keras_losses import LogitL2

    class Distance(keras.distillation.DistillationLoss):
        def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **_: Any) -> Any:
            return LogitL2()(teacher_outputs, student_outputs)

    keras.utils.set_random_seed(measuring.SEED)
    images = keras.Input(INPUT_SHAPE)
    teacher = keras.Model(images, keras.layers.Average()([member(images) for member in build_members()]))
    distiller = keras.distillation.Distiller(teacher, build_student(), Distance(), student_loss_weight=0.0)
    optimizer = keras.optimizers.SGD(measuring.LEARNING_RATE, momentum=measuring.MOMENTUM)
    distiller.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", jit_compile=False)
    labels = np.zeros([EXAMPLES], np.int32)
    return min(measuring.fit_epochs(distiller, random_inputs(), labels, BATCH_SIZE, epochs))


def label_once(_: int) -> float:
    """Seconds that all members take for the transfer set, tracing included."""
    import keras

    from mimic_keras.contracts import ArraySplit
    from mimic_keras.training.models import make_predictor

    keras.utils.set_random_seed(measuring.SEED)
    members, split, ids = build_members(), ArraySplit(random_inputs()), np.arange(EXAMPLES)
    started = time.perf_counter()
    np.mean([make_predictor(member)(split, ids) for member in members], axis=0)
    return time.perf_counter() - started


CACHED, LIVE, LABELLING = "cached logits, an epoch", "Distiller, an epoch", "labelling, once"
CONTENDERS: dict[str, Callable[[int], float]] = {
    CACHED: train_on_cached_logits,
    LIVE: train_under_distiller,
    LABELLING: label_once,
}


def print_table(figures: measuring.Figures) -> None:
    print(f"\n{EXAMPLES:,} examples of {INPUT_SHAPE}, batch {BATCH_SIZE}, {MEMBERS} teachers\n")
    print("| contender | seconds: median | min | max |\n|---|---:|---:|---:|")
    for contender, results in figures.items():
        median, low, high = measuring.spread(results, "seconds")
        print(f"| {contender} | {median:.3f} | {low:.3f} | {high:.3f} |")
    rounds = zip(*(figures[contender] for contender in (LABELLING, LIVE, CACHED)), strict=True)
    paid = statistics.median(once["seconds"] / (live["seconds"] - cached["seconds"]) for once, live, cached in rounds)
    print(f"\nDistiller's epoch / ours: {measuring.ratio(figures, 'seconds', LIVE, CACHED):.1f}")
    print(f"labelling has paid for itself after {paid:.2f} epochs")
    print(measuring.load_of_others(figures))


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        contender, epochs = sys.argv[2:]
        return print(json.dumps({"seconds": CONTENDERS[contender](int(epochs))}))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of every contender (default 3)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs in each, of which the fastest counts")
    options = parser.parse_args()

    def command(contender: str) -> list[str]:
        return [sys.executable, str(Path(__file__)), "measure", contender, str(options.epochs)]

    print_table(measuring.take_turns(options.rounds, list(CONTENDERS), command))


if __name__ == "__main__":
    main()
