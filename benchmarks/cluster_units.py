"""What a second slot saves a sweep of small nets on a Ray cluster, and what a cell costs there beside its training."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import measuring
import sweep_overhead

from mimic_keras.interface import api

FEW = 12  # cells of the shorter sweep


def measure(slots: int, cells: int) -> dict[str, float]:
    """Seconds of a whole sweep, the start of the workers included, and of the training steps in it."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else Ray replaces 127.0.0.1 by the interface's address
    head = {"num_cpus": slots, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "cell.yaml").write_text(json.dumps(sweep_overhead.EXPERIMENT))
        Path(folder, "sweep.yaml").write_text(json.dumps(sweep_overhead.sweep(cells)))
        places = {"home": Path(folder, "home"), "runs_dir": Path(folder, "runs")}
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            api.sweep(Path(folder, "sweep.yaml"), cluster=nodes.address, **places).check()
        seconds = time.perf_counter() - started
        log = Path(folder, "runs", "overhead", "log.jsonl").read_text()
    nodes.shutdown()
    return {"seconds": seconds, "training": sum(map(float, sweep_overhead.STEPS.findall(log)))}


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        return print(json.dumps(measure(int(sys.argv[2]), int(sys.argv[3]))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of all three sweeps (default 3)")
    parser.add_argument("--cells", type=int, default=24, help=f"of the longer sweep; the shorter has {FEW}")
    options = parser.parse_args()
    short, long, two = f"1 {FEW}", f"1 {options.cells}", f"2 {options.cells}"

    def command(contender: str) -> list[str]:
        return [sys.executable, str(Path(__file__)), "measure", *contender.split()]

    figures = measuring.take_turns(options.rounds, [short, long, two], command)
    rounds = list(zip(figures[short], figures[long], figures[two], strict=True))
    shares = [{"value": twice["seconds"] / once["seconds"]} for _, once, twice in rounds]
    more = options.cells - FEW
    costs = [
        {"value": (once["seconds"] - few["seconds"] - once["training"] + few["training"]) / more}
        for few, once, _ in rounds
    ]
    print(f"\n### a sweep of {options.cells} cells of 64-64-10 on the digits, 90 steps each\n")
    print("| | median | min | max |\n|---|---:|---:|---:|")
    for name, results in (("time with 2 slots / with 1", shares), ("seconds of a cell beside its training", costs)):
        median, low, high = measuring.spread(results, "value")
        print(f"| {name} | {median:.3f} | {low:.3f} | {high:.3f} |")
    print(f"\n{measuring.load_of_others(figures)}")


if __name__ == "__main__":
    main()
