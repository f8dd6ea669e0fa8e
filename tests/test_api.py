"""The program as a library: the functions of `import mimic_keras`, and the process around them."""

import contextlib
import dataclasses
import json
import random
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import mimic_keras
from mimic_keras import InputError
from mimic_keras.contracts import Teacher
from mimic_keras.experiment.file import read
from mimic_keras.interface.results import Table
from tests.test_wrong_experiments import WRONG
from tests.tiny import command, counts, tiny, write


@contextlib.contextmanager
def refusing(message, error=InputError):
    """The block raises an error with a message that starts so."""
    with pytest.raises(error) as caught:
        yield
    assert str(caught.value).startswith(message)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def places(folder):
    return {"home": folder / "home", "runs_dir": folder / "runs", "saved_models_dir": folder / "saved_models"}


@pytest.fixture(scope="module")
def result(places):
    """The tiny experiment, run."""
    return mimic_keras.run(tiny(), **places)


@pytest.mark.long
@pytest.mark.parametrize("collects", [True, False])
def test_no_collection_of_garbage_goes_through_tensorflow(collects):
    calls = "" if collects else "gc.disable(); "
    code = f"import gc; from mimic_keras.interface.session import import_tensorflow; {calls}import_tensorflow(); "
    code += "print(gc.isenabled(), gc.get_freeze_count() > 200_000, len(gc.get_objects()) < 1_000)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == f"{collects} True True\n"


def test_the_import_is_light_and_lists_what_there_is():
    code = "import sys, mimic_keras; print('tensorflow' in sys.modules, 'numpy' in sys.modules, *mimic_keras.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = "InputError MimicError NotPublishedError RunError distill export predict run sweep tune validate verify"
    assert done.stdout == f"False False {names}\n"
    assert set(names.split()) <= set(dir(mimic_keras))
    with pytest.raises(AttributeError, match="module 'mimic_keras' has no attribute 'rnu'"):
        _ = mimic_keras.rnu


@pytest.mark.long
def test_a_mapping_and_its_file_on_the_command_line_are_one_experiment(result, folder, places, capsys):
    options = [part for name, place in places.items() for part in (f"--{name}", place)]
    assert command("run", write(folder, tiny()), *options) == 0
    again = json.loads((result.folder / "metrics.json").read_text())
    assert counts(again) == {"teachers": (0, 2), "logits": (0, 6), "student": (0, 2), "export": (0, 1)}
    assert again["models"] == result.metrics["models"]
    assert f"Report:    {result.report}" in capsys.readouterr().out


@pytest.mark.long
def test_a_result_has_the_numbers_the_nets_and_the_files(result, places):
    models = ["teacher", "teacher/0", "teacher/1", "baseline", "student"]
    assert [row["model"] for row in result.rows] == models
    assert (result.report, result.export) == (result.folder / "report.html", places["saved_models_dir"] / "tiny" / "1")
    logits = result.logits("test")
    assert {name: values.shape for name, values in logits.items()} == dict.fromkeys(models, (350, 10))
    data = result.finished.results.data
    rows = data.split("test").batch(tf.range(350, dtype=tf.int64)).numpy()
    np.testing.assert_allclose(result.student(rows), logits["student"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.teacher(rows), logits["teacher"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.student_model(rows[:3]), logits["student"][:3], rtol=1e-4, atol=1e-4)
    assert result.logits("transfer")["teacher"].shape == (1097, 10)
    with refusing("logits: expected 'validation', 'test' or, with a teacher, 'transfer', got 'x'"):
        result.logits("x")
    assert repr(result) == f"RunResult('tiny', {result.folder})"


def test_a_printed_table_is_its_rows():
    table = Table("nets", ["net", "test error"], [{"net": "a", "test error": 0.25}, {"net": "b"}])
    assert [line.rstrip() for line in str(table).splitlines()] == [
        "nets",
        "      test",
        "net  error",
        "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * 11,
        "a     0.25",
        "b",
    ]


def test_a_result_compiles_its_student_once(result):
    assert result._student is result._student


def test_a_refused_student_is_an_error_with_the_result_of_the_run(result, places):
    settings = {"name": "refused", "export.minimum_agreement": 1.0}
    with pytest.raises(mimic_keras.NotPublishedError) as caught:
        mimic_keras.run(tiny(), set=settings, **places)
    error = caught.value
    assert error.result.metrics["models"] == result.metrics["models"]
    assert error.result.export is None
    assert error.refusal.startswith("the student is not published: on validation, its agreement with the teacher, ")
    assert str(error) == (
        f"{error.refusal}. Everything else is in {places['runs_dir'] / 'refused'}. The same call with "
        '"export.minimum_agreement": 0 in set publishes it all the same'
    )


def test_members_are_told_apart_by_what_they_are(result):
    assert [row.get("source") for row in result.rows] == [None, "mlp", "mlp", None, None]


def test_a_table_in_a_notebook_and_for_pandas(monkeypatch):
    table = Table("<t>", ["model", "error rate"], [{"model": "a&b", "error rate": 0.25}, {"model": "c"}])
    assert table._repr_html_() == (
        "<table><caption>&lt;t&gt;</caption><tr><th>model</th><th>error rate</th></tr>"
        "<tr><td>a&amp;b</td><td>0.25</td></tr><tr><td>c</td><td></td></tr></table>"
    )
    pandas = pytest.importorskip("pandas")
    expected = pandas.DataFrame({"error rate": [0.25, None]}, index=pandas.Index(["a&b", "c"], name="model"))
    pandas.testing.assert_frame_equal(table.to_pandas(), expected)


def test_settings_are_a_mapping_or_texts_of_the_command_line():
    plan = mimic_keras.validate(tiny(), set={"student.architecture.linear_units": 4, "name": "other"})
    texts = mimic_keras.validate(tiny(), set=["student.architecture.linear_units=4"])
    assert plan.costs["student"] == texts.costs["student"]
    assert plan.costs["student"].parameters == 64 * 4 + 4 * 32 + 32 + 32 * 10 + 10
    assert plan.lines[-1].startswith("export      saved_models/other, ")
    with refusing("set: expected numbers, texts, booleans, lists and mappings: "):
        mimic_keras.validate(tiny(), set={"student.loss": keras.losses.Huber()})


def test_without_export_nothing_is_published_until_it_is(result, places):
    name = {"name": "kept"}
    kept = mimic_keras.run(tiny(), set=name, export=False, **places)
    assert (kept.export, kept.metrics["export"]) == (None, None)
    assert not (places["saved_models_dir"] / "kept").exists()
    folders = {key: places[key] for key in ("home", "saved_models_dir")}
    published = mimic_keras.export(kept, **folders)
    assert (published.path, published.made) == (places["saved_models_dir"] / "kept" / "1", True)
    assert not mimic_keras.export(kept.folder, **folders).made
    with refusing("set={'seed': 3}: the student is trained already; accepted: export.KEY=VALUE"):
        mimic_keras.export(kept, set={"seed": 3}, **folders)


def test_one_file_and_one_setting_stand_alone(tmp_path):
    with pytest.raises(InputError, match=r"^plugins: no such file: \S*nowhere\.py$"):
        mimic_keras.validate("quickstart", plugins="nowhere.py")
    with pytest.raises(InputError, match="expected KEY=VALUE") as raised:
        mimic_keras.validate("quickstart", set="seed")
    assert "set seed: expected" in str(raised.value)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    for place in ("file", "file/in"):
        with pytest.raises(InputError, match="expected a folder, and this, or what it is in, is a file"):
            mimic_keras.run(tiny(), home=tmp_path / "home", runs_dir=tmp_path / place)


@pytest.mark.long
def test_verify_checks_an_export(result):
    checked = mimic_keras.verify(result.export)
    assert sorted(row["signature"] for row in checked.rows) == ["serve_images", "serving_default"]
    assert checked.warmup_requests == 2 * len(checked.rows)
    with refusing(f"{result.folder} is not an export: it has no export.json. It is a run; its export is '"):
        mimic_keras.verify(result.folder)


def test_what_predict_cannot_find_is_said_before_it_loads_anything(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "mimic_keras.serving.portable", None)
    with refusing("no.npy: no such file or folder"):
        mimic_keras.predict(result.export, "no.npy")


@pytest.mark.parametrize("scale", [1, 255])
def test_predict_warns_of_examples_that_were_not_prepared(result, tmp_path, capsys, scale):
    """Digits are prepared as numbers from 0 to 1; pixels from 0 to 255 as floats would be answered, wrongly."""
    np.save(tmp_path / "x.npy", np.linspace(0, scale, 128, dtype=np.float32).reshape(2, 8, 8, 1))
    assert len(mimic_keras.predict(result.export, tmp_path / "x.npy").rows) == 2
    said = "serving_default takes prepared examples: inputs is from 0 to 255, and was from 0 to 1 on validation"
    assert (said in capsys.readouterr().err) == (scale == 255)


def test_predict_needs_no_examples_to_compare_with(result, tmp_path, capsys):
    shutil.copytree(result.export, tmp_path / "1")
    (tmp_path / "1" / "assets.extra" / "examples.npz").unlink()
    np.save(tmp_path / "x.npy", np.zeros([1, 8, 8, 1], np.float32))
    assert len(mimic_keras.predict(tmp_path / "1", tmp_path / "x.npy").rows) == 1
    assert "whether the examples were prepared as the student's is not checked" in capsys.readouterr().err


@pytest.mark.long
def test_a_search_and_a_sweep(places, folder):
    experiment = tiny(baseline=None, search={"trials": 1, "random_trials": 1}, name="search")
    experiment["student"]["training"]["optimizer"]["learning_rate"] = {"tune": {"min": 0.01, "max": 0.02}}
    where = {key: places[key] for key in ("home", "runs_dir")}
    tuned = mimic_keras.tune(experiment, **where)
    tuned.check()
    assert (tuned.best, len(tuned.rows)) == (places["runs_dir"] / "search" / "best.yaml", 1)
    assert read(tuned.best).content["name"] == "search_best"
    assert mimic_keras.validate(experiment).lines[0].startswith("search      1 trials over 1 ranges")

    sweep = {"name": "sweep", "axes": {"rate": [0.01]}, "experiment": tiny(baseline=None)}
    sweep["set"] = {"student.training.optimizer.learning_rate": {"axis": "rate"}}
    swept = mimic_keras.sweep(sweep, **where)
    swept.check()
    assert (swept.failed, swept.cells, swept.report.exists()) == ({}, 1, True)
    assert len(mimic_keras.validate(sweep).plans) == 1
    with refusing("experiment is not a sweep: it has no axes"):
        mimic_keras.sweep(tiny(), **where)
    with refusing("experiment is a sweep, not an experiment"):
        mimic_keras.run(sweep, **places)


def test_a_failure_of_a_sweep_or_search_is_raised_by_check():
    from mimic_keras.interface.results import SweepResult, TuneResult

    with refusing("1 of 3 cells failed; the same command tries them again\n  a 1: why", mimic_keras.RunError):
        SweepResult("s", [], [], None, {"a 1": "why"}, 3).check()
    with refusing("no trial has a score; the page shows the reason for each", mimic_keras.RunError):
        TuneResult("s", [], [], None, None).check()


@pytest.mark.parametrize(
    "name", ["typo of a loss", "quoted number", "several problems at once", "no branch of a union"]
)
def test_a_wrong_experiment_is_the_same_message_as_an_exception(name, tmp_path, capsys):
    content, pieces = WRONG[name]
    file = write(tmp_path, tiny())
    assert command("validate", file, *(part for setting in content for part in ("--set", setting))) == 2
    printed = capsys.readouterr().err
    with pytest.raises(InputError) as caught:
        mimic_keras.validate(file, set=content)
    assert printed == f"mimic-keras: {caught.value}\n"
    with pytest.raises(InputError) as of_mapping:
        mimic_keras.validate(tiny(), set=content)
    assert str(of_mapping.value) == str(caught.value).replace(str(file), "experiment")
    assert all(piece in printed for piece in pieces)


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ("none.yaml", "none.yaml: cannot be read: No such file or directory"),
        ({"name": {1, 2}}, "name: expected a text, number, boolean, list or mapping, got {1, 2}"),
        (
            {"student": {"loss": 3 + 4j}},
            r"student.loss: expected a keras.losses.Loss, whose method call a function may be, or a name",
        ),
        ({"dataset": Teacher}, "dataset: expected a Dataset, or a name, got <class 'mimic_keras.contracts.Teacher'>"),
        ({}, "experiment: 3 problems"),
    ],
)
def test_what_is_no_experiment(experiment, message):
    with pytest.raises(InputError) as caught:
        mimic_keras.validate(experiment)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://x/y", "'s3://x/y' is not a folder"),
        ("a[1]", "a[1]: TensorFlow cannot load a SavedModel from a path with '['"),
    ],
)
def test_folders_that_cannot_be(place, message):
    with refusing(message):
        mimic_keras.run(tiny(), saved_models_dir=place)


def test_the_process_is_left_as_it_was(result):
    """`result` and this call run in a process that computes already, with settings of its own."""
    keras.utils.set_random_seed(7)
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_floatx("float64")
    try:
        expected = keras.layers.Dense(1).name
        state = random.getstate(), np.random.get_state()[1].tolist()
        tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
        mimic_keras.validate(tiny())
        assert (random.getstate(), np.random.get_state()[1].tolist()) == state
        number = int(expected.rpartition("_")[2]) if "_" in expected else 0
        assert keras.layers.Dense(1).name == f"dense_{number + 1}"
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert keras.config.floatx() == "float64"
        assert tf.config.experimental.tensor_float_32_execution_enabled() == tf32
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


@pytest.mark.long
def test_an_unseeded_random_operation_works_after_a_deterministic_run():
    code = "import tensorflow as tf, mimic_keras; tf.constant(1) + 1; from tests.tiny import tiny\n"
    code += "mimic_keras.validate(tiny()); print(tf.random.normal([3]).shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "(3,)\n", done.stderr


def test_keras_on_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with refusing("Keras computes with jax in this process; accepted: tensorflow, chosen by"):
        mimic_keras.validate(tiny())


def test_a_teacher_with_data_of_its_own_is_not_called(result):
    results = result.finished.results
    other = dataclasses.replace(results.members[0], data=dataclasses.replace(results.data))
    finished = dataclasses.replace(
        result.finished, results=dataclasses.replace(results, members=[other, results.members[1]])
    )
    with refusing("teacher/0: takes inputs of its own data set; logits(split) has"):
        dataclasses.replace(result, finished=finished).teacher(np.zeros([1, 8, 8, 1]))
