"""Attacks on searches: trials that kill their process (M5), trials whose files are removed (M6), damaged files."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mimic_keras import runner
from mimic_keras.contracts import InputError, RunError
from mimic_keras.experiment.ranges import Range
from mimic_keras.searching import page, space
from mimic_keras.stages.workspace import Workspace
from mimic_keras.training.steps import TrainingDiverged
from tests.test_searching import RATE, UNITS, search_of, searched, work

# A search whose trials are a formula; number 1 kills its process.
KILLED = """
import os, pathlib, signal, sys
from mimic_keras import runner
from tests.attacks import test_search as this
folder = pathlib.Path(sys.argv[1])
search = this.search_of(folder, this.searched(trials=4))
def kill_or_score(*arguments, **named):
    if [trial.number for trial in search.list_trials() if trial.state == "running"] == [1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return this.score(*arguments, **named)
runner.train_and_evaluate = kill_or_score
this.work(search, folder)
"""
# As suggested before suggestions followed from the trials before them: (units, rate, state).
GOLDEN = [
    (7, 0.01182, "done"),
    (7, 0.001981, "done"),
    (2, 0.001146, "done"),
    (8, 0.00856, "done"),
    (7, 0.06772, "done"),
    (4, 0.6288, "diverged"),
]


def score(planned, workspace, splits=()):
    """Stands for a training: its score is a formula of the trial's values."""
    rate = planned.experiment.student.training.optimizer.learning_rate
    units = planned.student.architecture.arguments["linear_units"]
    if rate > 0.5:
        raise TrainingDiverged("the loss became inf")
    models = {"student": {"validation": {"error_rate": abs(np.log10(rate) + 1.5) / 10 + abs(units - 6) / 100}}}
    nets = [SimpleNamespace(folder=workspace.home / "students" / "x")]
    return SimpleNamespace(evaluation=SimpleNamespace(models=models), nets=nets)


@pytest.fixture
def untrained(monkeypatch):
    """Trials that are scored by `score`; returns a list that grows with every trial."""
    tried = []
    monkeypatch.setattr(
        runner, "train_and_evaluate", lambda *arguments, **named: tried.append(1) or score(*arguments, **named)
    )
    return tried


def trial_file(search, number):
    return search.folder / "trials" / f"{number:04d}.json"


def die(search):
    """What a process that claims a trial and is killed leaves behind; the number of the trial."""
    with search._claimed() as trial:
        return trial.number


@pytest.fixture
def search(tmp_path):
    found = search_of(tmp_path, searched(trials=2))
    found._check_same(Workspace(tmp_path / "home"))
    return found


def test_m5_a_trial_whose_process_dies_three_times_has_failed(tmp_path, search, untrained):
    assert [die(search) for _ in range(3)] == [0, 0, 0]
    assert search.list_trials()[0].attempts == 3
    assert [state for _, state, _ in work(search, tmp_path)] == ["failed", "done"]
    failed = search.list_trials()[0]
    assert (failed.score, failed.note) == (None, "its process died 3 times")
    assert len(untrained) == 1
    page.write_page(search, tmp_path / "home")
    assert "its process died 3 times" in (search.folder / "search.html").read_text(encoding="utf-8")
    work(search, tmp_path)
    assert len(untrained) == 1


def test_m5_two_deaths_are_no_failure(tmp_path, search, untrained):
    assert [die(search) for _ in range(2)] == [0, 0]
    assert [state for _, state, _ in work(search, tmp_path)] == ["done"] * 2


@pytest.mark.long
@pytest.mark.parametrize("error", [KeyboardInterrupt, RunError])
def test_m5_interruptions_and_errors_are_no_deaths(tmp_path, search, untrained, monkeypatch, error):
    learn = runner.train_and_evaluate

    def interrupted(*_, **__):
        raise error

    monkeypatch.setattr(runner, "train_and_evaluate", interrupted)
    for _ in range(4):
        with pytest.raises(error):
            work(search, tmp_path)
    monkeypatch.setattr(runner, "train_and_evaluate", learn)
    assert [state for _, state, _ in work(search, tmp_path)] == ["done"] * 2


def test_m5_a_trial_of_an_earlier_version_has_one_attempt(search):
    die(search)
    content = json.loads(trial_file(search, 0).read_text())
    del content["attempts"]
    trial_file(search, 0).write_text(json.dumps(content))
    assert search.list_trials()[0].attempts == 1


@pytest.mark.slow
def test_m5_processes_that_are_killed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    codes = [subprocess.run([sys.executable, "-c", KILLED, tmp_path], env=environment).returncode for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 3 + [0]
    states = [json.loads(trial_file(search_of(tmp_path, searched(trials=4)), n).read_text())["state"] for n in range(4)]
    assert states == ["done", "failed", "done", "done"]


@pytest.mark.long
def test_m6_untouched_it_is_what_it_was_and_removed_trials_are_done_again_the_same(tmp_path, untrained):
    search = search_of(tmp_path, searched())
    whole = work(search, tmp_path)
    assert [(values[UNITS], state) for values, state, _ in whole] == [(units, state) for units, _, state in GOLDEN]
    rates, golden = [values[RATE] for values, *_ in whole], [rate for _, rate, _ in GOLDEN]
    assert rates[:3] == golden[:3]
    assert rates[3:] == pytest.approx(golden[3:], rel=0.02)  # the process depends on SciPy's last bits
    for removed in ((0,), (4,), (1, 2, 5)):
        for number in removed:
            trial_file(search, number).unlink()
        assert work(search, tmp_path) == whole
    assert len(untrained) == 6 + 1 + 1 + 3


def test_m6_a_trial_done_again_is_no_later_one(tmp_path, untrained):
    """With several workers, later trials were suggested while the earlier ones had no score."""
    small = {("x",): Range(choices=["a", "b"]), ("y",): Range(min=1, max=2)}
    points = [{("x",): x, ("y",): y} for x in "ab" for y in (1, 2)]
    for missing in points:
        tried = [(points[0], 0.5)] if missing != points[0] else []
        later = [point for point in points if point != missing and point not in [values for values, _ in tried]]
        assert space.suggest(small, tried, 0, 2, later) == missing
    assert space.suggest(small, [(points[0], 0.5)], 0, 2, points[1:]) is None


def test_m6_later_trials_change_no_suggestion(tmp_path):
    small = {("x",): Range(min=1, max=40)}
    tried = [({("x",): value}, 0.1) for value in range(1, 36)]
    first = space.suggest(small, tried, 0, 100)
    later = [{("x",): value} for value in range(36, 41) if value != first["x",]]
    for count in range(len(later) + 1):
        assert space.suggest(small, tried, 0, 100, later[:count]) == first


DAMAGED = (
    "{",
    "[]",
    "\xff",
    '{"values": []}',
    '{"values": {"x": 1}, "state": "done"}',
    '{"values": VALUES, "state": "odd", "score": null}',
    '{"values": VALUES, "state": "done", "score": null}',
    '{"values": VALUES, "state": "done", "score": NaN}',
    '{"values": VALUES, "state": "running", "score": null, "attempts": "many"}',
    '{"values": {}, "state": "running", "score": null}',
)


def test_m6_a_damaged_trial_says_what_helps_and_it_helps(tmp_path, search, untrained):
    whole = work(search, tmp_path)
    file = trial_file(search, 1)
    values = json.dumps(json.loads(file.read_text())["values"])
    for text in DAMAGED:
        file.write_bytes(text.replace("VALUES", values).encode("latin-1"))
        with pytest.raises(RunError, match=r"0001\.json is damaged \(.*\); remove it, and its trial is done again"):
            search.list_trials()
    file.unlink()
    assert work(search, tmp_path) == whole


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_low_a_damaged_search_json_does_not_ask_for_its_removal(tmp_path, search, text):
    (search.folder / "search.json").write_bytes(text.encode("latin-1"))
    advice = rf"; give this one another name, or remove the folder {search.folder}$"
    with pytest.raises(RunError, match=r"search\.json is damaged \(.*\)" + advice):
        work(search, tmp_path)
    die(search)
    (search.folder / "search.json").unlink()
    with pytest.raises(InputError, match=r"search\.json is missing: its trials may be of another search" + advice):
        work(search, tmp_path)
