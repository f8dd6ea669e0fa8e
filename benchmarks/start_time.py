"""Seconds until commands have answered, and until a run has done its first step, beside programs that do nothing."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring

COMMAND = str(Path(sys.executable).with_name("mimic-keras"))
# One step: the transfer set is one batch. Labels alone, so that no teacher comes first.
EXPERIMENT = {
    "name": "start",
    "dataset": {"name": "digits"},
    "student": {
        "architecture": {"name": "mlp", "hidden_units": [64]},
        "training": {"epochs": 1, "batch_size": 2048, "optimizer": {"name": "sgd", "learning_rate": 0.001}},
    },
}
FIRST_STEP = "student: 1 steps in"  # what a run says when it is done
COMMANDS = {
    "mimic-keras --help": [COMMAND, "--help"],
    "mimic-keras plugins": [COMMAND, "plugins"],
    "mimic-keras run, to the end of its first step": [COMMAND, "run", "start.yaml", "--no_export"],
    "import keras": [sys.executable, "-c", "import keras"],
    "import ruamel.yaml": [sys.executable, "-c", "import ruamel.yaml"],
    "nothing": [sys.executable, "-c", ""],
}


def seconds(command: list[str]) -> float:
    """From the start of a command to its end, or to the line that says that the first step is done."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "start.yaml").write_text(json.dumps(EXPERIMENT))
        places = [f"--{name}={folder}/{name}" for name in ("home", "runs_dir")] if "run" in command else []
        started, ended = time.perf_counter(), None
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([*command, *places], cwd=folder, **pipes) as process:
            for line in process.stderr:
                if line.startswith(FIRST_STEP):
                    ended = time.perf_counter()
        if process.returncode or ("run" in command and ended is None):
            raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
        return (ended or time.perf_counter()) - started


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        return print(json.dumps({"seconds": seconds(COMMANDS[sys.argv[2]])}))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of every command, after one that warms up (default 9)")
    options = parser.parse_args()
    seconds(COMMANDS["mimic-keras plugins"])

    def command(contender: str) -> list[str]:
        return [sys.executable, str(Path(__file__)), "measure", contender]

    figures = measuring.take_turns(options.rounds, list(COMMANDS), command)
    print("\n### start\n\n| command | seconds: median | min | max |\n|---|---:|---:|---:|")
    for name, results in figures.items():
        times = [result["seconds"] for result in results]
        print(f"| {name} | {statistics.median(times):.3f} | {min(times):.3f} | {max(times):.3f} |")
    print(f"\n{measuring.load_of_others(figures)}")


if __name__ == "__main__":
    main()
