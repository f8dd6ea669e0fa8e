"""Input that hung, crashed or was noticed too late, each as it was found; ids as in the list of attacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_keras.contracts import InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment import schema
from tests.tiny import tiny, write

MODULE = [sys.executable, "-m", "mimic_keras"]
SAFETY_NET = 120  # seconds for a process that would otherwise hang; no test depends on how long one takes


def process(*arguments, timeout=SAFETY_NET, **options):
    environment = {**os.environ, **options.pop("env", {})}
    environment = {name: value for name, value in environment.items() if value is not None}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([*map(str, arguments)], text=True, timeout=timeout, env=environment, **pipes)


# M4: merge keys.

BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 29))


def test_m4_a_bomb_of_merge_keys_is_refused_before_it_is_expanded(tmp_path):
    assert len(BOMB) < 1000
    file = write(tmp_path, BOMB)
    code = "import sys; from pathlib import Path; from mimic_keras.experiment.file import read; read(Path(sys.argv[1]))"
    done = process(sys.executable, "-c", code, file)
    assert 'a merge key "<<", which is not supported: write the keys out' in done.stderr
    assert "line 2, column 10" in done.stderr


def test_m4_a_setting_cannot_hold_a_merge_key_either():
    with pytest.raises(InputError, match=r'--set a=\{<<: \{b: 1\}\}: the value is not YAML: a merge key "<<"'):
        experiment_file.apply_setting({}, "a={<<: {b: 1}}")


def test_m4_aliases_and_quoted_texts_stay_allowed(tmp_path):
    content = experiment_file.read(write(tmp_path, "a: &a {x: 1}\nb: [*a, *a]\nc: {'<<': 2}\n")).content
    assert content == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}], "c": {"<<": 2}}


def test_m4_a_bomb_of_aliases_is_counted_not_expanded(tmp_path):
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    with pytest.raises(InputError, match="more than 100,000 values once its aliases are filled in"):
        experiment_file.read(write(tmp_path, text))


# Low: files without an end, and pipes.


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin"])
def test_low_only_a_regular_file_is_an_experiment(name):
    done = process(*MODULE, "validate", name, input="name: x\n")
    assert (done.returncode, done.stderr) == (2, f"mimic-keras: {name}: not a regular file\n")


# Low: texts that do not round-trip.


def round_trip(content, folder):
    file = folder / "x.yaml"
    file.write_bytes(experiment_file.to_yaml(content).encode())
    return experiment_file.read(file).content


@pytest.mark.parametrize(
    "text", ["?%", ":%", "? a", "- a", "\x85", "<<", "=", "\ufeff", "a\n b\n", "%x", " x ", "\u2028"]
)
def test_low_texts_that_look_like_yaml_round_trip(text, tmp_path):
    content = {"value": text, "list": [text, [text]], text: {"key": {text: text}}}
    assert round_trip(content, tmp_path) == content


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("round-trip")


# Half of them of the characters that mean something to YAML, where a text from all of Unicode seldom has two.
texts = st.text(max_size=12) | st.text("?:-%#&*!|>'\"@`{}[],=<~ .0ax\n\t\x85\\", max_size=8)
leaves = texts | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.booleans() | st.none()
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(texts.filter(lambda key: key != "axes"), trees, max_size=4))
def test_low_whatever_is_written_is_read_back(shared_folder, content):
    assert round_trip(content, shared_folder) == content


# Low: numbers that TensorFlow cannot take.


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (f"student.training.batch_size={2**64 - 1}", f"expected a value less than {2**31}, got {2**64 - 1}"),
        (f"student.training.epochs={2**63}", f"expected a value less than {2**31}, got {2**63}"),
        (f"student.training.checkpoint_every={2**31}", f"expected a value less than {2**31}, got {2**31}"),
        ("teacher.members[0].weight=1e308", "expected a value less than or equal to 1000000000, got 1e+308"),
        ("teacher.members[0].copies=1000000000", "expected a value less than or equal to 10000, got 1000000000"),
    ],
)
def test_low_numbers_that_tensorflow_cannot_take_are_refused(setting, message, tmp_path):
    source = experiment_file.read(write(tmp_path, tiny()), [setting]).source()
    schema.parse_experiment(source)
    assert f"{setting.partition('=')[0]}: {message}" in str(source.problems)
