"""The devices of a run, on a machine without GPUs and with pretended ones."""

import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from mimic_keras.contracts import InputError
from mimic_keras.experiment.schema import DistributionSection
from mimic_keras.training import distribution

# A process can be configured once, so each case has its own; prints what it found.
CONFIGURED = """
import json, sys
import tensorflow as tf
from mimic_keras.experiment.schema import DistributionSection
from mimic_keras.training import distribution
section, deterministic = json.loads(sys.argv[1])
section = DistributionSection(**section)
distribution.configure(section, deterministic)
strategy = distribution.make_strategy(section)
try:
    tf.random.uniform([1])
    deterministic = False
except RuntimeError:  # a random operation without a seed is refused
    deterministic = True
print(json.dumps({
    "devices": len(tf.config.list_logical_devices("CPU")),
    "replicas": strategy.num_replicas_in_sync,
    "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
    "deterministic": deterministic,
}))
"""


def configured(deterministic, **section):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", CONFIGURED, json.dumps([section, deterministic])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_a_process_is_configured():
    assert configured(False) == {"devices": 1, "replicas": 1, "tf32": False, "deterministic": False}


@pytest.mark.long
def test_a_deterministic_process_on_parts_of_the_processor():
    found = configured(True, strategy="mirrored", virtual_devices=3)
    assert found == {"devices": 3, "replicas": 3, "tf32": False, "deterministic": True}


@pytest.mark.parametrize("strategy", ["auto", "one_device"])
def test_without_gpus_a_run_has_one_device(strategy, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    found = distribution.make_strategy(DistributionSection(strategy=strategy))
    assert found is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("strategy", "gpus", "mirrored"),
    [("auto", 1, False), ("auto", 2, True), ("one_device", 2, False), ("mirrored", 1, True), ("mirrored", 2, True)],
)
def test_several_gpus_are_mirrored_unless_told_otherwise(strategy, gpus, mirrored, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] * gpus)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: "all GPUs")
    found = distribution.make_strategy(DistributionSection(strategy=strategy))
    assert (found == "all GPUs") == mirrored


def test_mirrored_without_gpus_needs_virtual_devices(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(InputError, match=r"distribution\.strategy: mirrored needs GPUs, and this machine shows none; "):
        distribution.make_strategy(DistributionSection(strategy="mirrored"))


def test_a_process_is_split_once():
    names = distribution.split_processor(2)
    assert names == distribution.split_processor(4)[:2]
    with pytest.raises(
        InputError, match="virtual_devices: 5 wanted, but the processor has been split into 4 in this process"
    ):
        distribution.split_processor(5)
