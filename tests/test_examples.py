"""The packages of examples/ and new plugins, from built wheels, in an environment without the checkout."""

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from mimic_keras.planning.plugins import GROUPS
from tests.tiny import tiny, write

pytestmark = pytest.mark.wheels
ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/pyproject.toml"))
WHERE = "import mimic_keras, mimic_keras_pearson, mimic_keras_digits as d; print(mimic_keras.__file__, d.__file__)"


def shell(*command, cwd, **more):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MIMIC_KERAS_HOME")}
    environment |= {"MIMIC_KERAS_RELEASE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **more}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter that has the wheels of everything here, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    sources = [ROOT, *(path.parent for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))), *EXAMPLES]
    pip = [sys.executable, "-m", "pip", "--quiet"]
    shell(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheels", *sources, cwd=folder)
    venv.create(folder / "venv", symlinks=True)
    (place,) = (folder / "venv").glob("lib/python*/site-packages")
    shell(*pip, "install", "--no-deps", "--target", place, *(folder / "wheels").glob("*.whl"), cwd=folder)
    # The folder's own .pth files, which lead to the checkout, are not read from here.
    (place / "dependencies.pth").write_text(f"{site.getsitepackages()[0]}\n")
    interpreter = folder / "venv" / "bin" / "python"
    for module in shell(interpreter, "-c", WHERE, cwd=folder).split():
        assert Path(module).is_relative_to(place)
    return interpreter


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_passes_its_tests(example, python, tmp_path):
    tests = shutil.copytree(example / "tests", tmp_path / "tests")
    assert " passed" in shell(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, cwd=tmp_path)


def test_a_student_of_ones_own_sounds_under_a_loss_of_ones_own(python, tmp_path):
    recording = """
import wave
from pathlib import Path
import numpy as np
random = np.random.default_rng(0)
for loudness, name in ((300, "quiet"), (9000, "loud")):
    (Path("sounds") / name).mkdir(parents=True)
    for number in range(40):
        with wave.open(f"sounds/{name}/{number}.wav", "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", None))
            file.writeframes(random.integers(-loudness, loudness, 400).astype("<i2").tobytes())
"""
    shell(python, "-c", recording, cwd=tmp_path)
    dataset = {"name": "sound_folder", "root": "sounds", "seconds": 0.05, "rate": 8000}
    experiment = tiny(dataset=dataset, baseline=None)
    experiment["export"] = {"minimum_agreement": 0}  # 80 sounds teach little more than chance
    experiment["student"] |= {"loss": {"name": "pearson"}, "standardize_logits": False}
    experiment["student"]["training"]["optimizer"] = {"name": "adam", "learning_rate": 0.001}
    file = write(tmp_path, experiment)
    command = [python, "-m", "mimic_keras", "run", file, "--home", "home"]
    assert "Export:    saved_models/tiny/1" in shell(*command, cwd=tmp_path)
    listed = shell(python, "-m", "mimic_keras", "plugins", cwd=tmp_path)
    for example in EXAMPLES:
        assert example.name in listed


@pytest.mark.parametrize("kind", GROUPS)
def test_a_new_plugin_passes_its_own_tests(kind, python, tmp_path):
    name = f"my-{kind}"
    shell(python, "-m", "mimic_keras", "new", kind, name, cwd=tmp_path)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", tmp_path / "site"]
    shell(sys.executable, "-m", "pip", "install", *options, tmp_path / name, cwd=tmp_path)
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    assert " passed" in shell(*tests, cwd=tmp_path / name, PYTHONPATH=str(tmp_path / "site"))
    style = ["--isolated", "--line-length", "120", "--select", "E,F,W,B,UP"]
    shell(sys.executable, "-m", "ruff", "check", *style, name, cwd=tmp_path)
