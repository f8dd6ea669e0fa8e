"""The end of a run: what a failure leaves, what is published, what is recorded, and whose results are replaced."""

import html
import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_digits import Digits

from mimic_keras.contracts import Confusion, RunError
from mimic_keras.experiment.schema import ExportSection
from mimic_keras.serving import saved_model
from mimic_keras.stages import evaluation, export, report
from mimic_keras.training import models
from tests.tiny import command, run, tiny, write


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the tiny experiment has been run once; tests copy it."""
    folder = tmp_path_factory.mktemp("finished")
    run(folder, tiny())
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def run_again(folder, *options, experiment=None):
    """The exit code of the tiny experiment, or another one, run in `folder`."""
    places = ("--home", folder / "home", "--runs_dir", folder / "runs", "--saved_models_dir", folder / "saved_models")
    return command("run", write(folder, experiment or tiny()), *places, *options)


def read_metrics(folder):
    return json.loads((folder / "runs" / "tiny" / "metrics.json").read_text())


def results_of(folder):
    """{name: content} of what a finished run holds."""
    names = ("experiment.yaml", "environment.json", "artifacts.json", "metrics.json", "report.html")
    return {name: (folder / "runs" / "tiny" / name).read_bytes() for name in names}


@pytest.mark.long
def test_m1_a_run_that_fails_before_its_results_leaves_those_of_the_run_before(folder, capsys):
    before = results_of(folder)
    assert run_again(folder, "--set", "distribution.strategy=mirrored") == 2
    assert run_again(folder, "--set", "student.training.optimizer.learning_rate=1e6") == 1
    assert "the loss became" in capsys.readouterr().err
    assert results_of(folder) == before


@pytest.mark.long
def test_m2_a_report_that_fails_comes_after_the_numbers_and_before_publishing(folder, monkeypatch, capsys):
    shutil.rmtree(folder / "saved_models")

    def fail(*_):
        raise ValueError("no ink")

    monkeypatch.setattr(report, "write_report", fail)
    assert run_again(folder) == 1
    assert "report.html cannot be written (ValueError: no ink)" in capsys.readouterr().err
    assert read_metrics(folder)["export"] is None
    assert not list((folder / "saved_models").rglob("saved_model.pb"))
    assert not (folder / "runs" / "tiny" / "report.html").exists(), "another run's report beside these numbers"
    places = ("--home", folder / "home", "--saved_models_dir", folder / "saved_models")
    assert command("export", folder / "runs" / "tiny", *places) == 0


def test_an_export_that_fails_leaves_the_numbers_and_the_report(folder, monkeypatch):
    def fail(*_):
        raise RunError("wrong graph")

    monkeypatch.setattr(export, "publish", fail)
    assert run_again(folder) == 1
    metrics = read_metrics(folder)
    assert metrics["export"] is None
    assert list(metrics["stages"]) == ["data", "teachers", "logits", "student", "evaluation"]
    assert (folder / "runs" / "tiny" / "report.html").exists()


@pytest.mark.parametrize(("teacher", "student"), [(0, 10), (10, 0), (0, 0)])
def test_m2_the_report_takes_costless_nets_and_dollars(tmp_path, teacher, student):
    names = ("$x_{$", r"\$a$", "$\\frac$", "{}^_")
    numbers = {"error_rate": 0.5, "agreement": 0.5}
    confusion = {"test": {"classes": Confusion(names, np.eye(4, dtype=np.int64))}}
    models = {
        name: {"parameters": cost, "multiply_adds": cost, "validation": numbers, "test": numbers}
        for name, cost in (("teacher", teacher), ("student", student))
    }
    logits = {name: {"test": np.zeros([3, 4], np.float32)} for name in models}
    found = evaluation.Evaluation(models, [], logits, {"student": confusion}, {})
    metrics = {"experiment": "x", "stages": {}, "stability": {}, "warnings": [], "export": None, "refusal": None}
    pictures = report.draw_pictures(found, {}, names, np.array([0, 1, -1]))
    report.write_report(tmp_path / "report.html", "name: x", metrics, found, pictures, [], {})
    text = html.unescape((tmp_path / "report.html").read_text())
    assert f"{student} multiply-adds against its teacher's {teacher}" in text


@pytest.mark.long
def test_m9_what_the_bits_depend_on_is_recorded(finished):
    """A process of its own, with other settings than this one."""
    settings = {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    code = (
        "import json, os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import tensorflow as tf; "
        "tf.config.threading.set_intra_op_parallelism_threads(3); "
        "from mimic_keras.training.machine import describe_machine; print(json.dumps(describe_machine()))"
    )
    child = subprocess.run([sys.executable, "-c", code], env={**os.environ, **settings}, stdout=subprocess.PIPE)
    found = json.loads(child.stdout)
    assert (found["processors"], found["processors_usable"]) == (os.cpu_count(), 1)
    assert (found["intra_op_threads"], found["inter_op_threads"]) == (3, 0)
    assert (found["TF_ENABLE_ONEDNN_OPTS"], found["onednn"]) == ("1", True)
    assert found["processor"]
    environment = json.loads((finished / "runs" / "tiny" / "environment.json").read_text())
    record = json.loads((finished / "saved_models" / "tiny" / "1" / "export.json").read_text())
    assert record["machine"].keys() == found.keys() <= environment.keys()


def bytes_of(folder):
    """{path: content} of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_equal_nets_give_equal_files(tmp_path):
    """Issue d: whatever a process has traced before, and at whatever time."""
    net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, name="logits")])
    dataset, inputs = Digits(), np.ones([3, 8, 8, 1], np.float32)
    for name in ("one", "two"):
        (tmp_path / name / "net").mkdir(parents=True)
        models.save(tmp_path / name / "net", net, {})
        saved_model.write(tmp_path / name / "export", net, dataset.info, dataset.raw_signatures())
        tf.function(lambda x: x + 1)(inputs)
    one, two = (bytes_of(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert "export/fingerprint.pb" not in one
    with zipfile.ZipFile(tmp_path / "one" / "net" / "model.keras") as archive:
        assert json.loads(archive.read("metadata.json"))["date_saved"] == "1980-01-01@00:00:00"
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
    served = tf.saved_model.load(str(tmp_path / "two" / "export")).signatures["serving_default"]
    np.testing.assert_allclose(served(tf.constant(inputs))["logits"], net(inputs), rtol=1e-5)
    np.testing.assert_array_equal(models.load(tmp_path / "two" / "net")(inputs), net(inputs))


@pytest.mark.slow
def test_two_processes_export_the_same_bytes(folder):
    """Issue d."""
    code = "import sys; from mimic_keras.interface import cli; sys.exit(cli.main(cli.parse(sys.argv)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = []
    for name in ("one", "two"):
        places = ("--home", folder / "home", "--saved_models_dir", folder / name)
        command = [sys.executable, "-c", code, "export", folder / "runs" / "tiny", *places]
        assert subprocess.run(list(map(str, command)), env=environment).returncode == 0
        files = bytes_of(folder / name / "tiny" / "1")
        record = json.loads(files.pop("export.json"))
        found.append((files, {key: value for key, value in record.items() if key not in ("created", "machine")}))
    assert found[0] == found[1]


def versions(folder, name="tiny"):
    return sorted(path.name for path in (folder / "saved_models" / name).glob("[0-9]*"))


def export_again(folder, *options):
    places = ("--home", folder / "home", "--saved_models_dir", folder / "saved_models")
    return command("export", folder / "runs" / "tiny", *places, *options)


OTHERS = {
    "loss": ["student.loss={name: kl}", "student.standardize_logits=false"],
    "student": ["student.architecture={name: mlp, hidden_units: [32]}"],
    "teacher": ["teacher.members.0.teacher.architecture={name: cnn, filters: [[2]], hidden_units: [4]}"],
}


def settings(of):
    return [part for each in OTHERS[of] for part in ("--set", each)]


@pytest.mark.parametrize("kind", OTHERS)
def test_9b_another_experiment_of_the_name_ends_at_once(folder, capsys, kind):
    before, made = results_of(folder), sorted((folder / "home").rglob("*"))
    assert run_again(folder, *settings(kind)) == 2
    said = capsys.readouterr().err
    assert f"mimic-keras: {folder / 'runs' / 'tiny'} is of another experiment ({kind} " in said
    assert "give this one another name, --set name=NAME, or replace its results: --replace" in said
    assert results_of(folder) == before
    assert sorted((folder / "home").rglob("*")) == made
    assert versions(folder) == ["1"]


@pytest.mark.long
def test_9b_both_ways_out(folder, capsys):
    assert run_again(folder, *settings("student"), "--set", "name=other") == 0
    assert (versions(folder), versions(folder, "other")) == (["1"], ["1"])
    assert run_again(folder, *settings("student"), "--replace") == 0
    assert versions(folder) == ["1", "2"]
    assert run_again(folder) == 2, "the results are the other experiment's now"
    capsys.readouterr()
    shutil.rmtree(folder / "runs" / "tiny")
    assert run_again(folder) == 2
    newest = folder / "saved_models" / "tiny" / "2"
    assert f"{newest} is of another experiment (student mlp, not bottleneck)" in capsys.readouterr().err
    assert run_again(folder, "--no_export") == 0, "what is not published replaces no export"
    assert export_again(folder) == 2
    assert export_again(folder, "--replace") == 0
    assert versions(folder) == ["1", "2", "3"]


def test_9b_an_export_of_before_says_not_what_it_is_of(folder):
    file = folder / "saved_models" / "tiny" / "1" / "export.json"
    record = json.loads(file.read_text())
    expected = {"dataset": "digits", "teacher": "trained mlp", "student": "bottleneck", "loss": "logit_l2"}
    assert record.pop("components") == expected
    file.write_text(json.dumps(record))
    shutil.rmtree(folder / "runs")
    assert run_again(folder, *settings("student")) == 0
    assert versions(folder) == ["1", "2"]


def test_9b_a_sweep_and_an_experiment_do_not_mix(folder, capsys):
    sweep = {"name": "tiny", "axes": {"seed": [0]}, "experiment": tiny(), "set": {"seed": {"axis": "seed"}}}
    before = results_of(folder)
    places = ("--home", folder / "home", "--runs_dir", folder / "runs")
    assert command("sweep", write(folder, sweep), *places) == 2
    assert "runs/tiny holds the results of an experiment" in capsys.readouterr().err
    assert results_of(folder) == before
    shutil.rmtree(folder / "runs")
    assert command("sweep", write(folder, sweep), *places) == 0
    page = (folder / "runs" / "tiny" / "report.html").read_bytes()
    assert run_again(folder, "--replace") == 2
    assert "runs/tiny holds the results of a sweep" in capsys.readouterr().err
    assert (folder / "runs" / "tiny" / "report.html").read_bytes() == page


@pytest.mark.parametrize("option", [("--no_export",), ("--set", "export.publish=false")])
def test_9b_everything_but_publishing(folder, capsys, option):
    shutil.rmtree(folder / "saved_models")
    shutil.rmtree(folder / "runs")
    assert run_again(folder, *option) == 0
    run_folder = folder / "runs" / "tiny"
    assert f"Export:    none; mimic-keras export {run_folder}" in capsys.readouterr().out
    assert not (folder / "saved_models").exists()
    metrics = read_metrics(folder)
    assert metrics["export"] is None
    assert len(results_of(folder)) == 5
    assert export_again(folder) == 0
    assert versions(folder) == ["1"]


# A net of tiny weights that learns nothing answers every example with the same class.
CHANCE = (
    *("--set", "student.architecture.initialization_scale=1e-9"),
    *("--set", "student.training.optimizer.learning_rate=1e-9"),
)


@pytest.mark.long
def test_9b_a_student_at_chance_level_is_not_published(folder, capsys):
    shutil.rmtree(folder / "saved_models")
    assert run_again(folder, *CHANCE) == 1
    shown, said = capsys.readouterr()
    assert f"Report:    {folder / 'runs' / 'tiny' / 'report.html'}" in shown
    assert "Export:    none, it was refused" in shown
    said = said.splitlines()[-1]
    metrics = read_metrics(folder)
    error = metrics["models"]["student"]["validation"]["error_rate"]
    labels = Digits().split("validation").labels
    chance = 1 - np.bincount(labels).max() / len(labels)
    assert error >= chance
    reason = f"its error rate, {error:.4f}, is no lower than that of the most frequent class alone, {chance:.4f}"
    start = f"mimic-keras: the student is not published: on validation, {reason}. "
    assert said.startswith(f"{start}To publish it all the same: mimic-keras export ")
    assert metrics["export"] is None
    assert (folder / "runs" / "tiny" / "report.html").exists()
    assert versions(folder) == []
    assert export_again(folder) == 1
    assert "The same command with --set export.minimum_agreement=0 publishes it all the same" in capsys.readouterr().err
    assert command(*shlex.split(said.split("all the same: mimic-keras ")[1])) == 0
    assert versions(folder) == ["1"]


def test_9b_a_student_that_agrees_too_rarely_is_not_published(folder, capsys):
    agreement = read_metrics(folder)["models"]["student"]["validation"]["agreement"]
    assert run_again(folder, "--set", "export.minimum_agreement=0.99") == 1
    reason = f"its agreement with the teacher, {agreement:.4f}, is below export.minimum_agreement, 0.99. To publish"
    assert f"the student is not published: on validation, {reason}" in capsys.readouterr().err
    assert read_metrics(folder)["export"] is None
    assert run_again(folder, "--set", f"export.minimum_agreement={agreement}") == 0
    assert versions(folder) == ["1"], "the export's key does not depend on it"


LABELS = np.array([0, 0, 1, 2, -1, -1])  # 2 of 4 known labels are of one class


@pytest.mark.parametrize(
    ("labels", "error", "agreement", "least", "refused"),
    [
        (LABELS, 0.5, 0.9, None, "error rate, 0.5000, is no lower than that of the most frequent class alone, 0.5000"),
        (LABELS, 0.49, 0.1, None, None),
        (LABELS, 0.5, 0.9, 0, None),
        (LABELS, 0.5, 0.9, 0.8, "error rate, 0.5000"),
        (LABELS, 0.1, 0.9, 0.9, None),
        (LABELS, 0.1, 0.8999, 0.9, "agreement with the teacher, 0.8999, is below export.minimum_agreement, 0.9"),
        (LABELS, 0.49, None, None, None),
        (np.array([-1, -1]), None, 0.1, None, None),
        (np.array([-1, -1]), None, 0.1, 0.2, "agreement with the teacher, 0.1000"),
        (np.array([3, 3]), 0.0, 0.1, None, None),
        (LABELS, None, 0.1, None, None),
    ],
)
def test_9b_what_is_worth_publishing(labels, error, agreement, least, refused):
    metrics = {"error_rate": error, "agreement": agreement}
    options = ExportSection(minimum_agreement=least)
    found = export.find_refusal(metrics, labels, options)
    assert (found or "").startswith(f"the student is not published: on validation, its {refused}" if refused else "")
    assert (found is None) == (refused is None)


def test_low_a_file_in_the_place_of_a_version_is_noticed_before_anything_is_computed(tmp_path, capsys):
    (tmp_path / "saved_models" / "tiny").mkdir(parents=True)
    (tmp_path / "saved_models" / "tiny" / "1").write_text("")
    assert run_again(tmp_path) == 2
    assert "tiny/1: expected the folder of a version, got a file" in capsys.readouterr().err
    assert not (tmp_path / "home" / "teachers").exists()
