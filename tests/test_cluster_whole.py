"""Shipped experiments on two Ray nodes, undisturbed and with workers and the driver killed: the bits of a local run."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_cluster import address, artefacts  # noqa: F401

pytestmark = pytest.mark.slow
EXPERIMENTS = Path(__file__).parent.parent / "experiments"
SECONDS_BETWEEN_KILLS = 20
RATE, UNITS = "student.training.optimizer.learning_rate", "student.architecture.linear_units"
JOBS = {
    "quickstart": ["run", EXPERIMENTS / "quickstart.yaml", "--no_export"],
    "ba_losses_small": ["sweep", EXPERIMENTS / "ba_losses_small.yaml"],
    "search": [
        *("tune", EXPERIMENTS / "quickstart.yaml", "--set", "name=search", "--set", "baseline=null"),
        *("--set", "search={trials: 12, random_trials: 4, parallel_trials: 2}"),
        *("--set", RATE + "={tune: {min: 0.0003, max: 0.03, sampling: log}}"),
        *("--set", UNITS + "={tune: {min: 4, max: 24}}"),
    ],
}


def start(job, folder, *options):
    """The command in a process of its own; what it says goes to a file in `folder`."""
    folder.mkdir(exist_ok=True)
    places = ["--home", folder / "home", "--runs_dir", folder / "runs"]
    command = [sys.executable, "-m", "mimic_keras", *JOBS[job], *places, *options]
    with (folder / "said.txt").open("a") as said:
        return subprocess.Popen([*map(str, command)], stdout=said, stderr=said, stdin=subprocess.DEVNULL)


def finish(process, folder):
    assert process.wait() == 0, (folder / "said.txt").read_text()[-5000:]


def found(folder):
    """Artefacts, tables, metrics and trials, without seconds."""
    results = {}
    for file in (folder / "runs").rglob("*"):
        name = str(file.relative_to(folder))
        if file.name in ("results.csv", "groups.csv", "trials.csv"):
            rows = csv.DictReader(file.open())
            results[name] = [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]
        elif file.name == "metrics.json":
            results[name] = json.loads(file.read_text())["models"]
        elif file.parent.name == "trials" and file.suffix == ".json":
            results[name] = {**json.loads(file.read_text()), "seconds": 0, "attempts": 0}
        elif file.name == "results.json":
            results[name] = {**json.loads(file.read_text()), "seconds": 0}
    return artefacts(folder / "home"), results


@pytest.fixture(scope="module", params=list(JOBS))
def job(request, tmp_path_factory):
    """An experiment's name, and what a run without a cluster gives."""
    folder = tmp_path_factory.mktemp("local")
    finish(start(request.param, folder), folder)
    artefacts_of, results = found(folder)
    assert artefacts_of
    assert results
    return request.param, (artefacts_of, results)


def test_on_a_cluster(job, tmp_path, address):  # noqa: F811
    name, local = job
    finish(start(name, tmp_path, "--cluster", address), tmp_path)
    assert found(tmp_path) == local


def test_on_a_cluster_whose_workers_die(job, tmp_path, address):  # noqa: F811
    """Every twenty seconds the worker that has lived longest is killed: not one that repeats another's work, unless
    other programs keep the processors so busy that a unit takes a minute, and dies three times."""
    name, local = job
    driver = start(name, tmp_path, "--cluster", address)
    kills = 0
    for tick in itertools.count(1):
        try:
            driver.wait(1)
            break
        except subprocess.TimeoutExpired:
            if tick % SECONDS_BETWEEN_KILLS == 0 and (workers := computing()):
                os.kill(workers[0], signal.SIGKILL)
                kills += 1
    finish(driver, tmp_path)
    assert kills
    assert found(tmp_path) == local


def test_on_a_cluster_whose_driver_dies(job, tmp_path, address):  # noqa: F811
    name, local = job
    driver = start(name, tmp_path, "--cluster", address)
    while len([*tmp_path.glob("home/students/[!.]*/artifact.json")]) < (1 if name == "quickstart" else 6):
        assert driver.poll() is None
        time.sleep(0.2)
    driver.kill()
    driver.wait()
    finished = [record.parent for record in tmp_path.glob("home/*/[!.]*/artifact.json")]
    files = [file for folder in finished for file in (*folder.glob("model.keras"), *folder.glob("*.npy"))]
    before = {file: os.stat(file).st_mtime_ns for file in files}
    finish(start(name, tmp_path, "--cluster", address), tmp_path)
    assert before
    assert {file: os.stat(file).st_mtime_ns for file in before} == before
    assert found(tmp_path) == local


def computing():
    """Processes of Ray's workers that compute a unit, the oldest first; on Linux."""
    began = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cmdline").read_bytes().startswith(b"ray::_compute"):
                began[int(process.name)] = int(process.joinpath("stat").read_text().rpartition(")")[2].split()[19])
        except OSError:
            continue
    return sorted(began, key=began.get)
