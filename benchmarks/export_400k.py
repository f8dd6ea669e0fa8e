"""Memory, size and latency of Ba & Caruana's largest student, its bottleneck kept or absorbed, exported as by a run.

The student is not trained: 1845-250L-400000-183 with its initial weights, and an affine head.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measuring
import numpy as np

INPUT_SHAPE, CLASSES, EXAMPLES = (15, 123), 183, 256
CONTENDERS = {"kept": "never", "absorbed": "always"}


def experiment(folder: Path, hidden_units: int, absorb: str) -> dict[str, Any]:
    files = {"x": str(folder / "x.npy"), "y": str(folder / "y.npy")}
    shares = {"validation": 0.25, "test": 0.25}
    optimizer = {"name": "sgd", "learning_rate": 0.001}
    return {
        "name": "student",
        "dataset": {"name": "arrays", "train": files, "shares": shares, "stratify": False, "classes": CLASSES},
        "student": {
            "architecture": {"name": "bottleneck", "linear_units": 250, "hidden_units": [hidden_units]},
            "training": {"epochs": 1, "batch_size": 64, "optimizer": optimizer},
        },
        "export": {"absorb_bottleneck": absorb},
    }


def export(folder: Path, hidden_units: int, absorb: str) -> Path:
    """Export the student by the stage of a run; returns the version."""
    from mimic_keras.experiment import file as experiment_file
    from mimic_keras.planning.plan import make_plan
    from mimic_keras.stages import data, student
    from mimic_keras.stages.export import publish
    from mimic_keras.training import models

    examples, _ = measuring.random_examples(EXAMPLES, INPUT_SHAPE, 1)
    np.save(folder / "x.npy", 10 * examples)
    np.save(folder / "y.npy", np.arange(EXAMPLES) % CLASSES)
    file = folder / "experiment.yaml"
    file.write_text(json.dumps(experiment(folder, hidden_units, absorb)))
    plan = make_plan(experiment_file.read(file).source())
    net = plan.student.architecture(INPUT_SHAPE, CLASSES)
    place = folder / "net"
    place.mkdir()
    models.save(place, models.with_affine_head(net, np.full(CLASSES, 2.0), np.ones(CLASSES)), {})
    del net
    prepared = data.prepare(plan.dataset, folder / "home", measuring.SEED)
    return publish(student.load(place), prepared, plan.experiment, {}, folder / "exports").path


def measure(hidden_units: int, absorb: str) -> dict[str, float]:
    measuring.configure()
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        with sampling() as together:
            version = export(Path(scratch), hidden_units, absorb)
        figures = {"seconds": time.perf_counter() - started, "peak": measuring.peak(), "together": max(together)}
        figures["size"] = sum(file.stat().st_size for file in version.rglob("*") if file.is_file()) / measuring.GB
        gc.collect()
        return figures | latencies(version)


@contextlib.contextmanager
def sampling() -> Iterator[list[float]]:
    """GB of this process and its children together, ten times a second; on Linux."""
    samples, done = [0.0], threading.Event()

    def sample() -> None:
        while not done.wait(0.1):
            children = [file.read_text().split() for file in Path("/proc/self/task").glob("*/children")]
            samples.append(sum(map(resident, ["self", *itertools.chain(*children)])))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def resident(process: str) -> float:
    """GB of a process in memory now; 0 of one that has ended."""
    try:
        return int(Path("/proc", process, "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / measuring.GB
    except (OSError, IndexError):
        return 0.0


def latencies(version: Path) -> dict[str, float]:
    """Milliseconds of a request of 1 and of 64 examples to TensorFlow Serving's loader, the median of five."""
    from mimic_keras.serving.saved_model import DEFAULT, INPUTS
    from mimic_keras.serving.session_loader import ServedModel

    served = ServedModel(version)
    found = {}
    for count in (1, 64):
        request = {INPUTS: np.zeros((count, *INPUT_SHAPE), np.float32)}
        times = measuring.repeated(lambda request=request: served.run(DEFAULT, request), 5)
        found[f"batch {count}"] = 1e3 * float(np.median(times))
    return found


FIGURES = {
    "seconds": "export and verification, seconds",
    "peak": "peak of the run, GB",
    "together": "peak with the process that verifies, GB",
    "size": "on disk, GB",
    "batch 1": "batch of 1, ms",
    "batch 64": "batch of 64, ms",
}


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        return print(json.dumps(measure(int(sys.argv[3]), CONTENDERS[sys.argv[2]])))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="fresh processes of every contender (default 1)")
    parser.add_argument("--hidden-units", type=int, default=400_000, help="fewer to try it")
    options = parser.parse_args()

    def command(contender: str) -> list[str]:
        return [sys.executable, str(Path(__file__)), "measure", contender, str(options.hidden_units)]

    figures = measuring.take_turns(options.rounds, list(CONTENDERS), command)
    print(f"\n### export of 1845-250L-{options.hidden_units}-183\n")
    print(f"| median | {' | '.join(f'bottleneck {name}' for name in CONTENDERS)} |\n|---|---:|---:|")
    for key, title in FIGURES.items():
        values = [measuring.spread(results, key)[0] for results in figures.values()]
        print(f"| {title} | {' | '.join(f'{value:.2f}' for value in values)} |")
    print(f"\n{measuring.load_of_others(figures)}")


if __name__ == "__main__":
    main()
