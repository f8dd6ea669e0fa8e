"""Latency and size of served students, factored and absorbed, and of their teachers, through the server's loader.

    python benchmarks/serving.py runs/quickstart [RUN ...]

Every net is exported as `mimic-keras export` does it. All run in one process, in turn, so that other load
on the machine affects all alike; a contender's time is the median over its rounds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from mimic_keras.experiment import file as experiment_file
from mimic_keras.planning.plan import make_plan
from mimic_keras.reporting import console
from mimic_keras.serving import folding, saved_model
from mimic_keras.serving.session_loader import ServedModel
from mimic_keras.training import models

SECONDS = 6.0  # of calls, for each contender and batch


def members(run: Path) -> dict[str, float]:
    """{folder of a model: weight} of the teacher's members."""
    found = json.loads((run / "artifacts.json").read_text())
    return {entry["model"]: entry["weight"] for entry in found.values() if "weight" in entry}


def ensemble(folders: dict[str, float], shape: tuple[int, ...]) -> keras.Model:
    """The weighted mean of the members' logits, each member folded, as one net."""
    inputs = keras.Input(shape)
    nets = [folding.fold(models.load(Path(folder)))[0] for folder in folders]
    for place, net in enumerate(nets):
        net.name = f"member_{place}"
    logits = [net(inputs) * weight for net, weight in zip(nets, folders.values(), strict=True)]
    return keras.Model(inputs, sum(logits[1:], logits[0]))


def exports(run: Path, folder: Path) -> dict[str, Path]:
    """{contender: its SavedModel}"""
    info = make_plan(experiment_file.read(run / "experiment.yaml").source()).dataset().info
    student = Path(json.loads((run / "artifacts.json").read_text())["student"]["model"])
    nets = {"teacher": ensemble(members(run), info.input_shape)}
    for absorb in ("never", "always"):
        nets[{"never": "student", "always": "student, absorbed"}[absorb]], notes = folding.fold(
            models.load(student), absorb
        )
    if not any("absorbed" in note for note in notes):
        del nets["student, absorbed"]
    for name, net in nets.items():
        saved_model.write(folder / name, net, info, {})
    return {name: folder / name for name in nets}


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def medians(served: dict[str, ServedModel], inputs: np.ndarray) -> dict[str, float]:
    """The median seconds of one call of each, the contenders in turn."""
    times: dict[str, list[float]] = {name: [] for name in served}
    for each in served.values():
        each.run(saved_model.DEFAULT, {saved_model.INPUTS: inputs})
    ends = time.perf_counter() + SECONDS * len(served)
    while time.perf_counter() < ends or len(times[next(iter(times))]) < 5:
        for name, each in served.items():
            began = time.perf_counter()
            each.run(saved_model.DEFAULT, {saved_model.INPUTS: inputs})
            times[name].append(time.perf_counter() - began)
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a finished run")
    options = parser.parse_args()
    rows = []
    for run in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            places = exports(run, Path(folder))
            served = {name: ServedModel(place) for name, place in places.items()}
            shape = [
                dim.size for dim in served["student"].signatures[saved_model.DEFAULT].inputs["inputs"].tensor_shape.dim
            ]
            random = np.random.default_rng(0)
            of_batch = {
                count: medians(served, random.normal(size=[count, *shape[1:]]).astype(np.float32)) for count in (1, 64)
            }
            for name, place in places.items():
                rows.append(
                    {
                        "run": run.name,
                        "net": name,
                        "MB": size(place) / 1e6,
                        **{f"ms, batch {count}": found[name] * 1e3 for count, found in of_batch.items()},
                        **{
                            f"of teacher, batch {count}": found[name] / found["teacher"]
                            for count, found in of_batch.items()
                        },
                    }
                )
    console.show_table("", list(rows[0]), rows)


if __name__ == "__main__":
    main()
