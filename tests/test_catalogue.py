"""Finding, listing and checking plugins, on distributions that the tests install into a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mimic_keras.interface import catalogue
from mimic_keras.planning.plugins import installed
from tests.tiny import command

ROOT = Path(__file__).parent.parent
CODE = """
import keras

class Same(keras.losses.Loss):
    standardizable = True

    def call(self, teacher_logits, student_logits):
        return keras.ops.mean((teacher_logits - student_logits) ** 2, -1)
"""


def install(folder, name, entry_points, code=CODE, requires="mimic-keras"):
    """A distribution `name` with a module and {entry point: object} of losses, as pip leaves it."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    required = f"Requires-Dist: {requires}\n" if requires else ""
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: of {name}\n{required}")
    lines = "".join(f"{key} = {module}:{value}\n" for key, value in entry_points.items())
    (info / "entry_points.txt").write_text(f"[mimic_keras.losses]\n{lines}")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder whose distributions are installed."""
    monkeypatch.syspath_prepend(tmp_path)
    installed.cache_clear()
    yield tmp_path
    installed.cache_clear()


def experiment(folder, loss):
    file = folder / "experiment.yaml"
    text = (ROOT / "experiments" / "quickstart.yaml").read_text()
    assert "loss: {name: logit_l2}" in text
    file.write_text(text.replace("loss: {name: logit_l2}", f"loss: {{name: {loss}}}"))
    return str(file)


def test_fifty_plugins_are_listed_and_none_is_imported(tmp_path):
    for number in range(50):
        install(tmp_path, f"many-{number}", {f"loss_{number}": "Same"}, code="raise SystemExit('imported')\n")
    code = (
        "import sys; from mimic_keras.interface import cli; cli.main(cli.parse(['mimic-keras', 'plugins']));"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'sklearn'}),"
        "[name for name in sys.modules if name.startswith('many_')], file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stderr.splitlines()[-1] == "[] []"
    assert sum("many-" in line for line in done.stdout.splitlines()) == 50
    assert "of many-7" in done.stdout


def test_a_name_that_two_claim_is_chosen_by_its_distribution(site, capsys):
    install(site, "first", {"twice": "Same"})
    install(site, "second", {"twice": "Same"})
    assert command("validate", experiment(site, "twice")) == 2
    said = capsys.readouterr().err
    assert "loss 'twice' is claimed by several distributions; accepted: first:twice, second:twice" in said
    assert command("validate", experiment(site, "'second:twice'")) == 0
    capsys.readouterr()
    assert command("plugins") == 0
    assert "first:twice" in capsys.readouterr().out


def test_a_plugin_for_another_version_is_refused(site, capsys):
    install(site, "future", {"late": "Same"}, requires="mimic-keras>=7")
    install(site, "careless", {"any": "Same"}, requires=None)
    assert command("validate", experiment(site, "late")) in (1, 2)
    assert "loss 'late' (future 1.0) requires mimic-keras >=7, but this is 0.1.0" in capsys.readouterr().err
    assert command("validate", experiment(site, "any")) == 0


@pytest.mark.long
def test_check_says_what_is_broken_and_why(site, monkeypatch, capsys):
    install(site, "whole", {"good": "Same"})
    install(site, "broken", {"missing": "Nothing", "good_too": "Same"})
    install(site, "raises", {"raising": "Same"}, code="import numpy_of_the_future\n")
    install(site, "deadly", {"deadly": "Same"}, code="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    install(site, "wrong-kind", {"not_a_class": "same"}, code="def same(): pass\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(site)]))
    ours = [entry for entry in catalogue.list_plugins() if not entry[1].distribution.startswith("mimic-keras")]
    monkeypatch.setattr(catalogue, "list_plugins", lambda: ours)
    assert command("plugins", "--check") == 1
    captured = capsys.readouterr()
    lines = dict(line.split(": ", 1) for line in captured.out.splitlines())
    assert "4 of 6 components cannot be imported" in captured.err
    assert (lines["loss/good"], lines["loss/good_too"]) == ("ok", "ok")
    assert "loss 'missing' (broken 1.0) cannot be imported: AttributeError" in lines["loss/missing"]
    assert "ModuleNotFoundError: No module named 'numpy_of_the_future'" in lines["loss/raising"]
    assert lines["loss/deadly"] == "importing it kills the process (signal 11)"
    assert "must name a class" in lines["loss/not_a_class"]


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ("loss/temprature", "no loss 'temprature'. Did you mean 'temperature'?"),
        ("temperature", "'temperature': expected KIND/NAME, as loss/temperature; kinds: dataset, "),
        ("losses/kl", "'losses/kl': expected KIND/NAME"),
    ],
)
def test_what_can_not_be_shown(component, message, capsys):
    assert command("plugins", "show", component) == 2
    assert message in capsys.readouterr().err


def test_show_prints_parameters_types_and_documentation(capsys):
    assert command("plugins", "show", "architecture/conv_student") == 0
    printed = capsys.readouterr().out
    assert "filters               list[int | list[int]]; required" in printed
    assert "linear_units          int | null; default None" in printed
    assert "Urban et al. 2017, section 2.8" in printed


def test_the_example_packages_are_in_the_docs():
    text = (ROOT / "docs" / "plugins.md").read_text()
    for project in ROOT.glob("examples/*/pyproject.toml"):
        assert f"../examples/{project.parent.name}" in text
