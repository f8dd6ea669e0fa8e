"""Input that hung, crashed or was noticed too late, each as it was found; ids as in the list of attacks."""

import json
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mimic_keras_digits
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimic_keras import runner
from mimic_keras.contracts import ArraySplit, InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment import schema, yaml_text
from mimic_keras.interface import arguments, cli
from mimic_keras.storage import files
from tests.tiny import command, tiny, write

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
    with pytest.raises(
        InputError, match=r'--set a=\{<<: \{b: 1\}\}: the value is not YAML: line 1, column 2: a merge key "<<"'
    ):
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
    file.write_bytes(yaml_text.dump(content).encode())
    return experiment_file.read(file).content


LOOK_LIKE_YAML = ["?%", ":%", "? a", "- a", "\x85", "<<", "=", "\ufeff", "a\n b\n", "%x", " x ", "\u2028"]


@pytest.mark.parametrize("text", LOOK_LIKE_YAML)
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


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
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


# Low: splits that are empty, and inputs that are no numbers, before anything is trained.


EMPTY, NAN = np.zeros([0, 8, 8, 1], np.float32), np.full([9, 8, 8, 1], np.nan, np.float32)
NO_EXAMPLES, NO_NUMBERS = "has no examples; every split needs at least one", "NaN or infinite, in 9 of 9 examples"


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [("test", EMPTY, NO_EXAMPLES), ("validation", EMPTY, NO_EXAMPLES), ("transfer", NAN, NO_NUMBERS)],
)
def test_low_a_faulty_split_is_found_before_training(name, inputs, message, tmp_path, monkeypatch, capsys):
    whole = mimic_keras_digits.Digits.split

    def split(self, wanted, seed=0):
        return ArraySplit(inputs) if wanted == name else whole(self, wanted, seed)

    monkeypatch.setattr(mimic_keras_digits.Digits, "split", split)
    file = write(tmp_path, tiny())
    folders = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports")
    assert command("run", file, *folders) == 1
    said = capsys.readouterr().err
    assert f"dataset 'digits' (mimic-keras-digits 0.1.0): '{name}' has " in said
    assert message in said
    assert not (tmp_path / "home" / "teachers").exists()


# Low: addresses as folders, no home directory, closed streams, locales, markup.

FOLDER_OPTIONS = ["--home", "--runs_dir", "--saved_models_dir"]


@pytest.mark.parametrize("option", [*FOLDER_OPTIONS, "MIMIC_KERAS_HOME"])
def test_low_an_address_is_no_folder(option, tmp_path):
    places = [option, "s3://b/x"] if option in FOLDER_OPTIONS else []
    address = {} if places else {option: "s3://b/x"}
    done = process(*MODULE, "run", "x.yaml", *places, cwd=tmp_path, env=address)
    assert done.returncode == 2
    named = option if places else "--home"
    assert f"argument {named}: 's3://b/x' is not a folder: addresses are not supported, use a mounted" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_low_without_home_the_system_is_asked(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda user: SimpleNamespace(pw_dir="/of/the/system"))
    assert arguments.parse_folder("~/cache") == Path("/of/the/system/cache")


def test_low_without_any_home_directory_the_message_says_what_to_give(monkeypatch, capsys):
    def unknown(user):
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(SystemExit) as stopped:
        cli.parse(["mimic-keras", "run", "x.yaml", "--home", "~/cache"])
    assert stopped.value.code == 2
    assert "~ in '~/cache', is unknown; give a folder with --home or MIMIC_KERAS_HOME" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["1", "2"])
def test_low_a_closed_standard_stream_goes_nowhere(closed, tmp_path):
    file = write(tmp_path, "name: [")
    line = f"exec {sys.executable} -m mimic_keras validate {file} {closed}>&-"
    done = process("sh", "-c", line)
    assert done.returncode == 2
    assert done.stdout == ""
    assert ("not a YAML file" in done.stderr) == (closed == "1")
    assert process("sh", "-c", f"exec {sys.executable} -m mimic_keras plugins {closed}>&-").returncode == 0


PRINTS = """
from mimic_keras.interface import cli
from mimic_keras.reporting import console
cli._open_standard_streams()
console.show_table("[b]title[/b]", ["[red]axis", "\\u00b1"], [{"[red]axis": "[bold]\\u00e9 :x: [/]", "\\u00b1": 3}])
with console.showing_messages():
    console.logging.info("[b]\\u00e9 :x:")
"""


def test_low_what_is_printed_is_literal_in_every_locale():
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = process(sys.executable, "-c", PRINTS, env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert "[b]title[/b]" in done.stdout
    assert "[red]axis" in done.stdout
    assert "[bold]\\xe9 :x: [/]" in done.stdout
    assert "[b]\\xe9 :x:" in done.stderr


# SIGHUP, and the handlers that a training finds.

# Imports TensorFlow once and forks for every case: prints [signal, found, exit code, what was printed].
SIGNALLED = """
import json, os, signal, sys
from types import SimpleNamespace
from pathlib import Path
import tensorflow as tf
from mimic_keras.interface import cli
from mimic_keras.training.checkpoint import Checkpoint

class Written(Checkpoint):
    def _write(self, step, metrics):
        os.write(1, b"state written;")

def train(number):
    checkpoint = Written(Path("state"), [], 10**9)
    trained = SimpleNamespace(optimizer=SimpleNamespace(iterations=SimpleNamespace(numpy=lambda: 3)), stop_training=0)
    trained.distribute_strategy = tf.distribute.get_strategy()
    checkpoint.set_model(trained)
    checkpoint.set_params({"epochs": 1})
    with checkpoint.handle_signals():
        os.kill(os.getpid(), number)
        os.write(1, b"step done;")
        checkpoint.on_epoch_end(0)
    os.write(1, b"trained")
    return 0

def act(number, found):
    signal.signal(number, signal.SIG_IGN if found == "ignored" else signal.SIG_DFL)
    if found != "of the command":
        return train(number)
    return cli.main(SimpleNamespace(function=lambda **_: train(number), debug=False))

for number in (signal.SIGTERM, signal.SIGHUP):
    for found in ("default", "ignored", "of the command"):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(writing, 1)
            os._exit(act(number, found))
        os.close(writing)
        with open(reading, "rb") as stream:
            said = stream.read().decode()
        print(json.dumps([number, found, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said]))
"""


@pytest.mark.long
def test_low_a_signal_has_the_state_written_and_then_its_own_effect():
    """Also the TypeError of checkpoint.py, where the handler before was SIG_DFL."""
    done = process(sys.executable, "-c", SIGNALLED)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [
        case
        for number in (signal.SIGTERM, signal.SIGHUP)
        for case in (
            [number, "default", -number, "step done;state written;"],
            [number, "ignored", 0, "step done;trained"],
            [number, "of the command", 128 + number, "step done;state written;"],
        )
    ]
    assert done.stderr.count("terminated; what was finished is kept. To resume: mimic-keras") == 2
    assert "Traceback" not in done.stderr


def test_low_nohup_is_respected():
    """A command that was started with SIGHUP ignored, as by nohup, leaves it ignored."""
    code = "import os, signal, sys; from types import SimpleNamespace; from mimic_keras.interface import cli\n"
    code += "act = lambda **_: os.kill(os.getpid(), signal.SIGHUP)\n"
    code += "sys.exit(cli.main(SimpleNamespace(function=act, debug=False)))"
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    assert process(sys.executable, "-c", code, **ignoring).returncode == 0


# M13: folders that cannot be used are noticed before anything is trained.


@pytest.mark.parametrize("name", ["a[1]", "a\\b"])
def test_m13_exports_below_a_path_that_tensorflow_cannot_load_from_are_refused(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.parse(["mimic-keras", "run", "x.yaml", "--saved_models_dir", f"{name}/exports"])
    assert stopped.value.code == 2
    assert r"TensorFlow cannot load a SavedModel from a path with '[' or '\'" in capsys.readouterr().err


@pytest.mark.parametrize("option", FOLDER_OPTIONS)
def test_m13_a_folder_that_cannot_be_written_is_noticed_before_training(option, tmp_path, capsys, monkeypatch):
    places = {name: tmp_path / name.strip("-") for name in FOLDER_OPTIONS}
    places[option] = Path("/proc/no-folder")  # not even root can create it
    monkeypatch.setattr(runner, "run", None)
    assert command("run", write(tmp_path, tiny()), *(part for item in places.items() for part in item)) == 1
    said = capsys.readouterr().err
    assert "mimic-keras: /proc/no-folder" in said
    assert "what was finished is kept" in said


def test_m13_a_full_disk_is_noticed_too_and_no_probe_is_left(tmp_path, monkeypatch):
    files.check_writable(tmp_path / "new" / "folder")
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
    with pytest.raises(OSError, match="No space left") as caught:
        files.check_writable(tmp_path / "new" / "folder")
    assert caught.value.filename == str(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
