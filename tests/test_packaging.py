"""What the distributions declare: extras, versions that agree, and nothing of the machine that builds them."""

import re
import tomllib
from pathlib import Path

import pytest

import mimic_keras
from mimic_keras.experiment.formats import FORMATS

ROOT = Path(__file__).parent.parent
PROJECTS = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
OF_USERS = {"plugins", "litert", "onnx", "publish", "ray", "sklearn", "tfds"}


def read_project(file):
    return tomllib.loads(file.read_text())["project"]


EXTRAS = read_project(ROOT / "pyproject.toml")["optional-dependencies"]


def test_the_extra_of_plugins_is_every_first_party_plugin_of_this_version():
    names = [read_project(file)["name"] for file in PROJECTS[1:]]
    assert EXTRAS["plugins"] == [f"{name}=={mimic_keras.__version__}" for name in names]


def test_all_is_every_extra_of_users_that_any_machine_can_use():
    (everything,) = EXTRAS["all"]
    assert set(re.fullmatch(r"mimic-keras\[(.*)\]", everything)[1].split(",")) == OF_USERS
    assert EXTRAS.keys() - OF_USERS == {"all", "gpu", "docs", "fuzz", "dev"}


@pytest.mark.parametrize("file", PROJECTS, ids=str)
def test_no_requirement_is_a_place(file):
    project = read_project(file)
    for lines in [project["dependencies"], *project.get("optional-dependencies", {}).values()]:
        assert not [line for line in lines if "@" in line or "/" in line]
    for line in (line for lines in EXTRAS.values() for line in lines):
        if match := re.match(r"(mimic-keras-\w+)\[(\w+)\]", line):
            (its,) = [each for each in map(read_project, PROJECTS) if each["name"] == match[1]]
            assert match[2] in its["optional-dependencies"]


@pytest.mark.parametrize("file", PROJECTS, ids=str)
def test_versions_and_supported_releases_agree(file):
    project = read_project(file)
    assert project["version"] == mimic_keras.__version__
    assert project["requires-python"] == ">=3.11,<3.14"
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


def test_messages_name_extras_that_there_are():
    """A message whose extra is a variable is tested where it is written."""
    folders = [ROOT / "mimic_keras", *ROOT.glob("plugins/*/mimic_keras_*")]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    named = {name for file in files for name in re.findall(r"pip install 'mimic-keras\[(\w+)\]'", file.read_text())}
    assert named == {"onnx", "plugins", "publish", "ray", "sklearn", "tfds"}
    assert named <= EXTRAS.keys()
    assert {form.extra for form in FORMATS.values()} <= EXTRAS.keys()
