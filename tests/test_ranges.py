"""Ranges in place of values: what they draw, where they may stand, what is said of wrong ones."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_keras.contracts import InputError
from mimic_keras.experiment import ranges
from mimic_keras.experiment.places import Place, substitute
from mimic_keras.experiment.problems import Problems
from mimic_keras.experiment.ranges import Range
from tests.tiny import plan_of, tiny

SHARES = st.floats(0, 1, exclude_max=True)


def test_values_along_a_range():
    assert [Range(min=0.0, max=1.0).at(share) for share in (0, 0.25, 0.5)] == [0.0, 0.25, 0.5]
    assert [Range(min=0.001, max=0.1, sampling="log").at(share) for share in (0, 0.5)] == [0.001, 0.01]
    assert [Range(min=1, max=4).at(share) for share in (0, 0.24, 0.25, 0.75, 0.999)] == [1, 1, 2, 4, 4]
    assert [Range(choices=["a", "b"]).at(share) for share in (0, 0.49, 0.5)] == ["a", "a", "b"]
    assert Range(min=0.0, max=1.0).at(0.123456789) == 0.1235


@given(SHARES, st.integers(1, 10_000), st.integers(1, 10_000), st.sampled_from(["linear", "log"]))
def test_whole_numbers_stay_whole_and_within(share, low, more, sampling):
    value = Range(min=low, max=low + more, sampling=sampling).at(share)
    assert isinstance(value, int)
    assert low <= value <= low + more


@given(SHARES, st.floats(1e-9, 1e9), st.floats(1.001, 1e6), st.sampled_from(["linear", "log"]))
def test_numbers_stay_within(share, low, factor, sampling):
    value = Range(min=low, max=low * factor, sampling=sampling).at(share)
    assert isinstance(value, float)
    assert low <= value <= low * factor


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"min": 1}, "expected min and max, or choices; got min"),
        ({}, "expected min and max, or choices; got nothing"),
        ({"min": 1, "max": 2, "choices": [1, 2]}, "expected min and max, or choices; got min, max, choices"),
        ({"min": 2, "max": 2}, "expected min below max, got 2 and 2"),
        ({"min": 0, "max": 2, "sampling": "log"}, "sampling: log needs a min above 0"),
        ({"choices": [1, 2], "sampling": "log"}, "sampling: log needs a min above 0"),
        (3, "expected {min: ..., max: ..., sampling: log} or {choices: [...]}, got 3"),
    ],
)
def test_wrong_ranges(content, message):
    problems = Problems("x.yaml")
    assert ranges.parse_range(content, Place.parse("student.x.tune"), problems) is None
    assert problems.found == {Place.parse("student.x.tune"): message}


def test_unknown_key_of_a_range():
    problems = Problems("x.yaml")
    assert ranges.parse_range({"min": 1, "max": 2, "step": 1}, Place("x"), problems) is None
    assert problems.found[Place("x", "step")].startswith("unknown key.\nAccepted: name: str | null = null, min: int")


def test_find_and_replace():
    data = {"a": [{"tune": 1}, {"b": {"tune": 2}}], "tune": 3, "c": {"tune": 4, "other": 5}}
    found = dict(ranges.find_ranges(data, "tune"))
    assert found == {("a", 0): 1, ("a", 1, "b"): 2}
    assert substitute(data, dict.fromkeys(found, "x")) == {
        "a": ["x", {"b": "x"}],
        "tune": 3,
        "c": {"tune": 4, "other": 5},
    }


def drawing(copies=4, **architecture):
    units = {"draw": {"min": 8, "max": 64}}
    net = {"name": "mlp", "hidden_units": [units], "dropout": {"draw": {"min": 0.1, "max": 0.5}}, **architecture}
    members = [{"teacher": {"name": "trained", "architecture": net}, "copies": copies}]
    return tiny(teacher={**tiny()["teacher"], "members": members})


def planned(folder, experiment):
    return plan_of(folder, experiment)


def drawn_nets(folder, experiment):
    members = planned(folder, experiment).members
    nets = [member.teacher.arguments["architecture"].arguments for member in members]
    return [(net["hidden_units"][0], net["dropout"], member.seed) for net, member in zip(nets, members, strict=True)]


def test_every_copy_draws_for_itself_and_more_copies_change_nothing(tmp_path):
    four = drawn_nets(tmp_path, drawing())
    assert len(set(four)) == 4
    assert drawn_nets(tmp_path, drawing(copies=6))[:4] == four
    assert all(8 <= units <= 64 and 0.1 <= dropout <= 0.5 for units, dropout, _ in four)
    assert drawn_nets(tmp_path, {**drawing(), "seed": 1}) != four
    elsewhere = drawing()
    elsewhere["teacher"]["members"][0]["dataset"] = {**tiny()["dataset"], "copies": 2}
    assert [net[:2] for net in drawn_nets(tmp_path, elsewhere)] == [net[:2] for net in four]


@pytest.mark.long
def test_draws_spread_over_their_range(tmp_path):
    units = [net[0] for net in drawn_nets(tmp_path, drawing(copies=60))]
    assert min(units) < 16
    assert max(units) > 56
    assert math.isclose(sum(units) / 60, 36, abs_tol=8)


def test_an_entry_beside_a_drawn_one_stays_as_it_is(tmp_path):
    alone = planned(tmp_path, tiny()).members
    both = drawing(copies=2)
    both["teacher"]["members"] += tiny()["teacher"]["members"]
    assert [member.seed for member in planned(tmp_path, both).members[2:]] == [member.seed for member in alone]


@pytest.mark.parametrize(
    ("experiment", "path", "message"),
    [
        (drawing(hiden=3), "teacher.members[0].teacher.architecture.hiden", "unknown argument of 'mlp'"),
        (
            drawing(dropout={"draw": {"min": 1}}),
            "teacher.members[0].teacher.architecture.dropout.draw",
            "expected min and max, or choices; got min",
        ),
        (drawing(copies=0), "teacher.members[0].copies", "expected a value greater than or equal to 1, got 0"),
        (
            tiny(student={**tiny()["student"], "seed": {"draw": {"min": 1, "max": 5}}}),
            "student.seed",
            "only values of a teacher's member can be drawn; {tune: ...} is searched",
        ),
        (
            tiny(student={**tiny()["student"], "seed": {"tune": {"min": 1, "max": 5}}}),
            "student.seed",
            "a range to search, where a run needs one value; mimic-keras tune searches it",
        ),
    ],
)
def test_what_is_wrong_is_said_once_and_where_the_file_has_it(tmp_path, experiment, path, message):
    with pytest.raises(InputError) as error:
        planned(tmp_path, experiment)
    assert list(error.value.found) == [Place.parse(path)]
    assert error.value.found[Place.parse(path)].startswith(message)
