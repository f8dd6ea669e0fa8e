"""Components in Python files that a command is given: found, named, digested, and forgotten after the command."""

import json
import sys

import keras
import pytest

from mimic_keras.contracts import InputError, RunError
from mimic_keras.planning.files import components_of
from mimic_keras.planning.plugins import find_plugin, known
from tests.tiny import command, counts, run, tiny, write

LOSS = '''
import keras
from helpers import POWER


class Power(keras.losses.Loss):
    """The distance to a power."""

    def call(self, teacher_logits, student_logits):
        return keras.ops.mean(keras.ops.abs(teacher_logits - student_logits) ** POWER, -1)


class _Hidden(Power):
    pass


def net(input_shape, num_classes, *, units: int = 8):
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(units, "relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32")(hidden))


def help_along(x):
    return x
'''


@pytest.fixture
def parts(tmp_path):
    """A file with a loss, an architecture and helpers, and a module beside it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "helpers.py").write_text("POWER = 2\n")
    file = tmp_path / "code" / "my_parts.py"
    file.write_text(LOSS)
    return file


def test_public_classes_and_functions_are_known_in_the_block_alone(parts):
    path, modules = list(sys.path), set(sys.modules)
    with components_of([parts]) as plugins:
        assert [str(plugin) for plugin in plugins] == ["loss 'Power' (my_parts.py)", "architecture 'net' (my_parts.py)"]
        assert find_plugin("loss", "Power") is find_plugin("loss", "my_parts.py:Power") is plugins[0]
        assert plugins[0].summary == "The distance to a power."
        assert plugins[1].parameters() == {"units": (int, 8)}
        assert "my_parts" in sys.modules
    assert "Power" not in known("loss")
    assert (sys.path, {"my_parts", "helpers"} & (set(sys.modules) - modules)) == (path, set())


def test_a_module_of_the_process_is_back_afterwards(parts, monkeypatch):
    monkeypatch.syspath_prepend(parts.parent)
    import helpers
    import my_parts

    with components_of([parts]) as plugins:
        assert plugins[0].target is not my_parts.Power
    assert (sys.modules["my_parts"], sys.modules["helpers"]) == (my_parts, helpers)
    del sys.modules["my_parts"], sys.modules["helpers"]


def test_the_digest_is_of_the_file_and_of_what_it_imports_beside_it(parts):
    def digest():
        with components_of([parts]) as plugins:
            return plugins[0].digest, plugins[0].target().call(0.0, keras.ops.ones([1, 2])).shape

    (parts.parent / "other.py").write_text("x = 1\n")
    first = digest()
    assert digest() == first
    (parts.parent / "other.py").write_text("x = 2\n")
    assert digest() == first, "nothing imports it"
    (parts.parent / "helpers.py").write_text("POWER = 3\n")
    second = digest()
    assert second != first
    parts.write_text(LOSS + "\n")
    assert digest() not in (first, second)


def test_a_file_that_is_changed_in_the_block_is_noticed(parts):
    with components_of([parts]) as plugins:
        plugins[0].check_unchanged()
        parts.write_text(LOSS + "# changed\n")
        with pytest.raises(RunError, match=r"^my_parts\.py was changed after this process imported it"):
            plugins[0].check_unchanged()


def test_a_name_that_an_installed_plugin_has_too_is_an_error_that_names_both(parts):
    parts.write_text(LOSS.replace("class Power", "class kl").replace("_Hidden(Power)", "_Hidden(kl)"))
    with components_of([parts]):
        with pytest.raises(InputError) as caught:
            find_plugin("loss", "kl")
        assert str(caught.value) == (
            "loss 'kl' is claimed by several distributions; accepted: mimic-keras-losses:kl, my_parts.py:kl"
        )
        assert find_plugin("loss", "my_parts.py:kl").origin == "my_parts.py"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.py", None, "--plugins: no such file: "),
        ("parts.txt", "", "--plugins: expected a Python file, as my_parts.py, got "),
        ("my-parts.py", "", "--plugins: expected a Python file, as my_parts.py, got "),
        ("yaml_of_mine.py", "x = [", "cannot be imported: SyntaxError: '[' was never closed"),
        ("missing.py", "import numpy_of_the_future", "cannot be imported: ModuleNotFoundError: No module named"),
        ("leaves.py", "raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        (
            "function.py",
            "def squares(teacher_logits, student_logits): ...",
            "a loss that is a function becomes the method `call` of a subclass of keras.losses.Loss",
        ),
        ("empty.py", "import keras\nx = keras.losses.Huber()", "empty.py has no component; expected a subclass"),
        ("keras.py", "", "--plugins: a module 'keras' is installed; give keras.py another name"),
        ("sys.py", "", "--plugins: a module 'sys' is installed; give sys.py another name"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(name, content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert command("validate", write(tmp_path, tiny()), "--plugins", tmp_path / name) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.long
def test_a_run_uses_the_file_and_makes_again_what_an_edit_changes(parts, tmp_path):
    experiment = tiny(baseline=None)
    student = {**experiment["student"], "architecture": {"name": "net", "units": 5}, "loss": {"name": "Power"}}
    experiment["student"] = {**student, "standardize_logits": False}
    first = run(tmp_path, experiment, "--plugins", parts)
    assert counts(first)["student"] == (1, 0)
    (record,) = (tmp_path / "home" / "students").glob("*/artifact.json")
    made_from = json.loads(record.read_text())["made_from"]
    assert made_from["loss"]["code"][0].startswith("my_parts.py ")
    assert counts(run(tmp_path, experiment, "--plugins", parts))["student"] == (0, 1)
    (parts.parent / "helpers.py").write_text("POWER = 4\n")
    edited = counts(run(tmp_path, experiment, "--plugins", parts))
    assert (edited["teachers"], edited["student"]) == ((0, 2), (1, 0))


def test_plugins_lists_shows_and_checks_the_file(parts, capsys):
    assert command("plugins", "--plugins", parts) == 0
    assert "loss          Power" in capsys.readouterr().out
    assert command("plugins", "show", "architecture/net", "--plugins", parts) == 0
    assert "units  int; default 8" in capsys.readouterr().out
    assert command("plugins", "--check", parts) == 0
    assert capsys.readouterr().out == "loss/Power: ok, 9 rules\narchitecture/net: ok, 9 rules\n"


def test_check_names_the_broken_rule_and_what_it_cannot_test(parts, capsys):
    broken = LOSS.replace("_logits) ** POWER, -1)", "_logits) ** POWER)").replace("units: int = 8", "units: int")
    parts.write_text(broken)
    assert command("plugins", "--check", parts) == 1
    loss, net = capsys.readouterr().out.splitlines()
    assert loss.startswith("loss/Power: loss 'Power' (my_parts.py), rule gives_one_value_per_example: ")
    assert net == "architecture/net: not tested: units must be given; mimic_keras.testing can give them"
