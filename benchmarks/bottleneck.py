"""What a linear bottleneck saves: the loss of a mimic of 8,000 units against seconds, with and without 250 linear ones.

Ba & Caruana 2014, section 2.3, on a corpus in TIMIT's layout with the teacher of experiments/timit_small.yaml.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring

EXPERIMENT = Path(__file__).parent.parent / "experiments" / "timit_small.yaml"
PLAIN, BOTTLENECK = "8,000 units", "250 linear and 8,000 units"
ARCHITECTURES: dict[str, dict[str, Any]] = {
    PLAIN: {"name": "mlp", "hidden_units": [8000]},
    BOTTLENECK: {"name": "bottleneck", "linear_units": 250, "hidden_units": [8000]},
}
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the time of the faster net


def measure(net: str, seed: int, root: str, home: str, passes: int) -> dict[str, list[float]]:
    """Seconds from the start of the training to the end of every pass, and the mean loss of the pass."""
    from mimic_keras.interface import api

    optimizer = {"name": "sgd", "learning_rate": {"of_limit": 0.5}, "momentum": 0.9, "nesterov": True}
    changes = {
        "name": "bottleneck",
        "dataset.root": root,
        "baseline": None,
        "teacher.seed": seed % 2,
        "student.seed": seed,
        "student.architecture": ARCHITECTURES[net],
        "student.training.epochs": passes,
        "student.training.schedule": {"name": "constant"},
        "student.training.restore": "last",
        "student.training.optimizer": optimizer,
    }
    with tempfile.TemporaryDirectory() as runs:
        api.run(EXPERIMENT, set=changes, home=home, runs_dir=runs, export=False)
        return measuring.losses(Path(runs, "bottleneck", "tensorboard", "student", "train"))


def loss_at(figures: dict[str, list[float]], seconds: float) -> float:
    """The loss of the last pass that had ended by then; infinite before the first has."""
    ended = [loss for end, loss in zip(figures["seconds"], figures["loss"], strict=True) if end <= seconds]
    return ended[-1] if ended else math.inf


def draw(file: Path, figures: dict[str, list[Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="seconds", ylabel="training loss (L2 on standardised logits)", yscale="log")
    for color, (net, results) in zip(("#0072b2", "#d55e00"), figures.items(), strict=True):
        for number, each in enumerate(results):
            axes.plot(each["seconds"], each["loss"], color=color, label=None if number else net)
    axes.legend()
    figure.savefig(file)


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        net, seed, root, home, passes = sys.argv[2:]
        return print(json.dumps(measure(net, int(seed), root, home, int(passes))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="a corpus in TIMIT's layout")
    parser.add_argument("--home", help="a folder that keeps the teachers; by default they are trained for this run")
    parser.add_argument("--rounds", type=int, default=6, help="seeds of both nets; the odd ones have another teacher")
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--figure", type=Path, help="an SVG file to draw the losses to")
    options = parser.parse_args()
    figures: dict[str, list[Any]] = {net: [] for net in ARCHITECTURES}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.rounds):
            for net in ARCHITECTURES:
                told = [net, str(seed), options.root, options.home or scratch, str(options.passes)]
                figures[net].append(measuring.in_a_fresh_process([sys.executable, __file__, "measure", *told]))
    print(f"\n### {options.passes} passes over the corpus\n")
    print("| | " + " | ".join(figures) + " |\n|---|" + "---:|" * len(figures))
    passes = {net: [each["seconds"][-1] / options.passes for each in found] for net, found in figures.items()}
    print(f"| seconds of a pass | {' | '.join(f'{statistics.median(each):.1f}' for each in passes.values())} |")
    for share in SHARES:
        losses = []
        for found in figures.values():
            at = [share * faster["seconds"][-1] for faster in figures[BOTTLENECK]]
            losses.append([loss_at(each, seconds) for each, seconds in zip(found, at, strict=True)])
        shown = (f"{statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in losses)
        print(f"| loss after {share:.0%} of the bottleneck's time | {' | '.join(shown)} |")
    last = ([each["loss"][-1] for each in found] for found in figures.values())
    shown = (f"{statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in last)
    print(f"| loss after all passes | {' | '.join(shown)} |")
    print(f"\nmedian, smallest and largest of {options.rounds}; {measuring.load_of_others(figures)}")
    if options.figure:
        draw(options.figure, figures)


if __name__ == "__main__":
    main()
