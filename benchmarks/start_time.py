"""Seconds until `--help` and `plugins` have answered, beside an empty program and a YAML parser."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 9
COMMAND = str(Path(sys.executable).with_name("mimic-keras"))
CONTENDERS = {
    "mimic-keras --help": [COMMAND, "--help"],
    "mimic-keras plugins": [COMMAND, "plugins"],
    "import ruamel.yaml": [sys.executable, "-c", "import ruamel.yaml"],
    "nothing": [sys.executable, "-c", ""],
}


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


def main() -> None:
    rounds = [{name: seconds(command) for name, command in CONTENDERS.items()} for _ in range(ROUNDS + 1)][1:]
    print("| command | seconds: median | min | max |\n|---|---:|---:|---:|")
    for name in CONTENDERS:
        times = [figures[name] for figures in rounds]
        print(f"| {name} | {statistics.median(times):.3f} | {min(times):.3f} | {max(times):.3f} |")


if __name__ == "__main__":
    main()
