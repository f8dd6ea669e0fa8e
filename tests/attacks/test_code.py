"""Code that must not run, and files that must not be read: the working directory's, and what a .keras file names."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from mimic_keras_architectures.existing import UNSAFE_KERAS
from mimic_keras_teachers import KerasFile

from mimic_keras.contracts import DatasetInfo, InputError, RunError
from mimic_keras.interface import catalogue
from mimic_keras.planning.plugins import find_plugin
from mimic_keras.serving.verification import VerificationError, verify

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A working directory with a `numpy.py` and a `random.py` that leave a mark when they are executed."""
    for name in ("numpy", "random"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.long
def test_h1_verify_runs_nothing_of_the_working_directory(hostile):
    with pytest.raises(VerificationError, match=re.escape(str(hostile / "none"))):
        verify(hostile / "none")
    assert not (hostile / "executed").exists()


@pytest.mark.long
def test_h1_plugins_check_runs_nothing_of_the_working_directory(hostile, monkeypatch):
    monkeypatch.setattr(catalogue, "list_plugins", lambda: [("logit_l2", find_plugin("loss", "logit_l2"))])
    assert catalogue.find_broken() == {}
    assert not (hostile / "executed").exists()


@pytest.mark.long
def test_h1_the_command_itself_runs_nothing_of_the_working_directory(hostile):
    command = Path(sys.executable).with_name("mimic-keras")
    done = subprocess.run(
        [command, "validate", ROOT / "experiments" / "quickstart.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not (hostile / "executed").exists()


def test_h1_every_child_process_leaves_the_working_directory_out():
    for folder in ("mimic_keras", "plugins", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            if "tests" not in file.parts:
                assert re.findall(r"sys\.executable,(?! \"-P\")", file.read_text()) == [], file


INFO = DatasetInfo("fake", "1", (3,), 2, ("a", "b"))


def net(*layers):
    return keras.Sequential([keras.Input((3,)), *layers])


def with_weights(folder, change):
    """A .keras file whose first array of weights `change(group, file)` has replaced."""
    file, weights, secret = folder / "net.keras", folder / "weights.h5", folder / "secret"
    net(keras.layers.Dense(2)).save(file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    weights.write_bytes(parts["model.weights.h5"])
    with h5py.File(weights, "r+") as stored:
        group = stored["layers/dense/vars"]
        del group["0"]
        change(group, secret)
    parts["model.weights.h5"] = weights.read_bytes()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return KerasFile(file)


def link(group, secret):
    with h5py.File(secret, "w") as stored:
        stored["0"] = np.ones((3, 2), np.float32)
    group["0"] = h5py.ExternalLink(str(secret), "/0")


def external_data(group, secret):
    secret.write_bytes(np.ones((3, 2), np.float32).tobytes())
    group.create_dataset("0", (3, 2), "float32", external=[(str(secret), 0, 24)])


@pytest.mark.parametrize("change", [link, external_data])
def test_h2_weights_outside_a_keras_file_are_refused(change, tmp_path):
    with pytest.raises(InputError, match="is not a model that Keras can load"):
        with_weights(tmp_path, change).check(INFO)


def test_h2_a_saved_model_beside_a_keras_file_is_refused(tmp_path):
    net(keras.layers.Dense(2)).export(tmp_path / "beside", verbose=False)
    layer = keras.layers.TFSMLayer(str(tmp_path / "beside"), call_endpoint="serve")
    net(layer).save(tmp_path / "net.keras")
    with pytest.raises(InputError, match=r"is not a model that Keras can load.*TFSMLayer"):
        KerasFile(tmp_path / "net.keras").check(INFO)


@pytest.mark.parametrize("version", UNSAFE_KERAS)
def test_h2_a_keras_release_that_loads_them_is_refused(version, tmp_path, monkeypatch):
    net(keras.layers.Dense(2)).save(tmp_path / "net.keras")
    KerasFile(tmp_path / "net.keras").check(INFO)
    monkeypatch.setattr(keras, "__version__", version)
    message = rf"Keras {version} runs code .* needs another release than 3\.12\.0, 3\.13\.0, 3\.13\.1"
    with pytest.raises(RunError, match=message):
        KerasFile(tmp_path / "net.keras").check(INFO)
