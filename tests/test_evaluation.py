"""The numbers of metrics.json: fidelity to the teacher, the data set's own metrics, and the table of a run."""

from pathlib import Path

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mimic_keras.contracts import ArraySplit, Confusion, Dataset, DatasetInfo, host_variable
from mimic_keras.planning.components import Component, Plugin
from mimic_keras.stages import evaluation
from mimic_keras.stages.data import Data
from mimic_keras.stages.logits import TeacherLogits


def test_fidelity_by_hand():
    teacher = np.log([[0.5, 0.5], [0.9, 0.1]])
    student = np.log([[0.25, 0.75], [0.8, 0.2]])
    found = evaluation.measure_fidelity(teacher, student)
    assert found["agreement"] == 0.5
    kl = [0.5 * np.log(2) + 0.5 * np.log(2 / 3), 0.9 * np.log(9 / 8) + 0.1 * np.log(0.5)]
    assert found["kl"] == pytest.approx(np.mean(kl), rel=1e-12)
    mse = np.mean([np.log(2) ** 2, np.log(2 / 3) ** 2, np.log(9 / 8) ** 2, np.log(0.5) ** 2])
    assert found["logit_mse"] == pytest.approx(mse, rel=1e-12)


@given(arrays.arrays(np.float64, (3, 4), elements=st.floats(-1e4, 1e4)))
def test_log_softmax_equals_scipys(logits):
    expected = scipy.special.log_softmax(logits, axis=-1)
    np.testing.assert_allclose(evaluation.log_softmax(logits), expected, rtol=1e-12, atol=1e-12)


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
    phones = Plugin("dataset", "phones", None, "phones", "1", "")
    data = Data(Component(phones, {}), Phones(), {}, 0, Path())
    zeros = {split: np.zeros([3, 2], np.float32) for split in ("validation", "test")}
    teacher = TeacherLogits(
        ArraySplit(np.zeros([3, 1])), host_variable(np.zeros([3, 2], np.float32)), zeros, {}, {}, {}, []
    )
    return evaluation.evaluate(data, [], teacher, [])


def test_a_data_sets_own_metrics_and_missing_ones(judged):
    assert judged.models["teacher"]["test"] == {"error_rate": None, "phone_error_rate": 0.25}
    assert judged.confusions["teacher"]["test"]["phones"].names == ("aa", "<b>")


def test_the_table_has_fidelity_on_test_alone():
    models = {
        "student": {
            "parameters": 3,
            "multiply_adds": 2,
            "validation": {"error_rate": 0.5, "kl": 1.0},
            "test": {"kl": 2.0},
        }
    }
    columns, rows = evaluation.tabulate(models)
    assert columns == ["model", "parameters", "multiply-adds", "validation error rate", "test kl"]
    assert rows == [
        {"model": "student", "parameters": "3", "multiply-adds": "2", "validation error rate": 0.5, "test kl": 2.0}
    ]
