"""The command as real processes: what it imports, its exit codes, its messages, and how it is interrupted."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from mimic_keras.interface import arguments
from mimic_keras.interface.arguments import COMMANDS, SHELLS
from tests.tiny import command, tiny, write

MODULE = [sys.executable, "-m", "mimic_keras"]


def process(*arguments, **options):
    return subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def imported(*arguments):
    """Names of every module that the command imports."""
    done = process(sys.executable, "-X", "importtime", "-m", "mimic_keras", *arguments)
    assert done.returncode == 0, done.stderr
    lines = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {parts[2].strip() for parts in lines if len(parts) == 3}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plugins"]])
def test_help_and_plugins_import_neither_tensorflow_nor_keras_nor_a_plugin(arguments):
    tops = {name.partition(".")[0] for name in imported(*arguments)}
    heavy = {"tensorflow", "keras", "sklearn", "matplotlib"}
    assert not tops & heavy
    assert not {name for name in tops if name.startswith("mimic_keras_")}
    assert "mimic_keras" in tops


def test_bare_the_command_shows_its_help_with_every_command(capsys):
    with pytest.raises(SystemExit) as exit_:
        command()
    assert exit_.value.code == 0
    said = capsys.readouterr().out
    assert all(f"    {each.name}" in said for each in COMMANDS)
    assert "examples:\n  mimic-keras run quickstart" in said


@pytest.mark.parametrize("each", COMMANDS, ids=lambda each: each.name)
def test_help_has_examples_that_parse_and_no_options_of_others(each, capsys):
    with pytest.raises(SystemExit):
        command(each.name, "--help")
    said = capsys.readouterr().out
    assert not re.search(r"--[a-z_]+-", said), "options are spelled one way"
    options = set(re.findall(r"^  (--\w+)", said, re.M))
    assert options <= {name for argument in each.arguments for name in argument.names} | {"--debug"}
    for example in each.examples:
        assert f"  mimic-keras {each.name} {example}".rstrip() in said.splitlines()
        parsed = arguments.parse(["mimic-keras", each.name, *shlex.split(example.partition(" > ")[0])])
        assert parsed.function is each.function


def test_the_other_spelling_of_an_option_is_understood(tmp_path):
    parsed = arguments.parse(["mimic-keras", "cache", "prune", "--older-than=3d", "--dry-run", "--home", "a-b"])
    assert (parsed.older_than, parsed.dry_run, parsed.home.name) == (3 * 86_400, True, "a-b")
    parsed = arguments.parse(["mimic-keras", "run", "a.yaml", "--set", "x=a--b-c"])
    assert parsed.settings == ["x=a--b-c"]


def test_options_of_other_programs_and_shortened_ones_are_refused(capsys):
    for option in ("--verbosity=1", "--hom=x"):
        with pytest.raises(SystemExit) as exit_:
            command("cache", option)
        assert exit_.value.code == 2
        assert f"unrecognized arguments: {option}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--home", "x", "validate", "a"], "--home: options come after the command, as in mimic-keras run FILE --home"),
        (
            ["validate", "a.yaml", "--home", "x"],
            "unrecognized arguments: --home x; validate takes no --home, but run, sweep, tune, export, cache\n",
        ),
    ],
)
def test_an_option_in_the_wrong_place_says_where_it_belongs(given, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        arguments.parse(["mimic-keras", *given])
    assert exit_.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_names_every_command_and_option(shell, capsys):
    assert command("completion", shell) == 0
    said = capsys.readouterr().out
    assert all(each.name in said for each in COMMANDS)
    assert all(option in said for option in ("runs_dir", "older_than", "litert_int8"))


def test_a_script_of_completion_is_bash(tmp_path):
    file = tmp_path / "completion"
    file.write_text(process(*MODULE, "completion", "bash").stdout)
    words = "COMP_WORDS=(mimic-keras cache --o); COMP_CWORD=2; _shtab_mimic_keras; echo ${COMPREPLY[@]}"
    assert process("bash", "-c", f". {file}; {words}").stdout.split() == ["--older_than"]


def test_a_folder_of_versions_is_no_version(tmp_path, capsys):
    for version in ("2", "10", "notes"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "export.json").touch()
    for arguments_ in (["verify", tmp_path], ["predict", tmp_path, "x.npy"]):
        assert command(*arguments_) == 2
        assert f"Did you mean '{tmp_path / '10'}'?" in capsys.readouterr().err


def test_plugins_lists_every_component_with_its_distribution():
    lines = process(*MODULE, "plugins").stdout.splitlines()
    found = {tuple(line.split()[:4]) for line in lines}
    expected = {
        ("dataset", "digits", "mimic-keras-digits", "0.1.0"),
        ("teacher", "keras_file", "mimic-keras-teachers", "0.1.0"),
        ("architecture", "conv_student", "mimic-keras-architectures", "0.1.0"),
        ("loss", "logit_l2", "mimic-keras-losses", "0.1.0"),
    }
    assert expected <= found


def test_the_installed_command_is_the_module():
    command = os.path.join(os.path.dirname(sys.executable), "mimic-keras")
    assert process(command, "plugins").stdout == process(*MODULE, "plugins").stdout


def test_unknown_command_exits_with_2():
    done = process(*MODULE, "train", "x.yaml")
    assert done.returncode == 2
    assert "invalid choice: 'train'" in done.stderr


def test_wrong_input_is_one_message_without_a_traceback_and_debug_shows_it(tmp_path):
    file = write(tmp_path, "name: [")
    done = process(*MODULE, "run", file)
    assert done.returncode == 2
    assert done.stderr.startswith(f"mimic-keras: {file}: not a YAML file:")
    assert done.stderr.splitlines()[1:] == ["  name: [", "         ^"], "the line itself, with a mark"
    assert "line 1, column 8" in done.stderr
    assert "Traceback" in process(*MODULE, "run", file, "--debug").stderr


@pytest.mark.long
def test_validate_prints_the_plan_and_touches_nothing(tmp_path):
    file = write(tmp_path, tiny())
    done = process(*MODULE, "validate", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    # By hand: 64 * 24 + 24 + 24 * 10 + 10 parameters of a member, 1,130 of the student; multiply-adds without biases.
    assert "inputs [8, 8, 1], 10 classes; 1,097 train, 350 validation, 350 test" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    for net, *numbers in (["teacher/1", "1,810", "1,776"], ["student", "1,130", "1,088"]):
        (row,) = [row for row in rows if row[:1] == [net] and len(row) > 5 and row[1] in ("teachers", "student")]
        assert row[2:4] == numbers
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]


@pytest.mark.long
def test_interrupted_says_how_to_continue_and_continues(tmp_path):
    """By Ctrl-C; the tests of survival send SIGTERM."""
    experiment = tiny()
    experiment["teacher"]["members"][0]["training"] = {**experiment["teacher"]["training"], "epochs": 100_000}
    experiment["teacher"]["members"].insert(0, tiny()["teacher"]["members"][0])
    places = ["--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports"]
    file = write(tmp_path, experiment)
    arguments = [*map(str, [*MODULE, "run", file, *places])]
    # Tests that a shell runs in the background inherit an ignored SIGINT, which Python leaves ignored.
    running = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while (
        len(list((tmp_path / "home").glob("teachers/.*.partial")))
        + len(list((tmp_path / "home").glob("teachers/[!.]*")))
        < 3
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    time.sleep(2)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert f"what was finished is kept. To resume: mimic-keras run {file}" in err
    assert "Traceback" not in err
    again = process(*arguments, "--set", "teacher.members.1.training.epochs=1", "--set", "teacher.members.1.copies=1")
    assert again.returncode == 0, again.stderr
    assert "teacher/0: reused" in again.stderr
    assert "teacher/1: reused" in again.stderr


@pytest.mark.long
def test_two_runs_at_once_make_everything_once(tmp_path):
    places = ["--home", tmp_path / "home", "--saved_models_dir", tmp_path / "exports"]
    file = write(tmp_path, tiny())
    running = [
        subprocess.Popen(
            [*map(str, [*MODULE, "run", file, *places, "--runs_dir", tmp_path / name])], stderr=subprocess.PIPE
        )
        for name in ("one", "other")
    ]
    for one in running:
        _, message = one.communicate(timeout=200)
        assert one.returncode == 0, message
    stages = [
        json.loads((tmp_path / name / "tiny" / "metrics.json").read_text())["stages"] for name in ("one", "other")
    ]
    made = [sum(of_run[stage]["made"] for of_run in stages) for stage in ("teachers", "logits", "student", "export")]
    assert made == [2, 6, 2, 1]


def test_a_read_only_home_is_one_message(tmp_path):
    if os.geteuid() == 0:
        home = "/proc/mimic-keras-home"  # root may write anywhere else
    else:
        home = tmp_path / "home"
        home.mkdir(mode=0o500)
    done = process(*MODULE, "run", write(tmp_path, tiny()), "--home", home, "--runs_dir", tmp_path / "runs")
    assert done.returncode == 1
    assert "mimic-keras: " in done.stderr
    assert "Traceback" not in done.stderr
