"""`fit_parameters`: the width that it finds is the nearest, for every architecture, or what is nearest is said."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_keras.contracts import DatasetInfo, InputError, count_parameters
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning import budgets
from mimic_keras.planning.budgets import Budget
from mimic_keras.planning.components import bind
from tests.tiny import plan_of, tiny, write

BUDGETS = (10_000, 31_623, 100_000, 316_228)  # half a decade apart, as Urban et al. 2017's
IMAGES = DatasetInfo("images", "1", (32, 32, 3), 10, ())
SPEECH = DatasetInfo("timit", "1", (15, 123), 183, ())
# {what: (data set, architecture, what in it takes the budget, ratios)}
NETS = {
    "mlp": (IMAGES, {"name": "mlp", "hidden_units": [None]}, ("hidden_units", 0), None),
    "mlp, ratios": (IMAGES, {"name": "mlp", "hidden_units": None}, ("hidden_units",), [3.0, 1.0, 1.5]),
    "bottleneck, linear": (
        IMAGES,
        {"name": "bottleneck", "linear_units": None, "hidden_units": [200]},
        ("linear_units",),
        None,
    ),
    "bottleneck, hidden": (
        IMAGES,
        {"name": "bottleneck", "linear_units": 3, "hidden_units": [40, None]},
        ("hidden_units", 1),
        None,
    ),
    "conv_student, hidden": (
        IMAGES,
        {"name": "conv_student", "filters": [4, [6, 6]], "hidden_units": [None]},
        ("hidden_units", 0),
        None,
    ),
    "conv_student, filters": (
        IMAGES,
        {"name": "conv_student", "filters": [4, None], "hidden_units": [8]},
        ("filters", 1),
        None,
    ),
    "conv_student, linear": (
        IMAGES,
        {"name": "conv_student", "filters": [4], "linear_units": None, "hidden_units": [50]},
        ("linear_units",),
        None,
    ),
    "cnn, filters": (
        IMAGES,
        {"name": "cnn", "filters": None, "hidden_units": [10], "batch_normalization": True},
        ("filters",),
        [1.0, 2.0, 2.0],
    ),
    "cnn, block": (IMAGES, {"name": "cnn", "filters": [[4, None], 8], "hidden_units": [10]}, ("filters", 0, 1), None),
    "timit_cnn": (SPEECH, {"name": "timit_cnn", "filters": [4], "hidden_units": [None]}, ("hidden_units", 0), None),
}


def placed(spec, place, value):
    if not place:
        return value
    here = {**spec} if isinstance(spec, dict) else list(spec)
    here[place[0]] = placed(spec[place[0]], place[1:], value)
    return here


def built(info, spec):
    """Parameters of the net itself, its weights and all."""
    problems = Problems("x")
    component = bind("architecture", spec, Place("architecture"), problems)
    problems.check()
    return count_parameters(component(info.input_shape, info.num_classes).trainable_weights)


def solved(folder, info, spec, place, ratios, budget):
    content = {"fit_parameters": budget} | ({"ratios": ratios} if ratios else {})
    dataset = {"name": "timit" if info is SPEECH else "cifar10"}
    student = {**tiny()["student"], "architecture": placed(spec, place, content)}
    file = write(folder, tiny(dataset=dataset, student=student, baseline=None))
    source = budgets.solve_budgets(experiment_file.read(file).source())
    source.problems.check()
    return source.complete["student"]["architecture"]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", NETS)
def test_no_neighbour_is_nearer_to_the_budget(tmp_path, name, budget):
    info, spec, place, ratios = NETS[name]
    found = solved(tmp_path, info, spec, place, ratios, budget)
    value = found
    for part in place:
        value = value[part]
    width = max(value) if ratios else value
    assert found == placed(spec, place, Budget(fit_parameters=budget, ratios=ratios).widths(width))
    distance = abs(built(info, found) - budget)
    for other in {max(1, width - 1), width + 1}:
        neighbour = placed(spec, place, Budget(fit_parameters=budget, ratios=ratios).widths(other))
        assert distance <= abs(built(info, neighbour) - budget)


@given(st.integers(0, 50), st.integers(0, 5000), st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 10**7))
def test_the_nearest_of_all_widths(curvature, slope, constant, stair, budget):
    """Also where the count grows in stairs, as of layers whose widths are rounded."""

    def count(width):
        return curvature * (width // stair) ** 2 + (slope + 1) * width + constant

    if count(1) > budget:
        with pytest.raises(InputError, match=f"too few: the narrowest net, of width 1, has {count(1):,}"):
            budgets.fit_width(count, budget)
        return
    low, high = 1, 2
    while count(high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    nearest = min((low, high), key=lambda width: (abs(count(width) - budget), width))
    assert budgets.fit_width(count, budget) == nearest


def test_a_parabola_takes_a_handful_of_builds():
    asked = set()

    def count(width):
        asked.add(width)
        return 3 * width**2 + 100 * width + 7

    assert budgets.fit_width(count, 31_600_000) == 3229
    assert len(asked) <= 5


def test_a_width_that_makes_no_difference():
    with pytest.raises(InputError, match=r"no width gives 1,000 parameters: [\d,]+ gives 5$"):
        budgets.fit_width(lambda width: 5, 1000)


@settings(max_examples=50)
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=5), st.integers(1, 10_000))
def test_ratios_are_kept(ratios, width):
    widths = Budget(fit_parameters=1, ratios=ratios).widths(width)
    assert max(widths) == width
    for ratio, found in zip(ratios, widths, strict=True):
        assert found == 1 or math.isclose(found, ratio / max(ratios) * width, abs_tol=0.5 + 1e-9)


def refused(folder, architecture):
    student = {**tiny()["student"], "architecture": architecture}
    with pytest.raises(InputError) as error:
        plan_of(folder, tiny(student=student, baseline=None))
    return {str(place): message for place, message in error.value.found.items()}


@pytest.mark.parametrize(
    ("architecture", "path", "message"),
    [
        (
            {"name": "mlp", "hidden_units": [{"fit_parameters": 10}]},
            "hidden_units[0]",
            "10 parameters are too few: the narrowest net, of width 1, has 85",
        ),
        (
            {"name": "mlp", "hidden_units": {"fit_parameters": 1000}},
            "hidden_units",
            "expected list[int], got 1; fit_parameters replaces a width, or with ratios: [1, 1] a list of widths",
        ),
        (
            {"name": "mlp", "hidden_units": [{"fit_parameters": 1000}, {"fit_parameters": 1000}]},
            "hidden_units[0]",
            "fit_parameters stands 2 times in one net, but it can fit only one width",
        ),
        (
            {"name": "mlp", "hidden_units": [{"fit_parameters": 0}]},
            "hidden_units[0].fit_parameters",
            "expected int >= 1 < 2147483648, got 0",
        ),
        (
            {"name": "mlp", "hidden_units": [10], "dropout": {"fit_parameters": 1000}},
            "dropout",
            "architecture 'mlp' (mimic-keras-architectures 0.1.0): Invalid value received",
        ),
    ],
)
def test_what_can_not_be_fitted(tmp_path, architecture, path, message):
    assert refused(tmp_path, architecture)[f"student.architecture.{path}"].startswith(message)


def test_other_problems_are_said_beside(tmp_path):
    found = refused(tmp_path, {"name": "mlp", "hidden_units": [{"fit_parameters": 1000}], "hiden": 1})
    assert list(found) == ["student.architecture.hiden"]


def test_baseline_and_teachers_have_budgets_too(tmp_path):
    net = {"name": "mlp", "hidden_units": [{"fit_parameters": 5000}]}
    teacher = {**tiny()["teacher"], "members": [{"teacher": {"name": "trained", "architecture": net}}]}
    student = {**tiny()["student"], "architecture": {**net, "dropout": 0.5}}
    planned = plan_of(tmp_path, tiny(teacher=teacher, student=student))
    # 64 inputs, 10 classes: 75 parameters a unit and 10 more; 67 units are 5,035, 66 are 4,960
    assert {name: cost.parameters for name, cost in planned.costs.items()} == dict.fromkeys(
        ("teacher/0", "student", "baseline"), 5035
    )
    assert planned.experiment.student.architecture.model_dump()["hidden_units"] == [67]
