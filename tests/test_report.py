"""The report: the finding in words, figures of confusions and agreement, and names that are escaped."""

import html
import re

import numpy as np
import pytest

from mimic_keras.contracts import ArraySplit, Confusion
from mimic_keras.stages import drawings, report
from mimic_keras.stages.evaluation import Evaluation

METRICS = {
    "experiment": "<script>",
    "stages": {"data": {"seconds": 1.0, "made": 1, "reused": 0}},
    "stability": {"student": {"curvature": 1234.5, "limit": 0.00123, "learning_rate": 0.0005}},
    "warnings": [],
    "refusal": None,
    "export": {
        "path": "x/saved models/1",
        "version": 1,
        "bytes": 257_000,
        "signatures": {
            "serving_default": {"inputs": {"inputs": [-1, 2, 2, 1]}, "outputs": {"logits": [-1, 2], "class": [-1]}},
            "serve_images": {"inputs": {"images": [-1, 2, 2, 1]}, "outputs": {"logits": [-1, 2], "class": [-1]}},
        },
    },
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
    return Evaluation(models, [], dict.fromkeys(models, zeros), {"teacher": {"validation": phones, "test": phones}}, {})


def split(labels, shape=(4,)):
    """As many examples as labels, each of one value: the first of 0."""
    rows = np.broadcast_to(
        np.arange(len(labels), dtype=np.float32).reshape(-1, *[1] * len(shape)), (len(labels), *shape)
    )
    return ArraySplit(np.array(rows), np.array(labels))


def written(folder, evaluation, histories, test=None, environment=None, metrics=METRICS):
    """The page's text."""
    file, test, names = folder / "report.html", test or split([-1, -1, -1]), ("a", "b")
    pictures = report.draw_pictures(evaluation, histories, names, test.labels)
    differences = report.picture_differences(evaluation, names, test)
    report.write_report(file, "name: x", metrics, evaluation, pictures, differences, environment or {"python": "3"})
    return file.read_text()


def test_the_report_draws_confusions_and_escapes_names(judged, tmp_path):
    text = written(tmp_path, judged, {})
    assert "teacher: phones on test" in text
    assert "a test phone error of 50\N{NO-BREAK SPACE}%" in text
    assert "(test phone error 25\N{NO-BREAK SPACE}%)" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "<td>student</td><td>1.23e+03</td><td>0.00123</td><td>0.0005</td>" in text
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
    assert "agree" not in report._summarise(judged.models, 3)


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
    assert "<th>test nll</th><th>transfer agreement, %</th>" in text
    assert "<td>0.123</td><td>98.70</td>" in text
    places = [text.index(f"<tr><td>&lt;{place}&gt;</td><td>9</td><td>50</td>") for place in range(24, 4, -1)]
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
            "The student has 1,234 parameters and a test error of 12.5 %.",
        ),
        ({"student": model(10, None)}, "The student has 1,234 parameters."),
        (
            {"student": model(10, 0.5, agreement=0.75), "teacher": model(25, 0.25)},
            "The student has 1,234 parameters and a test error of 50.0 %; it takes 2.5 times fewer multiply-adds than "
            "its teacher (test error 25.0 %), with which it agrees on 75.0 % of the test examples.",
        ),
        (
            {"student": model(10, None, agreement=1.0), "teacher": model(None, None, None)},
            "The student has 1,234 parameters; it takes 10 multiply-adds against its teacher's, which are not "
            "counted, with which it agrees on 100.0 % of the test examples.",
        ),
        (
            {"student": model(40, None, agreement=1.0), "teacher": model(10, None), "baseline": model(40, None)},
            "The student has 1,234 parameters; it takes 4.0 times more multiply-adds than its teacher, with which it "
            "agrees on 100.0 % of the test examples.",
        ),
        (
            {
                "student": model(10, 0.5, frame_error_rate=0.4, agreement=0.5),
                "teacher": model(10, 0.25, frame_error_rate=0.2),
                "baseline": model(10, 0.1, frame_error_rate=0.45),
            },
            "The student has 1,234 parameters and a test frame error of 40.0 %; it takes 1.0 times fewer "
            "multiply-adds than its teacher (test frame error 20.0 %), with which it agrees on 50.0 % of the test "
            "examples. Its architecture trained on the labels reaches 45.0 %.",
        ),
        (
            {"student": model(10, 0.5) | {"steps": 1645}, "baseline": model(10, 0.25) | {"steps": 405}},
            "The student has 1,234 parameters and a test error of 50.0 %. Its architecture trained on the labels "
            "reaches 25.0 % in 405 steps; the student took 1,645.",
        ),
    ],
)
def test_the_finding_in_words(models, expected):
    assert report._summarise(models, 1000).replace("\N{NO-BREAK SPACE}", " ") == expected


def test_pairs_by_hand():
    counts = drawings.count_pairs(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2]), 3)
    np.testing.assert_array_equal(counts, [[1, 0, 0], [1, 1, 0], [0, 0, 1]])


def test_a_large_scatter_is_thinned():
    logits = np.arange(40_000.0).reshape(-1, 10)
    (axes,) = drawings.draw_scatter(logits, -logits).axes
    points = axes.collections[0].get_offsets()
    assert len(points) == drawings.SCATTER_POINTS == 4000
    np.testing.assert_array_equal(points[1], [10, -10])


@pytest.mark.parametrize(("classes", "texts", "ticks"), [(20, 20, 20), (60, 0, 60), (61, 0, None)])
def test_a_matrix_of_many_classes_has_no_numbers_and_then_no_names(classes, texts, ticks):
    figure = drawings.draw_matrix(
        np.eye(classes, dtype=int), [f"c{index}" for index in range(classes)], "row", "column"
    )
    (axes,) = figure.axes
    assert len(axes.texts) == texts
    assert ticks is None or [label.get_text() for label in axes.get_yticklabels()][ticks - 1] == f"c{ticks - 1}"
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("row", "column")
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(classes))


def test_a_class_without_examples_has_no_share():
    (axes,) = drawings.draw_matrix(np.array([[1, 3], [0, 0]]), ("a", "b"), "", "").axes
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.25, 0.75], [0, 0]])
    assert [(text.get_text(), text.get_color()) for text in axes.texts] == [("1", "#111111"), ("3", "#ffffff")]


def test_the_confusion_with_the_labels_stands_before_that_with_the_teacher(judged, tmp_path):
    judged.logits["student"] = {"validation": np.zeros([3, 2]), "test": np.eye(2)[[0, 1, 1]]}
    judged.logits["teacher"] = {"validation": np.zeros([3, 2]), "test": np.eye(2)[[0, 0, 0]]}
    drawn = report.draw_pictures(judged, {}, ("a", "b"), np.array([1, 1, -1]))["Confusions"]
    assert [each.title for each in drawn][:2] == [
        "Student against the labels, on test",
        "Student against teacher, on test",
    ]
    # Of the two labelled examples, both of class b, the student takes one for a; of the teacher's three a, two for b.
    counts = [re.findall(r">(\d+)</text>", each.svg) for each in drawn[:2]]
    assert counts == [["1", "1"], ["1", "2"]]


def test_curves_are_scaled_to_their_second_half_and_show_training_and_validation():
    first = {"error_rate": [0.9, 0.8, 0.06, 0.04], "val_error_rate": [0.9, 0.5, 0.1, 0.08]}
    histories = {"teacher/0": first, "teacher/1": first, "student": first}
    (axes,) = drawings.draw_curves(histories).axes
    assert axes.get_ylim() == pytest.approx((-0.44, 11))  # 10 % is the largest error of the second half
    lines = [(line.get_linestyle(), list(line.get_ydata())) for line in axes.get_lines()]
    assert lines == [("-", pytest.approx([90, 50, 10, 8])), (":", pytest.approx([90, 80, 6, 4]))] * 3
    assert axes.get_legend_handles_labels()[1] == ["teacher's 2 members", "student"]
    (axes,) = drawings.draw_curves({"teacher/0": first}).axes
    assert axes.get_legend_handles_labels()[1] == ["teacher"]
    assert all(tick == int(tick) for tick in axes.get_xticks())
    (axes,) = drawings.draw_curves({"student": first}, has_labels=False).axes
    assert [line.get_linestyle() for line in axes.get_lines()] == [":"]
    assert axes.get_legend_handles_labels()[1] == ["student"]


def test_the_examples_that_differ_most_come_first(judged):
    """By hand: the second test example has the largest divergence, the first none."""
    judged.logits["teacher"] = {"test": np.log([[0.5, 0.5], [0.99, 0.01], [0.7, 0.3]])}
    judged.logits["student"] = {"test": np.log([[0.5, 0.5], [0.02, 0.98], [0.6, 0.4]])}
    found = report.picture_differences(judged, ("a", "<b>"), split([0, -1, 1], (2, 2, 1)))
    assert [each["says"].replace("\N{NO-BREAK SPACE}", " ") for each in found] == [
        "teacher a (99 %); student <b> (98 %). Test example 1.",
        "label <b>; teacher a (70 %); student a (60 %). Test example 2.",
        "label a; teacher a (50 %); student a (50 %). Test example 0.",
    ]
    assert all(each["image"].startswith("data:image/png;base64,") for each in found)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (2, 2, 5)])
def test_examples_that_are_no_images_have_no_pictures(judged, shape):
    assert report.picture_differences(judged, ("a", "b"), split([0, 1, 1], shape)) == []


def test_a_published_student_says_how_it_is_used(judged, tmp_path):
    text = html.unescape(written(tmp_path, judged, {}))
    assert "mimic-keras predict 'x/saved models/1' examples.npy" in text
    assert "student = tf.saved_model.load('x/saved models/1').signatures['serving_default']" in text
    assert "answer = student(inputs=tf.zeros([1, 2, 2, 1]))" in text
    assert "<td>saved_model</td><td>257 kB</td>" in text
    # Each signature has a row of its own.
    assert "<td>serving_default</td><td>inputs [-1, 2, 2, 1]</td><td>logits, class</td>" in text
    assert "<td>serve_images</td><td>images [-1, 2, 2, 1]</td><td>logits, class</td>" in text
    assert all(f'href="{name}"' in text for name in ("metrics.json", "experiment.yaml", "environment.json"))


def test_a_student_that_is_not_published_says_how_to(judged, tmp_path):
    text = html.unescape(written(tmp_path, judged, {}, metrics={**METRICS, "export": None}))
    assert f"mimic-keras export {tmp_path}</pre>" in text
    assert "saved_model" not in text
    refused = {**METRICS, "export": None, "refusal": "the student is not published: it errs"}
    text = html.unescape(written(tmp_path, judged, {}, metrics=refused))
    assert "<p>The student is not published: it errs. To publish it all the same (a click selects):</p>" in text
    assert f"mimic-keras export {tmp_path} --set export.minimum_agreement=0</pre>" in text


def test_the_page_has_the_warnings_of_the_run(judged, tmp_path):
    assert "Warnings" not in written(tmp_path, judged, {})
    text = written(tmp_path, judged, {}, metrics={**METRICS, "warnings": ["teacher/0 (<a>.keras): poor", "other"]})
    assert "<h2>Warnings</h2>\n<ul>\n<li>teacher/0 (&lt;a&gt;.keras): poor</li>\n<li>other</li>\n</ul>" in text


def test_what_there_is_not_is_a_word(judged, tmp_path):
    text = written(tmp_path, judged, {}, environment={"gpus": [], "TF_ENABLE": None, "onednn": True})
    assert "<td>gpus</td><td>none</td>" in text
    assert "<td>TF_ENABLE</td><td>not set</td>" in text
    assert "<td>onednn</td><td>yes</td>" in text
