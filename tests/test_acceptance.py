"""Whole experiments on real data, which takes long: `make test-slow`, with the data's places in the environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CIFAR10 = os.environ.get("MIMIC_KERAS_TEST_CIFAR10")


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10, reason="MIMIC_KERAS_TEST_CIFAR10 does not say where CIFAR-10's binary version is")
def test_on_real_images_the_student_follows_its_teacher_and_beats_the_baseline(tmp_path):
    places = ["--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports"]
    file = ROOT / "experiments" / "cifar10_small.yaml"
    arguments = [sys.executable, "-m", "mimic_keras", "run", file, "--set", f"dataset.root={CIFAR10}", *places]
    subprocess.run(list(map(str, arguments)), check=True)
    models = json.loads((tmp_path / "runs" / "cifar10_small" / "metrics.json").read_text())["models"]
    error = {name: models[name]["test"]["error_rate"] for name in ("teacher", "student", "baseline")}
    assert error["teacher"] < error["student"] < error["baseline"]
    assert models["student"]["test"]["agreement"] > models["baseline"]["test"]["agreement"]
