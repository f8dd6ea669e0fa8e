"""A whole experiment that runs in seconds, and the calls that tests make of the program."""

import copy
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mimic_keras.experiment.file import read
from mimic_keras.interface import cli
from mimic_keras.planning.plan import Plan, make_plan
from mimic_keras.sweeping.cells import Cell, Sweep, make_cells

TINY: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "digits"},
    "teacher": {
        "members": [
            {"teacher": {"name": "trained", "architecture": {"name": "mlp", "hidden_units": [24]}}, "copies": 2},
        ],
        "training": {"epochs": 2, "batch_size": 128, "optimizer": {"name": "adam", "learning_rate": 0.01}},
    },
    "student": {
        "architecture": {"name": "bottleneck", "linear_units": 8, "hidden_units": [32]},
        "loss": {"name": "logit_l2"},
        "standardize_logits": True,
        "training": {"epochs": 2, "batch_size": 128, "optimizer": {"name": "sgd", "learning_rate": 0.03}},
    },
    "baseline": {"architecture": {"dropout": 0.1}},
}


def tiny(**sections: Any) -> dict[str, Any]:
    """A copy of the experiment with other top-level sections."""
    return {**copy.deepcopy(TINY), **sections}


def write(folder: Path, experiment: Any) -> Path:
    """Write `experiment` (a mapping, or text as it stands) and return the file."""
    file = folder / "experiment.yaml"
    with file.open("w", encoding="utf-8") as stream:
        if isinstance(experiment, str):
            stream.write(experiment)
        else:
            YAML(typ="safe").dump(experiment, stream)
    return file


def plan_of(folder: Path, experiment: Any) -> Plan:
    """The plan of an experiment that is written to `folder`."""
    return make_plan(read(write(folder, experiment)).source())


def read_cells(file: Path, *settings: str) -> tuple[Sweep, list[Cell]]:
    """The sweep of a file, and its cells."""
    return make_cells(read(file, settings))


def command(*arguments: Any) -> int:
    """The exit code of `mimic-keras ARGUMENTS`, run in this process."""
    return cli.main(cli.parse(["mimic-keras", *map(str, arguments)]))


def run(folder: Path, experiment: Any, *options: Any) -> dict[str, Any]:
    """Run an experiment with home, runs and exports below `folder`; returns metrics.json."""
    file = write(folder, experiment)
    places = ("--home", folder / "home", "--runs_dir", folder / "runs", "--saved_models_dir", folder / "saved_models")
    assert command("run", file, *places, *options) == 0
    return json.loads((folder / "runs" / "tiny" / "metrics.json").read_text())


def counts(metrics: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """{stage: (made, reused)} of the stages that keep artefacts."""
    stages = ("teachers", "logits", "student", "export")
    return {name: (metrics["stages"][name]["made"], metrics["stages"][name]["reused"]) for name in stages}
