"""What a cell of a sweep of small nets costs beside its training steps: of two sweeps, the difference by cell."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring

COMMAND = str(Path(sys.executable).with_name("mimic-keras"))
FEW = 1
STEPS = re.compile(r"student: \d+ steps in ([0-9.]+) s")


TRAINING = {"epochs": 5, "batch_size": 64, "optimizer": {"name": "sgd", "learning_rate": 0.01}}
STUDENT = {"architecture": {"name": "mlp", "hidden_units": [64]}, "training": TRAINING}
EXPERIMENT = {"name": "cell", "dataset": {"name": "digits"}, "student": STUDENT}


def sweep(cells: int) -> dict:
    """The experiment, a small net on the digits' labels, with so many seeds."""
    seeds = {"axes": {"seed": list(range(cells))}, "set": {"student.seed": {"axis": "seed"}}}
    return {"name": "overhead", "experiment": "cell.yaml", **seeds}


def measure(cells: int) -> dict[str, float]:
    """Seconds of a whole sweep, and of the training steps in it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "cell.yaml").write_text(json.dumps(EXPERIMENT))
        Path(folder, "sweep.yaml").write_text(json.dumps(sweep(cells)))
        places = [f"--{name}={folder}/{name}" for name in ("home", "runs_dir")]
        started = time.perf_counter()
        done = subprocess.run(
            [COMMAND, "sweep", "sweep.yaml", *places], cwd=folder, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    return {"seconds": seconds, "training": sum(map(float, STEPS.findall(done.stderr)))}


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        return print(json.dumps(measure(int(sys.argv[2]))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of both sweeps (default 3)")
    parser.add_argument("--cells", type=int, default=13, help="of the longer sweep; the shorter has one")
    options = parser.parse_args()

    def command(cells: str) -> list[str]:
        return [sys.executable, str(Path(__file__)), "measure", cells]

    few, many = str(FEW), str(options.cells)
    figures = measuring.take_turns(options.rounds, [few, many], command)
    print("\n### a cell of a sweep of 64-64-10 on the digits, 90 steps\n")
    print("| seconds of a cell | median | min | max |\n|---|---:|---:|---:|")
    pairs = list(zip(figures[few], figures[many], strict=True))
    by_cell = [
        {key: (high[key] - low[key]) / (options.cells - FEW) for key in ("seconds", "training")} for low, high in pairs
    ]
    rows = {
        "in all": by_cell,
        "its training, as the run says": [{"seconds": each["training"]} for each in by_cell],
        "overhead": [{"seconds": each["seconds"] - each["training"]} for each in by_cell],
    }
    for name, results in rows.items():
        median, low, high = measuring.spread(results, "seconds")
        print(f"| {name} | {median:.3f} | {low:.3f} | {high:.3f} |")
    print(f"\n{measuring.load_of_others(figures)}")


if __name__ == "__main__":
    main()
