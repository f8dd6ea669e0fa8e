"""What a sweep will do: cells, distinct teachers, trainings and floating-point operations, counted by hand."""

import pytest
from ruamel.yaml import YAML

from mimic_keras.planning import preflight
from mimic_keras.sweeping import forecast, running
from mimic_keras.training.models import Cost
from tests.tiny import read_cells, tiny

IMAGES = 1097
# Costs that tests give nets, by the name of the architecture: parameters and multiply-adds.
COSTS = {"mlp": Cost(50, 1000), "bottleneck": Cost(30, 100)}


@pytest.fixture(autouse=True)
def unbuilt(monkeypatch):
    """Nets of round costs, so that none is built."""
    monkeypatch.setattr(preflight, "measure_net", lambda component, *_: COSTS[component.plugin.name])


def planned(folder, experiment, **changes):
    """The sweep and its planned cells, two seeds of two losses."""
    content = {
        "name": "table",
        "axes": {"loss": ["kl", "logit_l2"], "seed": [0, 1]},
        "experiment": experiment,
        "set": {
            "student.loss": {"name": {"axis": "loss"}},
            "student.standardize_logits": False,
            "student.seed": {"axis": "seed"},
        },
        "mean_over": "seed",
        **changes,
    }
    file = folder / "sweep.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump(content, stream)
    sweep, cells = read_cells(file)
    return sweep, running.plan_cells(str(file), cells, folder)


def operations(trainings, labellings):
    """Of {multiply-adds: nets trained for 2 epochs} and {multiply-adds: nets that label the training images}."""
    training = sum(6 * cost * count * IMAGES * 2 for cost, count in trainings.items())
    return training + sum(2 * cost * count * IMAGES for cost, count in labellings.items())


def test_cells_that_share_a_teacher_train_it_once(tmp_path):
    found = forecast.describe_sweep(*planned(tmp_path, tiny(baseline=None)))
    cost = operations({1000: 2, 100: 4}, {1000: 2})
    assert found == [
        "cells       4: 2 loss x 2 seed",
        "teachers    1 distinct, of 2 members; 2 sets of logits",
        "students    4 trainings",
        f"cost        at most {cost:.2g} floating-point operations",
    ]


def test_mixtures_are_labelled_by_the_same_teacher(tmp_path):
    axes = {"mixtures": {"none": None, "two": {"copies": 2}}}
    changes = {"student.mixup": {"axis": "mixtures", **axes["mixtures"]}}
    experiment = tiny(baseline=None)
    found = forecast.describe_sweep(
        *planned(tmp_path, experiment, axes={"mixtures": ["none", "two"]}, set=changes, mean_over=None)
    )
    cost = operations({1000: 2, 100: 2}, {1000: 2 + 3 * 2})
    assert found[1:] == [
        "teachers    1 distinct, of 2 members; 4 sets of logits",
        "students    2 trainings",
        f"cost        at most {cost:.2g} floating-point operations",
    ]


def test_excluded_cells_baselines_and_teachers_of_other_seeds(tmp_path):
    found = forecast.describe_sweep(
        *planned(
            tmp_path,
            tiny(),
            set={
                "student.loss": {"name": {"axis": "loss"}},
                "student.standardize_logits": False,
                "seed": {"axis": "seed"},
            },
            exclude=[{"loss": "kl", "seed": 1}],
        )
    )
    # Two teachers of two members, three students, and a baseline for each seed.
    cost = operations({1000: 4, 100: 3 + 2}, {1000: 4})
    assert found == [
        "cells       3: 2 loss x 2 seed, less what is excluded",
        "teachers    2 distinct, of 4 members; 4 sets of logits",
        "students    3 trainings, 2 baselines",
        f"cost        at most {cost:.2g} floating-point operations",
    ]


def test_members_that_are_not_chosen_label_little(tmp_path):
    experiment = tiny(baseline=None)
    experiment["teacher"]["select"] = {"members": 1}
    found = forecast.describe_sweep(*planned(tmp_path, experiment))
    assert found[1] == (
        "teachers    1 distinct, of 2 members; 2 sets of logits, fewer where members are chosen on validation"
    )
    assert found[3] == f"cost        at most {operations({1000: 2, 100: 4}, {1000: 1}):.2g} floating-point operations"


def test_a_search_trains_its_trials(tmp_path):
    experiment = tiny(baseline=None, search={"trials": 5})
    experiment["student"]["architecture"]["linear_units"] = {"tune": {"min": 4, "max": 8}}
    sweep, cells = planned(tmp_path, experiment)
    found = forecast.describe_sweep(sweep, cells)
    assert found[2] == "students    20 trainings in 4 searches"
    assert found[3] == f"cost        about {operations({1000: 2, 100: 20}, {1000: 2}):.2g} floating-point operations"
    _, rows = forecast.tabulate_cells(sweep, cells)
    assert [row["trainings"] for row in rows] == [10, 10]


def test_virtual_copies_are_labelled_and_an_epoch_is_a_pass_over_originals(tmp_path):
    experiment = tiny(baseline=None, dataset={"name": "digits", "copies": 3})
    found = forecast.describe_sweep(*planned(tmp_path, experiment))
    assert found[3] == f"cost        at most {operations({1000: 2, 100: 4}, {1000: 6}):.2g} floating-point operations"


def test_a_row_for_all_cells_that_are_averaged(tmp_path):
    paper = {"source": "Table 1", "parameters": {"axis": "loss", "kl": 12345, "otherwise": None}}
    columns, rows = forecast.tabulate_cells(*planned(tmp_path, tiny(baseline=None), paper=paper))
    cost = f"{operations({100: 2}, {}):.2g}"
    row = {"parameters": 30, "multiply-adds": 100, "trainings": 2, "operations": cost}
    assert columns == ["loss", "parameters", "paper's", "multiply-adds", "trainings", "operations"]
    assert rows == [
        {"loss": "kl", **row, "paper's": "12,345"},
        {"loss": "logit_l2", **row, "paper's": None},
    ]


def test_without_a_paper_there_is_no_column_for_it(tmp_path):
    columns, _ = forecast.tabulate_cells(*planned(tmp_path, tiny(baseline=None), mean_over=None))
    assert columns == ["loss", "seed", "parameters", "multiply-adds", "trainings", "operations"]
