"""Problems of a file and their places, and mappings parsed into typed sections with messages for what does not fit."""

from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from typing_extensions import TypedDict

from mimic_keras.contracts import InputError
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import (
    Problems,
    describe_type,
    did_you_mean,
    list_fields,
    parse_section,
    quote,
    suggest,
)


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Sgd(Strict):
    name: Literal["sgd"]
    rate: Annotated[float, Field(gt=0)]


class Adam(Strict):
    name: Literal["adam"]
    rate: Annotated[float, Field(gt=0)]
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.9


class Inner(Strict):
    depth: int = 1


class Stored(TypedDict):
    file: Path


class Example(Strict):
    epochs: Annotated[int, Field(ge=1)]
    optimizer: Annotated[Sgd | Adam, Field(discriminator="name")] | None = None
    widths: Annotated[list[int], Field(min_length=1)] = [1]
    restore: Literal["best", "last"] = "last"
    inner: Inner = Inner()
    share: float | None = None
    alignment: Literal["uniform"] | Stored = "uniform"
    aliased: bool = Field(False, alias="copy")


def parse(**changes):
    """({place: message}, section) of a mapping with these values, which stands at `a.b`."""
    problems = Problems("x.yaml")
    found = parse_section(Example, {"epochs": 3, **changes}, Place("a", "b"), problems)
    return {str(place): message for place, message in problems.found.items()}, found


def test_the_first_problem_of_a_place_is_kept():
    problems = Problems("x.yaml")
    problems.add(Place("a"), "first")
    problems.add(Place("a"), "second")
    problems.add(Place("a", "b"), "inside")
    assert problems.found == {Place("a"): "first", Place("a", "b"): "inside"}


def test_generated_places_become_the_place_in_the_file():
    problems = Problems("x.yaml")
    members = Place("teacher", "members")
    problems.origins = {members / 1: members / 0, members / 2: members / 0, members / 3: members / 1}
    problems.add(members / 2 / "copies", "too few")
    problems.add(members / 1 / "copies", "of the same entry")
    problems.add(members / 3, "itself")
    problems.add(members / 10, "not generated")
    problems.add(members, "above")
    assert problems.found == {
        members / 0 / "copies": "too few",
        members / 1: "itself",
        members / 10: "not generated",
        members: "above",
    }


def test_check_raises_only_with_problems():
    problems = Problems("x.yaml")
    problems.check()
    problems.add(Place("a"), "wrong")
    with pytest.raises(InputError) as caught:
        problems.check()
    assert caught.value is problems


def test_the_message_has_every_problem_on_lines_of_its_own():
    problems = Problems("x.yaml")
    problems.add(Place("student", "training"), "wrong")
    assert str(problems) == "x.yaml: 1 problem\n  student.training: wrong"
    problems.add(Place("filters", 0), "unknown.\nAccepted: x")
    assert str(problems) == ("x.yaml: 2 problems\n  student.training: wrong\n  filters[0]: unknown.\n    Accepted: x")


def test_a_mapping_that_fits():
    problems, found = parse(optimizer={"name": "adam", "rate": 1}, copy=True, alignment={"file": "y"})
    assert problems == {}
    assert found == Example(
        epochs=3, optimizer=Adam(name="adam", rate=1.0), copy=True, alignment=Stored(file=Path("y"))
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": "3"}, {"a.b.epochs": "expected int >= 1, got '3'"}),
        ({"epochs": 0}, {"a.b.epochs": "expected int >= 1, got 0"}),
        ({"epochs": True}, {"a.b.epochs": "expected int >= 1, got true"}),
        ({"epochs": None}, {"a.b.epochs": "expected int >= 1, got null"}),
        ({"restore": "bst"}, {"a.b.restore": "expected 'best' | 'last', got 'bst'"}),
        ({"share": [1]}, {"a.b.share": "expected float | null, got [1]"}),
        ({"share": float("nan")}, {"a.b.share": "expected float | null, got nan"}),
        ({"inner": 3}, {"a.b.inner": "expected a mapping, got 3"}),
        ({"inner": {"depth": "x"}}, {"a.b.inner.depth": "expected integer, got 'x'"}),
        ({"widths": []}, {"a.b.widths": "expected at least 1 item, got []"}),
        ({"widths": 4}, {"a.b.widths": "expected list[int], got 4"}),
        ({"widths": [1, "x"]}, {"a.b.widths[1]": "expected integer, got 'x'"}),
        ({"copy": 1}, {"a.b.copy": "expected bool, got 1"}),
    ],
)
def test_values_of_the_wrong_type_or_out_of_bounds(changes, expected):
    assert parse(**changes) == (expected, None)


def test_a_missing_key():
    problems = Problems("x.yaml")
    assert parse_section(Example, {"inner": {}}, Place(), problems) is None
    assert problems.found == {Place("epochs"): "required, but missing"}


def test_an_unknown_key_is_answered_with_the_nearest_and_all_that_are_accepted():
    fields = ", ".join(list_fields(Example).values())
    assert parse(epoch=1)[0] == {"a.b.epoch": f"unknown key.\nDid you mean 'epochs'? Accepted: {fields}"}
    assert parse(zzz=1)[0] == {"a.b.zzz": f"unknown key.\nAccepted: {fields}"}
    assert parse(aliased=True)[0].keys() == {"a.b.aliased"}, "the name of a field that has an alias is not a key"
    assert parse(inner={"dept": 1})[0] == {
        "a.b.inner.dept": "unknown key.\nDid you mean 'depth'? Accepted: depth: int = 1"
    }


def test_how_a_message_about_an_unknown_key_opens():
    problems = Problems("x.yaml")
    parse_section(Inner, {"dept": 1}, Place("loss"), problems, "unknown argument of 'kl'")
    assert str(problems).splitlines()[1] == "  loss.dept: unknown argument of 'kl'."


@pytest.mark.parametrize(
    ("optimizer", "place", "message"),
    [
        ({"name": "sdg", "rate": 1.0}, "", "no such name: 'sdg'. Did you mean 'sgd'? Accepted: sgd, adam"),
        ({"name": "zz"}, "", "no such name: 'zz'. Accepted: sgd, adam"),
        ({"rate": 1.0}, "", "expected a mapping with a 'name', got {'rate': 1.0}"),
        ("sgd", "", "expected a mapping, got 'sgd'; a name is written {name: sgd}"),
        ({"name": "sgd"}, ".rate", "required, but missing"),
        ({"name": "sgd", "rate": 0}, ".rate", "expected a value greater than 0, got 0"),
        ({"name": "adam", "rate": 1.0, "beta": 1}, ".beta", "expected a value less than 1, got 1"),
    ],
)
def test_a_union_told_apart_by_its_name(optimizer, place, message):
    assert parse(optimizer=optimizer) == ({f"a.b.optimizer{place}": message}, None)


def test_an_unknown_key_in_a_branch_of_a_union_is_answered_with_that_branch():
    expected = "unknown key.\nDid you mean 'beta'? Accepted: name: 'adam', rate: float > 0, beta: float >= 0 < 1 = 0.9"
    assert parse(optimizer={"name": "adam", "rate": 1.0, "bet": 1})[0] == {"a.b.optimizer.bet": expected}
    expected = "unknown key.\nAccepted: name: 'sgd', rate: float > 0"
    assert parse(optimizer={"name": "sgd", "rate": 1.0, "beta": 1})[0] == {"a.b.optimizer.beta": expected}


@pytest.mark.parametrize("value", ["unform", {"fil": "x"}, {"file": 3}, {}, None])
def test_where_no_branch_with_a_typed_dict_fits_there_is_one_problem(value):
    problems, _ = parse(alignment=value)
    assert problems == {"a.b.alignment": f"expected 'uniform' | {{file: Path}}, got {quote(value)}"}


def test_every_problem_is_found_at_once():
    problems, _ = parse(epochs=0, widths=[], inner={"depth": None, "x": 1}, nothing=1)
    assert list(problems) == ["a.b.epochs", "a.b.widths", "a.b.inner.depth", "a.b.inner.x", "a.b.nothing"]


@given(
    st.dictionaries(
        st.sampled_from([*Example.model_fields, "copy", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "file", "depth", "y"]), inner)
            ),
            max_leaves=4,
        ),
    )
)
def test_any_mapping_is_parsed_or_has_problems_inside_it(mapping):
    problems = Problems("x.yaml")
    found = parse_section(Example, mapping, Place("a"), problems)
    assert (found is None) == bool(problems.found)
    assert all(place.is_within(Place("a")) for place in problems.found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        ("a\nb", r"'a\nb'"),
        ([None], "[None]"),
        ("x" * 78, repr("x" * 78)),
        ("x" * 79, "'" + "x" * 76 + "..."),
        (Adam(name="adam", rate=1.0), "{name: 'adam', rate: 1.0, beta: 0.9}"),
    ],
)
def test_quote(value, expected):
    assert quote(value) == expected


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, "int"),
        (Any, "Any"),
        (None | int, "null | int"),
        (list[int | list[int]], "list[int | list[int]]"),
        (dict[str, float], "dict[str, float]"),
        (tuple[int, float], "[int, float]"),
        (tuple[int, ...], "list[int]"),
        (Literal["best", "last"], "'best' | 'last'"),
        (Literal[1, None], "1 | None"),
        (Annotated[int, annotated_types.Ge(0), annotated_types.Lt(8)], "int >= 0 < 8"),
        (Inner, "mapping"),
        (Sgd | Adam, "mapping"),
        (Stored | Literal["uniform"], "{file: Path} | 'uniform'"),
    ],
)
def test_describe_type(annotation, expected):
    assert describe_type(annotation) == expected


def test_list_fields():
    assert list_fields(Example) == {
        "epochs": "epochs: int >= 1",
        "optimizer": "optimizer: mapping | null = null",
        "widths": "widths: list[int] = [1]",
        "restore": "restore: 'best' | 'last' = 'last'",
        "inner": "inner: mapping = {depth: 1}",
        "share": "share: float | null = null",
        "alignment": "alignment: 'uniform' | {file: Path} = 'uniform'",
        "copy": "copy: bool = false",
    }


def test_suggestions():
    assert did_you_mean("temprature", ["kl", "temperature"]) == "Did you mean 'temperature'? "
    assert did_you_mean("zz", ["kl", "temperature"]) == ""
    assert did_you_mean("lr", ["name", "learning_rate", "lrs"]) == "Did you mean 'learning_rate'? "
    assert did_you_mean("AdamW", ["adam", "adamw"]) == "Did you mean 'adamw'? "
    assert (
        suggest("bet", {"beta": "beta: float", "a": "a: int"}) == "Did you mean 'beta'? Accepted: beta: float, a: int"
    )
    assert suggest("bet", {}) == "Accepted: none"
