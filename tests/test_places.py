"""Places in nested data: how they are written and read, walked, replaced, and assigned from the command line."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_keras.contracts import InputError
from mimic_keras.experiment.file import apply_setting
from mimic_keras.experiment.places import Place, assign, contains, substitute, walk

# A key that can be written: no dots or brackets, and not a number, which would be an index.
keys = st.text(st.characters(exclude_characters=".[]", exclude_categories=("Cs",)), min_size=1, max_size=6).filter(
    lambda key: not (key.isascii() and key.isdigit())
)
indices = st.integers(0, 10**12)
places = st.builds(lambda first, rest: Place(first, *rest), keys, st.lists(keys | indices, max_size=5))
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=8,
)

DATA = {"name": "x", "teacher": {"members": [{"copies": 1}, {"copies": 2, "hidden": [3, 4]}]}, "none": None}


@given(places)
def test_a_place_is_read_back_from_its_text(place):
    assert Place.parse(str(place)) == place


@given(places)
def test_an_index_may_follow_a_dot(place):
    assert Place.parse(".".join(map(str, place))) == place


@given(st.text(".[]a0", max_size=12))
def test_any_text_is_a_place_or_refused(text):
    try:
        place = Place.parse(text)
    except ValueError as error:
        assert str(error) == f"'{text}' is not a place such as student.training.epochs or teacher.members[0].copies"
    else:
        assert all(part != "" for part in place)
        assert isinstance(place[0], int) or Place.parse(str(place)) == place


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name", ("name",)),
        ("student.training.epochs", ("student", "training", "epochs")),
        ("teacher.members[0].copies", ("teacher", "members", 0, "copies")),
        ("teacher.members.0.copies", ("teacher", "members", 0, "copies")),
        ("filters[1][20]", ("filters", 1, 20)),
        ("filters.1[20]", ("filters", 1, 20)),
        ("a.007", ("a", 7)),
        ("a.-1", ("a", "-1")),
        ("a.1e3", ("a", "1e3")),
        ("members.²", ("members", "²")),
        ("a b.c-d", ("a b", "c-d")),
    ],
)
def test_texts_that_are_places(text, parts):
    place = Place.parse(text)
    assert place == Place(*parts)
    assert list(map(type, place)) == list(map(type, parts))


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "[0]", "a.[0]", "a[", "a]", "a[]", "a[x]", "a[-1]", "a[0", "a[0]b", "a[[0]]"]
)
def test_texts_that_are_not(text):
    with pytest.raises(ValueError, match="is not a place such as") as caught:
        Place.parse(text)
    assert str(caught.value).startswith(f"'{text}' is not a place")


def test_how_a_place_is_written():
    assert str(Place()) == ""
    assert str(Place("teacher", "members", 0, "copies")) == "teacher.members[0].copies"
    assert str(Place("filters", 1, 20)) == "filters[1][20]"


def test_places_are_extended_and_cut():
    place = Place("teacher", "members") / 0
    assert place == Place("teacher", "members", 0)
    assert isinstance(place, Place)
    longer = place + Place("training", "epochs")
    assert str(longer) == "teacher.members[0].training.epochs"
    assert (longer.parent, Place("a").parent, Place().parent) == (place / "training", Place(), Place())
    assert isinstance(longer.parent, Place)
    assert hash(Place("a", 1)) == hash(Place("a") / 1)


@given(places, st.lists(keys | indices, max_size=3))
def test_what_is_added_is_within(place, more):
    inside = place + tuple(more)
    assert inside.is_within(place)
    assert inside.is_within(Place())
    assert place.is_within(inside) == (not more)


def test_a_place_beside_another_is_not_below_it():
    assert not Place("students", "loss").is_within(Place("student"))
    assert not Place("members", 10).is_within(Place("members", 1))


def test_a_walk_gives_containers_before_their_contents_in_order():
    assert [(str(place), value) for place, value in walk({"b": [1, {"c": None}], "a": "x"})] == [
        ("", {"b": [1, {"c": None}], "a": "x"}),
        ("b", [1, {"c": None}]),
        ("b[0]", 1),
        ("b[1]", {"c": None}),
        ("b[1].c", None),
        ("a", "x"),
    ]
    assert list(walk(3, Place("a"))) == [(Place("a"), 3)]


@settings(max_examples=50)
@given(trees)
def test_everything_that_is_walked_is_contained(data):
    for place, value in walk(data):
        assert contains(data, place)
        assert not contains(data, place / "no such key")
        if isinstance(value, list):
            assert not contains(data, place / len(value))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place(), True),
        (Place("none"), True),
        (Place("teacher", "members", 1, "hidden", 0), True),
        (Place("teacher", "members", 2), False),
        (Place("teacher", "members", "0"), False),
        (Place("teacher", 0), False),
        (Place("name", 0), False),
        (Place("none", "a"), False),
    ],
)
def test_contains(place, expected):
    assert contains(DATA, place) is expected


def test_substitute_replaces_whole_values_in_a_copy():
    before = copy.deepcopy(DATA)
    values = {Place("teacher", "members", 0): 7, Place("teacher", "members", 1, "hidden", 1): None, Place("no"): 1}
    assert substitute(DATA, values) == {
        "name": "x",
        "teacher": {"members": [7, {"copies": 2, "hidden": [3, None]}]},
        "none": None,
    }
    assert before == DATA
    assert substitute(DATA, {Place(): 1}) == 1


@settings(max_examples=50)
@given(trees, st.data())
def test_substituting_one_value_leaves_the_others(data, draw):
    place, _ = draw.draw(st.sampled_from(list(walk(data))))
    changed = substitute(data, {place: "new"})
    old = {at: value for at, value in walk(data) if not isinstance(value, dict | list)}
    new = {at: value for at, value in walk(changed) if not isinstance(value, dict | list)}
    assert new.pop(place) == "new"
    assert new == {at: value for at, value in old.items() if not at.is_within(place)}


def test_assign_adds_mappings_and_reaches_into_lists():
    data = copy.deepcopy(DATA)
    assign(data, Place("teacher", "members", 1, "hidden", 0), 9, "")
    assign(data, Place("student", "training", "epochs"), 5, "")
    assert data == {
        "name": "x",
        "teacher": {"members": [{"copies": 1}, {"copies": 2, "hidden": [9, 4]}]},
        "none": None,
        "student": {"training": {"epochs": 5}},
    }


@pytest.mark.parametrize("text", ["teacher.members[0].copies=3", "teacher.members.0.copies=3"])
def test_a_setting_reaches_a_member(text):
    data = copy.deepcopy(DATA)
    apply_setting(data, text)
    assert data["teacher"] == {"members": [{"copies": 3}, {"copies": 2, "hidden": [3, 4]}]}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Place("name", "x"), "name is 'x', which has no keys"),
        (Place("none", "x", "y"), "none is None, which has no keys"),
        (Place("teacher", "members", 0, "copies", 0), "teacher.members[0].copies is 1, which has no keys"),
        (Place("teacher", "members", 2), "teacher.members is a list of 2, which has no '2'"),
        (Place("teacher", "members", 2, "copies"), "teacher.members is a list of 2, which has no '2'"),
        (Place("teacher", "members", "first"), "teacher.members is a list of 2, which has no 'first'"),
        (Place("teacher", 0), "teacher is a mapping, which has no index 0"),
        (Place("teacher", "members", 0, 1, "x"), "teacher.members[0] is a mapping, which has no index 1"),
        (Place(0), "the file is a mapping, which has no index 0"),
    ],
)
def test_places_that_cannot_be_assigned(place, message):
    data = copy.deepcopy(DATA)
    with pytest.raises(InputError) as caught:
        assign(data, place, 5, "--set X")
    assert str(caught.value) == f"--set X: {message}"
    assert data == DATA


def test_another_name_drops_the_arguments_of_the_old_one():
    data = {"name": "a", "loss": {"temperature": 3, "name": "temperature"}, "members": [{"name": "x", "y": 1}]}
    assign(data, Place("loss", "name"), "kl", "")
    assign(data, Place("members", 0, "name"), "x", "")
    assign(data, Place("name"), "b", "")
    assert data == {"name": "b", "loss": {"name": "kl"}, "members": [{"name": "x", "y": 1}]}
