"""A server that watches the base path never sees half of a version, whatever happens to the one who publishes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from mimic_keras.contracts import InputError
from mimic_keras.serving import publishing

FILES = {"saved_model.pb": b"graph" * 1000, "variables/variables.data": b"weights" * 5000, "export.json": b"{}"}
# Publishes one version, and is killed at the n-th thing it does to the disk; prints how many there were.
PUBLISHER = """
import os, signal, sys
from pathlib import Path
from mimic_keras.serving import publishing
from tests.test_publishing import fill
left = int(sys.argv[2])
done = 0
def count(event, arguments):
    global done
    if event in ("open", "os.mkdir", "os.rename", "os.chmod", "os.rmdir", "os.remove", "shutil.rmtree"):
        done += 1
        if done == left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
publishing.publish(Path(sys.argv[1]), fill)
print(done)
"""


def fill(folder):
    (folder / "variables").mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)


def is_whole(version):
    return all((version / name).read_bytes() == content for name, content in FILES.items())


def as_the_server_sees(base):
    """Every name that the server takes for a version: a whole number."""
    return sorted(name for name in os.listdir(base) if name.isdecimal())


def test_a_watcher_never_sees_half_of_a_version(tmp_path):
    seen, broken, ended = set(), [], threading.Event()

    def watch():
        while not ended.is_set():
            for name in as_the_server_sees(tmp_path):
                if name not in seen:
                    seen.add(name)
                    if not is_whole(tmp_path / name):
                        broken.append(name)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 51):
        assert publishing.publish(tmp_path, fill) == tmp_path / str(number)
    time.sleep(0.05)
    ended.set()
    watcher.join()
    assert broken == []
    assert len(seen) == 50


def published(base, left):
    command = [sys.executable, "-c", PUBLISHER, str(base), str(left)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})


def test_a_crash_at_any_step_leaves_the_old_state_or_the_new(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    steps = int(published(whole, 0).stdout)
    assert steps > len(FILES)
    # Only the last steps are publishing; what comes before is Python reading its modules.
    base = tmp_path / "base"
    base.mkdir()
    publishing.publish(base, fill)
    for left in range(steps, max(0, steps - 12), -1):
        before = as_the_server_sees(base)
        done = published(base, left)
        assert done.returncode == -signal.SIGKILL, done.stderr
        after = as_the_server_sees(base)
        assert after in (before, [*before, str(len(before) + 1)])
        assert all(is_whole(base / name) for name in after)
        assert len(list(base.glob(f"{publishing.HIDDEN}*"))) <= 1
    publishing.publish(base, fill)
    assert not list(base.glob(f"{publishing.HIDDEN}*"))
    assert all(is_whole(base / name) for name in as_the_server_sees(base))


def test_a_version_is_never_overwritten(tmp_path):
    publishing.publish(tmp_path, fill)

    def meanwhile(folder):
        fill(folder)
        (tmp_path / "2").mkdir()
        (tmp_path / "2" / "of another").write_text("process")

    with pytest.raises(OSError, match="not empty"):
        publishing.publish(tmp_path, meanwhile)
    assert os.listdir(tmp_path / "2") == ["of another"]
    assert not list(tmp_path.glob(f"{publishing.HIDDEN}*"))


def test_what_fails_leaves_nothing(tmp_path):
    def failing(folder):
        fill(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publishing.publish(tmp_path, failing)
    assert os.listdir(tmp_path) == []


def test_versions_are_those_that_the_server_would_take(tmp_path):
    for name in ("2", "10", ".partial-x", "v7", "5.tmp", "-5", "٤٢", str(2**63), "9" * 200):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file that the server has no reason to load")
    assert publishing.list_versions(tmp_path) == [2, 10]
    assert publishing.publish(tmp_path, fill).name == "11"


@pytest.mark.parametrize("name", ["11", "12", str(2**63 - 1)])
def test_low_a_file_that_the_server_would_take_for_the_newest_version(tmp_path, name):
    (tmp_path / "10").mkdir()
    (tmp_path / name).write_text("a file")
    with pytest.raises(InputError) as caught:
        publishing.publish(tmp_path, fill)
    message = "expected the folder of a version, got a file; the server would try to load it"
    assert str(caught.value) == f"{tmp_path / name}: {message}"
    assert sorted(os.listdir(tmp_path)) == sorted(["10", name])


def test_low_nothing_follows_the_largest_version(tmp_path):
    (tmp_path / str(2**63 - 2)).mkdir()
    assert publishing.publish(tmp_path, fill).name == "9223372036854775807"
    with pytest.raises(InputError, match="no version can follow the largest that the server takes; remove it"):
        publishing.publish(tmp_path, fill)


@pytest.mark.parametrize("pads", [False, True])
def test_the_servers_files_parse_and_stay_as_edited(pads, tmp_path):
    base = tmp_path / "digits"
    base.mkdir()
    publishing.write_server_files(base, pads)
    found = text_format.Parse((base / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = found.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")
    batching = (base / "batching.config").read_text()
    assert ("\npad_variable_length_inputs: true" in batching) == pads
    assert "batching_parameters_file=/models/digits/batching.config" in batching
    (base / "batching.config").write_text("edited")
    publishing.write_server_files(base, pads)
    assert (base / "batching.config").read_text() == "edited"
