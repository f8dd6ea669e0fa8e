"""`mimic-keras new`: what it writes is a whole distribution whose tests pass unchanged."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mimic_keras.plugins import GROUPS
from tests.tiny import command

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("kind", GROUPS)
def test_a_new_plugin_passes_its_own_tests(kind, tmp_path):
    assert command("new", kind, f"my-{kind}", "--into", tmp_path) == 0
    folder = tmp_path / f"my-{kind}"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    ((name, target),) = project["entry-points"][GROUPS[kind]].items()
    assert (name, target.partition(":")[0]) == (f"my_{kind}", f"my_{kind}")
    assert "mimic-keras>=0.1,<0.2" in project["dependencies"]
    installed = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        installed,
    ]
    subprocess.run([*pip, folder], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(installed)])}
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(tests, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    styles = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--line-length",
        "120",
        "--select",
        "E,F,W,B,UP",
        folder,
    ]
    assert subprocess.run(styles, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", ["my loss", "1st", "../my-loss", "class", "", "my/loss"])
def test_names_that_are_no_packages_are_refused(name, tmp_path, capsys):
    assert command("new", "loss", name, "--into", tmp_path) == 2
    assert "can not name a package: expected letters, digits" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, capsys):
    assert command("new", "loss", "My_Loss", "--into", tmp_path) == 0
    assert (tmp_path / "my-loss" / "my_loss" / "__init__.py").exists()
    assert command("new", "loss", "my-loss", "--into", tmp_path) == 2
    assert "my-loss exists already" in capsys.readouterr().err
