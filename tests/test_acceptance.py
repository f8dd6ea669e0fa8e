"""Whole experiments on real data, which takes long: `make test-slow`, with the data's places in the environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CIFAR10, TIMIT = (os.environ.get(f"MIMIC_KERAS_TEST_{name}") for name in ("CIFAR10", "TIMIT"))


def models_of(name, folder, *options):
    """`models` of metrics.json of an experiment that is run from nothing."""
    places = ["--home", folder / "home", "--runs_dir", folder / "runs", "--saved_models_dir", folder / "exports"]
    file = ROOT / "experiments" / f"{name}.yaml"
    subprocess.run([*map(str, [sys.executable, "-m", "mimic_keras", "run", file, *options, *places])], check=True)
    return json.loads((folder / "runs" / name / "metrics.json").read_text())["models"]


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10, reason="MIMIC_KERAS_TEST_CIFAR10 does not say where CIFAR-10's binary version is")
def test_on_real_images_the_student_follows_its_teacher_and_beats_the_baseline(tmp_path):
    models = models_of("cifar10_small", tmp_path, "--set", f"dataset.root={CIFAR10}")
    error = {name: models[name]["test"]["error_rate"] for name in ("teacher", "student", "baseline")}
    assert error["teacher"] < error["student"] < error["baseline"]
    assert models["student"]["test"]["agreement"] > models["baseline"]["test"]["agreement"]


@pytest.mark.slow
@pytest.mark.skipif(not TIMIT, reason="MIMIC_KERAS_TEST_TIMIT does not say where a corpus in TIMIT's layout is")
def test_on_speech_the_student_follows_its_teacher(tmp_path):
    models = models_of("timit_small", tmp_path, "--set", f"dataset.root={TIMIT}")
    error = {name: models[name]["test"]["phone_error_rate"] for name in ("teacher", "student", "baseline")}
    assert error["teacher"] < error["student"] + 0.002
    assert error["student"] < error["baseline"] + 0.005
    assert models["student"]["test"]["agreement"] > models["baseline"]["test"]["agreement"]


@pytest.mark.slow
def test_without_a_corpus_synthetic_sounds_are_recognised(tmp_path):
    models = models_of("timit_demo", tmp_path)
    for name in ("teacher", "student", "baseline"):
        assert models[name]["test"]["phone_error_rate"] < 0.4
        assert models[name]["test"]["error_rate"] < 0.6
