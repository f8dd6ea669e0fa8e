"""A search: the same one however often it is killed, shared by several processes, judged on validation alone."""

import contextlib
import csv
import dataclasses
import json
import random
import re
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from types import SimpleNamespace

import filelock
import keras
import numpy as np
import pytest
import tensorflow as tf

from mimic_keras import runner
from mimic_keras.contracts import InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment import yaml_text
from mimic_keras.experiment.ranges import Range
from mimic_keras.searching import page, space, trials
from mimic_keras.stages.workspace import Workspace
from mimic_keras.storage.files import write_bytes
from mimic_keras.training.steps import TrainingDiverged
from tests.tiny import command, tiny, write

RATE = ("student", "training", "optimizer", "learning_rate")
UNITS = ("student", "architecture", "linear_units")
SPACE = {RATE: Range(min=0.001, max=1.0, sampling="log"), UNITS: Range(min=2, max=9), ("x",): Range(choices=["a", "b"])}


def searched(**section):
    experiment = tiny(search={"trials": 6, "random_trials": 3, **section}, baseline=None)
    experiment["student"]["training"]["optimizer"]["learning_rate"] = {
        "tune": {"min": 0.001, "max": 1.0, "sampling": "log"}
    }
    experiment["student"]["architecture"]["linear_units"] = {"tune": {"min": 2, "max": 9}}
    return experiment


def search_of(folder, experiment):
    return trials.open_search(experiment_file.read(write(folder, experiment)).source(), folder / "search")


@pytest.fixture
def untrained(monkeypatch):
    """Trials whose score is a formula of their values; returns a list of the values, in the order they were tried."""
    tried = []

    def learn(planned, workspace, splits=()):
        assert splits == ("validation",)
        assert planned.baseline is None
        rate = planned.experiment.student.training.optimizer.learning_rate
        units = planned.student.architecture.arguments["linear_units"]
        tried.append((rate, units))
        if rate > 0.5:
            raise TrainingDiverged("the loss became inf")
        score = abs(np.log10(rate) + 1.5) / 10 + abs(units - 6) / 100
        models = {"student": {"validation": {"error_rate": score, "other": None}}}
        nets = [SimpleNamespace(folder=workspace.home / "students" / f"{len(tried)}")]
        return SimpleNamespace(evaluation=SimpleNamespace(models=models), nets=nets)

    monkeypatch.setattr(runner, "train_and_evaluate", learn)
    return tried


def work(search, folder):
    search.work(Workspace(folder / "home"))
    return [(trial.values, trial.state, trial.score) for trial in search.list_trials()]


def test_suggestions_follow_from_the_trials_alone():
    tried = [({RATE: 0.01 * n, UNITS: n, ("x",): "ab"[n % 2]}, 0.1 * n) for n in range(2, 7)]
    first = space.suggest(SPACE, tried, 0, 3)
    assert space.suggest(SPACE, list(tried), 0, 3) == first
    assert space.suggest(SPACE, tried, 1, 3) != first
    assert set(first) == set(SPACE)
    assert 0.001 <= first[RATE] <= 1.0
    assert first[UNITS] in range(2, 10)
    assert first["x",] in ("a", "b")


def test_random_points_spread_over_the_space():
    point = {RATE: 0.01, UNITS: 4, ("x",): "a"}
    points = [space.suggest(SPACE, [(point, 0.0)] * number, 0, 1000) for number in range(40)]
    rates = np.log10([point[RATE] for point in points])
    assert rates.min() < -2.5
    assert rates.max() > -0.5
    assert {point["x",] for point in points} == {"a", "b"}
    assert {point[UNITS] for point in points} == set(range(2, 10))


@pytest.mark.long
def test_suggestions_come_near_the_minimum():
    """Of a bowl in the logarithm of the rate; random points alone come as near with a chance of about 1 in 100."""
    only = {RATE: SPACE[RATE]}
    tried = []
    for _ in range(14):
        point = space.suggest(only, tried, 0, 4)
        tried.append((point, (np.log10(point[RATE]) + 2) ** 2))
    assert sum(score < 0.01 for _, score in tried) >= 4


def test_no_point_comes_twice_and_a_small_space_ends():
    tiny_space = {("x",): Range(choices=["a", "b"]), ("y",): Range(min=1, max=2)}
    tried = []
    while (point := space.suggest(tiny_space, tried, 0, 2)) is not None:
        tried.append((point, 0.5))
    assert sorted(tuple(values.values()) for values, _ in tried) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


@pytest.mark.long
def test_a_search_that_is_interrupted_is_the_same_search(tmp_path, untrained, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole = work(search_of(tmp_path / "whole", searched()), tmp_path)
    assert [state for _, state, _ in whole].count("done") >= 4
    learn, calls = runner.train_and_evaluate, []

    def killed(*arguments, **named):
        calls.append(len(calls))
        if len(calls) in (2, 5, 8):
            raise KeyboardInterrupt
        return learn(*arguments, **named)

    monkeypatch.setattr(runner, "train_and_evaluate", killed)
    search = search_of(tmp_path, searched())
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            work(search, tmp_path)
    assert work(search, tmp_path) == whole
    assert len(calls) == 6 + 3


@pytest.mark.long
def test_a_middle_that_is_impossible_is_no_end_of_a_search(tmp_path, untrained):
    """64 weights a linear unit: of 2 to 40 units and 1,500 parameters the middle leaves no room for a hidden one."""
    experiment = searched(trials=6)
    experiment["student"]["architecture"]["linear_units"] = {"tune": {"min": 2, "max": 60}}
    experiment["student"]["architecture"]["hidden_units"] = [{"fit_parameters": 1500}]
    states = [state for _, state, _ in work(search_of(tmp_path, experiment), tmp_path)]
    assert {"done", "impossible"} <= set(states)
    experiment["student"]["architecture"]["hidden_units"] = [{"fit_parameters": 50}]
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="in the middle of every range: 1 problem"):
        work(search_of(tmp_path / "other", experiment), tmp_path)


def test_the_last_points_of_a_small_space_are_found():
    only = {("x",): Range(min=1, max=40)}
    tried = [({("x",): value}, 0.1) for value in range(1, 41) if value != 17]
    assert space.suggest(only, tried, 0, 4) == {("x",): 17}
    assert space.suggest(only, [*tried, ({("x",): 17}, 0.1)], 0, 4) is None


def test_another_loaded_teacher_is_another_search(tmp_path, untrained):
    experiment = searched(trials=1)
    member = {"teacher": {"name": "keras_file", "path": str(tmp_path / "teacher.keras")}}
    experiment["teacher"] = {"members": [member]}
    net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    net.save(tmp_path / "teacher.keras")
    work(search_of(tmp_path, experiment), tmp_path)
    net.set_weights([2 * weight for weight in net.get_weights()])
    net.save(tmp_path / "teacher.keras")
    with pytest.raises(InputError, match="holds the trials of another search"):
        work(search_of(tmp_path, experiment), tmp_path)


@pytest.mark.parametrize("changed", ["a", "b", "c"])
def test_another_file_or_plugin_among_the_choices_is_another_search(tmp_path, untrained, changed):
    """Also where it is not the one in the middle, which the plan of the example has."""
    experiment = searched(trials=1)
    path = {"tune": {"choices": [str(tmp_path / f"{name}.keras") for name in "abc"]}}
    experiment["teacher"] = {"members": [{"teacher": {"name": "keras_file", "path": path}}]}
    net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    for name in "abc":
        net.save(tmp_path / f"{name}.keras")
    work(search_of(tmp_path, experiment), tmp_path)
    work(search_of(tmp_path, experiment), tmp_path)
    net.set_weights([2 * weight for weight in net.get_weights()])
    net.save(tmp_path / f"{changed}.keras")
    with pytest.raises(InputError, match="holds the trials of another search"):
        work(search_of(tmp_path, experiment), tmp_path)


def test_a_trial_without_enough_memory_has_failed_and_the_search_goes_on(tmp_path, untrained, monkeypatch):
    learn = runner.train_and_evaluate

    def first_runs_out(*given, **named):
        result = learn(*given, **named)
        if len(untrained) == 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\n a tensor")
        return result

    monkeypatch.setattr(runner, "train_and_evaluate", first_runs_out)
    search = search_of(tmp_path, searched(trials=3, random_trials=3))
    found = work(search, tmp_path)
    assert found[0][1] == "failed"
    assert len(untrained) == 3
    assert search.list_trials()[0].note.startswith("OOM when allocating a tensor")


@pytest.mark.long
def test_what_diverges_has_no_score_and_is_not_tried_nearby_for_ever(tmp_path, untrained):
    search = search_of(tmp_path, searched(trials=8))
    found = work(search, tmp_path)
    states = [state for _, state, _ in found]
    assert "diverged" in states
    assert states.count("done") > states.count("diverged")
    assert all((score is None) == (state == "diverged") for _, state, score in found)
    assert search.rank_trials()[0].score == min(score for *_, score in found if score is not None)


@pytest.mark.long
def test_values_that_make_no_net_are_impossible(tmp_path, untrained):
    experiment = searched(trials=4)
    experiment["student"]["architecture"]["hidden_units"] = [{"fit_parameters": 500}]
    found = work(search_of(tmp_path, experiment), tmp_path)
    states = {values[UNITS]: state for values, state, _ in found if values[RATE] <= 0.5}
    # 64 weights a linear unit, 22 and more for one hidden unit: 500 parameters are enough for 7 linear units
    assert {units for units, state in states.items() if state == "impossible"} == {unit for unit in states if unit > 7}


@pytest.mark.long
def test_more_trials_go_on_where_fewer_ended(tmp_path, untrained):
    work(search_of(tmp_path, searched(trials=4)), tmp_path)
    assert len(untrained) == 4
    more = work(search_of(tmp_path, searched(trials=6)), tmp_path)
    assert len(untrained) == 6
    (tmp_path / "other").mkdir()
    assert work(search_of(tmp_path / "other", searched()), tmp_path) == more


def test_another_search_in_the_same_folder_is_refused(tmp_path, untrained):
    work(search_of(tmp_path, searched(trials=2)), tmp_path)
    with pytest.raises(InputError, match=r"search holds the trials of another search .* give this one another name"):
        work(search_of(tmp_path, {**searched(trials=2), "seed": 3}), tmp_path)


@pytest.mark.long
def test_a_trial_whose_process_died_is_done_again_and_blocks_nobody(tmp_path, untrained):
    """The dead process' trial is first taken for a running one, then found to be nobody's."""
    search = search_of(tmp_path, searched(trials=4, random_trials=4))
    search._check_same(Workspace(tmp_path / "home"))
    with search._claimed() as trial:  # what the other process had begun
        pass
    held = filelock.FileLock(tmp_path / "search" / "trials" / ".0000.lock")
    held.acquire()
    thread = threading.Thread(target=work, args=(search, tmp_path))
    thread.start()
    while [each.state == "running" for each in search.list_trials()] != [True, False, False, False]:
        assert thread.is_alive()
    held.release()  # as the system does when a process dies
    thread.join()
    assert [each.state == "running" for each in search.list_trials()] == [False] * 4
    assert search.list_trials()[0].values == trial.values
    assert len(untrained) == 4


class Slots(Workspace):
    """Several units at the same time, in threads; the first ones wait for each other, and others may overtake."""

    def __init__(self, home, slots):
        super().__init__(home)
        self.slots, self.threads, self.under_way = slots, ThreadPoolExecutor(slots), set()
        self.first, self.started, self.delays = threading.Barrier(min(2, slots)), 0, random.Random(slots)

    @property
    def has_free_slot(self):
        return sum(not future.done() for future in self.under_way) < self.slots

    def start(self, unit):
        assert self.has_free_slot
        self.started += 1
        is_first = self.started <= self.first.parties
        self.under_way.add(future := self.threads.submit(self.compute, unit, is_first, self.delays.uniform(0, 0.5)))
        return future

    def compute(self, unit, is_first, delay):
        if is_first:
            self.first.wait(timeout=300)
        time.sleep(delay)
        return unit.function(unit.plan, self)

    def wait(self):
        self.under_way = wait(self.under_way, return_when=FIRST_COMPLETED).not_done


@pytest.mark.long
@pytest.mark.parametrize("parallel", [1, 2, 7])
def test_however_many_work_the_trials_are_the_same(tmp_path, untrained, parallel):
    found = []
    for slots in (1, 2, 4):
        folder = tmp_path / str(slots)
        folder.mkdir()
        search = search_of(folder, searched(trials=7, random_trials=3, parallel_trials=parallel))
        search.work(Slots(folder / "home", slots))
        found.append([(trial.values, trial.state, trial.score) for trial in search.list_trials()])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 7


def test_a_suggestion_waits_for_the_scores_it_follows_from(tmp_path, untrained):
    """Of six trials the last two are suggested; with two in parallel, trial 4 follows from those up to 2."""
    search = search_of(tmp_path, searched(trials=6, random_trials=4, parallel_trials=2))
    search._check_same(Workspace(tmp_path / "home"))
    begun = []
    with contextlib.ExitStack() as stack:
        begun += [stack.enter_context(search._claimed()) for _ in range(4)]
        for missing in (0, 1, 2):
            assert not search._may_begin(4)
            assert search._is_next_held_up()
            search._write(dataclasses.replace(begun[missing], state="done", score=0.5))
        assert search._may_begin(4)
        assert not search._may_begin(5)
        assert not search._is_next_held_up()
        assert stack.enter_context(search._claimed()).number == 4
        assert stack.enter_context(search._claimed()) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": {"random_trials": 2}}, "search.trials: required, but missing"),
        ({"search": {"trials": 2, "trails": 3}}, "search.trails: unknown key"),
        ({"search": {"trials": 2, "best": 3}}, "search.best: cannot report 3 of 2 trials"),
        (
            {"search": {"trials": 2, "metric": "accuracy"}},
            "search.metric: a search looks for the smallest value; expected a metric such as error_rate or nll, "
            "got 'accuracy'",
        ),
        (
            {"baseline": {"training": {"epochs": {"tune": {"min": 1, "max": 5}}}}},
            "baseline.training.epochs: cannot be searched",
        ),
        ({"name": {"tune": {"choices": ["a", "b"]}}}, "name: cannot be searched: the student depends only on"),
    ],
)
def test_wrong_searches(tmp_path, change, message, capsys):
    assert command("tune", write(tmp_path, {**searched(), **change}), "--home", tmp_path) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_search(tmp_path, capsys):
    assert command("tune", write(tmp_path, tiny())) == 2
    error = capsys.readouterr().err
    assert "search: nothing to search: {tune: {min: ..., max: ..., sampling: log}} in place of a value" in error


def test_a_metric_that_there_is_not(tmp_path, untrained):
    with pytest.raises(InputError, match=r"search.metric: no metric 'phone_error_rate'") as raised:
        work(search_of(tmp_path, searched(metric="phone_error_rate")), tmp_path)
    assert str(raised.value).endswith(
        ". Did you mean 'error_rate'? Accepted: error_rate, nll, calibration_error, kl, logit_mse"
    )
    assert not untrained


@pytest.mark.parametrize("name", ["validate", "tune"])
def test_a_metric_that_no_data_set_has_is_known_before_anything_is_read(tmp_path, name, capsys):
    places = () if name == "validate" else ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs")
    assert command(name, write(tmp_path, searched(metric="eror_rate")), *places) == 2
    assert "search.metric: no metric 'eror_rate'. Did you mean 'error_rate'? Accepted: " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_metric_that_has_no_value(tmp_path, untrained):
    """Validation without labels, or a student that is not evaluated against a teacher."""
    with pytest.raises(InputError, match=r"search.metric: no 'nll' on validation; accepted: error_rate$"):
        work(search_of(tmp_path, searched(metric="nll")), tmp_path)


def test_run_refuses_ranges_and_validate_shows_their_middle(tmp_path, capsys):
    file = write(tmp_path, searched())
    assert command("run", file, "--home", tmp_path) == 2
    error = capsys.readouterr().err
    assert "a range to search, where a run needs one value" in error
    assert "search: only used by mimic-keras tune; a run does not search" in error
    assert command("validate", file) == 0
    shown = capsys.readouterr().out
    assert "search      6 trials over 2 ranges; below: the middle of each" in shown
    assert re.search(rf"student .* {64 * 6 + 6 * 32 + 32 + 330} ", shown)


@pytest.mark.long
def test_the_winner_runs_alone_and_has_its_score(tmp_path):
    """The command itself, with real nets; the winner in a home of its own, in which nothing is found."""
    places = ("--runs_dir", tmp_path / "runs", "--home")
    assert command("tune", write(tmp_path, searched(trials=3)), *places, tmp_path / "home") == 0
    folder = tmp_path / "runs" / "tiny"
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    best = min((row for row in rows if row["error_rate"]), key=lambda row: float(row["error_rate"]))
    text = (folder / "best.yaml").read_text()
    assert f"learning_rate: {best['student.training.optimizer.learning_rate']}" in text
    exports = ("--saved_models_dir", tmp_path / "saved_models")
    assert command("run", folder / "best.yaml", *places, tmp_path / "another", *exports) == 0
    metrics = json.loads((tmp_path / "runs" / "tiny_best" / "metrics.json").read_text())
    assert metrics["models"]["student"]["validation"]["error_rate"] == float(best["error_rate"])
    html = (folder / "search.html").read_text()
    assert html.count("<svg") == 1 + 2
    assert not re.search(r"(src|href)=\"?http", html)
    links = re.findall(r'href="([^"#:]+)"', html)
    assert links == ["trials.csv", "best.yaml", "members.yaml", "log.jsonl"]
    assert all((folder / link).exists() for link in links)
    assert f'<tr class="student"><td>{best["trial"]}</td>' in html
    assert [row["trial"] for row in rows] == ["1", "2", "3"]


@pytest.mark.long
def test_the_nets_of_a_search_are_members_of_a_teacher(tmp_path):
    """Chosen from its trials on validation, and not trained again."""
    places = ("--runs_dir", tmp_path / "runs", "--home", tmp_path / "home")
    on_labels = {**searched(trials=3), "name": "nets", "teacher": None}
    del on_labels["student"]["loss"], on_labels["student"]["standardize_logits"]
    assert command("tune", write(tmp_path, on_labels), *places) == 0
    scores = [float(row["error_rate"]) for row in csv.DictReader((tmp_path / "runs" / "nets" / "trials.csv").open())]
    assert len(set(scores)) == 3
    selecting = {"members": "runs/nets/members.yaml", "select": {"members": 1}}
    assert command("run", write(tmp_path, tiny(teacher=selecting, baseline=None)), *places, "--no_export") == 0
    metrics = json.loads((tmp_path / "runs" / "tiny" / "metrics.json").read_text())
    assert metrics["models"]["teacher"]["validation"]["error_rate"] == min(scores)
    assert metrics["stages"]["student"]["made"] == 1
    assert len([*(tmp_path / "home" / "students").glob("[!.]*")]) == 4


def test_a_net_that_two_trials_have_is_one_member(tmp_path):
    search = search_of(tmp_path, searched(trials=3))
    for score, net in ((0.3, "students/b"), (0.2, "students/a"), (0.3, "students/b")):
        with search._claimed() as trial:
            search._write(dataclasses.replace(trial, state="done", score=score, net=net))
    page.write_page(search, tmp_path / "home")
    members = yaml_text.load((search.folder / "members.yaml").read_text())
    paths = [str(tmp_path / "home" / "students" / net / "model.keras") for net in "ab"]
    assert members == [{"teacher": {"name": "keras_file", "path": path}} for path in paths]


def test_a_search_without_any_score_has_a_page(tmp_path):
    search = search_of(tmp_path, searched(trials=1))
    with search._claimed() as trial:
        search._write(dataclasses.replace(trial, state="diverged", note="the loss became inf"))
    page.write_page(search, tmp_path / "home")
    assert "No trial has a score." in (search.folder / "search.html").read_text()
    assert not (search.folder / "best.yaml").exists()


def test_a_damaged_trial_is_named(tmp_path):
    search = search_of(tmp_path, searched(trials=1))
    with search._claimed():
        write_bytes(search.folder / "trials" / "0000.json", b"{")
    with pytest.raises(Exception, match=r"0000.json is damaged .* remove it, and its trial is done again"):
        search.list_trials()


@pytest.mark.parametrize(
    ("places", "short"),
    [
        (["student.training.optimizer.learning_rate"], ["learning_rate"]),
        (["student.loss.name", "student.architecture.name"], ["loss.name", "architecture.name"]),
        (
            ["student.training.epochs", "teacher.training.epochs"],
            ["student.training.epochs", "teacher.training.epochs"],
        ),
        (["seed", "student.seed"], ["seed", "student.seed"]),
        (["student.architecture.hidden_units[0]"], ["hidden_units[0]"]),
    ],
)
def test_a_label_is_as_short_as_it_can_be(places, short):
    assert list(page.shorten_places(places).values()) == short


@pytest.mark.long
def test_figures_count_trials_from_one_and_show_whole_numbers(tmp_path, untrained):
    search = search_of(tmp_path, searched(trials=4))
    work(search, tmp_path)
    (axes,) = page._draw_history(search).axes
    assert sorted(axes.collections[0].get_offsets()[:, 0]) == [1, 2, 3, 4]
    assert all(tick == int(tick) for tick in axes.get_xticks())
    place, item = next(iter(search.space.items()))
    response, bar = page._draw_response(search, str(place), "short", item).axes
    assert sorted(response.collections[0].get_array()) == [1, 2, 3, 4]
    assert all(tick == int(tick) for tick in bar.get_yticks())
    assert (response.get_xlabel(), bar.get_ylabel()) == ("short", "trial")
