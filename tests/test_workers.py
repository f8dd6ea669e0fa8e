"""One net over several processes: the bits of as many devices of one process, whoever dies."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from mimic_keras.contracts import InputError
from mimic_keras.interface import cli
from mimic_keras.training import workers
from mimic_keras.training.workers import Cluster, read_cluster
from tests import small_training as small
from tests.test_cluster import artefacts
from tests.tiny import command, tiny, write
from tests.training_worker import Workers, train

CURVES = ("mimic", "empty share", "normalised", "on the disk")
SHARE = "share of the limit"  # estimated on as many examples as a device gets, so its curve depends on the devices


def config(role="worker", index=0, **cluster):
    return json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})


@given(st.integers(1, 30), st.data(), st.booleans(), st.booleans())
def test_every_worker_of_tf_config_has_its_place(count, data, has_chief, is_text):
    rank = data.draw(st.integers(0, count - 1))
    addresses = [f"host{number}:2222" for number in range(count)]
    cluster = {"chief": addresses[:1], "worker": addresses[1:]} if has_chief else {"worker": addresses}
    role = "chief" if has_chief and not rank else "worker"
    index = rank - (has_chief and rank > 0)
    found = read_cluster(config(role, str(index) if is_text else index, **cluster))
    assert found == Cluster(tuple(addresses), rank)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker", r"TF_CONFIG is no JSON \(Expecting value.*\); expected \{\"cluster\""),
        ("[]", r"TF_CONFIG: expected \{.*, got \[\]"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG: expected .*, got .*a:1"),
        (config(ps=["a:1"], worker=["b:1"]), "TF_CONFIG: ps: expected the roles chief and worker alone"),
        (config("evaluator", worker=["b:1", "c:1"]), "TF_CONFIG: evaluator: expected the roles chief and worker"),
        (config(worker="a:1"), "TF_CONFIG: worker: expected a list of HOST:PORT, got 'a:1'"),
        (config(worker=["a:1", "b"]), r"TF_CONFIG: worker: expected a list of HOST:PORT, got \['a:1', 'b'\]"),
        (config(index=2, worker=["a:1", "b:1"]), "TF_CONFIG: task worker 2: the cluster has 0 chief, 2 worker"),
        (config(index=-1, worker=["a:1", "b:1"]), "TF_CONFIG: task worker -1: the cluster has"),
        (config("chief", worker=["a:1", "b:1"]), "TF_CONFIG: task chief 0: the cluster has 0 chief, 2 worker"),
        (config("chief", chief=["a:1", "b:1"]), "TF_CONFIG: task chief 0: the cluster has 2 chief, 0 worker"),
    ],
)
def test_a_wrong_tf_config(text, message):
    with pytest.raises(InputError, match=message):
        read_cluster(text)


def test_joining_needs_a_tf_config_with_as_many_workers(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match="multi_worker needs TF_CONFIG in the environment of every worker"):
        workers.join(2)
    monkeypatch.setenv("TF_CONFIG", config(worker=["a:1", "b:1", "c:1"]))
    with pytest.raises(InputError, match=r"distribution\.workers: 2, but TF_CONFIG has 3"):
        workers.join(2)


SCONTROL = """#!/bin/bash
[ "$1 $2 $3" = "show hostnames n[9-10]" ] && printf "n9\\nn10\\n"
"""
SRUN = """#!/bin/bash
for SLURM_PROCID in 0 1; do SLURM_PROCID=$SLURM_PROCID "$@"; done
"""


def test_the_script_for_slurm_gives_every_node_its_tf_config(tmp_path):
    programs = {"scontrol": SCONTROL, "srun": SRUN, "mimic-keras": '#!/bin/bash\necho "$TF_CONFIG"; echo "$@"\n'}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "n[9-10]", "SLURM_JOB_ID": "31234", "SLURM_NNODES": "2", "HOME": "/shared"}
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = Path(__file__).parent.parent / "examples/cluster/slurm.sh"
    done = subprocess.run(["bash", script, "a b.yaml"], env=environment, capture_output=True, text=True, check=True)
    first, call, second, _ = done.stdout.splitlines()
    addresses = ("n9:21234", "n10:21234")
    assert [read_cluster(first), read_cluster(second)] == [Cluster(addresses, 0), Cluster(addresses, 1)]
    options = "--set distribution.strategy=multi_worker --set distribution.workers=2"
    assert call == f"run a b.yaml --home /shared/mimic_keras_home {options}"


def test_the_tfjob_has_as_many_workers_as_the_experiment():
    file = Path(__file__).parent.parent / "examples/cluster/tfjob.yaml"
    workers = YAML(typ="safe").load(file)["spec"]["tfReplicaSpecs"]["Worker"]
    (container,) = workers["template"]["spec"]["containers"]
    arguments = cli.parse([*container["command"], *container["args"]])
    expected = ["distribution.strategy=multi_worker", f"distribution.workers={workers['replicas']}"]
    assert (arguments.command, arguments.settings) == ("run", expected)
    assert (container["name"], str(arguments.home)) == ("tensorflow", "/shared/home")


def test_a_run_for_several_workers_needs_a_tf_config(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    file = write(tmp_path, tiny(distribution={"strategy": "multi_worker", "workers": 2}))
    assert command("run", file, "--home", tmp_path, "--runs_dir", tmp_path / "runs") == 2
    assert "accepted without: auto, one_device, mirrored" in capsys.readouterr().err
    assert command("validate", file) == 0


def test_a_process_that_computes_already_cannot_join(monkeypatch):
    tf.constant(1)
    monkeypatch.setenv("TF_CONFIG", config(worker=["127.0.0.1:1", "127.0.0.1:2"]))
    with pytest.raises(InputError, match="multi_worker has to be the first that TensorFlow does in a process"):
        workers.join(2)


def test_a_process_alone_is_the_chief():
    strategy = tf.distribute.get_strategy()
    assert workers.rank_of(strategy) == 0
    assert workers.gather(strategy, [1, 0.5]).tolist() == [[1, 0.5]]
    assert workers.exchange(strategy, b"text") == [b"text"]
    workers.agree(strategy, "")


def read(file):
    with np.load(file) as arrays:
        return dict(arrays)


def same(folder, name, trained):
    """Every worker has the bits of `trained`."""
    for rank in (0, 1):
        found = read(folder / f"{name}.{rank}.npz")
        for place, array in enumerate(trained.model.get_weights()):
            np.testing.assert_array_equal(found[f"weights{place}"], array)
        assert {metric: found[metric].tolist() for metric in trained.history} == trained.history


def start(folder, *names):
    return Workers(folder, "-m", "tests.training_worker", folder, *names)


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """The folder with what two workers have trained."""
    folder = tmp_path_factory.mktemp("curves")
    found = start(folder, *CURVES, SHARE)
    assert found.wait() == [0, 0], found.outputs()
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", CURVES)
def test_two_workers_have_the_bits_of_two_devices_and_the_curve_of_one(curves, name):
    same(curves, name, train(name, small.mirrored(2)))
    one, found = train(name, tf.distribute.get_strategy()), read(curves / f"{name}.0.npz")
    for metric, curve in one.history.items():
        np.testing.assert_allclose(found[metric], curve, rtol=1e-5, atol=1e-7, err_msg=metric)


@pytest.mark.long
def test_the_limit_of_the_rate_is_that_of_two_devices(curves):
    same(curves, SHARE, train(SHARE, small.mirrored(2)))


@pytest.fixture(scope="module")
def uninterrupted():
    return train("long", small.mirrored(2))


@pytest.mark.long
@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_signal_to_any_worker_stops_all_at_one_step(rank, uninterrupted, tmp_path):
    found = start(tmp_path, "long")
    found.wait_for("epoch 3")
    found.processes[rank].send_signal(signal.SIGTERM)
    assert found.wait() == [143, 143], found.outputs()
    stopped = [[line for line in output.splitlines() if "stopped" in line] for output in found.outputs()]
    assert stopped[0] == stopped[1]
    assert len(stopped[0]) == 1
    assert not (tmp_path / "long.0.npz").exists()
    again = start(tmp_path, "long")
    assert again.wait() == [0, 0], again.outputs()
    assert "epoch 3\n" not in again.outputs()[0]
    same(tmp_path, "long", uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_dies_ends_the_others_and_all_resume(rank, uninterrupted, tmp_path):
    found = start(tmp_path, "long")
    found.wait_for("epoch 3")
    found.processes[rank].send_signal(signal.SIGKILL)
    codes = found.wait()
    assert (codes[rank], codes[1 - rank]) == (-signal.SIGKILL, 1), found.outputs()
    assert "the workers have lost each other: one has ended" in found.outputs()[1 - rank]
    again = start(tmp_path, "long")
    assert again.wait() == [0, 0], again.outputs()
    same(tmp_path, "long", uninterrupted)


@pytest.mark.slow
def test_thirty_random_kills(uninterrupted, tmp_path):
    chance = random.Random(0)
    for _ in range(30):
        found = start(tmp_path, "long")
        found.wait_for("epoch")
        time.sleep(chance.random())
        if found.processes[0].poll() is None:  # not done yet
            found.processes[chance.randrange(2)].send_signal(signal.SIGKILL)
        found.wait()
        if found.processes[0].returncode == 0:
            (tmp_path / "long.state.npz").unlink()
    again = start(tmp_path, "long")
    assert again.wait() == [0, 0], again.outputs()
    same(tmp_path, "long", uninterrupted)


def places(folder):
    """Options of the command line."""
    return ["--home", folder / "home", "--runs_dir", folder / "runs", "--saved_models_dir", folder / "exports"]


@pytest.mark.slow
def test_a_run_by_two_workers_has_the_artefacts_of_two_devices(tmp_path):
    """The chief runs everything else; the other one ends with it, and has written nothing."""
    file = write(tmp_path, tiny(distribution={"strategy": "multi_worker", "workers": 2}))
    found = Workers(tmp_path, "-m", "mimic_keras", "run", file, *places(tmp_path / "two"))
    assert found.wait() == [0, 0], found.outputs()
    assert "Export:" in found.outputs()[0]
    assert "Export:" not in found.outputs()[1]
    mirrored = "distribution={strategy: mirrored, virtual_devices: 2}"
    assert command("run", file, *places(tmp_path / "one"), "--set", mirrored) == 0
    assert artefacts(tmp_path / "two" / "home") == artefacts(tmp_path / "one" / "home")
    again = Workers(tmp_path, "-m", "mimic_keras", "run", file, *places(tmp_path / "two"))
    assert again.wait() == [0, 0], again.outputs()
    assert "Artefacts: 0 made, 11 reused" in again.outputs()[0]


@pytest.mark.slow
def test_a_worker_with_other_code_ends_all_with_its_reason(tmp_path):
    file = write(tmp_path, tiny(distribution={"strategy": "multi_worker", "workers": 2}))
    script = (
        "import json, os, sys; from mimic_keras.interface import bench, cli; "
        "is_chief = not json.loads(os.environ['TF_CONFIG'])['task']['index']; "
        "bench.describe_code = bench.describe_code if is_chief else lambda plan: ('mimic-keras 0.0.0',); "
        "sys.exit(cli.main(cli.parse(['mimic-keras', *sys.argv[1:]])))"
    )
    found = Workers(tmp_path, "-c", script, "run", file, *places(tmp_path))
    assert found.wait() == [1, 1], found.outputs()
    for output in found.outputs():
        assert "mimic-keras: worker 2: the worker on " in output
        assert "has other code than the driver: it has mimic-keras 0.0.0 where the driver has " in output
    assert not list((tmp_path / "home").glob("teachers/[!.]*"))
