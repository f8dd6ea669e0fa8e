"""The evaluation stage: the data set's own metrics, fidelity on the transfer set, and the tables of a run."""

from importlib.metadata import EntryPoint
from pathlib import Path

import keras
import numpy as np
import pytest

from mimic_keras.contracts import ArraySplit, Confusion, Dataset, DatasetInfo, host_variable
from mimic_keras.planning.components import Component
from mimic_keras.planning.plugins import Plugin
from mimic_keras.stages import evaluation
from mimic_keras.stages.data import Data
from mimic_keras.stages.logits import TeacherLogits
from mimic_keras.stages.student import Net
from mimic_keras.training.models import Cost

ENTRY = EntryPoint("standard", "json:Library", "")  # whose code does not change


class Phones(Dataset):
    """A data set with a metric and a confusion of its own, and no labels."""

    info = DatasetInfo("phones", "1", (2,), 2, ("a", "b"))

    def prepare(self, data_dir):
        return "digest"

    def split(self, name, seed=0):
        return ArraySplit(np.zeros([3, 2], np.float32))

    def evaluate(self, logits):
        counts = np.array([[5, 1], [0, 7]])
        return {
            split: {**metrics, "phone_error_rate": 0.25, "phones": Confusion(("aa", "<b>"), counts)}
            for split, metrics in super().evaluate(logits).items()
        }


@pytest.fixture
def judged():
    phones = Plugin("dataset", "phones", ENTRY, "phones", "1", "")
    data = Data(Component(phones, {}), Phones(), {}, 0, Path())
    zeros = {split: np.zeros([3, 2], np.float32) for split in ("validation", "test")}
    teacher = TeacherLogits(
        ArraySplit(np.zeros([3, 1])), host_variable(np.zeros([3, 2], np.float32)), zeros, {}, {}, {}, []
    )
    return evaluation.evaluate(data, [], teacher, [])


def test_a_data_sets_own_metrics_and_missing_ones(judged):
    nothing = dict.fromkeys(("error_rate", "accuracy", "nll", "calibration_error"))
    assert judged.models["teacher"]["test"] == {**nothing, "phone_error_rate": 0.25}
    assert judged.classes == []
    assert judged.confusions["teacher"]["test"]["phones"].names == ("aa", "<b>")


class Digits(Dataset):
    """The numbers 0 to 11, of which transfer has two virtual copies each; the class is the number modulo 3."""

    info = DatasetInfo("digits", "1", (1,), 3, ("a", "b", "c"))

    def prepare(self, data_dir):
        return "digest"

    def split(self, name, seed=0):
        numbers = np.arange(12, dtype=np.float32)[:, None]
        return ArraySplit(numbers, numbers[:, 0] % 3, repeats=2 if name == "transfer" else 1)


def test_fidelity_on_the_transfer_set_is_of_evenly_spaced_originals(monkeypatch):
    """The student says class 0 always; the teacher says so of originals 0 and 11 alone, and of every virtual copy."""
    monkeypatch.setattr(evaluation, "MOST_TRANSFER_EXAMPLES", 3)
    teacher_logits = np.tile(np.array([0.0, 9.0, 0.0], np.float32), [24, 1])
    teacher_logits[[0, 11, *range(12, 24)]] = [9.0, 0.0, 0.0]
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(3, kernel_initializer="zeros", bias_initializer="zeros")(inputs))
    data = Data(Component(Plugin("dataset", "digits", ENTRY, "digits", "1", ""), {}), Digits(), {}, 0, Path())
    of_split = dict.fromkeys(("validation", "test"), teacher_logits[:12])
    split = data.split("transfer")
    teacher = TeacherLogits(split, host_variable(teacher_logits), of_split, {}, {}, {}, [])
    found = evaluation.evaluate(data, [], teacher, [Net("student", "key", Cost(6, 3), Path(), {}, model)])
    # Of the originals 0, 5 and 11, the classes 0, 1 and 0.
    assert found.models["student"]["transfer"]["agreement"] == pytest.approx(2 / 3)
    assert found.models["student"]["test"]["agreement"] == pytest.approx(2 / 12)
    assert "transfer" not in found.models["teacher"]
    assert [row["examples"] for row in found.classes] == [4, 4, 4]
    assert [row["error_rate"]["student"] for row in found.classes] == [0, 1, 1]
    alone = evaluation.evaluate(data, [], teacher, [], splits=("validation",))
    assert (alone.classes, list(alone.logits["teacher"])) == ([], ["validation"])


@pytest.mark.parametrize(
    ("student", "baseline", "said"),
    [
        ({"error_rate": 0.25}, {"error_rate": 0.125}, "error rate 0.2500 against 0.1250"),
        (
            {"error_rate": 0.1, "phone_error_rate": 0.5},
            {"phone_error_rate": 0.4},
            "phone error rate 0.5000 against 0.4",
        ),
        ({"error_rate": 0.125}, {"error_rate": 0.125}, None),
        ({"error_rate": None}, {"error_rate": 0.125}, None),
    ],
)
def test_a_student_that_errs_more_than_its_baseline_is_remarked(student, baseline, said):
    remark = evaluation.compare_with_baseline({"student": {"test": student}, "baseline": {"test": baseline}})
    assert (remark or "").startswith(f"the student errs more on test than its baseline: {said}" if said else "")
    assert (remark is None) == (said is None)
    assert evaluation.compare_with_baseline({"student": {"test": student}}) is None


@pytest.mark.parametrize(
    ("agreement", "said"), [(None, None), (0.5, None), (0.1, "only 10.0 % of validation: it has learnt little of it")]
)
def test_a_student_that_follows_little_of_its_teacher_is_remarked(agreement, said):
    remark = evaluation.compare_with_teacher({"student": {"validation": {"agreement": agreement}}})
    assert remark == (said and f"the student agrees with its teacher on {said}")
    assert evaluation.compare_with_teacher({"student": {"validation": {}}}) is None


def test_the_tables_have_errors_first_and_probabilities_apart():
    models = {
        "teacher": {"parameters": 9, "multiply_adds": 8, "validation": {"error_rate": 0.5}, "test": {"nll": 0.25}},
        "student": {
            "parameters": 3,
            "multiply_adds": 2,
            "validation": {"error_rate": 0.5, "accuracy": 0.5, "nll": 3.0, "kl": 1.0},
            "test": {"accuracy": 0.5, "nll": 0.75, "calibration_error": 0.125, "phone_error_rate": 0.2, "kl": 2.0},
            "transfer": {"agreement": 1.0},
        },
        "teacher/0": {"parameters": 9, "multiply_adds": 8, "source": "a.keras", "validation": {}, "test": {}},
    }
    columns, rows = evaluation.tabulate(models)
    assert columns == [
        "model", "parameters", "multiply-adds", "validation error rate", "test phone error rate", "test kl",
        "source",
    ]  # fmt: skip
    assert rows[1] == dict(zip(columns[:-1], ["student", "3", "2", 0.5, 0.2, 2.0], strict=True))
    assert rows[2]["source"] == "a.keras"
    columns, rows = evaluation.tabulate_details(models)
    assert columns == ["model", "test nll", "test accuracy", "test calibration error", "transfer agreement"]
    assert rows[0] == {"model": "teacher", "test nll": 0.25}
    assert rows[1] == dict(zip(columns, ["student", 0.75, 0.5, 0.125, 1.0], strict=True))
