"""A sweep: its cells, what they share, what is left as it is, and the tables and figures that come of it."""

import csv
import dataclasses
import datetime
import json
import re

import keras
import numpy as np
import pytest
from ruamel.yaml import YAML

from mimic_keras import runner
from mimic_keras.contracts import InputError
from mimic_keras.sweeping import errors, page, results, running
from mimic_keras.sweeping.cells import Figure as FigureSection
from mimic_keras.training.steps import TrainingDiverged
from tests.tiny import command, read_cells, tiny, write


def sweep_file(folder, **changes):
    write(folder, tiny(baseline=None))
    content = {
        "name": "table",
        "axes": {"loss": ["kl", "logit_l2"], "seed": [0, 1]},
        "experiment": "experiment.yaml",
        "set": {
            "student.loss": {"name": {"axis": "loss"}},
            "student.standardize_logits": {"axis": "loss", "kl": False, "otherwise": True},
            "student.seed": {"axis": "seed"},
        },
        "mean_over": "seed",
        **changes,
    }
    file = folder / "sweep.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump(content, stream)
    return file


def read(folder, *overrides, **changes):
    return read_cells(sweep_file(folder, **changes), *overrides)


def given(folder, *overrides, **changes):
    return [cell.source.given for cell in read(folder, *overrides, **changes)[1]]


def outcomes_at(folder, cells, students):
    """Finished cells whose students have these numbers."""
    found = []
    for cell, student in zip(cells, students, strict=True):
        whole = {"parameters": 5, "multiply_adds": 4, "validation": {}, "test": {"error_rate": 0.5}, **student}
        planned = running.plan_cells("x", [cell], folder)[0]
        found.append(running.Outcome(planned, "done", [{"models": {"student": whole}, "history": {}}]))
    return found


def sweep(folder, *options, code=0, **changes):
    """Run it with home and runs below `folder`; the rows of results.csv."""
    places = ("--home", folder / "home", "--runs_dir", folder / "runs")
    assert command("sweep", sweep_file(folder, **changes), *places, *options) == code
    return list(csv.DictReader((folder / "runs" / "table" / "results.csv").open()))


@pytest.mark.parametrize("setting", ["axes.loss=[kl]", "mean_over=loss"])
def test_the_sweeps_own_values_are_no_settings_of_its_cells(setting, tmp_path):
    with pytest.raises(InputError) as caught:
        read(tmp_path, setting)
    key = setting.partition("=")[0].partition(".")[0]
    expected = f"--set {setting}: it changes the experiment of every cell, and {key} is the sweep's: "
    assert str(caught.value) == f"{expected}{tmp_path / 'sweep.yaml'}"


def test_a_cell_for_every_combination(tmp_path):
    _, found = read(tmp_path)
    assert [cell.values for cell in found] == [
        {"loss": loss, "seed": seed} for loss in ("kl", "logit_l2") for seed in (0, 1)
    ]
    settings = [cell.source.given["student"] for cell in found]
    assert [(each["loss"], each["standardize_logits"], each["seed"]) for each in settings] == [
        ({"name": "kl"}, False, 0),
        ({"name": "kl"}, False, 1),
        ({"name": "logit_l2"}, True, 0),
        ({"name": "logit_l2"}, True, 1),
    ]
    assert len({cell.name for cell in found}) == 4
    assert all(cell.source.given["name"] == cell.name for cell in found)


def test_exclude_takes_cells_out(tmp_path):
    assert len(read(tmp_path, exclude=[{"loss": "kl", "seed": 1}])[1]) == 3
    assert len(read(tmp_path, exclude=[{"loss": ["kl", "logit_l2"], "seed": 1}])[1]) == 2
    with pytest.raises(InputError, match="exclude leaves no cell"):
        read(tmp_path, exclude=[{"seed": [0, 1]}])


def test_a_leaf_without_a_value_for_the_cell_stays(tmp_path):
    setting = {"student.training.epochs": {"axis": "loss", "kl": 7}, "student.seed": {"axis": "seed"}}
    assert [each["student"]["training"]["epochs"] for each in given(tmp_path, set=setting)] == [7, 7, 2, 2]


def test_axes_inside_of_axes_and_of_an_experiment_written_out(tmp_path):
    experiment = tiny(baseline=None)
    experiment["student"]["training"]["epochs"] = {
        "axis": "loss",
        "kl": {"axis": "seed", 0: 3, 1: 4},
        "logit_l2": {"axis": "seed"},
    }
    epochs = [each["student"]["training"]["epochs"] for each in given(tmp_path, experiment=experiment, set={})]
    assert epochs == [3, 4, 0, 1]


def test_an_axis_of_whole_experiments(tmp_path):
    choice = {"axis": "loss", "kl": "experiment.yaml", "logit_l2": tiny(seed=9)}
    setting = {"student.seed": {"axis": "seed"}}
    assert [each.get("seed") for each in given(tmp_path, experiment=choice, set=setting)] == [None, None, 9, 9]


def test_a_file_of_several_sweeps_names_values_that_one_of_them_has_not(tmp_path):
    file = sweep_file(tmp_path, experiment="other.yaml")
    other = tiny(baseline=None)
    other["student"]["training"]["epochs"] = {"axis": "loss", "of another sweep": 7, "otherwise": 3}
    with (tmp_path / "other.yaml").open("w") as stream:
        YAML(typ="safe").dump(other, stream)
    assert {cell.source.given["student"]["training"]["epochs"] for cell in read_cells(file)[1]} == {3}


def test_an_axis_that_a_setting_overrides(tmp_path):
    with pytest.raises(InputError, match=r"axes.seed: changes nothing; .*; or --set overrides it: student.seed=0"):
        read(tmp_path, "student.seed=0")


def test_overrides_come_last_and_are_for_every_cell(tmp_path):
    assert {each["student"]["training"]["epochs"] for each in given(tmp_path, "student.training.epochs=5")} == {5}
    assert read(tmp_path, "name=other")[0].name == "other"


@pytest.mark.parametrize("value", [1, 1.5, True, None, "a b", "ä/ö", "x" * 200, ""])
def test_names_are_names_of_folders(tmp_path, value):
    setting = {"student.seed": {"axis": "seed"}}
    _, found = read(tmp_path, axes={"loss": ["kl"], "seed": [value, "other"]}, mean_over=None, set=setting)
    assert len({cell.name for cell in found}) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", cell.name) for cell in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {}}, "axes: "),
        ({"axes": {"seed": []}}, "axes.seed: expected at least 1 item, got []"),
        ({"axes": {"seed": [[1], 2]}}, "axes.seed[0]: expected a text, a number, true, false or null, got [1]"),
        ({"exclude": [{"seed": [[1]]}]}, "exclude[0].seed[0]: expected a text, a number, true, false or null, got [1]"),
        ({"axes": {"loss": ["kl"], "seed": [0, 0]}}, "axes.seed: the same value twice"),
        ({"mean_over": "sed"}, "mean_over: no axis 'sed'; accepted: loss, seed"),
        ({"columns": ["seed"]}, "columns: 'seed' is averaged over"),
        (
            {"figures": [{"x": "params"}]},
            "figures[0].x: no such quantity: 'params'; accepted: parameters, multiply_adds,",
        ),
        ({"figures": [{"x": "epoch", "series": "l"}]}, "figures[0].series: no axis 'l'; accepted: loss, seed"),
        ({"figures": [{"x": "seed"}]}, "figures[0]: 'seed' is averaged over"),
        (
            {"figures": [{"x": "epoch", "split": "test"}]},
            "figures[0].split: curves by epoch are always on validation; leave it out",
        ),
        (
            {"figures": [{"x": "loss", "split": "train"}]},
            "figures[0].split: expected 'test' or 'validation', got 'train'",
        ),
        ({"exclude": [{"sed": 1}]}, "exclude[0]: no axis 'sed'; accepted: loss, seed"),
        ({"exclude": [{"seed": 5}]}, "exclude[0].seed: the axis has no 5: [0, 1]"),
        ({"set": {"seed": {"axis": "sed"}}}, "set.seed.axis: no axis 'sed'; accepted: loss, seed"),
        ({"set": {"seed": {"axis": "loss", "k": 1}}}, "set.seed: the axis 'loss' has no 'k': ['kl', 'logit_l2']"),
        (
            {"set": {"student.loss": {"name": {"axis": "loss", "kl": "kl"}}}},
            "set.student.loss.name: nothing for 'logit_l2' on the axis 'loss', and no 'otherwise'",
        ),
        ({"set": {"name.x": 1}}, "set: name is 'tiny', which has no keys"),
        ({"experiment": 3}, "experiment: expected a mapping or the name of a file, got 3"),
        ({"experiment": "none.yaml"}, "none.yaml: cannot be read: No such file"),
        ({"paper": {"source": "x", "error": "much"}}, "paper.error: expected a number or null, got 'much'"),
        ({"axis": 1}, "axis: unknown key"),
        (
            {"set": {"student.seed": {"axis": "seed"}}},
            "axes.loss: changes nothing; put {axis: loss} where its value belongs",
        ),
        (
            {"paper": {"source": "x", "error": 1, "accuracy": 99}},
            "paper: both error and accuracy; one of them is enough",
        ),
        ({"metric": "nll", "show": "accuracy"}, "show: only an error rate is shown as accuracy, not the metric 'nll'"),
        (
            {"metric": "agreement", "paper": {"source": "x", "error": 1}},
            "paper: its error, accuracy and teacher need an error rate, not 'agreement'",
        ),
        ({"set": {"seed": datetime.date(2020, 1, 1)}}, "got datetime.date(2020, 1, 1); quotes make it a text"),
        ({"set": {"student.seed": {"axis": ["seed"]}}}, "axes.loss: changes nothing"),
        ({"axes": {"loss": list(range(200)), "seed": list(range(200))}}, "axes: 40,000 combinations; at most 10,000"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        read(tmp_path, **changes)
    assert message in str(error.value)


def test_what_is_wrong_with_several_cells_is_said_once(tmp_path, capsys):
    setting = {"student.loss.nme": 1, "seed": {"axis": "seed", 0: -1, 1: 1}}
    file = sweep_file(tmp_path, set=setting, axes={"seed": [0, 1]})
    assert command("validate", file) == 2
    error = capsys.readouterr().err
    assert "sweep.yaml: 2 problems" in error
    assert "student.loss.nme [2 of 2 cells, the first seed 0]: unknown argument of 'logit_l2'" in error
    assert "seed [cell seed 0]: expected int >= 0" in error


def test_run_and_tune_send_to_sweep(tmp_path, capsys):
    for word in ("run", "tune"):
        assert command(word, sweep_file(tmp_path), "--home", tmp_path) == 2
        assert "sweep.yaml is a sweep, not an experiment; run it with mimic-keras sweep" in capsys.readouterr().err


def test_validate_counts_what_is_shared(tmp_path, capsys):
    assert command("validate", sweep_file(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "cells       4: 2 loss x 2 seed" in shown
    assert "teachers    1 distinct, of 2 members; 2 sets of logits" in shown
    assert "students    4 trainings" in shown
    # mlp 64-24-10 of 1,776 and bottleneck 64-8-32-10 of 1,088 multiply-adds, 1,097 images, 2 epochs, 6 operations
    # each; labelling 1,097 images takes 2
    nets = 6 * 2 * 1097 * (2 * 1776 + 4 * 1088) + 2 * 1097 * 2 * 1776
    assert f"cost        at most {nets:.2g} floating-point operations" in shown
    assert re.search(r"kl\s+1,130\s+1,088\s+2\s+2.9e\+07", shown)


@pytest.mark.long
def test_cells_share_the_teacher_and_are_left_as_they_are_the_second_time(tmp_path, monkeypatch, capsys):
    rows = sweep(tmp_path, paper={"source": "nowhere", "error": {"axis": "loss", "kl": 12.5, "otherwise": None}})
    assert [(row["loss"], row["seed"], row["state"]) for row in rows] == [
        (loss, seed, "done") for loss in ("kl", "logit_l2") for seed in "01"
    ]
    assert len({row["student test error_rate"] for row in rows}) > 1
    assert len({row["teacher test error_rate"] for row in rows}) == 1
    made = [path.name for path in (tmp_path / "home" / "teachers").iterdir() if not path.name.startswith(".")]
    assert len(made) == 2
    table = (tmp_path / "runs" / "table" / "table.md").read_text()
    both = [100 * float(row["student test error_rate"]) for row in rows[:2]]
    mean, deviation = sum(both) / 2, abs(both[0] - both[1]) / 2**0.5
    assert f"| kl | 1,130 | 1,088 | {mean:.2f} ± {deviation:.2f} | 12.5 |" in table
    learn, calls = runner.train_and_evaluate, []
    monkeypatch.setattr(
        runner, "train_and_evaluate", lambda *arguments, **named: calls.append(1) or learn(*arguments, **named)
    )
    capsys.readouterr()
    assert sweep(tmp_path) == [{key: row[key] for key in row if key != "paper error"} for row in rows]
    assert not calls
    changed = sweep(tmp_path, "--set", "student.training.epochs=1")
    assert len(calls) == 4
    assert [row["student test error_rate"] for row in changed] != [row["student test error_rate"] for row in rows]


@pytest.mark.long
def test_a_cell_that_fails_stops_no_other_and_is_tried_again(tmp_path, monkeypatch, capsys):
    learn = runner.train_and_evaluate

    def failing(planned, *arguments, **named):
        if planned.experiment.student.seed == 1 and planned.student.loss.plugin.name == "kl":
            raise TrainingDiverged("the loss became inf at step 3, learning rate 0.1")
        return learn(planned, *arguments, **named)

    monkeypatch.setattr(runner, "train_and_evaluate", failing)
    rows = sweep(tmp_path, code=1)
    assert [row["state"] for row in rows] == ["done", "failed", "done", "done"]
    assert rows[1]["note"] == "the loss became inf at step 3, learning rate 0.1"
    error = capsys.readouterr().err
    assert "1 of 4 cells failed; the same command tries them again\n  loss kl, seed 1: the loss became inf" in error
    assert "the loss became inf" in (tmp_path / "runs" / "table" / "report.html").read_text()
    monkeypatch.setattr(runner, "train_and_evaluate", learn)
    assert [row["state"] for row in sweep(tmp_path)] == ["done"] * 4


@pytest.mark.long
def test_an_interrupted_sweep_goes_on(tmp_path, monkeypatch):
    learn, calls = runner.train_and_evaluate, []

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(*arguments, **named)

    monkeypatch.setattr(runner, "train_and_evaluate", interrupted)
    assert [row["state"] for row in sweep(tmp_path, code=130)] == ["done", "done", "waiting", "waiting"]
    assert [row["state"] for row in sweep(tmp_path)] == ["done"] * 4
    assert len(calls) == 3 + 2


@pytest.mark.long
def test_a_damaged_result_is_made_again(tmp_path, capsys):
    rows = sweep(tmp_path)
    file = next((tmp_path / "runs" / "table" / "cells").glob("*/results.json"))
    file.write_text("{")
    capsys.readouterr()
    again = sweep(tmp_path)
    assert [{**row, "seconds": ""} for row in again] == [{**row, "seconds": ""} for row in rows]
    assert "results.json is damaged" in capsys.readouterr().err


@pytest.mark.long
def test_a_cell_that_is_a_search_counts_its_best(tmp_path):
    setting = {
        "student.training.optimizer.learning_rate": {"tune": {"choices": [0.001, 0.01, 0.02]}},
        "search": {"trials": 3, "best": 2},
    }
    figures = [{"x": "seed"}, {"x": "epoch", "series": "seed"}]
    rows = sweep(tmp_path, set=setting, axes={"seed": [0]}, figures=figures, mean_over=None)
    assert [row["rank"] for row in rows] == ["1", "2"]
    (folder,) = (tmp_path / "runs" / "table" / "cells").iterdir()
    trials = list(csv.DictReader((folder / "trials.csv").open()))
    scores = sorted(float(trial["error_rate"]) for trial in trials)
    assert [float(row["student validation error_rate"]) for row in rows] == scores[:2]
    links = re.findall(r'href="([^"#:]+)"', (folder / "search.html").read_text())
    assert links == ["trials.csv", "best.yaml", "members.yaml"]
    assert all((folder / link).exists() for link in links)
    assert (tmp_path / "runs" / "table" / "report.html").read_text().count("<svg") == 2


@pytest.mark.long
def test_the_page_has_every_figure_and_needs_nothing_else(tmp_path):
    figures = [{"x": x, "series": "loss"} for x in ("parameters", "multiply_adds", "teacher", "epoch")]
    figures += [{"x": "loss", "lines": ["teacher"]}]
    sweep(tmp_path, figures=figures, show="accuracy", columns=["loss"], paper={"source": "A & B", "accuracy": 90})
    html = (tmp_path / "runs" / "table" / "report.html").read_text()
    assert html.count("<svg") == 5
    assert not re.search(r"(src|href)=\"?http", html)
    assert "A &amp; B" in html
    assert all((tmp_path / "runs" / "table" / f"figure_{n}.svg").read_text().startswith("<svg") for n in range(1, 6))
    assert "(90)" in html


def test_means_of_what_was_measured(tmp_path):
    """By hand: errors of 0.1 and 0.2 are accuracies of 90 and 80 %, mean 85, standard deviation 7.07."""
    table, found = read(
        tmp_path, show="accuracy", paper={"source": "x", "error": {"axis": "loss", "kl": 12, "otherwise": None}}
    )
    planned = [running.plan_cells("x", [cell], tmp_path)[0] for cell in found]
    cost = {"parameters": 5, "multiply_adds": 4}
    outcomes = [
        running.Outcome(
            each,
            "done",
            [{"models": {"student": {**cost, "validation": {}, "test": {"error_rate": error}}}, "history": {}}],
        )
        for each, error in zip(planned, (0.1, 0.2, 0.3, 0.3), strict=True)
    ]
    first, second = results.group_cells(table, outcomes)
    assert (first.mean, second.mean) == (pytest.approx(85), pytest.approx(70))
    assert first.deviation == pytest.approx(7.0710678)
    assert [results.format_mean(table, group) for group in (first, second)] == ["85.00 ± 7.07", "70.00 ± 0.00"]
    assert [results.convert_paper_score(table, group.paper) for group in (first, second)] == [88, None]


@pytest.mark.parametrize(
    ("metric", "show", "shown", "heading", "sentence"),
    [
        ("error_rate", "error", [12.5], "test error, %", "Test error rate in per cent;"),
        (
            "phone_error_rate",
            "accuracy",
            [75],
            "test phone accuracy, %",
            "Test accuracy (100 - phone error rate) in per cent;",
        ),
        ("accuracy", "error", [87.5], "test accuracy, %", "Test accuracy in per cent;"),
        ("top_5_accuracy", "error", [99], "test top 5 accuracy, %", "Test top 5 accuracy in per cent;"),
        ("nll", "error", [1.5], "test nll", "Test nll;"),
        ("distance", "error", [2.7125], "test distance", "Test distance;"),
        ("calibration_error", "error", [6.25], "test calibration error, %", "Test calibration error in per cent;"),
    ],
)
def test_every_metric_in_its_unit(tmp_path, metric, show, shown, heading, sentence):
    table, (cell,) = read(tmp_path, axes={"loss": ["kl"], "seed": [0]}, metric=metric, show=show)
    test = {"error_rate": 0.125, "phone_error_rate": 0.25, "accuracy": 0.875, "top_5_accuracy": 0.99, "nll": 1.5}
    test |= {"calibration_error": 0.0625, "distance": 2.7125}
    student = {"parameters": 5, "multiply_adds": 4, "validation": {"error_rate": 0.25}, "test": test}
    planned = running.plan_cells("x", [cell], tmp_path)[0]
    history = {"val_error_rate": [0.5, 0.25]}
    outcome = running.Outcome(planned, "done", [{"models": {"student": student}, "history": history}])
    assert running.list_scores(table, outcome.results) == shown
    assert heading in results.tabulate_groups(table, [outcome])[0]
    assert results.summarise(table, [outcome]).startswith(sentence)
    by_epoch = FigureSection(x="epoch")
    drawn = page._choose_metric(table, by_epoch, [outcome])  # it was not evaluated at these epochs
    assert page._make_title(drawn, by_epoch) == f"Validation {show} while training"
    (line,) = page._draw_figure(drawn, by_epoch, [outcome]).axes[0].get_lines()
    assert list(line.get_ydata()) == {"error": [50, 25], "accuracy": [50, 75]}[show]


def test_numbers_that_are_no_shares_have_three_digits(tmp_path):
    """By hand: 0.0012 and 0.0024 have the mean 0.0018 and the deviation 0.0012 / sqrt(2)."""
    table, found = read(tmp_path, axes={"loss": ["kl"], "seed": [0, 1]}, metric="kl")
    outcomes = outcomes_at(tmp_path, found, [{"test": {"kl": 0.0012}}, {"test": {"kl": 0.0024}}])
    assert results.tabulate_groups(table, outcomes)[1][0]["test kl"] == "0.0018 ± 0.000849"


def test_curves_by_epoch_are_of_the_metric_if_it_was_evaluated_and_of_known_labels(tmp_path):
    table, found = read(tmp_path, axes={"loss": ["kl"], "seed": [0, 1]}, metric="nll")
    outcomes = outcomes_at(tmp_path, found, [{"validation": {"error_rate": 0.5}}, {"validation": {"error_rate": None}}])
    by_epoch = FigureSection(x="epoch")
    for history, curves in (
        ({"val_error_rate": [0.5, 0.25]}, [[50, 25]]),  # the second net's is 0, as the mean of nothing
        ({"val_error_rate": [0.5, 0.25], "judged_nll": [1.5], "judged_nll_epoch": [2.0]}, [[1.5], [1.5], [1.5]]),
    ):
        for outcome in outcomes:
            outcome.results[0]["history"] = history
        drawn = page._choose_metric(table, by_epoch, outcomes)
        lines = page._draw_figure(drawn, by_epoch, outcomes).axes[0].get_lines()
        assert [list(line.get_ydata()) for line in lines] == curves  # of two nets, their mean, too


def test_curves_of_different_length_have_a_label(tmp_path):
    table, found = read(tmp_path, axes={"loss": ["kl"], "seed": [0, 1]})
    outcomes = outcomes_at(tmp_path, found, [{"validation": {"error_rate": 0.5}}] * 2)
    for outcome, curve in zip(outcomes, ([0.5, 0.25], [0.5]), strict=True):
        outcome.results[0]["history"] = {"val_error_rate": curve}
    (axes,) = page._draw_figure(table, FigureSection(x="epoch"), outcomes).axes
    assert axes.get_legend_handles_labels()[1] == ["loss kl"]


def test_against_an_axis_each_value_of_the_others_has_its_line(tmp_path):
    axes = {"loss": ["kl", "logit_l2"], "width": [8, 16]}
    table, found = read(
        tmp_path,
        axes=axes,
        mean_over=None,
        set={
            "student.loss": {"name": {"axis": "loss"}},
            "student.standardize_logits": False,
            "student.architecture.hidden_units": [{"axis": "width"}],
        },
    )
    outcomes = outcomes_at(tmp_path, found, [{"test": {"error_rate": each}} for each in (0.1, 0.2, 0.3, 0.4)])
    for figure, labels in (
        (FigureSection(x="width"), ["loss kl", "loss logit_l2"]),
        (FigureSection(x="width", series="loss"), ["kl", "logit_l2"]),
    ):
        (drawn,) = page._draw_figure(table, figure, outcomes).axes
        lines = [each.lines[0] for each in drawn.containers]
        assert [(list(line.get_xdata()), list(line.get_ydata())) for line in lines] == [
            ([8, 16], [10, 20]),
            ([8, 16], [30, 40]),
        ]
        assert [label.removesuffix(", student") for label in drawn.get_legend_handles_labels()[1]] == labels


def test_multiply_adds_that_are_not_counted_have_no_place(tmp_path):
    table, found = read(tmp_path, axes={"loss": ["kl", "logit_l2"], "seed": [0]}, mean_over=None)
    for costs, places in (((None, None), []), ((None, 400), [400])):
        nets = [{"multiply_adds": cost, "test": {"error_rate": 0.5}} for cost in costs]
        outcomes = outcomes_at(tmp_path, found, nets)
        (axes,) = page._draw_figure(table, FigureSection(x="multiply_adds", series="loss"), outcomes).axes
        assert [place for line in axes.containers for place in line.lines[0].get_xdata()] == places


def test_equal_nets_of_a_search_have_a_bar_of_nothing(tmp_path):
    """The mean of five times 7 in a hundred is not 7 in a hundred in binary."""
    table, found = read(tmp_path, axes={"loss": ["kl"], "seed": [0]}, mean_over=None)
    (outcome,) = outcomes_at(tmp_path, found, [{"test": {"error_rate": 7 / 100}}])
    (group,) = results.group_cells(table, [dataclasses.replace(outcome, results=outcome.results * 5)])
    assert min(page._spread_of(group)) >= 0


def test_a_baseline_that_has_no_seed_of_its_own_is_one_net(tmp_path):
    table, found = read(tmp_path, axes={"loss": ["kl"], "seed": [0, 1]})
    outcomes = outcomes_at(tmp_path, found, [{"test": {"error_rate": 0.5}}, {"test": {"error_rate": 0.3}}])
    for nlls, shown in (((1.5, 1.5), "13.00"), ((1.5, 1.25), "13.00 ± 0.00")):
        for outcome, nll in zip(outcomes, nlls, strict=True):
            outcome.results[0]["models"]["baseline"] = {"test": {"error_rate": 0.13, "nll": nll}}
        assert results.tabulate_groups(table, outcomes)[1][0]["baseline"] == shown


@pytest.mark.parametrize(
    ("teachers", "learns", "columns"),
    [
        (["cnn", "mlp"], ["labels", "logits"], ["teacher", "labels", "logits"]),
        (["cnn", "mlp"], ["labels", "teacher"], ["teacher", "learns labels", "learns teacher"]),
        (["cnn", "mlp"], [None, "None"], ["teacher", "learns null", "learns None"]),
    ],
)
def test_what_goes_across_a_table_has_a_heading_of_its_own(tmp_path, teachers, learns, columns):
    table, found = read(
        tmp_path,
        axes={"teacher": teachers, "learns": learns},
        mean_over=None,
        columns=["learns"],
        set={
            "student.seed": {"axis": "teacher", "cnn": 0, "otherwise": 1},
            "student.training.epochs": {"axis": "learns", "otherwise": 2, str(learns[1]): 3},
        },
    )
    outcomes = outcomes_at(tmp_path, found, [{"test": {"error_rate": each}} for each in (0.1, 0.2, 0.3, 0.4)])
    headings, rows = results.tabulate_across(table, outcomes)
    assert headings == columns
    assert [list(row.values()) for row in rows] == [["cnn", "10.00", "30.00"], ["mlp", "20.00", "40.00"]]


@pytest.mark.long
def test_an_axis_may_have_the_name_of_a_column(tmp_path, capsys):
    """Its values stay in sight beside what was measured."""
    names = {"teacher": ["kl", "logit_l2"], "parameters": [20], "state": ["x"], "seconds": [0]}
    setting = {
        "student.loss": {"name": {"axis": "teacher"}},
        "student.standardize_logits": False,
        "student.architecture.hidden_units": [{"axis": "parameters"}],
    }
    file = sweep_file(tmp_path, axes=names, set=setting, mean_over=None)
    assert command("validate", file) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "20 0 x kl " in shown
    rows = sweep(tmp_path, axes=names, set=setting, mean_over=None, columns=["parameters"])
    assert [(row["teacher"], row["parameters"], row["state"], row["seconds"]) for row in rows] == [
        ("kl", "20", "x", "0"),
        ("logit_l2", "20", "x", "0"),
    ]
    assert [row["state (measured)"] for row in rows] == ["done", "done"]
    table = (tmp_path / "runs" / "table" / "table.md").read_text()
    assert "| parameters | seconds | state | teacher | parameters (measured) |" in table
    assert "| 20 | 0 | x | kl |" in table


@pytest.mark.long
def test_another_teacher_in_the_same_file_is_another_result(tmp_path):
    """What a loaded model holds is not in the sweep's file, nor in the data."""
    teacher = {"members": [{"teacher": {"name": "keras_file", "path": str(tmp_path / "teacher.keras")}}]}
    changes = {"axes": {"seed": [0]}, "set": {"teacher": teacher, "student.seed": {"axis": "seed"}}, "mean_over": None}
    found = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]).save(
            tmp_path / "teacher.keras"
        )
        found.append(sweep(tmp_path, **changes)[0]["teacher test error_rate"])
    assert found[0] != found[1]


@pytest.mark.long
@pytest.mark.parametrize("changed", ["a", "b"])
def test_another_teacher_in_a_file_that_a_search_may_choose_is_another_result(tmp_path, changed):
    """Of the two, b is that of the plan in the middle."""
    files = {name: tmp_path / f"{name}.keras" for name in "ab"}
    teacher = {
        "members": [{"teacher": {"name": "keras_file", "path": {"tune": {"choices": [*map(str, files.values())]}}}}]
    }
    setting = {"teacher": teacher, "student.seed": {"axis": "seed"}, "search": {"trials": 1}}
    changes = {"axes": {"seed": [0]}, "set": setting, "mean_over": None}
    net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    for file in files.values():
        net.save(file)
    assert [row["state"] for row in [*sweep(tmp_path, **changes), *sweep(tmp_path, **changes)]] == ["done"] * 2
    net.set_weights([2 * weight for weight in net.get_weights()])
    net.save(files[changed])
    (row,) = sweep(tmp_path, code=1, **changes)
    assert "holds the trials of another search" in row["note"]


def test_lines_of_a_figure_share_the_places_of_names(tmp_path):
    """Two nets, one of which has no value at the first place."""
    changes = {"axes": {"loss": ["kl", "logit_l2"], "seed": ["0", "1", "2"]}, "mean_over": None}
    changes["exclude"] = [{"loss": "logit_l2", "seed": "0"}]
    changes["set"] = {
        "student.loss": {"name": {"axis": "loss"}},
        "student.standardize_logits": False,
        "student.seed": {"axis": "seed", "0": 0, "1": 1, "2": 2},
    }
    table, found = read(tmp_path, **changes, figures=[{"x": "seed", "series": "loss"}])
    cost = {"parameters": 5, "multiply_adds": 4, "validation": {}, "test": {"error_rate": 0.5}}
    done = [
        running.Outcome(
            running.plan_cells("x", [cell], tmp_path)[0], "done", [{"models": {"student": cost}, "history": {}}]
        )
        for cell in found
    ]
    axes = page._draw_figure(table, table.figures[0], done).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    places = [list(line.get_xdata()) for line in axes.get_lines()]
    assert [0, 1, 2] in places
    assert [1, 2] in places


def test_a_figure_of_validation(tmp_path):
    """Points, teachers and titles are of the split; the paper's numbers are of test."""
    table, (cell,) = read(
        tmp_path,
        axes={"loss": ["kl"], "seed": [0]},
        paper={"source": "A & B", "error": 40},
        figures=[
            {"x": "parameters", "series": "loss", "lines": ["teacher"], "split": split}
            for split in ("test", "validation")
        ],
    )
    cost = {"parameters": 5, "multiply_adds": 4}
    student = {**cost, "validation": {"error_rate": 0.25}, "test": {"error_rate": 0.5}}
    teacher = {**cost, "members": 1, "validation": {"error_rate": 0.125}, "test": {"error_rate": 0.375}}
    models = {"student": student, "teacher": teacher}
    planned = running.plan_cells("x", [cell], tmp_path)[0]
    done = [running.Outcome(planned, "done", [{"models": models, "history": {}}])]
    seen = {}
    for figure in table.figures:
        axes = page._draw_figure(table, figure, done).axes[0]
        level = next(line for line in axes.get_lines() if line.get_label() == "teacher (1 net)")
        point = axes.containers[0].lines[0].get_ydata()
        published = [label for label in axes.get_legend_handles_labels()[1] if label.endswith(", paper")]
        seen[axes.get_ylabel()] = (list(point), level.get_ydata()[0], len(published))
    assert seen == {"test error, %": ([50], 37.5, 1), "validation error, %": ([25], 12.5, 0)}
    titles = [page._make_title(table, figure) for figure in table.figures]
    assert titles == ["Test error against parameters", "Validation error against parameters"]


def test_teachers_of_as_many_nets_share_a_label(tmp_path):
    table, (cell,) = read(
        tmp_path, axes={"loss": ["kl"], "seed": [0]}, figures=[{"x": "parameters", "lines": ["teacher"]}]
    )
    cost = {"parameters": 5, "multiply_adds": 4, "validation": {}}
    planned = running.plan_cells("x", [cell], tmp_path)[0]
    results = [
        {"models": {"student": {**cost, "test": {"error_rate": 0.5}}, "teacher": teacher}, "history": {}}
        for members, error in [(3, 0.25), (1, 0.375), (3, 0.125)]
        for teacher in [{**cost, "members": members, "test": {"error_rate": error}}]
    ]
    axes = page._draw_figure(table, table.figures[0], [running.Outcome(planned, "done", results)]).axes[0]
    levels = [line for line in axes.get_lines() if line.get_linestyle() in ("--", "-.")]
    assert [(line.get_ydata()[0], line.get_linestyle()) for line in levels] == [(37.5, "--"), (12.5, "-."), (25, "-.")]
    labels = [label for label in axes.get_legend_handles_labels()[1] if label.startswith("teacher")]
    assert labels == ["teacher (1 net)", "teacher (3 nets)"]


def test_the_best_of_several_searches_vary_with_their_seed(tmp_path):
    """By hand: means of the two best are 15 and 35 %, so mean 25 and deviation 14.14."""
    table, found = read(tmp_path, axes={"loss": ["kl"], "seed": [0, 1]})
    cost = {"parameters": 5, "multiply_adds": 4, "validation": {}}
    outcomes = [
        running.Outcome(
            running.plan_cells("x", [cell], tmp_path)[0],
            "done",
            [{"models": {"student": {**cost, "test": {"error_rate": error}}}} for error in errors],
        )
        for cell, errors in zip(found, ((0.1, 0.2), (0.3, 0.4)), strict=True)
    ]
    (group,) = results.group_cells(table, outcomes)
    assert results.format_mean(table, group) == "25.00 ± 14.14"


def test_a_base_experiment_that_can_not_be_read(tmp_path):
    for text, message in (("a: &a [*a]", "an alias inside its own anchor"), ("[", "not a YAML file")):
        file = sweep_file(tmp_path)
        write(tmp_path, text)
        with pytest.raises(InputError, match=rf"sweep.yaml: experiment: .*experiment.yaml: .*{message}"):
            read_cells(file)


def test_an_experiment_is_no_sweep(tmp_path, capsys):
    assert command("sweep", write(tmp_path, tiny())) == 2
    assert (
        "experiment.yaml is not a sweep: it has no axes; mimic-keras run runs an experiment" in capsys.readouterr().err
    )


def test_a_sweep_is_run_by_one_process(tmp_path, monkeypatch, capsys):
    from mimic_keras.storage import locks

    (tmp_path / "runs" / "table").mkdir(parents=True)
    with locks.owned(tmp_path / "runs" / "table"):
        assert command("sweep", sweep_file(tmp_path), "--home", tmp_path, "--runs_dir", tmp_path / "runs") == 2
    assert "has been running this experiment since" in capsys.readouterr().err


@pytest.mark.long
def test_a_metric_that_there_is_not(tmp_path, capsys):
    file = sweep_file(tmp_path, metric="phone_error_rate", axes={"loss": ["kl"], "seed": [0]})
    assert command("sweep", file, "--home", tmp_path / "home", "--runs_dir", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert "metric: no metric 'phone_error_rate'. Did you mean 'error_rate'? Accepted: error_rate" in error
    assert not (tmp_path / "home" / "students").exists()  # nothing was trained
    assert [row["state"] for row in sweep(tmp_path, axes={"loss": ["kl"], "seed": [0]})] == ["done"]


def test_the_metric_of_a_sweep_is_that_of_any_cell(tmp_path):
    """The first cell has no teacher to agree with."""
    settings = {
        "teacher": {"axis": "net", "labels": None},
        "student.loss": {"axis": "net", "labels": None},
        "student.standardize_logits": False,
    }
    table, found = read(tmp_path, axes={"net": ["labels", "mimic"]}, set=settings, mean_over=None, metric="kl")
    planned = running.plan_cells("x", found, tmp_path)
    assert [len(each.plan.members) for each in planned] == [0, 2]
    running.check_sweep_metric(table, planned, "metric")
    with pytest.raises(InputError, match=r"^metric: no metric 'kl'\. Accepted: error_rate"):
        running.check_sweep_metric(table, planned[:1], "metric")


@pytest.mark.long
def test_results_are_stable_json(tmp_path):
    sweep(tmp_path, axes={"loss": ["kl"], "seed": [0]})
    (file,) = (tmp_path / "runs" / "table" / "cells").glob("*/results.json")
    content = json.loads(file.read_text())
    assert set(content) == {"key", "axes", "results", "seconds"}
    assert content["axes"] == {"loss": "kl", "seed": 0}
    assert set(content["results"][0]) == {"models", "history", "errors"}
    assert content["results"][0]["errors"]["examples"] == 350
    assert len(content["results"][0]["history"]["val_error_rate"]) == 2


def test_curves_have_a_label_for_each_group_and_a_scale_where_the_end_is_seen(tmp_path):
    """Two nets of each of two groups: a thin line each, and a thick one for their mean, which the legend names."""
    table, cells = read(tmp_path)
    student = {"parameters": 5, "multiply_adds": 4, "validation": {"error_rate": 0.5}, "test": {"error_rate": 0.5}}
    outcomes = [
        running.Outcome(
            running.plan_cells("x", [cell], tmp_path)[0],
            "done",
            [{"models": {"student": student}, "history": {"val_error_rate": [0.9, 0.5, end, end]}}],
        )
        for cell, end in zip(cells, (0.1, 0.2, 0.3, 0.3), strict=True)
    ]
    (axes,) = page._draw_figure(table, FigureSection(x="epoch", series="loss"), outcomes).axes
    assert axes.get_legend_handles_labels()[1] == ["loss kl, mean of 2", "loss logit_l2, mean of 2"]
    assert [list(line.get_ydata())[-1] for line in axes.get_lines()] == pytest.approx([10, 20, 15, 30, 30, 30])
    assert axes.get_ylim() == pytest.approx((7, 33))  # 10 to 30, and 15 % of that on either side
    (alone,) = page._draw_figure(table, FigureSection(x="epoch"), outcomes).axes
    assert alone.get_legend_handles_labels()[1] == ["loss kl, mean of 2", "loss logit_l2, mean of 2"]


def test_without_figures_or_a_paper_the_page_speaks_of_neither(tmp_path):
    table, (cell,) = read(tmp_path, axes={"loss": ["kl"], "seed": [0]})
    student = {"parameters": 5, "multiply_adds": 4, "validation": {}, "test": {"error_rate": 0.5}}
    planned = running.plan_cells("x", [cell], tmp_path)[0]
    outcome = running.Outcome(
        planned, "done", [{"models": {"student": student}, "history": {}, "errors": errors.pack(np.zeros(1), {}, {})}]
    )
    page.write_page(table, [outcome], tmp_path, "a: b", {"gpus": []})
    text = (tmp_path / "report.html").read_text()
    assert "<h2>Figures" not in text
    assert "paper's" not in text
    assert "<td>gpus</td><td>none</td>" in text
    assert "over seed, which has 1 value." in text
