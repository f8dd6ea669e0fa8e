"""The `[plugins]` extra: folders in a checkout, names where it is published; and versions that agree."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

import mimic_keras

ROOT = Path(__file__).parent.parent


def load_hook():
    specification = importlib.util.spec_from_file_location("build_extras", ROOT / "build_extras.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def extras(root):
    metadata = {"version": "0.1.0"}
    load_hook().CustomMetadataHook(str(root), {}).update(metadata)
    return metadata["optional-dependencies"]["plugins"]


def test_in_a_checkout_the_extra_is_its_folders():
    assert extras(ROOT)[0] == f"mimic-keras-losses @ {(ROOT / 'plugins' / 'losses').as_uri()}"


def test_published_the_extra_is_names(tmp_path):
    assert extras(tmp_path) == [f"mimic-keras-{name}==0.1.0" for name in load_hook().PLUGINS]


def test_built_for_an_index_the_extra_is_names(monkeypatch):
    monkeypatch.setenv("MIMIC_KERAS_RELEASE", "1")
    assert extras(ROOT) == [f"mimic-keras-{name}==0.1.0" for name in load_hook().PLUGINS]


def test_every_first_party_plugin_is_in_the_extra():
    assert sorted(load_hook().PLUGINS) == sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))


@pytest.mark.parametrize("file", [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")], ids=str)
def test_versions_and_supported_releases_agree(file):
    project = tomllib.loads(file.read_text())["project"]
    assert project["version"] == mimic_keras.__version__
    assert project["requires-python"] == ">=3.11,<3.13"
    for requirement in project["dependencies"]:
        if requirement.startswith("tensorflow>"):
            assert requirement == "tensorflow>=2.17.1,<2.22"
        if requirement.startswith("keras>"):
            core = "keras>=3.12.1,!=3.13.0,!=3.13.1,<3.16"  # the plugins' too, since each requires mimic-keras
            assert requirement == (core if file.parent == ROOT else "keras>=3.12")


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-floor.txt"])
def test_constraints_are_names_and_versions(name):
    for line in (ROOT / name).read_text().splitlines():
        package, _, version = line.partition("==")
        assert package
        assert version
        assert "/" not in line
