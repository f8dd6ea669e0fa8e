"""Whether the driver of a cluster keeps up: a sweep like urban_table2 on simulated slots, whose units only sleep.

Everything of the driver is real: plans, suggestions, ledger, locks, records, renames. Workers are threads that sleep.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import pickle
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras import engine
from mimic_keras.interface import api
from mimic_keras.interface.tasks import Answer, Missing, Task
from mimic_keras.storage.files import hash_json
from mimic_keras.storage.store import locate
from mimic_keras.sweeping import errors

TRAINING = {"epochs": 1, "batch_size": 128, "optimizer": {"name": "sgd", "learning_rate": 0.01}}
SPREAD = 0.5, 1.5  # of a training's duration, around the mean
LABELLING = 0.01  # of a training's mean duration, for each split


class Slots:
    """In place of `engine.Engine`: a unit occupies a slot while it sleeps `seconds`, shortened by `scale`."""

    dashboard = None

    def __init__(self, slots: int, seconds: float, scale: float, members: int):
        self.slots, self._seconds, self._scale, self._members = slots, seconds, scale, members
        self._free, self._guard, self._random = threading.Semaphore(slots), threading.Lock(), random.Random(0)
        self._kinds: dict[str, str] = {}
        self._made: set[str] = set()
        self.busy = 0.0  # simulated seconds, of all slots
        self.trainings = 0

    def find_places(self) -> dict[int, str]:
        return {}

    def call(self, number: int, function: Any, task: Task, assigned: str | None = None) -> Answer:
        """What a worker answers: which artefacts are missing, stage by stage; or a score."""
        if assigned:
            return self._make(task, assigned)
        names = [f"teacher/{member}" for member in range(self._members)]
        student = hash_json(task.given["student"])
        stages = (
            [("teachers", {"member": name}) for name in names],
            [("logits", {"member": name, "split": split}) for name in names for split in ("transfer", "validation")],
            [("students", {"student": student})],
        )
        for stage in stages:
            missing = [Missing({}, kind, inputs, str(inputs)) for kind, inputs in stage]
            keys = [hash_json(each.inputs) for each in missing]
            with self._guard:
                self._kinds |= {key: kind for key, (kind, _) in zip(keys, stage, strict=True)}
                left = tuple(each for key, each in zip(keys, missing, strict=True) if key not in self._made)
            if left:
                return Answer(missing=left)
        metrics = {"error_rate": random.Random(student).random()}
        is_trial = pickle.loads(task.function).__name__ == "_validate_student"
        return Answer((metrics, f"students/{student}") if is_trial else [result(metrics)])

    def _make(self, task: Task, key: str) -> Answer:
        kind = self._kinds[key]
        with self._guard:
            seconds = self._seconds * (LABELLING if kind == "logits" else self._random.uniform(*SPREAD))
        with self._free:
            time.sleep(seconds / self._scale)
        (locate(task.home, kind, key)[1] / "net").write_bytes(key.encode())
        with self._guard:
            self._made.add(key)
            self.busy += seconds
            self.trainings += kind != "logits"
        return Answer()


def result(metrics: dict[str, float]) -> dict[str, Any]:
    """What the evaluation of a cell gives, of two test examples."""
    models = {"student": {"parameters": 1, "multiply_adds": 1, "validation": metrics, "test": metrics}}
    wrong = errors.pack(np.zeros(2, np.int64), {"student": np.eye(2)}, {})
    return {"models": models, "history": {"loss": [1.0]}, "errors": wrong}


def experiment(members: int, trials: int, parallel: int) -> dict[str, Any]:
    member = {"teacher": {"name": "trained", "architecture": {"name": "mlp", "hidden_units": [8]}}, "copies": members}
    rate = {"tune": {"min": 0.001, "max": 0.1, "sampling": "log"}}
    training = {**TRAINING, "optimizer": {"name": "sgd", "learning_rate": rate}}
    architecture = {"name": "mlp", "hidden_units": [{"tune": {"min": 8, "max": 64}}]}
    return {
        "name": "search",
        "dataset": {"name": "digits"},
        "teacher": {"members": [member], "training": TRAINING},
        "student": {"architecture": architecture, "loss": {"name": "kl"}, "training": training},
        "search": {"trials": trials, "random_trials": max(1, trials // 4), "parallel_trials": parallel},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--searches", type=int, default=36, help="cells of the sweep")
    parser.add_argument("--trials", type=int, default=60, help="of each search")
    parser.add_argument("--parallel", type=int, default=15, help="suggested trials of a search at a time")
    parser.add_argument("--members", type=int, default=129, help="of the teacher, which all searches share")
    parser.add_argument("--seconds", type=float, default=3145, help="of a training, on average")
    parser.add_argument("--scale", type=float, default=300, help="how much faster the units sleep")
    given = parser.parse_args()
    slots = Slots(given.slots, given.seconds, given.scale, given.members)
    engine.import_ray = lambda: None
    engine.connected = lambda address, resources: contextlib.nullcontext(slots)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "search.yaml").write_text(json.dumps(experiment(given.members, given.trials, given.parallel)))
        seeds = {"axes": {"seed": list(range(given.searches))}, "set": {"student.seed": {"axis": "seed"}}}
        file = Path(folder, "sweep.yaml")
        file.write_text(json.dumps({"name": "table", "experiment": "search.yaml", **seeds}))
        with contextlib.redirect_stdout(io.StringIO()):
            api.validate(file)  # loads TensorFlow
        began, computed = time.perf_counter(), time.process_time()
        api.sweep(file, cluster="simulated", home=Path(folder, "home"), runs_dir=Path(folder, "runs")).check()
        took, computed = time.perf_counter() - began, time.process_time() - computed
    simulated = took * given.scale
    print(f"### {slots.trainings} trainings of {given.seconds:.0f} s on average on {given.slots} slots\n")
    print("| | |\n|---|---:|")
    print(f"| hours, simulated; the driver's own time is lengthened by the scale | {simulated / 3600:.1f} |")
    print(f"| hours if no slot were ever free | {slots.busy / given.slots / 3600:.1f} |")
    print(f"| processor seconds of the driver for a training | {computed / slots.trainings:.2f} |")
    print(f"| seconds between two trainings' ends, at full speed | {given.seconds / given.slots:.1f} |")
    print(f"| so the driver is busy for a share of | {computed * given.slots / slots.trainings / given.seconds:.4f} |")


if __name__ == "__main__":
    main()
