"""Finding, listing and checking plugins, on distributions that the tests install into a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def call(folder, *arguments):
    """(exit code, standard output, standard error) of the command with the folder's distributions installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "mimic_keras", *arguments], capture_output=True, text=True, env=environment
    )
    return done.returncode, done.stdout, done.stderr


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
        "import sys; from mimic_keras import cli; cli.main(cli.parse(['mimic-keras', 'plugins']));"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'sklearn'}),"
        "[name for name in sys.modules if name.startswith('many_')], file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stderr.splitlines()[-1] == "[] []"
    assert sum("many-" in line for line in done.stdout.splitlines()) == 50
    assert "of many-7" in done.stdout


def test_a_name_that_two_claim_is_chosen_by_its_distribution(tmp_path):
    install(tmp_path, "first", {"twice": "Same"})
    install(tmp_path, "second", {"twice": "Same"})
    code, _, said = call(tmp_path, "validate", experiment(tmp_path, "twice"))
    assert code == 2
    assert "loss 'twice' is claimed by several distributions; accepted: first:twice, second:twice" in said
    code, _, said = call(tmp_path, "validate", experiment(tmp_path, "'second:twice'"))
    assert code == 0, said
    assert "first:twice" in call(tmp_path, "plugins")[1]


def test_a_plugin_for_another_version_is_refused(tmp_path):
    install(tmp_path, "future", {"late": "Same"}, requires="mimic-keras>=7")
    install(tmp_path, "careless", {"any": "Same"}, requires=None)
    code, _, said = call(tmp_path, "validate", experiment(tmp_path, "late"))
    assert code in (1, 2)
    assert "loss 'late' (future 1.0) is written for mimic-keras >=7, and this is 0.1.0" in said
    assert call(tmp_path, "validate", experiment(tmp_path, "any"))[0] == 0


def test_check_says_what_is_broken_and_why(tmp_path):
    install(tmp_path, "whole", {"good": "Same"})
    install(tmp_path, "broken", {"missing": "Nothing", "good_too": "Same"})
    install(tmp_path, "raises", {"raising": "Same"}, code="import numpy_of_the_future\n")
    install(tmp_path, "deadly", {"deadly": "Same"}, code="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    install(tmp_path, "wrong-kind", {"not_a_class": "same"}, code="def same(): pass\n")
    code, printed, said = call(tmp_path, "plugins", "--check")
    lines = dict(line.split(": ", 1) for line in printed.splitlines())
    assert code == 1
    assert "4 of " in said
    assert (lines["loss/good"], lines["loss/good_too"], lines["loss/kl"]) == ("ok", "ok", "ok")
    assert "loss 'missing' (broken 1.0) can not be imported: AttributeError" in lines["loss/missing"]
    assert "ModuleNotFoundError: No module named 'numpy_of_the_future'" in lines["loss/raising"]
    assert lines["loss/deadly"] == "importing it kills the process (signal 11)"
    assert "has to name a class" in lines["loss/not_a_class"]


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ("loss/temprature", "no loss 'temprature'. Did you mean 'temperature'?"),
        ("temperature", "'temperature': expected KIND/NAME, as loss/temperature; kinds: dataset, "),
        ("losses/kl", "'losses/kl': expected KIND/NAME"),
    ],
)
def test_what_can_not_be_shown(component, message, tmp_path):
    code, _, said = call(tmp_path, "plugins", "show", component)
    assert code == 2
    assert message in said


def test_show_prints_parameters_types_and_documentation(tmp_path):
    code, printed, _ = call(tmp_path, "plugins", "show", "architecture/conv_student")
    assert code == 0
    assert "filters               list[int | list[int]]; required" in printed
    assert "linear_units          int | null; default None" in printed
    assert "Urban et al. 2017, section 2.8" in printed
