"""The report: the finding in words, figures of confusions and agreement, and names that are escaped."""

import numpy as np
import pytest

from mimic_keras.contracts import Confusion
from mimic_keras.stages import report
from mimic_keras.stages.evaluation import Evaluation

METRICS = {
    "experiment": "<script>",
    "stages": {"data": {"seconds": 1.0, "made": 1, "reused": 0}},
    "export": {"path": "x/1", "version": 1, "signatures": {"serving_default": {}}},
}


@pytest.fixture
def judged():
    """A teacher and a student of a data set with a metric and a confusion of its own, and no labels."""
    metrics = {"error_rate": None, "phone_error_rate": 0.25}
    models = {
        "teacher": {"parameters": 9, "members": 1, "multiply_adds": 10, "validation": metrics, "test": metrics},
        "student": {
            "parameters": 9,
            "members": 1,
            "multiply_adds": 10,
            "validation": metrics,
            "test": {"error_rate": None, "phone_error_rate": 0.5, "agreement": 1.0},
        },
    }
    zeros = {split: np.zeros([3, 2], np.float32) for split in ("validation", "test")}
    phones = {"phones": Confusion(("aa", "<b>"), np.array([[5, 1], [0, 7]]))}
    return Evaluation(models, [], dict.fromkeys(models, zeros), {"teacher": {"validation": phones, "test": phones}})


def written(folder, evaluation, histories):
    file = folder / "report.html"
    report.write_report(file, "name: x", METRICS, evaluation, histories, ("a", "b"), {"python": "3"})
    return file.read_text()


def test_the_report_draws_confusions_and_escapes_names(judged, tmp_path):
    text = written(tmp_path, judged, {})
    assert "teacher: phones on test" in text
    assert "a test phone error of 50.00%" in text
    assert "(test phone error 25.00%)" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    # Costs, student against teacher, where they agree, and the confusion on test.
    assert text.count("<svg") == 4


def test_curves_are_drawn_of_what_was_trained(judged, tmp_path):
    history = {"loss": [2.0, 1.0], "error_rate": [0.5, 0.25], "val_error_rate": [0.5, 0.3]}
    text = written(tmp_path, judged, {"teacher/0": history, "student": history})
    assert "Error while training" in text
    assert text.count("<svg") == 5


def test_a_student_alone_is_compared_with_nobody(judged, tmp_path):
    del judged.models["teacher"], judged.logits["teacher"], judged.confusions["teacher"]
    text = written(tmp_path, judged, {})
    assert text.count("<svg") == 1
    assert "agree" not in report._summarise(judged.models)


def test_costs_that_cannot_be_known_are_shown_as_not_counted(judged, tmp_path):
    judged.models["teacher"] |= {"parameters": None, "multiply_adds": None}
    text = written(tmp_path, judged, {})
    assert text.count("<td>not counted</td>") == 2


def test_the_worst_classes_and_the_probabilities_have_tables(judged, tmp_path):
    """25 classes, of which the last two are the worst and the first has no example."""
    errors = [None, *(place / 100 for place in range(1, 25))]
    for place, error in enumerate(errors):
        row = {
            "class": f"<{place}>",
            "examples": 9,
            "error_rate": {"teacher": 0.5, "student": error},
            "agreement": 0.25,
        }
        judged.classes.append(row)
    judged.models["student"]["test"]["nll"] = 0.123
    judged.models["student"]["transfer"] = {"agreement": 0.987}
    text = written(tmp_path, judged, {})
    assert "<th>test nll</th><th>transfer agreement</th>" in text
    assert "<td>0.123</td><td>0.987</td>" in text
    places = [text.index(f"<tr><td>&lt;{place}&gt;</td><td>9</td><td>0.5</td>") for place in range(24, 4, -1)]
    assert places == sorted(places)
    assert "&lt;4&gt;" not in text
    assert "The 20 classes with the student's highest error rates;" in text
    assert "metrics.json has all 25." in text
    del judged.classes[20:]
    assert "metrics.json has all" not in written(tmp_path, judged, {})


def test_the_same_results_are_the_same_page(judged, tmp_path):
    assert written(tmp_path, judged, {}) == written(tmp_path, judged, {})


def model(multiply_adds, error, parameters=1234, **test):
    return {"parameters": parameters, "multiply_adds": multiply_adds, "test": {"error_rate": error, **test}}


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (
            {"student": model(10, 0.125)},
            "The student has 1,234 parameters and a test error of 12.50%.",
        ),
        ({"student": model(10, None)}, "The student has 1,234 parameters."),
        (
            {"student": model(10, 0.5, agreement=0.75), "teacher": model(25, 0.25)},
            "The student has 1,234 parameters and a test error of 50.00%; it takes 2.5 times fewer multiply-adds than "
            "its teacher (test error 25.00%), with which it agrees on 75.00% of the test examples.",
        ),
        (
            {"student": model(10, None, agreement=1.0), "teacher": model(None, None, None)},
            "The student has 1,234 parameters; it takes 10 multiply-adds against its teacher's, which are not "
            "counted, with which it agrees on 100.00% of the test examples.",
        ),
        (
            {"student": model(40, None, agreement=1.0), "teacher": model(10, None), "baseline": model(40, None)},
            "The student has 1,234 parameters; it takes 4.0 times more multiply-adds than its teacher, with which it "
            "agrees on 100.00% of the test examples.",
        ),
        (
            {
                "student": model(10, 0.5, frame_error_rate=0.4, agreement=0.5),
                "teacher": model(10, 0.25, frame_error_rate=0.2),
                "baseline": model(10, 0.1, frame_error_rate=0.45),
            },
            "The student has 1,234 parameters and a test frame error of 40.00%; it takes 1.0 times fewer "
            "multiply-adds than its teacher (test frame error 20.00%), with which it agrees on 50.00% of the test "
            "examples. Its architecture trained on the labels reaches 45.00%.",
        ),
    ],
)
def test_the_finding_in_words(models, expected):
    assert report._summarise(models) == expected


def test_agreement_by_hand():
    teacher = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 3.0, 4.0]])
    student = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(report._count_agreement(teacher, student), [[1, 0, 0], [1, 1, 0], [0, 0, 1]])


def test_a_large_scatter_is_thinned():
    logits = np.arange(40_000.0).reshape(-1, 10)
    (axes,) = report._draw_scatter(logits, -logits).axes
    points = axes.collections[0].get_offsets()
    assert len(points) == report.SCATTER_POINTS == 4000
    np.testing.assert_array_equal(points[1], [10, -10])


@pytest.mark.parametrize(("classes", "texts", "ticks"), [(20, 20, 20), (60, 0, 60), (61, 0, None)])
def test_a_matrix_of_many_classes_has_no_numbers_and_then_no_names(classes, texts, ticks):
    figure = report._draw_matrix(np.eye(classes, dtype=int), [f"c{index}" for index in range(classes)], "row", "column")
    (axes,) = figure.axes
    assert len(axes.texts) == texts
    assert ticks is None or [label.get_text() for label in axes.get_yticklabels()][ticks - 1] == f"c{ticks - 1}"
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("row", "column")
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(classes))


def test_a_class_without_examples_has_no_share():
    (axes,) = report._draw_matrix(np.array([[1, 3], [0, 0]]), ("a", "b"), "", "").axes
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.25, 0.75], [0, 0]])
    assert [(text.get_text(), text.get_color()) for text in axes.texts] == [("1", "black"), ("3", "white")]
