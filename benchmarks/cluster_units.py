"""What a second slot saves a sweep of small nets on a Ray cluster, and what a cell costs there more than elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import measuring
import sweep_overhead

from mimic_keras.interface import api

FEW = 12  # cells of the shorter sweep


def measure(slots: int, cells: int, epochs: int) -> dict[str, float]:
    """Seconds of a whole sweep, the start of the workers included, and of the training steps in it; 0 slots: in this
    process alone."""
    training = {**sweep_overhead.TRAINING, "epochs": epochs}
    experiment = {**sweep_overhead.EXPERIMENT, "student": {**sweep_overhead.STUDENT, "training": training}}
    with tempfile.TemporaryDirectory() as folder, cluster(slots) as address:
        Path(folder, "cell.yaml").write_text(json.dumps(experiment))
        Path(folder, "sweep.yaml").write_text(json.dumps(sweep_overhead.sweep(cells)))
        places = {"home": Path(folder, "home"), "runs_dir": Path(folder, "runs")}
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            api.sweep(Path(folder, "sweep.yaml"), cluster=address, **places).check()
        seconds = time.perf_counter() - started
        log = Path(folder, "runs", "overhead", "log.jsonl").read_text()
    return {"seconds": seconds, "training": sum(map(float, sweep_overhead.STEPS.findall(log)))}


@contextlib.contextmanager
def cluster(slots: int) -> Iterator[str | None]:
    """The address of a cluster of this machine; None without slots."""
    if not slots:
        yield None
        return
    from ray.cluster_utils import Cluster

    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else Ray replaces 127.0.0.1 by the interface's address
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": slots, "include_dashboard": False})
    yield nodes.address
    nodes.shutdown()


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        return print(json.dumps(measure(*map(int, sys.argv[2:]))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of all five sweeps (default 3)")
    parser.add_argument("--cells", type=int, default=24, help=f"of the longer sweeps; the shorter have {FEW}")
    parser.add_argument("--epochs", type=int, default=5, help="of a training, of 18 steps each (default 5)")
    options = parser.parse_args()
    here, one, two = ([f"{slots} {cells}" for cells in (FEW, options.cells)] for slots in (0, 1, 2))

    def command(contender: str) -> list[str]:
        return [sys.executable, str(Path(__file__)), "measure", *contender.split(), str(options.epochs)]

    figures = measuring.take_turns(options.rounds, [*here, *one, two[1]], command)

    def costs(contenders: list[str]) -> list[float]:
        """Seconds of a cell of each round, without what a sweep takes once."""
        pairs = zip(*(figures[each] for each in contenders), strict=True)
        return [(long["seconds"] - short["seconds"]) / (options.cells - FEW) for short, long in pairs]

    shares = [twice["seconds"] / once["seconds"] for once, twice in zip(figures[one[1]], figures[two[1]], strict=True)]
    rows = {
        "time with 2 slots / with 1": shares,
        "seconds of a cell without a cluster": costs(here),
        "seconds of a cell with 1 slot": costs(one),
        "the difference": [there - alone for alone, there in zip(costs(here), costs(one), strict=True)],
    }
    print(f"\n### a sweep of {options.cells} cells of 64-64-10 on the digits, {18 * options.epochs} steps each\n")
    print("| | median | min | max |\n|---|---:|---:|---:|")
    for name, values in rows.items():
        print(f"| {name} | {statistics.median(values):.3f} | {min(values):.3f} | {max(values):.3f} |")
    print(f"\n{measuring.load_of_others(figures)}; with a cluster, the others are its own")


if __name__ == "__main__":
    main()
