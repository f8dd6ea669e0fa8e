"""The command lines in the documents: parsed, with their files and settings; those that train nothing are run."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mimic_keras.experiment import builtin
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.schema import parse_experiment
from mimic_keras.interface import cli
from tests.document_blocks import BLOCKS, PAGES, ROOT, blocks_of, parametrize_commands
from tests.test_packaging import EXTRAS
from tests.tiny import command, tiny, write

# What a reader puts in place of a word in capitals, where the value is checked.
READERS = {"RATE": "0.001", "LOSS": "kl", "$seed": "0"}
# Not ours to test.
OTHERS = {".", "cd", "curl", "docker", "export", "pipx", "ray", "uv"}


def test_every_block_is_of_a_kind_that_is_checked():
    kinds = {"shell", "python", "yaml", "toml", "json", "models.config", "drawing"}
    assert {block.kind for block in BLOCKS} == kinds
    programs = {Path(words[0]).name or words[0] for block in blocks_of("shell") for words in block.commands}
    assert programs == {"mimic-keras", "make", "pip", "python", "python3.11"} | OTHERS


@parametrize_commands("mimic-keras")
def test_a_command_is_parsed_and_its_files_exist(words):
    """Experiments that are not in the repository are the reader's."""
    cli.parse(words)
    for word in words:
        assert not word.startswith(("experiments/", "examples/")) or (ROOT / word).exists()


@parametrize_commands("mimic-keras")
def test_the_settings_of_a_command_fit_the_experiment(words, tmp_path):
    arguments = cli.parse(words)
    settings = getattr(arguments, "settings", [])
    if words[1] not in ("run", "validate", "sweep", "tune") or not settings:
        return
    for word, value in READERS.items():
        settings = [setting.replace(word, value) for setting in settings]
    named = ROOT / arguments.experiment
    if (builtin.FOLDER / f"{arguments.experiment}.yaml").exists():
        named = builtin.find_file(arguments.experiment)
    document = experiment_file.read(named if named.exists() else write(tmp_path, tiny()), settings)
    if document.kind == "sweep":
        known = {"dataset.root=PATH", "teacher.members=runs/urban_teachers/members.yaml"}  # the second: test_documents
        assert {*document.settings} <= known, "a setting of every cell, of which no test knows"
        return
    source = document.source()
    parse_experiment(source)
    assert not source.problems.found


@parametrize_commands("make")
def test_a_target_of_make_exists(words):
    assert words[1] in re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_extras_that_a_page_installs_exist(page):
    extras = {"mimic-keras": EXTRAS, ".": EXTRAS}
    for file in ROOT.glob("plugins/*/pyproject.toml"):
        project = tomllib.loads(file.read_text())["project"]
        extras[project["name"]] = project.get("optional-dependencies", {})
    for name, wanted in re.findall(r"""pip install [^`\n]*?['"](mimic-keras[\w-]*|\.)\[([\w,]+)\]""", page.read_text()):
        assert {*wanted.split(",")} <= {*extras[name], "dev"}


@parametrize_commands("python", "python3.11")
def test_a_call_of_python_is_of_code_that_is_there(words):
    """`-c` compiles, `-m` is a module that is installed, and anything else a file of the repository."""
    if words[1] == "-c":
        compile(words[2], "-c", "exec")
    elif words[1] == "-m":
        assert importlib.util.find_spec(words[2])
    else:
        assert (ROOT / words[1]).exists()


@parametrize_commands("docker")
def test_a_call_of_docker_is_of_what_is_there(words):
    if "-f" in words:
        assert (ROOT / words[words.index("-f") + 1]).exists()
    elif words[1] == "build":
        assert words[-1] == "."
        assert (ROOT / "Dockerfile").exists()
        arguments = re.findall(r"^ARG (\w+)=", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for given in (words[index + 1] for index, word in enumerate(words) if word == "--build-arg"):
            name, _, value = given.partition("=")
            assert name in arguments
            assert {*value.split(",")} <= EXTRAS.keys()
    else:  # the program in a container
        (image,) = [index for index, word in enumerate(words) if word.startswith("mimic-keras")]
        cli.parse(["mimic-keras", *words[image + 1 :]])


def test_the_commands_that_train_nothing_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = [words[1:] for block in blocks_of("shell", "docs/plugins.md") for words in block.commands]
    for words in (["new", "loss", "cosine-distance"], ["plugins"], ["plugins", "show", "loss/temperature"]):
        assert words in commands
        assert command(*words) == 0
    printed = capsys.readouterr().out
    assert "cosine-distance" in printed
    assert "loss 'temperature' (mimic-keras-losses" in printed


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/start.md", "docs/anywhere.md"])
def test_a_page_works_from_top_to_bottom(page, tmp_path):
    """Every command but the installation, in processes of their own, and then the page's Python."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    for block in blocks_of("yaml", page):
        (tmp_path / "mine.yaml").write_text(block.text)
    (tmp_path / "photos").mkdir()
    for file in ("digit.png", "photos/one.png", "photos/two.png"):
        (tmp_path / file).write_bytes(tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy())
    np.save(tmp_path / "rows.npy", np.zeros((2, 8, 8, 1), np.float32))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["MIMIC_KERAS_HOME"] = str(tmp_path / "home")
    for block in blocks_of("shell", page):
        for words in block.commands:
            if words[0] in ("mimic-keras", "python"):
                subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    for block in blocks_of("python", page):
        kind = "uint8" if "serve_images" in block.text else "float32"
        given = f"import numpy\nimages = numpy.zeros((2, 8, 8, 1), numpy.{kind})\n"
        subprocess.run([sys.executable, "-c", given + block.text], cwd=tmp_path, env=environment, check=True)
