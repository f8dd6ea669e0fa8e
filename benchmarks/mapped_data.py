"""A distillation on memory-mapped data larger than the memory that the process may use, and what mapping costs."""

from __future__ import annotations

import argparse
import functools
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measuring
import numpy as np

IMAGE, CLASSES = (64, 64, 3), 10
HELD_OUT = 2048
BATCH_SIZE, STEPS = 256, 400
GB = 10**9


def write_random_images(folder: Path, gigabytes: float) -> None:
    """train, validation and test as {split}_x.npy and {split}_y.npy; training is written piece by piece."""
    from mimic_keras_arrays.files import write_rows

    generator = np.random.default_rng(measuring.SEED)

    def pieces(rows: int) -> list[int]:
        return [min(HELD_OUT, rows - start) for start in range(0, rows, HELD_OUT)]

    for split, rows in {
        "train": int(gigabytes * GB / math.prod(IMAGE)),
        "validation": HELD_OUT,
        "test": HELD_OUT,
    }.items():
        images = (generator.integers(0, 256, (size, *IMAGE), np.uint8) for size in pieces(rows))
        write_rows(folder / f"{split}_x.npy", rows, images)
        np.save(folder / f"{split}_y.npy", generator.integers(0, CLASSES, rows))


def dataset_of(folder: Path) -> dict[str, object]:
    """The arguments of the data set, as an experiment writes them."""
    splits = {
        split: {part: str(folder / f"{split}_{part}.npy") for part in "xy"} for split in ("train", "validation", "test")
    }
    return {**splits, "inputs": {"scale": 1 / 255}}


def keep_in_memory() -> None:
    from mimic_keras_arrays import arrays

    arrays.MAPPED_BYTES = sys.maxsize


def distil(in_memory: bool, folder: Path, limit: float) -> dict[str, float]:
    """Seconds of a whole run, digests, teacher, labels, student and export, in a process that may have `limit` GB.

    RLIMIT_DATA counts what a process allocates, and not the pages of files that it maps.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit * GB), int(limit * GB)))
    from mimic_keras.interface import cli

    if in_memory:
        keep_in_memory()
    training = {"epochs": 1, "batch_size": BATCH_SIZE, "optimizer": {"name": "adam", "learning_rate": 0.001}}
    net = {"name": "mlp", "hidden_units": [16]}
    member = {"teacher": {"name": "trained", "architecture": net}}
    experiment = {
        "name": "mapped",
        "dataset": {"name": "arrays", **dataset_of(folder)},
        "teacher": {"members": [member], "training": training},
        "student": {"architecture": net, "loss": {"name": "temperature"}, "training": training},
        "export": {"minimum_agreement": 0},  # there is nothing to learn in random images
    }
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "mapped.yaml"
        file.write_text(json.dumps(experiment))
        places = [f"--{name}={scratch}/{name}" for name in ("home", "runs_dir", "saved_models_dir")]
        started = time.perf_counter()
        if cli.main(cli.parse(["mimic-keras", "run", str(file), *places])):
            raise SystemExit("the run failed")
    return {"seconds": time.perf_counter() - started}


def draw_batches(in_memory: bool, folder: Path, _: float) -> dict[str, float]:
    """Rows a second of shuffled training batches, which nothing uses; files in the page cache, if they fit."""
    from mimic_keras_arrays.arrays import Arrays

    from mimic_keras.training.batches import Examples, training_batches

    measuring.configure()
    if in_memory:
        keep_in_memory()
    given = dataset_of(folder)
    splits = {name: {part: Path(file) for part, file in of.items()} for name, of in given.items() if name != "inputs"}  # type: ignore[attr-defined]
    data = Arrays(**splits, inputs=given["inputs"])  # type: ignore[arg-type]
    data.prepare(folder)
    batches = iter(training_batches(Examples(data.split("train")), BATCH_SIZE, measuring.SEED))

    def some_batches() -> None:
        for _ in range(STEPS):
            next(batches)

    return {"rows_per_second": BATCH_SIZE * STEPS / min(measuring.repeated(some_batches, 3))}


DISTILLED, MAPPED, MEMORY = "distillation, mapped, limited", "batches, mapped", "batches, in memory"
CONTENDERS: dict[str, Callable[[Path, float], dict[str, float]]] = {
    DISTILLED: functools.partial(distil, False),
    MAPPED: functools.partial(draw_batches, False),
    MEMORY: functools.partial(draw_batches, True),
}
REFUSED = "distillation, in memory, limited"  # shows that the limit is one


def print_table(figures: measuring.Figures, gigabytes: float, limit: float) -> None:
    print(f"\n{gigabytes:g} GB of images {list(IMAGE)}, batch {BATCH_SIZE}; limit {limit:g} GB\n")
    print("| contender | median | min | max |\n|---|---:|---:|---:|")
    for contender, results in figures.items():
        unit = next(key for key in results[0] if key != "others")
        median, low, high = measuring.spread(results, unit)
        print(f"| {contender}, {unit.replace('_', ' ')} | {median:,.0f} | {low:,.0f} | {high:,.0f} |")
    print(f"\nmapped / in memory: {measuring.ratio(figures, 'rows_per_second', MAPPED, MEMORY):.2f}")
    print(measuring.load_of_others(figures))


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        contender, folder, limit = sys.argv[2:]
        measure = {**CONTENDERS, REFUSED: functools.partial(distil, True)}[contender]
        return print(json.dumps(measure(Path(folder), float(limit))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the training images (default 2)")
    parser.add_argument("--limit", type=float, default=1.25, help="GB that the distillation may allocate (1.25)")
    parser.add_argument("--scratch", type=Path, help="where the images are written; default: a temporary folder")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of every contender (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        write_random_images(Path(folder), options.gigabytes)

        def command(contender: str) -> list[str]:
            return [sys.executable, str(Path(__file__)), "measure", contender, folder, str(options.limit)]

        try:
            measuring.in_a_fresh_process(command(REFUSED))
        except SystemExit as error:
            print(f"{REFUSED}: {next(line for line in str(error).splitlines() if line.startswith('mimic-keras: '))}")
        else:
            raise SystemExit(f"the limit of {options.limit:g} GB does not keep the images out of the memory")
        print_table(measuring.take_turns(options.rounds, list(CONTENDERS), command), options.gigabytes, options.limit)


if __name__ == "__main__":
    main()
