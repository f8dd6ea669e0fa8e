"""Ensembles by greedy forward selection on validation, and the curves of the data set's own metrics."""

import json

import pytest

from mimic_keras import runner
from mimic_keras.stages.workspace import Workspace
from tests.test_logits import score
from tests.tiny import command, plan_of, run, tiny, write


def selecting(**select):
    experiment = tiny(baseline=None)
    units = {"draw": {"min": 4, "max": 40}}
    net = {"name": "trained", "architecture": {"name": "mlp", "hidden_units": [units]}}
    experiment["teacher"]["members"] = [{"teacher": net, "copies": 4}]
    experiment["teacher"]["select"] = select
    return experiment


@pytest.mark.long
def test_who_is_chosen_is_the_teacher_and_the_others_cost_nothing(tmp_path):
    metrics = run(tmp_path, selecting(members=2))
    names = [name for name in metrics["models"] if name.startswith("teacher/")]
    assert len(names) == metrics["models"]["teacher"]["members"] == 2
    assert metrics["models"]["teacher"]["parameters"] == sum(metrics["models"][name]["parameters"] for name in names)
    labels = [folder for folder in (tmp_path / "home" / "logits").iterdir() if not folder.name.startswith(".")]
    assert len(labels) == 4 + 2 + 2  # four on validation; two on transfer and on test
    # The same as a search over all pairs that begin with the best single one.
    plan, workspace = plan_of(tmp_path, selecting(members=4)), Workspace(tmp_path / "home")
    found = runner.train_and_evaluate(plan, workspace)
    truth = workspace.prepare(plan.dataset, 0).split("validation").labels
    stack = {name: split["validation"] for name, split in found.teacher.members.items()}
    single = min(stack, key=lambda name: score([stack[name]], truth, [1.0], [0]))
    pairs = [(single, other) for other in stack if other != single]
    best = min(pairs, key=lambda pair: score([stack[name] for name in pair], truth, [1.0, 1.0], [0, 1]))
    assert set(names) == set(best)


@pytest.mark.long
def test_with_replacement_a_member_weighs_as_often_as_it_is_chosen(tmp_path):
    run(tmp_path, selecting(members=5, replacement=True))
    artifacts = json.loads((tmp_path / "runs" / "tiny" / "artifacts.json").read_text())
    weights = [found["weight"] for name, found in artifacts.items() if name.startswith("teacher/")]
    assert sum(weights) == pytest.approx(1)
    assert all((5 * weight) == pytest.approx(round(5 * weight)) for weight in weights)
    assert len(weights) < 5


def test_more_than_there_are_are_refused_unless_replaced(tmp_path, capsys):
    assert command("validate", write(tmp_path, selecting(members=5))) == 2
    assert "teacher.select.members: cannot choose 5 of 4 nets without replacement" in capsys.readouterr().err
    assert command("validate", write(tmp_path, selecting(members=5, replacement=True))) == 0
    assert "of 4 members on validation, and of the 5 chosen there" in " ".join(capsys.readouterr().out.split())


def judged(folder):
    (student,) = (folder / "home" / "students").glob("[0-9a-f]*")
    history = json.loads((student / "history.json").read_text())
    return {key: values for key, values in history.items() if key.startswith("judged_")}, history


@pytest.mark.long
def test_the_data_sets_metrics_every_few_epochs(tmp_path):
    student = {**tiny()["student"], "training": {**tiny()["student"]["training"], "epochs": 5, "evaluate_every": 2}}
    metrics = run(tmp_path, tiny(student=student, baseline=None))
    curve, history = judged(tmp_path)
    assert curve["judged_error_rate_epoch"] == [2.0, 4.0]
    # digits' metric is the error rate, which the trainer judges too: of standardised logits put back
    assert curve["judged_error_rate"] == pytest.approx([history["val_error_rate"][place] for place in (1, 3)])
    assert metrics["models"]["student"]["validation"]["error_rate"] == pytest.approx(history["val_error_rate"][-1])


@pytest.mark.long
def test_curves_change_no_weights(tmp_path):
    found = []
    for place, every in enumerate((None, 1)):
        (tmp_path / str(place)).mkdir()
        training = {**tiny()["student"]["training"], **({"evaluate_every": every} if every else {})}
        metrics = run(tmp_path / str(place), tiny(student={**tiny()["student"], "training": training}, baseline=None))
        found.append(metrics["models"]["student"])
    assert found[0] == found[1]
    assert not judged(tmp_path / "0")[0]
    assert judged(tmp_path / "1")[0]["judged_error_rate_epoch"] == [1.0, 2.0]
