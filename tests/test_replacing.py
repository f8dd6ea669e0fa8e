"""Whose results a run would replace: which experiments are the same, and what a folder says of whose it is."""

import json

import pytest

from mimic_keras.contracts import InputError
from mimic_keras.experiment import yaml_text
from mimic_keras.experiment.file import make_source
from mimic_keras.experiment.problems import Problems
from mimic_keras.experiment.schema import parse_experiment
from mimic_keras.stages import replacing
from tests.tiny import tiny

TINY = {"dataset": "digits", "teacher": "trained mlp", "student": "bottleneck", "loss": "logit_l2"}
WAYS_OUT = "give this one another name, --set name=NAME, or replace its results: --replace"


def load(**sections):
    return parse_experiment(make_source(tiny(**sections), Problems("x.yaml")))


def without_teacher():
    student = {key: tiny()["student"][key] for key in ("architecture", "training")}
    return tiny(teacher=None, baseline=None, student=student)


def test_an_experiment_is_its_components_names():
    assert replacing.name_components(tiny()) == TINY
    assert replacing.name_components(load().model_dump()) == TINY
    assert replacing.name_components(without_teacher()) == TINY | {"teacher": "none", "loss": "none"}
    several = tiny()
    several["teacher"]["members"] += [
        {"teacher": {"name": "keras_file", "path": "x.keras"}},
        {"teacher": {"name": "trained", "architecture": {"name": "mlp", "hidden_units": [7]}}, "weight": 2.0},
    ]
    assert replacing.name_components(several)["teacher"] == "keras_file, trained mlp"


@pytest.mark.parametrize("content", [{}, {"dataset": 3}, {"dataset": {"name": "x"}, "student": None}])
def test_what_is_no_experiment_has_no_components(content):
    with pytest.raises((KeyError, TypeError, AttributeError)):
        replacing.name_components(content)


def test_a_run_may_replace_its_own_results(tmp_path):
    replacing.check_run(tmp_path, load(), replace=False)
    tuned = tiny(seed=3, dataset={"name": "digits", "copies": 2}, baseline=None, export={"publish": False})
    tuned["student"] |= {"standardize_logits": False, "hard_label_weight": 0.5}
    tuned["student"]["architecture"]["hidden_units"] = [5, 5]
    (tmp_path / "experiment.yaml").write_text(yaml_text.dump(tuned))
    replacing.check_run(tmp_path, load(), replace=False)


def test_a_run_may_not_replace_anothers_results(tmp_path):
    other = tiny(dataset={"name": "cifar10"})
    other["student"]["loss"] = {"name": "kl"}
    (tmp_path / "experiment.yaml").write_text(yaml_text.dump(other))
    with pytest.raises(InputError) as caught:
        replacing.check_run(tmp_path, load(), replace=False)
    assert str(caught.value) == (
        f"{tmp_path} is of another experiment (dataset cifar10, not digits; loss kl, not logit_l2); {WAYS_OUT}"
    )
    replacing.check_run(tmp_path, load(), replace=True)


@pytest.mark.parametrize("text", ["name: [", "{}", "dataset: 3", "- 1"])
def test_a_run_whose_experiment_cannot_be_read_may_be_anothers(tmp_path, text):
    (tmp_path / "experiment.yaml").write_text(text)
    with pytest.raises(InputError, match=r"(?s)experiment\.yaml: .+; so .* may hold the results of another"):
        replacing.check_run(tmp_path, load(), replace=False)
    replacing.check_run(tmp_path, load(), replace=True)


@pytest.mark.parametrize("replace", [False, True])
def test_a_sweep_and_an_experiment_do_not_share_a_folder(tmp_path, replace):
    replacing.check_sweep(tmp_path)
    (tmp_path / "cells").mkdir()
    replacing.check_sweep(tmp_path)
    with pytest.raises(InputError, match=r"holds the results of a sweep; give .*, --set name=NAME, or move the folder"):
        replacing.check_run(tmp_path, load(), replace)
    (tmp_path / "experiment.yaml").write_text(yaml_text.dump(tiny()))
    with pytest.raises(InputError, match=r"holds the results of an experiment; give .*, or move the folder away"):
        replacing.check_sweep(tmp_path)


def write_version(base, number, content):
    (base / str(number)).mkdir(parents=True)
    (base / str(number) / "export.json").write_text(content)


def test_only_the_newest_version_counts(tmp_path):
    base = tmp_path / "tiny"
    replacing.check_export(base, load(), replace=False)
    write_version(base, 2, json.dumps({"key": "a", "components": TINY | {"student": "mlp"}}))
    with pytest.raises(InputError) as caught:
        replacing.check_export(base, load(), replace=False)
    assert str(caught.value) == (f"{base / '2'} is of another experiment (student mlp, not bottleneck); {WAYS_OUT}")
    replacing.check_export(base, load(), replace=True)
    write_version(base, 10, json.dumps({"key": "b", "components": TINY}))
    replacing.check_export(base, load(), replace=False)


@pytest.mark.parametrize("content", ["", "{}", '{"key": "a"}', '{"key": "a", "components": 3}'])
def test_a_version_that_does_not_say_what_it_is_of_is_accepted(tmp_path, content):
    write_version(tmp_path, 1, content)
    replacing.check_export(tmp_path, load(), replace=False)


def test_a_version_that_cannot_be_followed_is_noticed_at_once(tmp_path):
    (tmp_path / "1").write_text("a file")
    with pytest.raises(InputError, match="expected the folder of a version, got a file"):
        replacing.check_export(tmp_path, load(), replace=True)
