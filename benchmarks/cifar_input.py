"""CIFAR-10's pipeline against the student it feeds, the memory of training on it, and the time that ZCA takes."""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import measuring
import numpy as np

if TYPE_CHECKING:
    import keras
    from mimic_keras_cifar import Cifar10

    from mimic_keras.training.batches import Examples

BATCH_SIZE, COPIES, SHIFT = 256, 8, 3  # as experiments/cifar10_small.yaml
STUDENT_EXAMPLES = 8192
FITTED_IMAGES = 50_000
LEARNING_RATE = 1e-5  # the summed loss diverges at the siblings' rate on inputs of variance 1
EXPERIMENT = Path(__file__).parent.parent / "experiments" / "cifar10_small.yaml"


def write_random_images(folder: Path) -> None:
    """The six files of the official binary version, with random labels and pixels: 60,000 images."""
    from mimic_keras_cifar.records import CIFAR10

    generator = np.random.default_rng(measuring.SEED)
    for name, images in CIFAR10.files.items():
        records = generator.integers(0, 256, [images, CIFAR10.record], np.uint8)
        records[:, 0] %= len(CIFAR10.class_names)
        records.tofile(folder / name)


def read(root: Path, folder: Path, preparation: Literal["standardize", "zca"] = "standardize") -> Cifar10:
    """The prepared data set with its virtual copies; a whitening is computed once and kept in `folder`."""
    from mimic_keras_cifar import Cifar10

    dataset = Cifar10(root=root, preparation=preparation, copies=COPIES, mirror=True, shift=SHIFT)
    dataset.prepare(folder)
    return dataset


def with_logits(dataset: Cifar10, split: str, examples: int | None = None) -> Examples:
    """A split, or the first `examples` of it, with random logits for every virtual copy."""
    from mimic_keras.training.batches import Examples

    found = dataset.split(split, measuring.SEED)
    shape = (found.num_examples * found.repeats, dataset.info.num_classes)
    logits = np.random.default_rng(measuring.SEED).standard_normal(shape, np.float32)
    return Examples(found, logits, None if examples is None else np.arange(examples))


def student_builder(dataset: Cifar10) -> Callable[[], keras.Model]:
    """The student of experiments/cifar10_small.yaml."""
    from mimic_keras.experiment import file as experiment_file
    from mimic_keras.planning.plan import make_plan

    architecture = make_plan(experiment_file.read(EXPERIMENT).source()).student.architecture
    return lambda: architecture(dataset.info.input_shape, dataset.info.num_classes)


def run_pipeline(preparation: Literal["standardize", "zca"], root: Path, folder: Path, passes: int) -> dict[str, float]:
    """Passes over the transfer split, batch by batch as `train` draws them; nothing uses the batches."""
    from mimic_keras.training.batches import training_batches

    measuring.configure()
    examples = with_logits(read(root, folder, preparation), "transfer")
    batches = iter(training_batches(examples, BATCH_SIZE, measuring.SEED))

    def one_pass() -> None:
        for _ in range(examples.steps_per_pass(BATCH_SIZE)):
            next(batches)

    return {"images_per_second": len(examples.ids) / min(measuring.repeated(one_pass, passes))}


def train_student(root: Path, folder: Path, epochs: int) -> dict[str, float]:
    """The whole of training: the same pipeline, the student's steps, and a validation of 64 examples an epoch."""
    measuring.configure()
    dataset = read(root, folder)
    validation = with_logits(dataset, "validation", measuring.VALIDATION_EXAMPLES)
    examples, build = with_logits(dataset, "transfer", STUDENT_EXAMPLES), student_builder(dataset)
    seconds = measuring.epochs_on(build, examples, validation, BATCH_SIZE, epochs, LEARNING_RATE)
    return {"images_per_second": STUDENT_EXAMPLES / min(seconds)}


def measure_memory(root: Path, folder: Path, _: int) -> dict[str, float]:
    """GB of one process: two epochs with a validation of 64 images, then two with the whole split, as in a run.

    They are apart because validation batches are larger than the training's. Peaks can only grow.
    """
    for module in ("mimic_keras.runner", "mimic_keras_architectures", "mimic_keras_cifar", "mimic_keras_losses"):
        importlib.import_module(module)
    figures = {"imported": resident()}
    measuring.configure()
    dataset = read(root, folder)
    figures["reading"] = measuring.peak()
    examples, build = with_logits(dataset, "transfer", STUDENT_EXAMPLES), student_builder(dataset)
    pixels = math.prod(dataset.info.input_shape) * sum(dataset.layout.files.values())
    logits = dataset.info.num_classes * examples.split.num_examples * examples.split.repeats
    figures |= {"images": pixels / measuring.GB, "logits": 4 * logits / measuring.GB}
    expected = figures["imported"] + figures["images"] + figures["logits"]
    for name, count in (("training", measuring.VALIDATION_EXAMPLES), ("validating", None)):
        validation = with_logits(dataset, "validation", count)
        measuring.epochs_on(build, examples, validation, BATCH_SIZE, 1, LEARNING_RATE)
        figures |= {name: measuring.peak(), f"{name}_over": measuring.peak() - expected}
    return figures


def resident() -> float:
    """GB of this process in memory now, program text included; NaN without /proc."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / measuring.GB if file.exists() else math.nan


def fit_whitening(root: Path, folder: Path, _: int) -> dict[str, float]:
    """Seconds for the statistics of all training images, which are in memory."""
    from mimic_keras_cifar import preparation, records

    images = records.read(records.CIFAR10, root)[0]
    started = time.perf_counter()
    preparation.Whitening.fit(images, np.arange(FITTED_IMAGES))
    return {"seconds": time.perf_counter() - started}


STANDARDIZE, ZCA, STUDENT = "pipeline, standardize", "pipeline, zca", "student, training"
MEMORY, FIT = "memory", "fitting ZCA"
MEMORY_FIGURES = {
    "imported": "resident after the imports",
    "images": "the images, uint8",
    "logits": "the logits, float32",
    "reading": "peak until the images are read",
    "training": "peak, training",
    "training_over": "the same, over imports, images and logits",
    "validating": "peak, training and validating on 10,000",
    "validating_over": "the same, over imports, images and logits",
}
CONTENDERS: dict[str, Callable[[Path, Path, int], dict[str, float]]] = {
    STANDARDIZE: functools.partial(run_pipeline, "standardize"),
    ZCA: functools.partial(run_pipeline, "zca"),
    STUDENT: train_student,
    MEMORY: measure_memory,
    FIT: fit_whitening,
}


def print_tables(figures: measuring.Figures) -> None:
    print(f"\nbatch {BATCH_SIZE}, {COPIES} copies, mirrored, shifted by up to {SHIFT} pixels\n")
    print("| contender | images/s: median | min | max | it / student |\n|---|---:|---:|---:|---:|")
    for contender in (STANDARDIZE, ZCA, STUDENT):
        median, low, high = measuring.spread(figures[contender], "images_per_second")
        times = measuring.ratio(figures, "images_per_second", contender, STUDENT)
        print(f"| {contender} | {median:,.0f} | {low:,.0f} | {high:,.0f} | {times:.2f} |")
    print("\n| figure | median | min | max |\n|---|---:|---:|---:|")
    rows = [(MEMORY, key, f"{title}, GB") for key, title in MEMORY_FIGURES.items()]
    for contender, key, title in [*rows, (FIT, "seconds", f"{FIT} to {FITTED_IMAGES:,} images, seconds")]:
        median, low, high = measuring.spread(figures[contender], key)
        print(f"| {title} | {median:.3f} | {low:.3f} | {high:.3f} |")
    print(f"\n{measuring.load_of_others(figures)}")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        contender, *places, epochs = sys.argv[2:]
        root, folder = map(Path, places)
        return print(json.dumps(CONTENDERS[contender](root, folder, int(epochs))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="CIFAR-10's official binary version; default: random images")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of every contender (default 3)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs in each, of which the fastest counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.root is None:
            write_random_images(Path(scratch))
        places = [str((options.root or Path(scratch)).resolve()), scratch]

        def command(contender: str) -> list[str]:
            return [sys.executable, str(Path(__file__)), "measure", contender, *places, str(options.epochs)]

        print_tables(measuring.take_turns(options.rounds, list(CONTENDERS), command))


if __name__ == "__main__":
    main()
