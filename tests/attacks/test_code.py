"""Code that must not run: modules in the working directory."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mimic_keras.interface import catalogue
from mimic_keras.planning.components import find_plugin
from mimic_keras.serving.verification import VerificationError, verify

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A working directory with a `numpy.py` and a `random.py` that leave a mark when they are executed."""
    for name in ("numpy", "random"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_h1_verify_runs_nothing_of_the_working_directory(hostile):
    with pytest.raises(VerificationError, match=re.escape(str(hostile / "none"))):
        verify(hostile / "none")
    assert not (hostile / "executed").exists()


def test_h1_plugins_check_runs_nothing_of_the_working_directory(hostile, monkeypatch):
    monkeypatch.setattr(catalogue, "list_plugins", lambda: [("logit_l2", find_plugin("loss", "logit_l2"))])
    assert catalogue.find_broken() == {}
    assert not (hostile / "executed").exists()


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
