"""The runner outside of its stages: settings of the process, the resolved experiment, and the environment."""

import importlib.metadata
import json
import platform

import pytest
import tensorflow as tf

from mimic_keras import runner
from mimic_keras.contracts import InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment import schema
from mimic_keras.planning.plan import make_plan
from mimic_keras.stages.workspace import Workspace
from mimic_keras.storage.store import Store
from mimic_keras.training import distribution
from mimic_keras.training.machine import describe_machine
from tests.tiny import plan_of, tiny, write


def read(folder, content):
    return experiment_file.read(write(folder, content)).source()


def load(folder, content):
    source = read(folder, content)
    checked = schema.parse_experiment(source)
    source.problems.check()
    return checked


@pytest.fixture
def settings(monkeypatch):
    """What is changed of the process."""
    calls = []
    config = tf.config.experimental
    monkeypatch.setattr(config, "enable_op_determinism", lambda: calls.append("deterministic"))
    monkeypatch.setattr(config, "enable_tensor_float_32_execution", lambda on: calls.append(("tf32", on)))
    monkeypatch.setattr(distribution, "split_processor", lambda count: calls.append(("split", count)))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    return calls


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, [("tf32", False), "deterministic"]),
        ({"deterministic": True}, [("tf32", False), "deterministic"]),
        ({"deterministic": False}, [("tf32", False)]),
        ({"deterministic": "no"}, [("tf32", False), "deterministic"]),
        (
            {"distribution": {"strategy": "mirrored", "virtual_devices": 3}},
            [("tf32", False), "deterministic", ("split", 3)],
        ),
        ({"student": "wrong", "name": 3}, [("tf32", False), "deterministic"]),
    ],
)
def test_settings_of_the_process(tmp_path, settings, sections, expected):
    runner.configure_devices(read(tmp_path, tiny(**sections)))
    assert settings == expected


@pytest.mark.parametrize(
    ("section", "place", "message"),
    [
        (
            {"strategy": "mirored"},
            "distribution.strategy",
            "expected 'auto', 'one_device', 'mirrored' or 'multi_worker'",
        ),
        ({"virtual_devices": 1}, "distribution.virtual_devices", "expected a value greater than or equal to 2, got 1"),
        (3, "distribution", "expected a mapping, got 3"),
    ],
)
def test_an_invalid_section_changes_nothing_and_the_plan_reports_it(tmp_path, settings, section, place, message):
    source = read(tmp_path, tiny(distribution=section))
    runner.configure_devices(source)
    assert settings == []
    assert source.problems.found == {}
    with pytest.raises(InputError) as caught:
        make_plan(source)
    assert [str(found) for found in caught.value.found] == [place]
    assert message in str(caught.value)


def test_resolved_experiment_is_the_same_experiment(tmp_path):
    checked = load(tmp_path, tiny(distribution={"strategy": "mirrored", "virtual_devices": 2}))
    assert load(tmp_path, runner.resolve(checked)) == checked


def test_seeds_are_written_out_unless_they_follow_from_the_experiments(tmp_path):
    content = tiny(seed=7)
    content["student"]["seed"] = 3
    checked = load(tmp_path, content)
    resolved = experiment_file.read(write(tmp_path, runner.resolve(checked))).content
    assert (resolved["seed"], resolved["student"]["seed"], "seed" in resolved["teacher"]) == (7, 3, False)
    assert resolved["student"]["training"]["schedule"] == {"name": "constant"}
    assert "evaluate_every" not in resolved["student"]["training"]
    assert load(tmp_path, runner.resolve(checked)) == checked


def test_what_the_environment_says():
    found = runner.describe_environment(schema.DistributionSection())
    assert json.loads(json.dumps(found)) == found
    versions = {name: importlib.metadata.version(name) for name in ("mimic-keras", "tensorflow", "keras", "numpy")}
    assert found == {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **describe_machine(),
        "gpus": found["gpus"],
        "replicas": max(1, len(tf.config.list_physical_devices("GPU"))),
        **versions,
    }
    assert len(found["gpus"]) == len(tf.config.list_physical_devices("GPU"))


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="GPUs take the place of virtual devices")
def test_virtual_devices_are_replicas():
    section = schema.DistributionSection(strategy="mirrored", virtual_devices=2)
    assert runner.describe_environment(section)["replicas"] == 2


def test_a_stage_has_its_own_time_and_counts(tmp_path, monkeypatch):
    clock = iter([10.0, 12.3456])
    store = Store(tmp_path, {})
    store.counts = {"made": 5, "reused": 2}
    stages = {}
    with monkeypatch.context() as patched:
        patched.setattr(runner.time, "monotonic", lambda: next(clock))
        with runner._stage(stages, store, "student"):
            store.counts["made"] += 3
    assert stages == {"student": {"seconds": 2.346, "made": 3, "reused": 0}}


@pytest.mark.parametrize("artifacts", [None, "", "{}", '{"student": {}}'])
def test_a_run_that_is_not_finished_is_not_published_again(tmp_path, artifacts):
    plan = plan_of(tmp_path, tiny(baseline=None))
    if artifacts is not None:
        (tmp_path / "artifacts.json").write_text(artifacts)
    with pytest.raises(InputError) as caught:
        runner.republish(plan, tmp_path, Workspace(tmp_path / "home"), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} is not a finished run (")
    assert str(caught.value).endswith("); mimic-keras run finishes it")


def test_a_student_that_is_gone_is_not_published_again(tmp_path):
    plan = plan_of(tmp_path, tiny(baseline=None))
    (tmp_path / "artifacts.json").write_text(json.dumps({"student": {"model": str(tmp_path / "gone")}}))
    (tmp_path / "metrics.json").write_text(json.dumps({"models": {"student": {"validation": {}}}}))
    with pytest.raises(InputError) as caught:
        runner.republish(plan, tmp_path, Workspace(tmp_path / "home"), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'gone'}, the student of {tmp_path}, is missing or damaged; mimic-keras run rebuilds it"
    )
