"""What a linear bottleneck saves (Ba & Caruana 2014, section 2.3): the loss of a wide student by seconds of training,
with one and without."""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path

import measuring

EXPERIMENT = Path(__file__).parent.parent / "experiments" / "timit_small.yaml"
UNITS, LINEAR_UNITS, TEACHERS = 8_000, 250, 2
PLAIN, BOTTLENECK = f"{UNITS}", f"{LINEAR_UNITS}L-{UNITS}"
ARCHITECTURES = {
    PLAIN: {"name": "mlp", "hidden_units": [UNITS]},
    BOTTLENECK: {"name": "bottleneck", "linear_units": LINEAR_UNITS, "hidden_units": [UNITS]},
}


def train(contender: str, root: str, home: str, seed: int, passes: int) -> dict[str, float]:
    """Seconds of a pass, and the loss on validation after each; both nets have half of their limit as rate."""
    import mimic_keras

    settings = {
        "dataset.root": root,
        "baseline": None,
        "teacher.seed": seed % TEACHERS,
        "student.seed": seed,
        "student.architecture": ARCHITECTURES[contender],
        "student.training.epochs": passes,
        "student.training.schedule": {"name": "constant"},
        "student.training.restore": "last",
        "student.training.optimizer": {
            "name": "sgd",
            "learning_rate": {"of_limit": 0.5},
            "momentum": 0.9,
            "nesterov": True,
        },
    }
    with tempfile.TemporaryDirectory() as runs:
        mimic_keras.run(EXPERIMENT, set=settings, home=home, runs_dir=runs, export=False)
        logs = Path(runs) / "timit_small" / "tensorboard" / "student"
        ends, losses = zip(*measuring.losses_of_epochs(logs / "validation"), strict=True)
    seconds = statistics.median(after - before for before, after in itertools.pairwise(ends))
    return {"seconds": seconds, **{f"loss {number}": loss for number, loss in enumerate(losses, 1)}}


def losses(result: dict[str, float]) -> list[float]:
    return [value for name, value in result.items() if name.startswith("loss ")]


def print_table(figures: measuring.Figures) -> None:
    print(f"\n### {UNITS:,} hidden units on speech, with a bottleneck of {LINEAR_UNITS} and without\n")
    print("| net | seconds a pass: median | min | max | loss on validation after 1, 2, 4, 8 ... passes |")
    print("|---|---:|---:|---:|---|")
    for contender, results in figures.items():
        median, low, high = measuring.spread(results, "seconds")
        curve = [statistics.mean(each) for each in zip(*map(losses, results), strict=True)]
        shown = ", ".join(f"{curve[number - 1]:.1f}" for number in (1, 2, 4, 8, 16, 32, 64) if number <= len(curve))
        print(f"| {contender} | {median:.1f} | {low:.1f} | {high:.1f} | {shown} |")
    ratio = measuring.ratio(figures, "seconds", PLAIN, BOTTLENECK)
    print(f"\nA pass of {PLAIN} takes {ratio:.2f} times that of {BOTTLENECK} (median over seeds).")
    print("Loss without a bottleneck less that with one:\n")
    passes = len(losses(figures[PLAIN][0]))
    print_difference(figures, passes, passes)
    print_difference(figures, passes, min(round(passes * ratio), len(losses(figures[BOTTLENECK][0]))))
    print(f"\n{measuring.load_of_others(figures)}")


def print_difference(figures: measuring.Figures, plain_passes: int, bottleneck_passes: int) -> None:
    """With Welch's t interval over the seeds; two of them or more."""
    from scipy import stats

    plain, bottleneck = (
        [losses(result)[passes - 1] for result in figures[contender]]
        for contender, passes in ((PLAIN, plain_passes), (BOTTLENECK, bottleneck_passes))
    )
    test = stats.ttest_ind(plain, bottleneck, equal_var=False)
    low, high = test.confidence_interval()
    difference = statistics.mean(plain) - statistics.mean(bottleneck)
    shown = f"{difference:.2f} ({low:.2f} to {high:.2f}, p = {test.pvalue:.3f})"
    print(f"- after {plain_passes} and {bottleneck_passes} passes: {shown}")


def draw(figures: measuring.Figures, file: Path) -> None:
    from matplotlib.figure import Figure

    from mimic_keras.reporting import pages

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="seconds of training", ylabel="loss on validation")
    for (contender, results), colour in zip(figures.items(), pages.PALETTE, strict=False):
        for number, result in enumerate(results):
            seconds = [result["seconds"] * passes for passes in range(1, len(losses(result)) + 1)]
            axes.plot(seconds, losses(result), ".-", color=colour, label="_" if number else contender)
    axes.legend()
    file.write_text(pages.to_svg(figure))


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        contender, root, home, seed, passes = sys.argv[2:]
        return print(json.dumps(train(contender, root, home, int(seed), int(passes))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="a corpus in TIMIT's layout")
    parser.add_argument("--home", help="a home folder that has the teachers already, and none of these students")
    parser.add_argument("--rounds", type=int, default=3, help="seeds of the student; those of the teacher take turns")
    parser.add_argument(
        "--passes", type=int, default=4, help="of the net without a bottleneck; the other has four times"
    )
    parser.add_argument("--figure", type=Path, help="SVG file to write")
    options = parser.parse_args()
    passes = {PLAIN: options.passes, BOTTLENECK: 4 * options.passes}
    figures: measuring.Figures = {contender: [] for contender in passes}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.rounds):
            for contender, count in passes.items():
                told = [contender, options.root, options.home or folder, str(seed), str(count)]
                result = measuring.in_a_fresh_process([sys.executable, str(Path(__file__)), "measure", *told])
                print(f"seed {seed}: {contender}: {result}", file=sys.stderr, flush=True)
                figures[contender].append(result)
    print_table(figures)
    if options.figure:
        draw(figures, options.figure)


if __name__ == "__main__":
    main()
