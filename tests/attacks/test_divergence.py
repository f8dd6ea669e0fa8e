"""Members whose loss becomes infinite (issue 9 c): named, remembered, and left out where the experiment asks for it."""

import json

import pytest
from absl import logging

from mimic_keras import runner
from mimic_keras.contracts import RunError
from mimic_keras.stages.workspace import Workspace
from mimic_keras.training import trainer
from mimic_keras.training.steps import TrainingDiverged
from mimic_keras.training.trainer import Trained
from tests.test_searching import search_of, searched
from tests.tiny import command, plan_of, tiny, write

ERROR = "the loss became inf at step 3, learning rate 0.1"


def experiment(copies=3, **teacher):
    found = tiny(baseline=None)
    found["teacher"]["members"][0]["copies"] = copies
    found["teacher"].update(teacher)
    return found


class Training:
    """Stands for `trainer.train`: gives untrained nets, but diverges for the nets in `diverging`."""

    def __init__(self):
        self.diverging, self.names = set(), []

    def __call__(self, build, examples, validation, objective, settings, seed, name, **named):
        self.names.append(name)
        if name in self.diverging:
            named["state"].write_bytes(b"a state")
            raise TrainingDiverged(ERROR)
        return Trained(build(), {"loss": [1.0], "val_loss": [1.0], "error_rate": [0.5], "val_error_rate": [0.5]})


@pytest.fixture
def training(monkeypatch):
    found = Training()
    monkeypatch.setattr(trainer, "train", found)
    return found


def evaluate(folder, content):
    return runner.train_and_evaluate(plan_of(folder, content), Workspace(folder / "home"))


def test_9c_a_diverged_member_is_named_and_remembered(tmp_path, training):
    training.diverging = {"teacher/1"}
    for names in (["teacher/0", "teacher/1"], []):
        training.names.clear()
        with pytest.raises(RunError, match=rf"^teacher/1: {ERROR} \(recorded in .*\); teacher.on_divergence: drop"):
            evaluate(tmp_path, experiment())
        assert training.names == names
    (file,) = (tmp_path / "home" / "teachers").glob("*/diverged.json")
    assert json.loads(file.read_text()) == {"error": ERROR}
    assert {path.name for path in file.parent.iterdir()} == {"diverged.json", "artifact.json"}


def test_9c_drop_leaves_it_out_and_trains_it_once(tmp_path, training, monkeypatch):
    training.diverging, warnings = {"teacher/1"}, []
    monkeypatch.setattr(logging, "warning", lambda text, *values, **_: warnings.append(text % values))
    content = experiment(on_divergence="drop")
    results = evaluate(tmp_path, content)
    left_out = [text.partition(" (")[0] for text in warnings if text.startswith("left out")]
    assert left_out == [f"left out: teacher/1: {ERROR}"]
    models = results.evaluation.models
    assert models["teacher"]["members"] == 2
    assert models["teacher"]["parameters"] == 2 * models["teacher/0"]["parameters"]
    assert [name for name in models if name.startswith("teacher/")] == ["teacher/0", "teacher/2"]
    artifacts = runner._list_artifacts(results)
    assert artifacts["teacher/0"]["weight"] == artifacts["teacher/2"]["weight"] == 0.5
    assert "teacher/1" not in artifacts
    assert training.names == ["teacher/0", "teacher/1", "teacher/2", "student"]
    evaluate(tmp_path, content)
    assert len(training.names) == 4


def test_9c_the_key_changes_no_artefact(tmp_path, training):
    """The members and the student are the same ones whatever on_divergence is, and fail finds what drop remembers."""
    first = evaluate(tmp_path, experiment())
    second = evaluate(tmp_path, experiment(on_divergence="drop"))
    assert len(training.names) == 4
    assert [net.key for net in first.all_nets] == [net.key for net in second.all_nets]


def test_9c_a_remembered_divergence_fails_without_drop(tmp_path, training):
    training.diverging = {"teacher/0"}
    evaluate(tmp_path, experiment(on_divergence="drop"))
    training.diverging.clear()
    with pytest.raises(RunError, match=r"^teacher/0: the loss became inf"):
        evaluate(tmp_path, experiment())
    assert training.names.count("teacher/0") == 1


@pytest.mark.long
def test_9c_a_removed_record_trains_the_member_again(tmp_path, training):
    training.diverging = {"teacher/0"}
    evaluate(tmp_path, experiment(on_divergence="drop"))
    training.diverging.clear()
    (file,) = (tmp_path / "home" / "teachers").glob("*/diverged.json")
    file.unlink()
    assert len(evaluate(tmp_path, experiment(on_divergence="drop")).members) == 3


def test_9c_all_members_dropped_is_an_error(tmp_path, training, capsys):
    training.diverging = {f"teacher/{index}" for index in range(3)}
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports")
    assert command("run", write(tmp_path, experiment(on_divergence="drop")), *places) == 1
    assert f"teacher: every member diverged; the first, teacher/0: {ERROR}" in capsys.readouterr().err


def test_9c_selection_goes_on_with_the_others(tmp_path, training):
    training.diverging = {"teacher/1"}
    chosen = evaluate(tmp_path, experiment(on_divergence="drop", select={"members": 2})).members
    assert [member.name for member in chosen] == ["teacher/0", "teacher/2"]
    message = r"teacher.select.members: cannot choose 3 without replacement: only 2 members have not diverged"
    with pytest.raises(RunError, match=message):
        evaluate(tmp_path, experiment(on_divergence="drop", select={"members": 3}))
    evaluate(tmp_path, experiment(on_divergence="drop", select={"members": 3, "replacement": True}))


@pytest.mark.parametrize("on_divergence", ["fail", "drop"])
def test_9c_a_trial_diverges_only_with_its_own_student(tmp_path, training, on_divergence):
    content = searched(trials=2)
    content["teacher"]["on_divergence"] = on_divergence
    search = search_of(tmp_path, content)
    training.diverging = {"teacher/1"}
    if on_divergence == "fail":
        with pytest.raises(RunError, match=r"^teacher/1: the loss became inf"):
            search.work(Workspace(tmp_path / "home"))
        assert [trial.state for trial in search.list_trials()] == ["running"]
        return
    search.work(Workspace(tmp_path / "home"))
    assert [trial.state for trial in search.list_trials()] == ["done", "done"]
    assert training.names.count("teacher/1") == 1


def test_9c_a_trial_whose_student_diverges_has_diverged(tmp_path, training):
    training.diverging = {"student"}
    search = search_of(tmp_path, searched(trials=1))
    search.work(Workspace(tmp_path / "home"))
    assert [(trial.state, trial.note) for trial in search.list_trials()] == [("diverged", ERROR)]


def test_9c_a_real_training(tmp_path, capsys):
    hot = {"epochs": 1, "batch_size": 256, "optimizer": {"name": "sgd", "learning_rate": 1e30}}
    file = write(tmp_path, experiment(copies=1, training=hot))
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports")
    assert command("run", file, *places) == 1
    assert "mimic-keras: teacher/0: the loss became" in capsys.readouterr().err
    assert command("validate", file, "--set", "teacher.on_divergence=ignore") == 2
    assert "teacher.on_divergence: expected 'fail' or 'drop', got 'ignore'" in capsys.readouterr().err
