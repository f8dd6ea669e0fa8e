"""The experiment file: what overrides, the environment, seeds and the baseline's inheritance come to."""

import copy
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_keras import runner
from mimic_keras.contracts import InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment import schema
from tests.tiny import tiny, write


def load(folder, content, *overrides):
    source = experiment_file.read(write(folder, content), overrides).source()
    checked = schema.parse_experiment(source)
    source.problems.check()
    return checked


def test_numbers_are_read_as_yaml_1_2(tmp_path):
    content = tiny()
    text = write(tmp_path, content).read_text().replace("learning_rate: 0.01", "learning_rate: 1e-2")
    assert load(tmp_path, text).student.training.optimizer.learning_rate == 0.01


def test_seed_is_the_default_of_the_others(tmp_path):
    checked = load(tmp_path, tiny(seed=7), "student.seed=3")
    assert (checked.teacher.seed, checked.student.seed) == (7, 3)


def test_baseline_is_the_student_with_its_changes(tmp_path):
    checked = load(tmp_path, tiny(), "baseline.training.optimizer.momentum=0.5")
    assert checked.baseline.architecture.model_dump() == {
        "name": "bottleneck",
        "linear_units": 8,
        "hidden_units": [32],
        "dropout": 0.1,
    }
    assert checked.baseline.training.optimizer.model_dump() == {
        "name": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.5,
        "nesterov": False,
    }
    assert checked.student.training.optimizer.momentum == 0.0


def test_another_architecture_for_the_baseline_inherits_nothing_of_the_students(tmp_path):
    content = tiny(baseline={"architecture": {"name": "mlp", "hidden_units": [5]}})
    assert load(tmp_path, content).baseline.architecture.model_dump() == {"name": "mlp", "hidden_units": [5]}


def test_resolved_experiment_is_the_same_experiment(tmp_path):
    checked = load(tmp_path, tiny(distribution={"strategy": "mirrored", "virtual_devices": 2}))
    assert load(tmp_path, runner.resolve(checked)) == checked


def test_environment_is_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUS", "/data/x")
    assert load(tmp_path, tiny(dataset={"name": "digits", "root": "${CORPUS}/y"})).dataset.root == "/data/x/y"


def test_setting_a_name_drops_the_other_keys():
    raw = {"loss": {"name": "temperature", "temperature": 3}}
    experiment_file.apply_setting(raw, "loss.name=kl")
    assert raw == {"loss": {"name": "kl"}}


def test_setting_the_same_name_keeps_the_other_keys():
    raw = {"loss": {"name": "temperature", "temperature": 3}}
    experiment_file.apply_setting(raw, "loss.name=temperature")
    assert raw == {"loss": {"name": "temperature", "temperature": 3}}


def test_setting_the_experiments_own_name_drops_nothing():
    raw = {"name": "a", "seed": 1}
    experiment_file.apply_setting(raw, "name=b")
    assert raw == {"name": "b", "seed": 1}


def test_override_adds_what_is_absent_and_reaches_into_lists():
    raw = {"members": [{"copies": 1}]}
    experiment_file.apply_setting(raw, "members.0.copies=4")
    experiment_file.apply_setting(raw, "members.0.training.epochs=2")
    assert raw == {"members": [{"copies": 4, "training": {"epochs": 2}}]}


keys = st.text("abcdef_", min_size=1, max_size=5).filter(lambda key: key != "name")
leaves = st.integers() | st.booleans() | st.text("abc", max_size=3) | st.none()
trees = st.dictionaries(keys, st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3)), max_size=3)


@given(trees, st.lists(keys, min_size=1, max_size=4), st.integers(-99, 99))
def test_an_override_sets_exactly_one_leaf_or_refuses(raw, path, value):
    before = copy.deepcopy(raw)
    try:
        experiment_file.apply_setting(raw, f"{'.'.join(path)}={value}")
    except InputError as error:
        assert "which has no keys" in str(error)
        return
    inner, old = raw, before
    for part in path[:-1]:
        siblings = {key: item for key, item in inner.items() if key != part}
        assert siblings == {key: item for key, item in (old or {}).items() if key != part}
        inner, old = inner[part], (old or {}).get(part)
    assert inner[path[-1]] == value
    assert {k: v for k, v in inner.items() if k != path[-1]} == {k: v for k, v in (old or {}).items() if k != path[-1]}


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            assert isinstance(experiment_file.read(file).content, dict)
        except InputError as error:
            assert str(error).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("base", "changes", "merged"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"name": "x", "a": 1}, {"name": "y"}, {"name": "y"}),
        ({"name": "x", "a": 1}, {"name": "x", "b": 2}, {"name": "x", "a": 1, "b": 2}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ],
)
def test_merge(base, changes, merged):
    assert experiment_file.merge(base, changes) == merged
