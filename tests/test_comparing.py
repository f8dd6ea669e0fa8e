"""Paired differences between the rows of a sweep's table, against numbers by hand and a bootstrap."""

import dataclasses
import json

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from mimic_keras.contracts import GroupedRate
from mimic_keras.sweeping import comparing, errors, running
from mimic_keras.sweeping.comparing import Difference, compare
from tests.test_sweeping import read

LABELS = np.array([0] * 100)


def logits(wrong):
    """Of 100 examples, those in `wrong` get the other class."""
    rows = np.tile([1.0, 0.0], (100, 1))
    rows[list(wrong)] = [0.0, 1.0]
    return rows


@given(arrays.arrays(bool, st.integers(1, 40)), st.integers(0, 3))
def test_what_is_packed_comes_back_without_the_unlabelled(wrong, unlabelled):
    labels = np.concatenate([np.zeros(len(wrong), int), np.full(unlabelled, -1)])
    rows = np.eye(2)[np.concatenate([wrong.astype(int), np.zeros(unlabelled, int)])]
    packed = json.loads(json.dumps(errors.pack(labels, {"student": rows, "teacher/0": rows}, {})))
    assert packed["examples"] == len(wrong)
    assert list(packed["wrong"]) == ["student"]
    for metric in ("error_rate", "accuracy"):
        tally = errors.unpack(packed, "student", metric)
        np.testing.assert_array_equal(tally.errors, wrong)
        np.testing.assert_array_equal(tally.counts, 1)
        assert tally.units == "examples"
    assert errors.unpack(packed, "student", "phone_error_rate") is errors.unpack(packed, "other", "error_rate") is None


def test_a_rate_by_group_takes_the_place_of_examples():
    rate = GroupedRate(np.array([1, 2]), np.array([40, 60]))
    rates = {"student": {"error_rate": rate}, "teacher/0": {"error_rate": rate}}
    packed = json.loads(json.dumps(errors.pack(LABELS, {"student": logits([0]), "teacher/0": logits([])}, rates)))
    assert list(packed["groups"]["error_rate"]) == ["student"]
    for metric in ("error_rate", "accuracy"):
        tally = errors.unpack(packed, "student", metric)
        assert (tally.errors.tolist(), tally.counts.tolist(), tally.units) == ([1, 2], [40, 60], "groups")
    assert errors.unpack(packed, "baseline", "error_rate") is None


def test_two_single_nets_by_hand():
    """McNemar's table with b = 10, c = 3 of 100: sqrt(13 - 49 / 100) / 100."""
    first, second = np.zeros((2, 1, 100), int)
    first[0, :10] = second[0, 10:13] = 1
    found = compare(first, second, np.ones(100, int))
    assert (found.mean, found.standard_error) == (pytest.approx(0.07), pytest.approx(0.0353695))
    assert not found.is_shown
    assert found.degrees_of_freedom == pytest.approx(99)
    assert found.interval == pytest.approx((0.07 - 1.984217 * 0.0353695, 0.07 + 1.984217 * 0.0353695), abs=1e-6)


def test_nets_of_several_seeds_by_hand():
    """Error rates 0.1 and 0.3 against 0.5: the variance over nets is 0.02 / 2, that over examples as of d_i."""
    these, those = np.zeros((2, 10), int), np.zeros((1, 10), int)
    these[0, :1] = these[1, :3] = those[0, :5] = 1
    # d is 0 once, -0.5 twice, -1 twice and 0 five times: mean -0.3, mean of squares 0.25, variance 0.16.
    found = compare(these, those, np.ones(10, int))
    assert found.standard_error == pytest.approx((0.16 / 10 + 0.02 / 2) ** 0.5)
    assert found.degrees_of_freedom == pytest.approx(0.026**2 / (0.016**2 / 9 + 0.01**2 / 1))


def test_with_one_unit_the_interval_is_that_of_welch():
    """Means of 3 and 4 nets, whose only difference is their seed."""
    random = np.random.default_rng(0)
    these, those = random.integers(0, 100, (3, 1)), random.integers(0, 100, (4, 1))
    welch = scipy.stats.ttest_ind(these[:, 0] / 100, those[:, 0] / 100, equal_var=False).confidence_interval()
    assert compare(these, those, np.array([100])).interval == pytest.approx((welch.low, welch.high))


def test_nets_that_agree_have_an_interval_of_nothing():
    found = compare(np.ones((2, 5), int), np.ones((1, 5), int), np.ones(5, int))
    assert found.interval == (0, 0)
    assert not found.is_shown


def test_the_standard_error_is_that_of_the_paired_bootstrap():
    random = np.random.default_rng(0)
    these, those = (random.random((1, 500)) < 0.2).astype(int), (random.random((1, 500)) < 0.3).astype(int)
    samples = random.integers(0, 500, (4000, 500))
    means = these[0, samples].mean(1) - those[0, samples].mean(1)
    assert compare(these, those, np.ones(500, int)).standard_error == pytest.approx(means.std(), rel=0.05)


def test_by_group_it_is_the_bootstrap_over_groups():
    """40 speakers of 20 to 400 frames, whose error rates vary from 0 to 0.6: far wider than over single frames."""
    random = np.random.default_rng(0)
    counts = random.integers(20, 400, 40)
    these, those = (random.binomial(counts, random.random((1, 40)) * 0.6) for _ in range(2))
    samples = random.integers(0, 40, (20_000, 40))
    drawn = (these - those)[0, samples].sum(1) / counts[samples].sum(1)
    found = compare(these, those, counts)
    assert found.mean == pytest.approx((these - those).sum() / counts.sum())
    assert found.standard_error == pytest.approx(drawn.std(), rel=0.05)
    assert found.standard_error > 3 * (0.5 / counts.sum()) ** 0.5


@pytest.mark.parametrize(
    ("mean", "error", "degrees", "is_shown"),
    [
        (0.2, 0.1, 1000, True),
        (-0.2, 0.1, 1000, True),
        (0.199, 0.1, 1000, False),  # the quantile is 1.96
        (0.2, 0.1, 20, False),  # 2.09
        (0.21, 0.1, 20, True),
        (0.1, 0, 1, True),
        (0, 0, 1, False),
    ],
)
def test_a_difference_within_its_interval_or_below_twice_its_standard_error_is_not_shown(
    mean, error, degrees, is_shown
):
    assert Difference(mean, error, degrees).is_shown == is_shown


def outcomes_of(folder, wrong, **changes):
    """A sweep of two losses and two seeds whose students are wrong on these examples: {(loss, seed): ids}."""
    sweep, cells = read(folder, **changes)
    found = []
    for cell in cells:
        packed = errors.pack(
            LABELS,
            {"student": logits(wrong[cell.values["loss"], cell.values["seed"]]), "baseline": logits(range(30))},
            {},
        )
        student = {"parameters": 5, "multiply_adds": 4, "validation": {}, "test": {"error_rate": 0.5}}
        result = {"models": {"student": student}, "history": {}, "errors": packed}
        found.append(running.Outcome(running.plan_cells("x", [cell], folder)[0], "done", [result]))
    return sweep, found


WRONG = {("kl", 0): range(10), ("kl", 1): range(12), ("logit_l2", 0): range(9), ("logit_l2", 1): range(13)}


def test_a_row_against_the_first_value_of_an_axis_and_against_its_baseline(tmp_path):
    sweep, outcomes = outcomes_of(tmp_path, WRONG)
    columns, rows = comparing.tabulate_differences(sweep, outcomes)
    assert columns == ["comparison", "difference in test error, points", "95 % interval", "nets", "over", "verdict"]
    assert [
        (row["comparison"], row["difference in test error, points"], row["nets"], row["verdict"]) for row in rows
    ] == [
        ("loss logit_l2 against kl", "+0.00", "2 and 2", "not shown"),
        ("loss kl, student against baseline", "-19.00", "2 and 2", "lower"),
        ("loss logit_l2, student against baseline", "-19.00", "2 and 2", "lower"),
    ]
    shown_as_accuracy = comparing.tabulate_differences(sweep.model_copy(update={"show": "accuracy"}), outcomes)[1]
    assert [row["verdict"] for row in shown_as_accuracy] == ["not shown", "higher", "higher"]
    assert shown_as_accuracy[1]["difference in test accuracy, points"] == "+19.00"


def test_what_is_not_known_of_single_examples_is_not_compared(tmp_path):
    sweep, outcomes = outcomes_of(tmp_path, WRONG)
    assert comparing.tabulate_differences(sweep.model_copy(update={"metric": "phone_error_rate"}), outcomes) == ([], [])
    other = {**outcomes[0].results[0]["errors"], "labels": "of another test set"}
    elsewhere = [dataclasses.replace(each, results=[{**each.results[0], "errors": other}]) for each in outcomes[:2]]
    rows = comparing.tabulate_differences(sweep, [*elsewhere, *outcomes[2:]])[1]
    assert [row["comparison"] for row in rows] == [
        "loss kl, student against baseline",
        "loss logit_l2, student against baseline",
    ]


def test_the_best_of_several_searches_are_one_net_each(tmp_path):
    """As in the table: five equal nets of a search of each seed are no five seeds."""
    sweep, outcomes = outcomes_of(tmp_path, WRONG)
    searched = [dataclasses.replace(each, results=each.results * 5) for each in outcomes]
    assert comparing.tabulate_differences(sweep, searched) == comparing.tabulate_differences(sweep, outcomes)
    rows = comparing.tabulate_differences(sweep, [searched[0], *outcomes[1:]])[1]
    assert [row["difference in test error, points"] for row in rows] == ["+0.00", "-19.00", "-19.00"]
    assert {row["nets"] for row in rows} == {"2 and 2"}


def test_a_baseline_that_all_cells_share_is_one_net(tmp_path):
    sweep, outcomes = outcomes_of(tmp_path, WRONG)
    for outcome in outcomes:
        outcome.results[0]["models"]["baseline"] = {"test": {"error_rate": 0.3, "nll": 1.5}}
    rows = comparing.tabulate_differences(sweep, outcomes)[1]
    assert [row["nets"] for row in rows] == ["2 and 2", "2 and 1", "2 and 1"]


def test_a_small_difference_has_as_many_digits_as_there_are_examples(tmp_path):
    sweep, outcomes = outcomes_of(tmp_path, WRONG)
    labels, few = np.zeros(50_000, int), np.tile([1.0, 0.0], (50_000, 1))
    few[0] = [0.0, 1.0]  # one error of 50,000 is 0.002 points
    for outcome in outcomes[2:]:
        outcome.results[0]["errors"] = errors.pack(labels, {"student": few}, {})
    for outcome in outcomes[:2]:
        outcome.results[0]["errors"] = errors.pack(labels, {"student": few * 0 + [1.0, 0.0]}, {})
    (row,) = comparing.tabulate_differences(sweep, outcomes)[1]
    assert row["difference in test error, points"] == "+0.002"
    same = comparing.tabulate_differences(sweep.model_copy(update={"show": "accuracy"}), [*outcomes[:2]])
    assert same == ([], [])


def test_single_nets_on_one_group_are_not_compared(tmp_path):
    sweep, outcomes = outcomes_of(tmp_path, WRONG, axes={"loss": ["kl", "logit_l2"], "seed": [0]})
    for outcome, wrong in zip(outcomes, (10, 20), strict=True):
        rate = {"error_rate": GroupedRate(np.array([wrong]), np.array([100]))}
        outcome.results[0]["errors"] = errors.pack(LABELS, {"student": logits([])}, {"student": rate})
    assert comparing.tabulate_differences(sweep, outcomes) == ([], [])


def test_tallies_of_other_groups_are_of_another_digest():
    found = []
    for counts in ([40, 60], [50, 50], [40, 60]):
        rate = {"error_rate": GroupedRate(np.array([1, 2]), np.array(counts))}
        packed = errors.pack(LABELS, {"student": logits([])}, {"student": rate})
        found.append(errors.unpack(packed, "student", "error_rate").digest)
    assert found[0] == found[2] != found[1]
