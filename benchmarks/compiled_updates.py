"""Whole training steps with the updates of large weights compiled and not, by turns in one process."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import measuring
from nets import NETS, Net

ARGUMENTS = {"sgd": {"momentum": measuring.MOMENTUM}}
LEARNING_RATE = 1e-6  # at which none of the nets diverges


def make_steps(net: Net, optimizer: str, compiled_from: int) -> Callable[[int], object]:
    """A function that trains so many steps on one batch; updates are compiled from so many numbers in a weight on."""
    import tensorflow as tf
    from mimic_keras_losses import LogitL2

    from mimic_keras.experiment.training import TrainingSection
    from mimic_keras.training import optimizers

    section = {"name": optimizer, "learning_rate": LEARNING_RATE, **ARGUMENTS.get(optimizer, {})}
    optimizers.NOT_FASTER = set()  # these are measured too
    settings = TrainingSection(epochs=1, batch_size=net.batch_size, optimizer=section)
    model, loss, made = net.build(), LogitL2(), optimizers.make_optimizer(settings, LEARNING_RATE)
    made.build(model.trainable_variables)
    inputs, logits = measuring.random_examples(net.batch_size, net.input_shape, net.num_classes)

    def step(number: tf.Tensor) -> tuple[tf.Tensor]:
        with tf.GradientTape() as tape:
            value = loss(logits, model(inputs, training=True))
        made.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return (number + 1,)

    @tf.function(autograph=False)
    def run(steps: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda number: number < steps, step, (tf.constant(0),))[0]

    optimizers.COMPILED_FROM = compiled_from  # read when the graph is made, by the first call
    run(tf.constant(1))
    return lambda steps: run(tf.constant(steps)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    nets = ["shallow_student", "cnn", "timit_8k", "timit_160k"]
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=nets, help=f"default: {' '.join(nets)}")
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "adam"], help="default: sgd adam")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each (default 15)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn, about")
    options = parser.parse_args()
    measuring.configure()
    from mimic_keras.training.optimizers import COMPILED_FROM

    print("| net | optimizer | ms a step, not compiled | compiled | ratio: median | lower quartile | upper quartile |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name in options.nets:
        for optimizer in options.optimizers:
            ways = [make_steps(NETS[name], optimizer, size) for size in (sys.maxsize, COMPILED_FROM)]
            count = max(1, round(options.seconds / max(_seconds(run, 2) for run in ways)))
            turns = [[_seconds(run, count) for run in ways] for _ in range(options.rounds)]
            plain, compiled = (1e3 * statistics.median(turn) for turn in zip(*turns, strict=True))
            low, middle, high = statistics.quantiles([before / after for before, after in turns], n=4)
            ratios = f"{middle:.3f} | {low:.3f} | {high:.3f}"
            print(f"| {NETS[name].title} | {optimizer} | {plain:.2f} | {compiled:.2f} | {ratios} |", flush=True)


def _seconds(run: Callable[[int], object], steps: int) -> float:
    """Of one step, on average over so many."""
    started = time.perf_counter()
    run(steps)
    return (time.perf_counter() - started) / steps


if __name__ == "__main__":
    main()
