"""`mimic-keras new`: what it writes and refuses; tests/test_wheels.py installs it, changes it and runs its tests."""

import tomllib

import pytest

from mimic_keras.planning.plugins import GROUPS
from tests.tiny import command


@pytest.mark.parametrize("kind", GROUPS)
def test_a_new_plugin_is_a_whole_distribution(kind, tmp_path, capsys):
    assert command("new", kind, f"my-{kind}", "--into", tmp_path) == 0
    folder = tmp_path / f"my-{kind}"
    printed = capsys.readouterr().out
    assert f"cd {folder}" in printed
    assert f", in my_{kind}/__init__.py. README.md has an example." in printed
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    ((name, target),) = project["entry-points"][GROUPS[kind]].items()
    assert (name, target.partition(":")[0]) == (f"my_{kind}", f"my_{kind}")
    assert "mimic-keras>=0.1,<0.2" in project["dependencies"]
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    package = {f"my_{kind}/__init__.py", f"my_{kind}/py.typed", f"tests/test_my_{kind}.py"}
    assert files == {"pyproject.toml", "README.md", *package}
    for file in files:
        assert "{{" not in (folder / file).read_text()


@pytest.mark.parametrize("name", ["my loss", "1st", "../my-loss", "class", "", "my/loss"])
def test_names_that_are_no_packages_are_refused(name, tmp_path, capsys):
    assert command("new", "loss", name, "--into", tmp_path) == 2
    assert "cannot name a package: expected letters, digits" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, capsys):
    assert command("new", "loss", "My_Loss", "--into", tmp_path) == 0
    assert (tmp_path / "my-loss" / "my_loss" / "__init__.py").exists()
    assert command("new", "loss", "my-loss", "--into", tmp_path) == 2
    assert "my-loss exists already" in capsys.readouterr().err
