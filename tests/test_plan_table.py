"""A plan as text: its stages, and what every net needs."""

from dataclasses import replace

import pytest

from mimic_keras.contracts import DatasetInfo
from mimic_keras.experiment.schema import MixupSection
from mimic_keras.interface import plan_table
from tests.tiny import plan_of, tiny


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_of(tmp_path_factory.mktemp("plan"), tiny())


def test_stages_line_by_line(plan):
    assert plan_table.describe_stages(plan) == [
        "data        digits 1: inputs [8, 8, 1], 10 classes; 1,097 train, 350 validation, 350 test, 1,097 transfer",
        "teachers    2 trained, 0 loaded; each cached separately",
        "logits      of 2 members on transfer, validation and test; each cached separately",
        "student     mimics with logit_l2",
        "baseline    learns the labels",
        "evaluation  on validation and test",
        "report      runs/tiny/report.html",
        "export      saved_models/tiny, a new version unless the newest is this student",
    ]


def test_a_student_that_is_not_published(plan):
    options = plan.experiment.export.model_copy(update={"publish": False})
    kept = replace(plan, experiment=plan.experiment.model_copy(update={"export": options}))
    assert plan_table.describe_stages(kept)[-1] == "export      saved_models/tiny, not published"


def test_stages_without_a_teacher_of_a_data_set_of_unknown_size(plan):
    info = DatasetInfo("sounds", "3", (2,), 4, ("a",) * 4)
    student = replace(plan.student, loss=None)
    alone = replace(plan, members=(), student=student, baseline=None, info=info, transfer_info=info)
    assert plan_table.describe_stages(alone)[:3] == [
        "data        digits 3: inputs [2], 4 classes; sizes unknown before it is prepared",
        "student     learns the labels: there is no teacher",
        "evaluation  on validation and test",
    ]
    line = plan_table.describe_stages(replace(alone, student=plan.student))[1]
    assert line == "student     learns the labels with logit_l2: there is no teacher"


def test_the_transfer_set_has_a_size_of_its_own(plan):
    apart = replace(plan, transfer_info=replace(plan.info, num_examples={"train": 1, "transfer": 5485}, repeats=5))
    (first, *_) = plan_table.describe_stages(apart)
    assert first.endswith("; 1,097 train, 350 validation, 350 test, 5,485 transfer")
    kept = {row["net"]: row["kept on disk"] for row in plan_table.estimate_resources(apart)[1]}
    assert kept["teacher/0"] == "255 kB"  # 10 classes of 5,485 + 350 + 350 examples, and 1,810 weights


def test_resources_by_hand(plan):
    columns, rows = plan_table.estimate_resources(plan)
    assert columns == ["net", "stage", "parameters", "multiply-adds", "epochs", "training memory", "kept on disk"]
    # 4 bytes a number. Adam keeps a copy more than SGD's weights, gradients and momentum. A member's logits: 10
    # classes of 1,097 + 350 + 350 examples, 71,880 bytes, beside its 1,810 weights.
    trained = {"parameters": "1,810", "multiply-adds": "1,776", "epochs": 2, "training memory": "29 kB"}
    student = {"parameters": "1,130", "multiply-adds": "1,088", "epochs": 2, "training memory": "13.6 kB"}
    assert rows == [
        {"net": "teacher/0", "stage": "teachers", **trained, "kept on disk": "79.1 kB"},
        {"net": "teacher/1", "stage": "teachers", **trained, "kept on disk": "79.1 kB"},
        {"net": "baseline", "stage": "student", **student, "kept on disk": "4.52 kB"},
        {"net": "student", "stage": "student", **student, "kept on disk": "4.52 kB"},
    ]


def test_the_best_weights_are_one_copy_more_and_a_net_of_unknown_size_is_its_logits(plan):
    student = replace(plan.student, training=plan.student.training.model_copy(update={"restore": "best"}))
    costs = {"student": plan.costs["student"]}
    columns, rows = plan_table.estimate_resources(replace(plan, student=student, baseline=None, costs=costs))
    assert columns[:3] == ["net", "stage", "kept on disk"]
    assert rows[0] == {"net": "teacher/0", "stage": "teachers", "kept on disk": "71.9 kB"}
    assert rows[-1]["training memory"] == "18.1 kB"


def test_averages_are_one_copy_more_and_mixtures_are_labelled_too(plan):
    training = plan.student.training.model_copy(update={"exponential_moving_average": 0.9})
    mixed = plan.experiment.student.model_copy(update={"mixup": MixupSection(copies=3)})
    experiment = plan.experiment.model_copy(update={"student": mixed})
    changed = replace(plan, experiment=experiment, student=replace(plan.student, training=training))
    rows = plan_table.estimate_resources(changed)[1]
    assert changed.transfer_examples == 4 * 1097
    assert rows[0]["kept on disk"] == "211 kB"  # 3 * 1,097 * 10 * 4 bytes more than 79.1 kB
    assert rows[-1]["training memory"] == "18.1 kB"


def test_a_member_that_may_not_be_chosen_labels_validation_alone(tmp_path):
    content = tiny(baseline=None)
    content["teacher"]["select"] = {"members": 1}
    plan = plan_of(tmp_path, content)
    line = (
        "logits      of 2 members on validation, and of the 1 chosen there on transfer and test; each cached separately"
    )
    assert line in plan_table.describe_stages(plan)
    # 350 examples of 10 classes and 1,810 weights
    assert plan_table.estimate_resources(plan)[1][0]["kept on disk"] == "21.2 kB"
