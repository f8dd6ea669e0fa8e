"""Locks on folders: who holds them, who waits, and what a dead process leaves."""

import json
import multiprocessing
import os
import re
import socket
import threading
import time

import pytest

from mimic_keras.contracts import InputError
from mimic_keras.storage import locks


def hold(folder, ready, die):
    with locks.owned(folder), locks.in_use(folder):
        ready.set()
        die.wait(60)
        os._exit(9)


def test_a_held_folder_names_its_owner_and_a_dead_owner_holds_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, die = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, die))
    process.start()
    assert ready.wait(60)
    owner = json.loads((tmp_path / ".owner.json").read_text())
    assert (owner["process"], owner["host"]) == (process.pid, socket.gethostname())
    time.strptime(owner["started"], "%Y-%m-%d %H:%M:%S")
    with pytest.raises(InputError) as caught, locks.owned(tmp_path):
        pytest.fail("held twice")
    assert str(caught.value) == (
        f"{tmp_path}: process {process.pid} on host {owner['host']} has been running this experiment "
        f"since {owner['started']}; "
        "wait for it, or give this run another name: --set name=NAME"
    )
    assert (tmp_path / ".owner.json").exists()
    die.set()
    process.join(60)
    with locks.owned(tmp_path):
        assert json.loads((tmp_path / ".owner.json").read_text())["process"] == os.getpid()
    assert not (tmp_path / ".owner.json").exists()


@pytest.mark.parametrize("content", [None, "", "["])
def test_an_owner_that_has_not_said_its_name(tmp_path, content):
    with locks.owned(tmp_path):
        (tmp_path / ".owner.json").unlink()
        if content is not None:
            (tmp_path / ".owner.json").write_text(content)
        with pytest.raises(
            InputError, match="process unknown on host unknown has been running this experiment since just now; wait"
        ):
            locks.owned(tmp_path).__enter__()


def test_an_error_inside_gives_the_folder_back(tmp_path):
    with pytest.raises(ValueError, match="inside"), locks.owned(tmp_path):
        raise ValueError("inside")
    with locks.owned(tmp_path):
        pass


def test_use_of_a_home_folder_is_a_locked_file_named_by_its_start(tmp_path):
    home, before = tmp_path / "new" / "home", int(time.time())
    with locks.in_use(home):
        (file,) = (home / locks.USERS).iterdir()
        started, _, unique = file.stem.partition("-")
        assert before <= int(started) <= time.time()
        assert re.fullmatch(r"[A-Za-z0-9-]*-[0-9a-f]{32}", unique)
        with pytest.raises(locks.filelock.Timeout):
            locks.filelock.FileLock(file).acquire(timeout=0)
    assert list((home / locks.USERS).iterdir()) == []


def test_who_waits_for_a_lock_says_so(tmp_path, caplog):
    steps = []

    def second():
        with locks.locked(tmp_path / "x.lock", "student"):
            steps.append("second")

    thread = threading.Thread(target=second)
    with caplog.at_level("INFO", "absl"), locks.locked(tmp_path / "x.lock", "teacher"):
        assert caplog.messages == []
        thread.start()
        for _ in range(1000):
            if caplog.messages:
                break
            time.sleep(0.01)
        steps.append("first")
    thread.join(60)
    assert steps == ["first", "second"]
    assert caplog.messages == ["student: waiting for the process that is making it"]


def test_a_lock_is_released_by_an_error(tmp_path):
    with pytest.raises(ValueError, match="inside"), locks.locked(tmp_path / "x.lock", "student"):
        raise ValueError("inside")
    with locks.locked(tmp_path / "x.lock", "student"):
        pass
