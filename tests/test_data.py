"""The data stage: prepared files found again or rebuilt, splits checked, and members' own preparations."""

import types
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from mimic_keras.contracts import ArraySplit, Confusion, InputError, RunError
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.experiment.training import TrainingSection
from mimic_keras.planning.components import Component, bind
from mimic_keras.planning.plugins import Plugin, PluginError
from mimic_keras.stages import data
from mimic_keras.stages.data import Data
from mimic_keras.storage.store import damaged_files


class Prepared:
    """A data set that keeps a file and a folder, and its component."""

    plugin = types.SimpleNamespace(name="prepared")

    def __init__(self):
        self.made = []

    def __call__(self):
        return self

    def guard(self, function, *arguments):
        return function(*arguments)

    def paths(self):
        return []

    def check_unchanged(self):
        pass

    def key_inputs(self):
        return {}

    def prepare(self, folder):
        for name in ("file", "folder/one", "folder/two"):
            top = folder / name.split("/")[0]
            if not top.exists() or (name == "folder/two" and self.made[-1:] == ["folder/one"]):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(name)
                self.made.append(name)
        return "fingerprint"


def prepared(home):
    made = Prepared()
    data.prepare(made, home, 0)
    return made.made


def test_a_data_set_finds_what_it_left_or_nothing(tmp_path, caplog):
    everything = ["file", "folder/one", "folder/two"]
    assert (prepared(tmp_path), prepared(tmp_path)) == (everything, [])
    folder = tmp_path / "datasets" / "prepared"
    (folder / "folder" / "two").write_text("flipped")
    assert prepared(tmp_path) == everything[1:]
    assert "data set prepared: " in caplog.text
    assert "is damaged (folder/two); moved to" in caplog.text
    assert [path.read_text() for path in (tmp_path / "damaged").rglob("two")] == ["flipped"]
    (folder / "file").unlink()
    assert (prepared(tmp_path), prepared(tmp_path)) == (everything[:1], [])
    (folder / "artifact.json").write_text("")
    assert prepared(tmp_path) == everything  # what is there cannot be judged
    assert damaged_files(folder) == []


class Numbers:
    """A data set of `labels` {split: labels} with three classes."""

    info = types.SimpleNamespace(num_classes=3, class_names=("a", "b", "c"))

    def __init__(self, labels, repeats=1, metrics=None):
        self.labels, self.repeats, self.metrics, self.asked = labels, repeats, metrics, []

    def split(self, name, seed):
        self.asked.append((name, seed))
        made = ArraySplit(np.zeros([4, 2], np.float32), repeats=self.repeats)
        made.labels = np.array(self.labels.get(name, [0, 1, 2, -1]), np.int32)
        return made

    def evaluate(self, logits):
        return dict.fromkeys(logits, self.metrics)


def numbers(labels=None, **options):
    plugin = Plugin("dataset", "numbers", EntryPoint("numbers", "json:Numbers", ""), "my-data", "2.0", "")
    return Data(Component(plugin, {}), Numbers(labels or {}, **options), {}, 7, Path())


def test_a_split_is_asked_for_once_with_the_seed():
    made = numbers()
    assert made.split("train") is made.split("train")
    assert made.split("test") is not made.split("train")
    assert made.dataset.asked == [("train", 7), ("test", 7)]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0, 1, 3, 0], "4 labels for 4 examples, from 0 to 3"),
        ([0, -2, 1, 0], "4 labels for 4 examples, from -2 to 1"),
        ([0, 1], "2 labels for 4 examples, from 0 to 1"),
    ],
)
def test_labels_that_are_not_of_the_classes(labels, found):
    with pytest.raises(PluginError) as caught:
        numbers({"test": labels}).split("test")
    assert str(caught.value) == (
        f"dataset 'numbers' (my-data 2.0): 'test' has {found}; expected one each, from -1 to 2"
    )


def test_validation_metrics_are_the_finite_numbers():
    metrics = {"a": np.float32(0.5), "b": float("nan"), "c": Confusion(("x",), np.ones([1, 1])), "d": float("inf")}
    found = numbers(metrics=metrics).validation_metrics(np.zeros([4, 3]))
    assert list(found) == ["error_rate", "accuracy", "nll", "calibration_error", "a"]
    assert (found["error_rate"], found["nll"], found["a"]) == (pytest.approx(2 / 3), pytest.approx(np.log(3)), 0.5)


def test_a_data_sets_own_metric_replaces_one_of_the_same_name():
    found = numbers(metrics={"error_rate": 0.125}).evaluate({"test": np.zeros([4, 3])})
    assert found["test"]["error_rate"] == 0.125
    assert found["test"]["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 2, 0], []),
        ([0, 0, -1, 0], ["data set numbers: 2 of 3 classes have no example in 'train': b, c"]),
        ([-1, -1, -1, -1], []),
    ],
)
def test_classes_without_training_examples_are_named_once(labels, expected, caplog):
    made = numbers({"train": labels, "validation": [0, 0, 0, 0]})
    for name in ("train", "train", "validation"):
        made.split(name)
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == expected


def test_many_missing_classes_are_not_all_named(caplog):
    made = numbers({"train": [0, 0, 0, 0]})
    made.dataset.info = types.SimpleNamespace(num_classes=99, class_names=tuple(str(place) for place in range(99)))
    made.split("train")
    assert caplog.messages == [
        "data set numbers: 98 of 99 classes have no example in 'train': 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..."
    ]


def test_a_teacher_is_evaluated_once():
    """The same bits again: from memory. Other bits of one split: anew."""
    data = numbers(metrics={"error_rate": 0.125})
    calls = []
    evaluate = data.dataset.evaluate
    data.dataset.evaluate = lambda logits: calls.append(1) or evaluate(logits)
    found = data.evaluate_once({"test": np.zeros([4, 3])})
    assert data.evaluate_once({"test": np.zeros([4, 3])}) == found == data.evaluate({"test": np.zeros([4, 3])})
    assert len(calls) == 2
    data.evaluate_once({"test": np.eye(4, 3)})
    assert len(calls) == 3


def test_what_a_net_is_judged_by_is_a_metric_of_the_trainer_or_of_the_data_set():
    metrics = {"a": 0.5, "accuracy": float("nan"), "c": Confusion(("x",), np.ones([1, 1]))}
    found = numbers({"validation": [0, 1, 2, 0]}, metrics=metrics)

    def check(monitor):
        sgd = {"name": "sgd", "learning_rate": 0.1}
        training = TrainingSection(epochs=1, batch_size=1, optimizer=sgd, monitor=monitor)
        found.check_monitor(training, "student")

    for name in (None, "loss", "error_rate", "agreement", "a", "-a", "-accuracy"):
        check(name)
    for name, hint in (("-acuracy", "Did you mean 'accuracy'? "), ("c", ""), ("", "")):
        with pytest.raises(InputError) as caught:
            check(name)
        assert str(caught.value) == (
            f"student: monitor: no metric {name.removeprefix('-')!r} on validation. {hint}"
            "Accepted: loss, error_rate, agreement, accuracy, nll, calibration_error, a"
        )


@pytest.mark.parametrize(("largest", "is_warned_of"), [(10.0, False), (255.0, True)])
def test_large_inputs_are_warned_of(largest, is_warned_of, caplog):
    inputs = np.zeros([4, 2], np.float32)
    inputs[:, 0] = largest
    made = numbers()
    made.dataset.split = lambda name, seed: ArraySplit(inputs, np.array([0, 1, 2, 0]))
    with caplog.at_level("WARNING", "absl"):
        made.split("train")
    assert (
        "data set numbers: the inputs are from 0 to 255. Nets learn badly from large" in caplog.text
    ) == is_warned_of


def test_outliers_are_not_large_inputs(caplog):
    inputs = np.zeros([300, 2], np.float32)
    inputs[0, 0] = 1e6
    made = numbers()
    made.dataset.split = lambda name, seed: ArraySplit(inputs, np.arange(300) % 3)
    with caplog.at_level("WARNING", "absl"):
        made.split("train")
    assert not caplog.text


def test_examples_of_a_member_are_the_students():
    data.check_same_examples(numbers(repeats=2), numbers(repeats=2), "teacher/0")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"repeats": 2},
            "teacher/0: 'transfer' has 4 examples x 2 copies, but the student's data set has 4 x 1",
        ),
        (
            {"labels": {"validation": [0, 1, 2, 0]}},
            "teacher/0: the labels of 'validation' differ from those of the student's data set",
        ),
    ],
)
def test_other_examples_are_refused(other, message):
    with pytest.raises(InputError) as caught:
        data.check_same_examples(numbers(), numbers(**other), "teacher/0")
    assert str(caught.value) == message


@pytest.fixture
def files(tmp_path):
    """Inputs and labels of 40 examples: the files of the arrays data set."""
    np.save(tmp_path / "x.npy", np.arange(80, dtype=np.float32).reshape(40, 2))
    np.save(tmp_path / "y.npy", np.arange(40) % 2)
    return {"x": tmp_path / "x.npy", "y": tmp_path / "y.npy"}


def arrays(home, files, **arguments):
    """The data of a user's own files."""
    given = {"train": {name: str(file) for name, file in files.items()}, "shares": {"validation": 0.2, "test": 0.2}}
    problems = Problems("arrays.yaml")
    component = bind("dataset", {"name": "arrays", **given, **arguments}, Place(), problems)
    problems.check()
    return data.prepare(component, home, 0)


def test_own_files_may_move_but_neither_a_value_nor_an_argument_may_change(files, tmp_path):
    first = arrays(tmp_path / "home", files).identity
    moved = {**files, "x": files["x"].rename(tmp_path / "moved.npy")}
    assert arrays(tmp_path / "home", moved).identity == first
    assert arrays(tmp_path / "home", moved, split_seed=1).identity != first
    np.save(files["y"], np.append(np.arange(39) % 2, 0))
    assert arrays(tmp_path / "home", moved).identity != first


@pytest.mark.parametrize("mapped_bytes", [0, 1 << 30])
def test_own_files_that_change_during_a_run_end_it(mapped_bytes, files, tmp_path, monkeypatch):
    monkeypatch.setattr("mimic_keras_arrays.arrays.MAPPED_BYTES", mapped_bytes)
    found = arrays(tmp_path / "home", files, standardize=True)
    found.split("train")
    np.save(tmp_path / "new.npy", np.ones([40, 2], np.float32))
    (tmp_path / "new.npy").replace(files["x"])
    with pytest.raises(RunError, match="data set arrays: its data was changed after it was read; what needs it is not"):
        found.check_unchanged()
