"""The typed experiment: its defaults, its bounds, and values that do not go together."""

import pydantic
import pytest

from mimic_keras.experiment import schema
from mimic_keras.experiment import training as training_section
from mimic_keras.experiment.file import make_source
from mimic_keras.experiment.problems import Problems
from tests.tiny import tiny

TRAINING = {"epochs": 2, "batch_size": 8, "optimizer": {"name": "sgd", "learning_rate": 0.1}}


def parse(content):
    """(experiment, {place: message})"""
    source = make_source(content, Problems("x.yaml"))
    found = schema.parse_experiment(source)
    return found, {str(place): message for place, message in source.problems.found.items()}


def training(**changes):
    return schema.TrainingSection.model_validate({**TRAINING, **changes})


def test_what_an_experiment_says_nothing_about():
    student = {"architecture": {"name": "mlp"}, "training": TRAINING}
    found, problems = parse({"name": "x", "dataset": {"name": "digits"}, "student": student})
    assert problems == {}
    assert found.model_dump() == {
        "name": "x",
        "seed": 0,
        "deterministic": True,
        "dataset": {"name": "digits"},
        "teacher": None,
        "student": {
            "architecture": {"name": "mlp"},
            "loss": None,
            "standardize_logits": False,
            "hard_label_weight": 0.0,
            "training": {
                "epochs": 2,
                "batch_size": 8,
                "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.0, "nesterov": False},
                "schedule": {"name": "constant"},
                "restore": "last",
                "precision": "float32",
                "checkpoint_every": None,
                "evaluate_every": None,
            },
            "seed": 0,
        },
        "baseline": None,
        "distribution": {"strategy": "auto", "virtual_devices": None, "workers": None},
        "export": {
            "absorb_bottleneck": "auto",
            "publish": True,
            "minimum_agreement": None,
            "formats": ["saved_model"],
            "maximum_error_increase": 0.01,
        },
        "search": None,
    }


@pytest.mark.parametrize(
    ("section", "defaults"),
    [
        (training_section.CosineDecay(name="cosine"), {"final_fraction": 0.0}),
        (
            training_section.PlateauHalving(name="plateau_halving"),
            {"patience": 10, "cooldown": 8, "stop_after": 30, "smallest_fraction": 1 / 2000},
        ),
        (schema.MemberEntry(teacher={"name": "x"}), {"copies": 1, "weight": 1.0, "training": None, "dataset": None}),
        (
            training(),
            {"monitor": None, "warmup": 0.0, "clip_norm": None, "exponential_moving_average": None, "restore": "last"},
        ),
        (schema.MixupSection(copies=2), {"alpha": 1.0}),
        (schema.SelectionSection(members=2), {"replacement": False}),
        (schema.SearchSection(trials=3), {"random_trials": 4, "seed": 0, "metric": "error_rate", "best": 1}),
    ],
)
def test_defaults_of_sections(section, defaults):
    assert {key: getattr(section, key) for key in defaults} == defaults


@pytest.mark.parametrize("name", ["a", "0", "A.b-c_d", "x" * 100, "7.", "a..b"])
def test_names_of_folders(name):
    assert schema.check_folder_name(name) == name
    assert parse(tiny(name=name))[0].name == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "-a", "_a", "a/b", "a b", "é", "a\n", "x" * 101])
def test_names_of_no_folder(name):
    message = "expected 1 to 100 letters, digits, '_', '-' or '.', the first a letter or digit"
    with pytest.raises(ValueError, match="expected 1 to 100 letters") as caught:
        schema.check_folder_name(name)
    assert str(caught.value) == message
    problems = parse(tiny(name=name))[1]
    assert list(problems) == ["name"]
    assert problems["name"].startswith(f"{message}, got '")


def test_sections_cannot_be_changed():
    found, _ = parse(tiny())
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        found.seed = 1
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        found.student.training.epochs = 1


@pytest.mark.parametrize(
    ("seed", "accepted"), [(0, True), (2**31 - 1, True), (2**31, False), (-1, False), (1.0, False)]
)
def test_seeds_are_whole_numbers_of_31_bits(seed, accepted):
    found, problems = parse(tiny(seed=seed))
    assert (found is not None) == accepted
    assert accepted or problems["seed"] == f"expected int >= 0 < 2147483648, got {seed}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("momentum", 1.0, "expected a value less than 1, got 1.0"),
        ("momentum", -0.1, "expected a value greater than or equal to 0, got -0.1"),
        ("learning_rate", 0.0, "expected a value greater than 0, got 0.0"),
        ("learning_rate", float("inf"), "expected a finite number, got inf"),
        ("nesterov", 1, "expected boolean, got 1"),
    ],
)
def test_bounds_of_an_optimizer(key, value, message):
    content = tiny()
    content["student"]["training"]["optimizer"][key] = value
    found, problems = parse(content)
    assert found is None
    assert problems[f"student.training.optimizer.{key}"] == message


def test_arguments_of_components_are_not_checked_here():
    found, problems = parse(tiny(dataset={"name": "digits", "anything": [{"a": None}]}))
    assert problems == {}
    assert found.dataset.model_dump() == {"name": "digits", "anything": [{"a": None}]}


def selecting(**select):
    content = tiny()
    content["teacher"] |= {"members": [*content["teacher"]["members"], {"teacher": {"name": "x"}}], "select": select}
    return content


def labels_only(**student):
    return tiny(teacher=None, baseline=None, student={"architecture": {"name": "x"}, "training": TRAINING, **student})


NEEDS_A_TEACHER = "needs a teacher: without one, the student is trained on the labels"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiny(), {}),
        (labels_only(), {}),
        (labels_only(hard_label_weight=0.0, standardize_logits=False), {}),
        (
            {**labels_only(hard_label_weight=0.5, standardize_logits=True), "baseline": {}},
            {
                "student.standardize_logits": NEEDS_A_TEACHER,
                "student.hard_label_weight": NEEDS_A_TEACHER,
                "baseline": NEEDS_A_TEACHER,
            },
        ),
        (
            tiny(student={"architecture": {"name": "x"}, "training": TRAINING}),
            {"student.loss": "required with a teacher, as in {name: logit_l2}"},
        ),
        (selecting(members=3), {}),
        (
            selecting(members=4),
            {"teacher.select.members": "cannot choose 4 of 3 nets without replacement"},
        ),
        (selecting(members=4, replacement=True), {}),
        (tiny(distribution={"strategy": "mirrored", "virtual_devices": 2}), {}),
        (
            tiny(distribution={"strategy": "one_device", "virtual_devices": 2}),
            {"distribution.virtual_devices": "only strategy: mirrored splits the processor into virtual devices"},
        ),
        (
            tiny(distribution={"strategy": "multi_worker"}),
            {"distribution.workers": "required with strategy: multi_worker, as in 2"},
        ),
        (
            tiny(distribution={"workers": 2}),
            {"distribution.workers": "only strategy: multi_worker has workers"},
        ),
        (tiny(distribution={"strategy": "multi_worker", "workers": 2}), {}),
    ],
)
def test_values_that_do_not_go_together(content, expected):
    found, problems = parse(content)
    assert found is not None
    assert problems == expected


def test_how_often_states_are_written_and_curves_drawn_by_default_is_no_part_of_a_key():
    assert training().key_inputs() == {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.0, "nesterov": False},
        "schedule": {"name": "constant"},
        "restore": "last",
        "precision": "float32",
    }
    assert training(checkpoint_every=7).key_inputs() == training().key_inputs()
    assert training(evaluate_every=2).key_inputs() == {**training().key_inputs(), "evaluate_every": 2}


@pytest.mark.parametrize(
    ("option", "value"),
    [("monitor", "-accuracy"), ("warmup", 0.5), ("clip_norm", 1.0), ("exponential_moving_average", 0.99)],
)
def test_options_that_came_later_are_part_of_a_key_only_where_they_are_used(option, value):
    default = schema.TrainingSection.model_fields[option].default
    assert training(**{option: default}).key_inputs() == training().key_inputs()
    assert training(**{option: value}).key_inputs() == {**training().key_inputs(), option: value}


def test_what_is_monitored():
    assert [training(monitor=name).monitored_metric for name in (None, "loss", "-accuracy")] == [
        None,
        "loss",
        "accuracy",
    ]


def monitoring(name, **sections):
    content = tiny(**sections)
    content["student"]["training"]["monitor"] = name
    return content


LEARNS_LABELS = "agreement is with a teacher, but this net learns the labels"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (monitoring("loss"), {}),
        (monitoring("agreement", baseline=None), {}),
        (monitoring("agreement", baseline={"training": {"monitor": None}}), {}),
        (monitoring("-agreement"), {"baseline.training.monitor": LEARNS_LABELS}),
        (
            tiny(teacher={**tiny()["teacher"], "training": {**TRAINING, "monitor": "agreement"}}),
            {"teacher.training.monitor": LEARNS_LABELS},
        ),
        (labels_only(training={**TRAINING, "monitor": "agreement"}), {"student.training.monitor": LEARNS_LABELS}),
        (labels_only(mixup={"copies": 2}), {"student.mixup": NEEDS_A_TEACHER}),
    ],
)
def test_agreement_and_mixtures_need_a_teacher(content, expected):
    found, problems = parse(content)
    assert found is not None
    assert problems == expected


def test_the_distribution_alone_is_read_before_anything_else():
    def parsed(**content):
        source = make_source(content, Problems("x.yaml"))
        section = schema.parse_distribution(source)
        assert source.problems.found == {}
        return section

    assert parsed() == schema.DistributionSection()
    assert parsed(student="wrong", distribution={"virtual_devices": 3}) == schema.DistributionSection(virtual_devices=3)
    for wrong in ({"strategy": "x"}, {"virtual_devices": 1}, {"virtual_devices": 65}, {"y": 1}, 3, None):
        assert parsed(distribution=wrong) is None


def test_what_only_decides_on_publishing_is_no_part_of_an_exports_key():
    options = schema.ExportSection(absorb_bottleneck="never", publish=False, minimum_agreement=0.5)
    assert options.key_inputs() == {"absorb_bottleneck": "never"}


@pytest.mark.parametrize("least", [None, 0, 0.0])
def test_a_student_without_a_teacher_can_be_published_at_chance_level(least):
    student = {"architecture": {"name": "mlp"}, "training": TRAINING}
    content = {"name": "x", "dataset": {"name": "digits"}, "student": student, "export": {"minimum_agreement": least}}
    assert parse(content)[1] == {}
