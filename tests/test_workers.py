"""One net over several processes: the bits of as many devices of one process, whoever dies."""

import json
import signal

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from mimic_keras.contracts import InputError
from mimic_keras.training import workers
from mimic_keras.training.workers import Cluster, read_cluster
from tests import small_training as small
from tests.training_worker import Workers, train

CURVES = ("mimic", "empty share", "normalised")


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
    found = start(folder, *CURVES)
    assert found.wait() == [0, 0], found.outputs()
    return folder


@pytest.mark.parametrize("name", CURVES)
def test_two_workers_have_the_bits_of_two_devices_and_the_curve_of_one(curves, name):
    same(curves, name, train(name, small.mirrored(2)))
    one, found = train(name, tf.distribute.get_strategy()), read(curves / f"{name}.0.npz")
    for metric, curve in one.history.items():
        np.testing.assert_allclose(found[metric], curve, rtol=1e-5, atol=1e-7, err_msg=metric)
    assert [file.name for file in curves.glob("*.state*")].count(f"{name}.state.npz") == 1


@pytest.fixture(scope="module")
def uninterrupted():
    return train("long", small.mirrored(2))


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
