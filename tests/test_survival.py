"""Runs that are killed, run twice, run out of disk or find their files damaged: nothing is lost, nothing wrong is used.

The long versions are behind the marker `slow`.
"""

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from mimic_keras.storage import files, locks
from tests.tiny import command, tiny, write

ROOT = Path(__file__).parent.parent
# Runs the command, and dies or finds the disk full when so many files or folders have been synced.
FAULTY = """
import os, signal, sys
from mimic_keras.interface import cli
left, fault, sync = int(sys.argv[1]), int(sys.argv[2]), os.fsync
def faulty(descriptor):
    global left
    left -= 1
    if left == 0 and not fault:
        os.kill(os.getpid(), signal.SIGKILL)
    if left <= 0:
        raise OSError(fault, os.strerror(fault), "a file")
    sync(descriptor)
if left:
    os.fsync = faulty
sys.exit(cli.main(cli.parse(["mimic-keras", *sys.argv[3:]])))
"""
TRAINING = {
    "epochs": 3,
    "batch_size": 128,
    "optimizer": {"name": "adam", "learning_rate": 0.01},
    "schedule": {"name": "plateau_halving", "patience": 1, "cooldown": 1},
    "restore": "best",
    "checkpoint_every": 3,
}


def hard():
    """All that carries state: dropout, batch normalisation, a plateau, two devices, virtual copies."""
    experiment = tiny(
        dataset={"name": "digits", "copies": 2, "shift": 1},
        distribution={"strategy": "mirrored", "virtual_devices": 2},
    )
    net = {"name": "mlp", "hidden_units": [24], "dropout": 0.2, "batch_normalization": True}
    experiment["teacher"]["members"] = [{"teacher": {"name": "trained", "architecture": net}}]
    experiment["teacher"]["training"] = TRAINING
    experiment["student"]["training"] = TRAINING
    return experiment


def arguments(folder, file):
    places = ("--home", folder / "home", "--runs_dir", folder / "runs", "--saved_models_dir", folder / "exports")
    return [str(part) for part in ("run", file, *places)]


def start(folder, file, left=0, fault=0):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", FAULTY, str(left), str(fault), *arguments(folder, file)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, file, left=0, fault=0):
    """(exit code, what it said) of a process of its own."""
    process = start(folder, file, left, fault)
    said = process.communicate()[1]
    return process.returncode, said


def results(folder):
    """Everything that a run computes: weights of every net, logits of every member, `models` of metrics.json."""
    (place,) = (folder / "runs").iterdir()
    found = json.loads((place / "artifacts.json").read_text())
    nets = {name: entry for name, entry in found.items() if "model" in entry}
    weights = {
        name: keras.models.load_model(Path(entry["model"]) / "model.keras").get_weights()
        for name, entry in nets.items()
    }
    logits = {
        (name, split): np.concatenate([np.load(file) for file in sorted(Path(shards).glob("*.npy"))])
        for name, entry in nets.items()
        for split, shards in entry.get("logits", {}).items()
    }
    exports = sorted(path.name for path in (folder / "exports" / place.name).iterdir() if path.name[0] != ".")
    return weights, logits, json.loads((place / "metrics.json").read_text())["models"], exports


def assert_same(one, other):
    for name, arrays in one[0].items():
        for array, expected in zip(arrays, other[0][name], strict=True):
            np.testing.assert_array_equal(array, expected, err_msg=name)
    for name, array in one[1].items():
        np.testing.assert_array_equal(array, other[1][name], err_msg=str(name))
    assert (one[0].keys(), one[1].keys()) == (other[0].keys(), other[1].keys())
    assert one[2:] == other[2:]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The experiment, and what it computes when nothing happens."""
    folder = tmp_path_factory.mktemp("reference")
    file = write(folder, hard())
    assert run(folder, file)[0] == 0
    return file, results(folder)


@pytest.mark.long
def test_the_run_is_mirrored(reference):
    environment = json.loads((reference[0].parent / "runs" / "tiny" / "environment.json").read_text())
    assert environment["replicas"] == 2


@pytest.mark.long
def test_killed_in_the_middle_of_its_writes(reference, tmp_path):
    file, expected = reference
    draw = random.Random(0)
    kills = 0
    while kills < 2:
        # Few at first, so that it dies early too; every attempt gets further than it would from nothing.
        code, said = run(tmp_path, file, left=draw.randint(1, 4 + 8 * kills))
        if code == 0:
            break
        assert code == -signal.SIGKILL, said
        kills += 1
    assert kills == 2
    assert run(tmp_path, file)[0] == 0
    assert_same(results(tmp_path), expected)
    assert not list((tmp_path / "home").rglob("*.tmp"))
    assert not list((tmp_path / "home").rglob("training_state*"))


@pytest.mark.long
def test_a_terminated_run_says_how_to_go_on_and_does(reference, tmp_path):
    file, expected = reference
    process = start(tmp_path, file)
    while not list((tmp_path).glob("home/*/.*.partial/training_state*")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143, said
    assert "To resume: mimic-keras" in said
    code, said = run(tmp_path, file)
    assert (code, "resumed at step" in said) == (0, True)
    assert_same(results(tmp_path), expected)


@pytest.mark.long
def test_a_full_disk_ends_the_run_with_a_message(reference, tmp_path):
    file, expected = reference
    code, said = run(tmp_path, file, 12, errno.ENOSPC)
    assert code == 1
    assert "No space left on device; what was finished is kept. To resume once that is fixed: mimic-keras" in said
    assert run(tmp_path, file)[0] == 0
    assert_same(results(tmp_path), expected)


@pytest.mark.long
def test_a_home_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "home").write_text("a file where a folder is wanted")
    code, said = run(tmp_path, write(tmp_path, tiny()))
    assert code == 2
    assert f"{tmp_path / 'home'}: expected a folder, and this, or what it is in, is a file" in said


@pytest.mark.long
def test_two_experiments_make_what_they_share_once(tmp_path):
    folders = [tmp_path / name for name in ("one", "two", "alone")]
    files = []
    for folder, seed in zip(folders, (0, 1, 1), strict=True):
        folder.mkdir()
        experiment = tiny(name=f"seed_{seed}")
        experiment["student"]["seed"] = seed
        files.append(write(folder, experiment))
        if folder.name != "alone":
            (folder / "home").symlink_to(tmp_path / "home")
    (tmp_path / "home").mkdir()
    processes = [start(folder, file) for folder, file in zip(folders[:2], files[:2], strict=True)]
    for process in processes:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    stages = [json.loads(next(folder.glob("runs/*/metrics.json")).read_text())["stages"] for folder in folders[:2]]
    assert sum(stage["teachers"]["made"] for stage in stages) == 2
    assert sum(stage["logits"]["made"] for stage in stages) == 6
    assert run(folders[2], files[2])[0] == 0
    assert_same(results(folders[1]), results(folders[2]))


@pytest.mark.long
def test_an_experiment_that_is_run_already_is_refused(tmp_path, capsys):
    file = write(tmp_path, tiny())
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    with locks.owned(tmp_path / "runs" / "tiny"):
        # In one process a lock may be taken twice: another process has to ask.
        code, said = run(tmp_path, file)
    assert code == 2
    assert f"process {os.getpid()} on host {socket.gethostname()} has been running this experiment since 20" in said
    assert "--set name=NAME" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart", "hard"])
def test_killed_thirty_times(name, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    file = ROOT / "experiments" / "quickstart.yaml" if name == "quickstart" else write(tmp_path, hard())
    began = time.monotonic()
    assert run(whole, file)[0] == 0
    lasted = time.monotonic() - began
    draw = random.Random(1)
    kills = 0
    while kills < 30:
        if kills % 2:  # inside a write, else at any moment
            code, said = run(killed, file, left=draw.randint(1, 20))
        else:
            process = start(killed, file)
            try:
                said = process.communicate(timeout=draw.uniform(5, max(12, lasted / 2)))[1]
            except subprocess.TimeoutExpired:
                process.kill()
                said = process.communicate()[1]
            code = process.returncode
        assert code in (0, -signal.SIGKILL), said
        if code == 0:  # it ended before: what it published must stay the only version; the rest is done again
            for folder in draw.sample(sorted((killed / "home").glob("[lst]*s/[0-9a-f]*")), 3):
                (folder / files.RECORD).unlink()
        kills += code != 0
    assert run(killed, file)[0] == 0
    assert_same(results(killed), results(whole))


DAMAGES = {
    "cut off": lambda content: content[: len(content) // 2],
    "a bit flipped": lambda content: (
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 4]) + content[len(content) // 2 + 1 :]
    ),
    "emptied": lambda content: b"",
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_kind_of_file_that_is_written_may_be_damaged(damage, tmp_path):
    file = write(tmp_path, tiny())
    assert command(*arguments(tmp_path, file)) == 0
    expected = results(tmp_path)
    written = [path for part in ("home", "runs", "exports") for path in (tmp_path / part).rglob("*") if path.is_file()]
    kinds = {}
    for path in written:
        kinds.setdefault((path.relative_to(tmp_path).parts[:2], path.suffix, path.name[-12:]), path)
    assert len(kinds) >= 20
    for path in kinds.values():
        if not path.exists() or not path.stat().st_size:
            continue
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        code = command(*arguments(tmp_path, file))
        if path == tmp_path / "runs" / "tiny" / "experiment.yaml" and code:  # it may be another experiment's
            assert code == 2
            code = command(*arguments(tmp_path, file), "--replace")
        assert code == 0, path
        weights, logits, models, exports = results(tmp_path)
        assert_same((weights, logits, models, expected[3]), expected)
        assert set(expected[3]) <= set(exports), path
