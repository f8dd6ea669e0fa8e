"""Whole runs: what is made, what is reused, what damage remakes, and what the files of a run say."""

import html.parser
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from mimic_keras_digits import Digits
from sklearn.datasets import load_digits

from mimic_keras.contracts import ArraySplit
from mimic_keras.stages import labelling, logits
from mimic_keras.storage import files
from mimic_keras.training import models
from tests.tiny import command, counts, run, tiny, write

AT_CHANCE = ("--set", "export.minimum_agreement=0")  # of students whose two epochs teach them nothing


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the tiny experiment has been run once; tests copy it."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder, tiny())


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def versions(folder):
    """What a server sees of the exports: names that are numbers."""
    return sorted(path.name for path in (folder / "saved_models" / "tiny").iterdir() if path.name.isdecimal())


@pytest.mark.long
def test_a_first_run_makes_everything(finished):
    # Two members; three splits of logits each; student and baseline; one export.
    assert counts(finished[1]) == {"teachers": (2, 0), "logits": (6, 0), "student": (2, 0), "export": (1, 0)}


@pytest.mark.long
def test_the_same_run_again_reuses_everything_says_so_and_publishes_nothing(finished, folder, capsys):
    metrics = run(folder, tiny())
    assert counts(metrics) == {"teachers": (0, 2), "logits": (0, 6), "student": (0, 2), "export": (0, 1)}
    assert metrics["models"] == finished[1]["models"]
    assert versions(folder) == ["1"]
    printed = capsys.readouterr()
    assert "Artefacts: 0 made, 11 reused" in printed.out
    for line in ("teacher/0: reused", "teacher/1 logits on transfer: reused", "student: reused", "export: reused"):
        assert line in printed.err


def test_another_loss_retrains_only_the_student(folder):
    changed = tiny()
    changed["student"] |= {"loss": {"name": "kl"}, "standardize_logits": False}
    metrics = run(folder, changed, "--replace", *AT_CHANCE)
    assert counts(metrics) == {"teachers": (0, 2), "logits": (0, 6), "student": (1, 1), "export": (1, 0)}
    assert metrics["export"]["version"] == 2


@pytest.mark.long
@pytest.mark.parametrize("place", ["first", "last"])
def test_another_member_trains_only_it(folder, place):
    changed = tiny()
    other = {"teacher": {"name": "trained", "architecture": {"name": "mlp", "hidden_units": [5]}}}
    changed["teacher"]["members"].insert(0 if place == "first" else 1, other)
    metrics = run(folder, changed)
    assert counts(metrics) == {"teachers": (1, 2), "logits": (3, 6), "student": (1, 1), "export": (1, 0)}


@pytest.mark.long
def test_another_copy_trains_only_it(folder):
    changed = tiny()
    changed["teacher"]["members"][0]["copies"] = 3
    assert counts(run(folder, changed))["teachers"] == (1, 2)


@pytest.mark.long
def test_weights_count_as_shares_and_train_no_member(folder):
    changed = tiny()
    changed["teacher"]["members"][0]["weight"] = 3.0
    # Both members have it: their mean is the same.
    assert counts(run(folder, changed)) == {"teachers": (0, 2), "logits": (0, 6), "student": (0, 2), "export": (0, 1)}
    other = {"teacher": {"name": "trained", "architecture": {"name": "mlp", "hidden_units": [5]}}}
    changed["teacher"]["members"].append(other)
    assert counts(run(folder, changed))["student"] == (1, 1)
    changed["teacher"]["members"][0]["weight"] = 1.5
    metrics = run(folder, changed)
    assert counts(metrics) == {"teachers": (0, 3), "logits": (0, 9), "student": (1, 1), "export": (1, 0)}


@pytest.mark.long
def test_another_student_seed_retrains_student_and_baseline(folder):
    metrics = run(folder, tiny(), "--set", "student.seed=1")
    assert counts(metrics) == {"teachers": (0, 2), "logits": (0, 6), "student": (2, 0), "export": (1, 0)}


def test_a_finished_experiment_of_another_name_shares_everything_but_its_export(folder):
    file = write(folder, tiny(name="other"))
    places = ("--home", folder / "home", "--runs_dir", folder / "runs", "--saved_models_dir", folder / "saved_models")
    assert command("run", file, *places) == 0
    metrics = json.loads((folder / "runs" / "other" / "metrics.json").read_text())
    assert counts(metrics) == {"teachers": (0, 2), "logits": (0, 6), "student": (0, 2), "export": (1, 0)}


DAMAGE = {
    "teachers": {"teachers": (1, 1), "logits": (0, 6), "student": (0, 2), "export": (0, 1)},
    "logits": {"teachers": (0, 2), "logits": (1, 5), "student": (0, 2), "export": (0, 1)},
    "students": {"teachers": (0, 2), "logits": (0, 6), "student": (1, 1), "export": (0, 1)},
}


# Every kind of damage, and every kind of artefact; the store judges them alike, as its own tests show.
@pytest.mark.parametrize(
    ("kind", "how"), [("teachers", "flip"), ("logits", "truncate"), ("students", "empty"), ("logits", "remove")]
)
def test_a_damaged_file_is_made_again_and_nothing_else(finished, folder, kind, how, capsys):
    file = sorted(path for path in (folder / "home" / kind).rglob("*") if path.suffix in (".keras", ".npy"))[0]
    content = file.read_bytes()
    middle = len(content) // 2
    if how == "flip":
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    if how == "truncate":
        file.write_bytes(content[:middle])
    if how == "empty":
        file.write_bytes(b"")
    if how == "remove":
        file.unlink()
    metrics = run(folder, tiny())
    assert counts(metrics) == DAMAGE[kind]
    assert metrics["models"] == finished[1]["models"]
    assert f"is damaged ({file.name}); moved to" in capsys.readouterr().err


@pytest.mark.long
def test_a_damaged_export_is_published_anew_beside_it(folder):
    file = folder / "saved_models" / "tiny" / "1" / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-10])
    assert run(folder, tiny())["export"]["version"] == 2
    assert run(folder, tiny())["export"]["version"] == 2


@pytest.mark.long
def test_labelling_keeps_the_shards_of_an_interrupted_run(tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "SHARD_EXAMPLES", 300)
    written, real = [], labelling._write_shard

    def dies(folder, index, values):
        if len(written) == 2 * 2 + 3:  # both members on validation, then on transfer one shard more of one
            raise KeyboardInterrupt
        real(folder, index, values)
        written.append(index)

    monkeypatch.setattr(labelling, "_write_shard", dies)
    file = write(tmp_path, tiny())
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports")
    assert command("run", file, *places) == 130
    partials = list((tmp_path / "home" / "logits").glob(".*.partial"))
    assert sorted(len(list(each.glob("*.npy"))) for each in partials) == [1, 2]
    partial = max(partials, key=lambda each: len(list(each.glob("*.npy"))))
    first, second = sorted(partial.glob("*.npy"))
    second.write_bytes(second.read_bytes()[:-1])
    again = []
    monkeypatch.setattr(labelling, "_write_shard", lambda *call: (again.append(call[1]), real(*call)))
    assert command("run", file, *places) == 0
    # 1,097 transfer examples are shards 0 to 3: shard 0 of both was whole and shard 1 of one was damaged; then 350 of
    # test. Validation was whole.
    assert again == [1, 1, 2, 2, 3, 3, 0, 0, 1, 1]
    finished = partial.with_name(partial.name.removeprefix(".").removesuffix(".partial"))
    assert np.load(finished / first.name).shape == (300, 10)


def test_the_mean_of_the_members_is_the_teacher(folder):
    found = json.loads((folder / "runs" / "tiny" / "artifacts.json").read_text())
    inputs = Digits().split("test").batch(np.arange(350))
    nets = [keras.models.load_model(f"{found[f'teacher/{index}']['model']}/model.keras") for index in (0, 1)]
    mean = np.mean([net(inputs).numpy() for net in nets], 0)
    assert [found[f"teacher/{index}"]["weight"] for index in (0, 1)] == [0.5, 0.5]
    assert found["dataset"]["folder"].endswith("/home/datasets/digits")
    shards = [sorted(Path(found[f"teacher/{index}"]["logits"]["test"]).glob("*.npy")) for index in (0, 1)]
    cached = np.mean([np.concatenate([np.load(shard) for shard in of_member]) for of_member in shards], 0)
    np.testing.assert_allclose(cached, mean, rtol=1e-5, atol=1e-5)
    labels = Digits().split("test").labels
    metrics = json.loads((folder / "runs" / "tiny" / "metrics.json").read_text())
    assert metrics["models"]["teacher"]["test"]["error_rate"] == pytest.approx(np.mean(mean.argmax(-1) != labels))


def test_metrics_have_the_promised_shape(finished):
    metrics = finished[1]
    assert (metrics["experiment"], metrics["seed"]) == ("tiny", 0)
    assert list(metrics["models"]) == ["teacher", "teacher/0", "teacher/1", "baseline", "student"]
    student, teacher = metrics["models"]["student"], metrics["models"]["teacher"]
    # By hand: 64 * 8 + 8 * 32 + 32 + 32 * 10 + 10, and the products among them; a member: 64 * 24 + 24 + 24 * 10 + 10.
    assert (student["parameters"], student["multiply_adds"]) == (1130, 1088)
    assert (teacher["parameters"], teacher["multiply_adds"], teacher["members"]) == (2 * 1810, 2 * 1776, 2)
    performance = ["error_rate", "accuracy", "top_5_accuracy", "nll", "calibration_error"]
    fidelity = ["agreement", "kl", "logit_mse"]
    assert list(student["test"]) == list(student["validation"]) == performance + fidelity
    assert list(student["transfer"]) == list(metrics["models"]["baseline"]["transfer"]) == fidelity
    assert list(teacher["test"]) == performance
    assert [row["class"] for row in metrics["classes"]] == [str(digit) for digit in range(10)]
    assert sum(row["examples"] for row in metrics["classes"]) == 350
    assert list(metrics["classes"][0]["error_rate"]) == ["teacher", "baseline", "student"]
    assert list(metrics["stages"]) == ["data", "teachers", "logits", "student", "evaluation", "report", "export"]
    outputs = {"logits": [-1, 10], "probabilities": [-1, 10], "class": [-1], "label": [-1]}
    assert metrics["export"]["signatures"] == {
        "serving_default": {"inputs": {"inputs": [-1, 8, 8, 1]}, "outputs": outputs},
        "serve_images": {"inputs": {"images": [-1, 8, 8, 1]}, "outputs": outputs},
    }


def test_the_run_folder_holds_what_the_docs_say(finished):
    names = {path.name for path in (finished[0] / "runs" / "tiny").iterdir()}
    expected = {"experiment.yaml", "environment.json", "artifacts.json", "metrics.json", "report.html", "log.jsonl"}
    assert names == expected | {"tensorboard", ".lock"}
    lines = (finished[0] / "runs" / "tiny" / "log.jsonl").read_text().splitlines()
    assert any("export: published" in json.loads(line)["message"] for line in lines)


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for key, value in attributes if key in ("src", "href", "xlink:href")]


def test_the_report_stands_alone(finished):
    text = (finished[0] / "runs" / "tiny" / "report.html").read_text()
    links = Links()
    links.feed(text)
    beside = ["metrics.json", "experiment.yaml", "environment.json", "log.jsonl", "../../saved_models/tiny/1/"]
    assert [link for link in links.found if not link.startswith(("#", "data:"))] == beside
    assert all((finished[0] / "runs" / "tiny" / link).exists() for link in beside)
    assert text.count("<svg") == 5
    assert "Its architecture trained on the labels reaches" in text
    assert "<td>1,130</td>" in text


def test_without_a_teacher_the_student_learns_the_labels(tmp_path):
    experiment = tiny(teacher=None, baseline=None)
    experiment["student"] = {key: experiment["student"][key] for key in ("architecture", "training")}
    metrics = run(tmp_path, experiment)
    assert list(metrics["models"]) == ["student"]
    assert "agreement" not in metrics["models"]["student"]["test"]
    assert "transfer" not in metrics["models"]["student"]
    assert counts(metrics)["student"] == (1, 0)


@pytest.mark.long
def test_a_student_without_a_teacher_may_have_a_loss_of_labels(tmp_path):
    experiment = tiny(teacher=None, baseline=None)
    training = experiment["student"]["training"]
    experiment["student"] = {
        "architecture": {"name": "mlp", "hidden_units": [], "weight_decay": 0.001},
        "loss": {"name": "squared_hinge"},
        "training": {**training, "epochs": 20, "optimizer": {"name": "adam", "learning_rate": 0.01}},
    }
    metrics = run(tmp_path, experiment)
    assert list(metrics["models"]) == ["student"]
    assert metrics["models"]["student"]["test"]["error_rate"] < 0.15
    assert counts(metrics)["student"] == (1, 0)
    history = json.loads(next((tmp_path / "home" / "students").glob("*/history.json")).read_text())
    assert "agreement" not in history
    del experiment["student"]["loss"]
    assert counts(run(tmp_path, experiment, "--replace"))["student"] == (1, 0), "cross-entropy is another net"


def test_a_baseline_equal_to_a_labels_only_student_is_the_same_artefact(folder):
    experiment = tiny(teacher=None, baseline=None)
    student = tiny()["student"]
    experiment["student"] = {
        "architecture": {**student["architecture"], "dropout": 0.1},
        "training": student["training"],
    }
    assert counts(run(folder, experiment, "--replace", *AT_CHANCE))["student"] == (0, 1)


@pytest.mark.long
def test_trained_and_loaded_members_make_one_ensemble(folder, tmp_path):
    keras.utils.set_random_seed(0)
    other = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    )
    other.save(tmp_path / "other.keras")
    other.export(str(tmp_path / "exported"), verbose=False)
    changed = tiny()
    changed["teacher"]["members"] += [
        {"teacher": {"name": "keras_file", "path": str(tmp_path / "other.keras"), "outputs": "probabilities"}},
        {"teacher": {"name": "saved_model", "path": str(tmp_path / "exported"), "outputs": "probabilities"}},
    ]
    metrics = run(folder, changed, "--replace")
    assert counts(metrics) == {"teachers": (0, 2), "logits": (6, 6), "student": (1, 1), "export": (1, 0)}
    loaded = [metrics["models"][f"teacher/{index}"] for index in (2, 3)]
    assert loaded[0]["test"] == pytest.approx(loaded[1]["test"], rel=1e-5)
    assert [item["multiply_adds"] for item in loaded] == [640, 640]
    other.layers[-1].set_weights([weight * 2 for weight in other.layers[-1].get_weights()])
    other.save(tmp_path / "other.keras")
    # Another file at the same place is another member: its logits are made again, and nobody else's.
    assert counts(run(folder, changed))["logits"] == (3, 9)


def write_predictions(folder, transfer=1097):
    """Random logits for the digits; returns the teacher of an experiment."""
    counts = {"transfer": transfer, "validation": 350, "test": 350}
    for split, count in counts.items():
        np.save(folder / f"{split}.npy", np.random.default_rng(0).normal(size=(count, 10)))
    return {"name": "predictions", **{split: str(folder / f"{split}.npy") for split in counts}}


@pytest.mark.long
def test_a_teacher_of_predictions_and_a_student_that_starts_from_a_file(tmp_path):
    start = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    start.save(tmp_path / "start.keras")
    experiment = tiny(baseline=None)
    experiment["teacher"] = {"members": [{"teacher": write_predictions(tmp_path)}]}
    experiment["student"]["architecture"] = {"name": "keras_file", "path": str(tmp_path / "start.keras")}
    metrics = run(tmp_path, experiment, *AT_CHANCE)
    assert counts(metrics) == {"teachers": (0, 0), "logits": (3, 0), "student": (1, 0), "export": (1, 0)}
    nets = {name: (values["parameters"], values["multiply_adds"]) for name, values in metrics["models"].items()}
    assert nets == {"teacher": (None, None), "teacher/0": (None, None), "student": (650, 640)}
    assert metrics["models"]["teacher/0"]["test"]["agreement"] == 1.0
    labels = load_digits().target[1447:]
    wrong = np.load(tmp_path / "test.npy").argmax(-1) != labels
    assert metrics["models"]["teacher"]["test"]["error_rate"] == pytest.approx(wrong.mean())
    start.layers[-1].bias.assign(np.arange(10))
    start.save(tmp_path / "start.keras")
    assert counts(run(tmp_path, experiment, *AT_CHANCE))["student"] == (1, 0), "another start is another student"
    rows = np.load(tmp_path / "test.npy")
    rows[0, 0] += 1
    np.save(tmp_path / "test.npy", rows)
    assert counts(run(tmp_path, experiment, *AT_CHANCE))["logits"] == (3, 0), "another row is another teacher"


def test_what_is_loaded_is_checked_against_the_data_before_anything_is_trained(tmp_path, capsys):
    experiment = tiny()
    experiment["teacher"]["members"].append({"teacher": write_predictions(tmp_path, transfer=1096)})
    home = tmp_path / "home"
    assert command("run", write(tmp_path, experiment), "--home", home, "--runs_dir", tmp_path / "runs") == 2
    assert "transfer.npy has 1096 rows, expected 1097: 1097 examples" in capsys.readouterr().err
    assert not list(home.glob("teachers/*"))


@pytest.mark.long
def test_a_member_with_another_preparation_is_joined_by_id(tmp_path):
    changed = tiny(dataset={"name": "digits", "copies": 3, "shift": 1})
    changed["teacher"]["members"][0]["dataset"] = {"name": "digits", "copies": 3, "shift": 0}
    assert counts(run(tmp_path, changed))["teachers"] == (2, 0)


def test_a_member_with_other_examples_is_refused(tmp_path, capsys):
    changed = tiny()
    changed["teacher"]["members"][0]["dataset"] = {"name": "digits", "copies": 2}
    assert command("run", write(tmp_path, changed), "--home", tmp_path / "home", "--runs_dir", tmp_path / "runs") == 2
    expected = (
        "the dataset of teacher/0: 'transfer' has 1097 examples x 2 copies, but the student's data set has 1097 x 1"
    )
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "home" / "teachers").exists()


def test_a_diverging_run_ends_with_1_and_keeps_the_teachers(folder, capsys):
    options = ("--set", "student.training.optimizer.learning_rate=1e6", "--set", "name=hot")
    places = ("--home", folder / "home", "--runs_dir", folder / "runs", "--saved_models_dir", folder / "exports")
    assert command("run", write(folder, tiny()), *places, *options) == 1
    message = capsys.readouterr().err
    assert "mimic-keras: the loss became" in message
    assert "learning rate 1e+06" in message
    assert not list((folder / "exports").iterdir())


def test_mirrored_and_one_device_share_every_artefact(folder):
    changed = tiny(distribution={"strategy": "mirrored", "virtual_devices": 2})
    assert counts(run(folder, changed)) == {"teachers": (0, 2), "logits": (0, 6), "student": (0, 2), "export": (0, 1)}


@pytest.mark.long
def test_a_whole_mirrored_run(tmp_path, finished):
    changed = tiny(distribution={"strategy": "mirrored", "virtual_devices": 2})
    changed["baseline"] = None
    metrics = run(tmp_path, changed)
    ours, theirs = metrics["models"]["student"]["test"], finished[1]["models"]["student"]["test"]
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)


def test_mirrored_without_devices_is_refused(tmp_path, capsys):
    changed = tiny(distribution={"strategy": "mirrored"})
    assert command("run", write(tmp_path, changed), "--home", tmp_path / "home", "--runs_dir", tmp_path / "runs") == 2
    assert "mirrored needs GPUs, and this machine shows none" in capsys.readouterr().err


def test_another_student_under_the_same_key_is_published(folder):
    # As if it had been made again on a machine that rounds differently.
    found = json.loads((folder / "runs" / "tiny" / "artifacts.json").read_text())
    place = folder / "home" / "students" / Path(found["student"]["model"]).name
    student = models.load(place)
    student.set_weights([weight * 1.5 for weight in student.get_weights()])
    student.save(place / "model.keras")
    record = json.loads((place / "artifact.json").read_text())
    record["files"]["model.keras"] = files.file_digest(place / "model.keras")
    (place / "artifact.json").write_text(json.dumps(record))
    assert counts(run(folder, tiny()))["export"] == (1, 0)


def test_a_member_that_gives_nan_is_named_and_not_kept(folder, tmp_path, capsys):
    broken = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    broken.set_weights([weight * np.nan for weight in broken.get_weights()])
    broken.save(tmp_path / "broken.keras")
    changed = tiny()
    changed["teacher"]["members"].append({"teacher": {"name": "keras_file", "path": str(tmp_path / "broken.keras")}})
    places = ("--home", folder / "home", "--runs_dir", folder / "runs", "--saved_models_dir", folder / "exports")
    kept = [path for path in (folder / "runs" / "tiny").iterdir() if path.suffix in (".json", ".yaml", ".html")]
    before = {path.name: path.read_bytes() for path in kept}
    assert len(before) == 5
    assert command("run", write(folder, changed), *places, "--replace") == 1
    assert "teacher/2 gives infinite or NaN logits" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in kept} == before, "the finished run's files stay as they were"


@pytest.mark.long
def test_the_seed_of_a_resolved_experiment_still_sets_the_others(folder):
    text = (folder / "runs" / "tiny" / "experiment.yaml").read_text()
    assert counts(run(folder, text, "--set", "seed=1"))["teachers"] == (2, 0)


def test_the_teachers_error_on_the_transfer_set_is_said(folder, capsys):
    run(folder, tiny())
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("teacher: error rate")]
    found = json.loads((folder / "runs" / "tiny" / "artifacts.json").read_text())
    logits_of = [
        np.concatenate([np.load(shard) for shard in sorted(Path(found[name]["logits"]["transfer"]).glob("*.npy"))])
        for name in ("teacher/0", "teacher/1")
    ]
    expected = np.mean(np.mean(logits_of, 0).argmax(-1) != Digits().split("transfer").labels)
    assert line == f"teacher: error rate {expected:.4f} on the transfer set"


@pytest.mark.parametrize(("on_validation", "is_warned_of"), [(0.5, False), (0.1, True), (float("nan"), False)])
def test_copies_that_the_teacher_does_not_know_are_warned_of(on_validation, is_warned_of, caplog):
    """Half of 200 copies of 100 examples are wrong, all of the second copy."""
    split = ArraySplit(np.zeros([100, 1], np.float32), np.zeros(100, np.int32), repeats=2)
    means = [np.eye(2, dtype=np.float32)[np.full(100, copy)] for copy in (0, 1)]
    with caplog.at_level("WARNING", "absl"):
        passed = list(logits._log_error_rate(means, split, on_validation))
    np.testing.assert_array_equal(passed, means)
    said = (
        "more than twice as many errors on the transfer set, virtual copies included, as on validation, 0.5000 against"
    )
    assert (said in caplog.text) == is_warned_of


def test_the_resolved_experiment_in_the_run_folder_runs_to_the_same_artefacts(folder):
    text = (folder / "runs" / "tiny" / "experiment.yaml").read_text()
    assert "distribution: {strategy: auto}" in text
    assert counts(run(folder, text)) == {"teachers": (0, 2), "logits": (0, 6), "student": (0, 2), "export": (0, 1)}
