"""The end of a run: what a failure leaves, what is published, what is recorded, and whose results are replaced."""

import html
import json
import os
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


def test_m1_a_run_that_fails_before_its_results_leaves_those_of_the_run_before(folder, capsys):
    before = results_of(folder)
    assert run_again(folder, "--set", "distribution.strategy=mirrored") == 2
    assert run_again(folder, "--set", "student.training.optimizer.learning_rate=1e6") == 1
    assert "the loss became" in capsys.readouterr().err
    assert results_of(folder) == before


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
    found = evaluation.Evaluation(models, [], logits, {"student": confusion})
    metrics = {"experiment": "x", "stages": {}, "export": None}
    report.write_report(tmp_path / "report.html", "name: x", metrics, found, {}, names, {})
    text = html.unescape((tmp_path / "report.html").read_text())
    assert f"{student} multiply-adds against its teacher's {teacher}" in text


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
