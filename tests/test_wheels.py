"""The distributions and the packages of examples/ as a stranger has them: built wheels, in an environment of their own,
without the checkout; and new plugins there."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from mimic_keras.planning.plugins import GROUPS
from tests.tiny import tiny, write

pytestmark = pytest.mark.wheels
ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/pyproject.toml"))
SOURCES = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml")), *EXAMPLES]
SHORT = [f"--set={part}.training.epochs=6" for part in ("teacher", "student")]


def run_process(*command, cwd, **more):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MIMIC_KERAS_HOME")}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", **more}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)


def shell(*command, cwd, **more):
    done = run_process(*command, cwd=cwd, **more)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder of the wheels of everything here, built as for a release: each from its source distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in SOURCES:
        shell(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def install(wheels, tmp_path_factory):
    """Installs into an environment that begins empty; ours come from the wheels, what they require from the index."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--quiet", "install", "--no-compile", "--constraint", ROOT / "constraints.txt"]

    def install(*names):
        shell(*pip, "--find-links", wheels, *names, cwd=folder)
        return python

    return install


@pytest.fixture(scope="module")
def refusal(install, tmp_path_factory):
    """(exit code, message) of the quickstart while the core stands alone."""
    program = install("mimic-keras").with_name("mimic-keras")
    done = run_process(program, "run", "quickstart", cwd=tmp_path_factory.mktemp("alone"))
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def python(install, refusal):
    """The interpreter of the environment, with everything that the refusal advises, and the examples."""
    code, message = refusal
    assert code == 2
    advised = re.search(r"pip install '(.*?)'", message)[1]
    return install(advised, *(example.name for example in EXAMPLES), "pytest")


def test_the_core_alone_says_how_to_get_the_rest(refusal):
    code, message = refusal
    assert code == 2
    assert "dataset.name: no dataset 'digits'. Installed: none; pip install 'mimic-keras[plugins]' adds" in message


def test_nothing_in_a_wheel_is_of_the_building_machine(wheels):
    assert len(list(wheels.glob("*.whl"))) == len(SOURCES)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                content = archive.read(name)
                assert str(ROOT).encode() not in content
                assert not name.endswith("METADATA") or b"file:" not in content


def test_the_quickstart_runs_by_name(python, tmp_path):
    program = python.with_name("mimic-keras")
    printed = shell(program, "run", "quickstart", *SHORT, "--home", "home", cwd=tmp_path)
    assert "Export:    saved_models/quickstart/1" in printed
    where = "import mimic_keras, mimic_keras_digits; print(mimic_keras.__file__, mimic_keras_digits.__file__)"
    for module in shell(python, "-c", where, cwd=tmp_path).split():
        assert Path(module).is_relative_to(python.parent.parent)
    assert not list(python.parent.parent.glob("lib/*/site-packages/mimic_keras*/direct_url.json"))


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


@pytest.fixture(scope="module")
def new_plugins(python, tmp_path_factory):
    """A folder with a new package of every kind, which the environment has as links."""
    folder = tmp_path_factory.mktemp("new")
    for kind in GROUPS:
        shell(python, "-m", "mimic_keras", "new", kind, f"my-{kind}", cwd=folder)
    editable = [part for kind in GROUPS for part in ("--editable", folder / f"my-{kind}")]
    shell(python, "-m", "pip", "--quiet", "install", "--no-deps", *editable, cwd=folder)
    return folder


def check_new_plugins(python, folder):
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    assert " passed" in shell(*tests, *folder.glob("my-*/tests"), cwd=folder)
    style = ["--isolated", "--line-length", "120", "--select", "E,F,W,B,UP"]
    shell(sys.executable, "-m", "ruff", "check", *style, ".", cwd=folder)


def test_new_plugins_pass_their_own_tests(python, new_plugins):
    check_new_plugins(python, new_plugins)


def test_they_still_do_after_the_change_that_their_readme_shows(python, new_plugins):
    for kind in GROUPS:
        readme = (new_plugins / f"my-{kind}" / "README.md").read_text()
        old, new = re.search(r"replace\n\n(.*?)\n\nby\n\n(.*?)\n\n", readme, re.DOTALL).groups()
        code = new_plugins / f"my-{kind}" / f"my_{kind}" / "__init__.py"
        before, after = (re.sub(r"^ {4}", "", lines, flags=re.MULTILINE) for lines in (old, new))
        assert code.read_text().count(before) == 1
        code.write_text(code.read_text().replace(before, after))
    check_new_plugins(python, new_plugins)
