"""Searches in processes that are killed: one goes on to the same search, two share the work, the winner runs alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mimic_keras.experiment.file import read
from tests.test_survival import FAULTY, ROOT
from tests.tiny import tiny, write

pytestmark = pytest.mark.slow


def searched():
    experiment = tiny(search={"trials": 12, "random_trials": 4}, baseline=None)
    experiment["student"]["training"] = {
        "epochs": 6,
        "batch_size": 32,
        "optimizer": {
            "name": "sgd",
            "learning_rate": {"tune": {"min": 0.001, "max": 0.3, "sampling": "log"}},
            "momentum": {"tune": {"min": 0.0, "max": 0.95}},
        },
    }
    experiment["student"]["architecture"]["linear_units"] = {"tune": {"min": 4, "max": 24}}
    return experiment


def start(folder, word, file, left=0):
    """A process that dies when so many files and folders have been synced; 0: never."""
    places = ["--home", folder / "home", "--runs_dir", folder / "runs"]
    if word == "run":
        places += ["--saved_models_dir", folder / "exports"]
    return subprocess.Popen(
        [sys.executable, "-c", FAULTY, str(left), "0", word, str(file), *map(str, places)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder, word, file, left=0):
    process = start(folder, word, file, left)
    said = process.communicate()[1]
    assert process.returncode == (-signal.SIGKILL if left else 0), said
    return said


def trials(folder):
    files = sorted((folder / "runs" / "tiny" / "trials").glob("*.json"))
    found = [json.loads(file.read_text()) for file in files]
    return [{key: trial[key] for key in ("values", "state", "score", "note")} for trial in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, "tune", write(folder, searched()))
    return folder


def test_killed_three_times_it_is_the_same_search(whole, tmp_path):
    file = write(tmp_path, searched())
    began = [0]
    for left in (45, 60, 75):
        finish(tmp_path, "tune", file, left)
        began.append(len(trials(tmp_path)))
    assert 0 < began[1] < began[2] < began[3] <= 12
    finish(tmp_path, "tune", file)
    assert trials(tmp_path) == trials(whole)
    assert len(trials(whole)) == 12
    texts = [(folder / "runs" / "tiny" / "best.yaml").read_text() for folder in (tmp_path, whole)]
    assert texts[0] == texts[1]


def test_of_two_workers_one_is_killed(whole, tmp_path):
    file = write(tmp_path, searched())
    workers = [start(tmp_path, "tune", file) for _ in range(2)]
    while len([trial for trial in _safely(tmp_path) if trial["state"] == "running"]) < 2:
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.05)
    running = [place for place, trial in enumerate(_safely(tmp_path)) if trial["state"] == "running"]
    workers[0].send_signal(signal.SIGKILL)
    assert workers[1].wait(timeout=500) == 0
    found = trials(tmp_path)
    assert all(found[place]["state"] in ("done", "diverged") for place in running)
    assert found == trials(whole)
    for worker in workers:
        worker.communicate()


def test_the_winner_reproduces_its_score(whole, tmp_path):
    best = min(trial["score"] for trial in trials(whole) if trial["score"] is not None)
    file = whole / "runs" / "tiny" / "best.yaml"
    assert "tune" not in file.read_text()
    assert read(file).kind == "experiment"
    finish(tmp_path, "run", file)
    metrics = json.loads((tmp_path / "runs" / "tiny_best" / "metrics.json").read_text())
    assert metrics["models"]["student"]["validation"]["error_rate"] == best


def _safely(folder):
    try:
        return trials(folder)
    except (OSError, ValueError):
        return []
