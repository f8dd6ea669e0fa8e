"""The experiment file: reading and classifying it, settings, the environment, and what sections inherit from others."""

import copy
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_keras.contracts import InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment import schema, yaml_text
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning.plan import make_plan
from tests.tiny import command, read_cells, tiny, write

TUNED = {"tune": {"min": 4, "max": 8}}
AXES = {"axes": {"seed": [0, 1]}, "experiment": tiny(), "set": {"seed": {"axis": "seed"}}, "mean_over": "seed"}


def load(folder, content, *overrides):
    source = experiment_file.read(write(folder, content), overrides).source()
    checked = schema.parse_experiment(source)
    source.problems.check()
    return checked


def searched(**changes):
    """The tiny experiment with a range for the student's bottleneck."""
    experiment = tiny(**changes)
    experiment["student"]["architecture"]["linear_units"] = TUNED
    return experiment


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (tiny(), "experiment"),
        (tiny(search={"trials": 2}), "search"),
        (searched(), "search"),
        (tiny(dataset=[{"a": TUNED}]), "search"),
        (tiny(dataset={"tune": 1, "min": 2}), "experiment"),
        (tiny(dataset={"name": "tune"}), "experiment"),
        ({"name": "x", **AXES}, "sweep"),
        ({"axes": None}, "sweep"),
        ({**AXES, "experiment": searched(search={"trials": 2})}, "sweep"),
        ({}, "experiment"),
    ],
)
def test_kinds_of_files(tmp_path, content, kind):
    file = write(tmp_path, content)
    document = experiment_file.read(file)
    assert (document.kind, document.content, document.name) == (kind, content, str(file))


def test_a_setting_may_make_an_experiment_a_search(tmp_path):
    file = write(tmp_path, tiny())
    assert experiment_file.read(file, ["student.seed={tune: {min: 1, max: 2}}"]).kind == "search"
    assert experiment_file.read(file, ["search.trials=3"]).kind == "search"


def test_a_sweep_keeps_the_settings_of_its_cells_and_applies_its_own_name(tmp_path):
    file = write(tmp_path, {"name": "old", **AXES})
    settings = ("student.training.epochs=1", "name=new", "namesake=3")
    document = experiment_file.read(file, settings)
    assert document.content == {"name": "new", **AXES}
    assert document.settings == ("student.training.epochs=1", "namesake=3")
    assert experiment_file.read(write(tmp_path, tiny()), settings).settings == ()


MEMBERS = """\
# found by a search
- teacher: {name: keras_file, path: "${NETS}/a.keras"}
- {teacher: {name: keras_file, path: b.keras}, weight: 2.0}
"""
LISTED = [
    {"teacher": {"name": "keras_file", "path": "/nets/a.keras"}},
    {"teacher": {"name": "keras_file", "path": "b.keras"}, "weight": 2.0},
]


def members_from(folder, name, *settings):
    return experiment_file.read(write(folder, tiny(teacher={"members": name})), settings).source()


def test_members_in_a_file_of_their_own(tmp_path, monkeypatch):
    """Beside the experiment or in the working directory, as all files."""
    monkeypatch.setenv("NETS", "/nets")
    monkeypatch.chdir(tmp_path)
    for folder in ("work", "experiment"):
        (tmp_path / folder).mkdir()
    (tmp_path / "work" / "members.yaml").write_text(MEMBERS)
    (tmp_path / "experiment" / "mine.yaml").write_text(MEMBERS)
    for name in ("work/members.yaml", "mine.yaml", str(tmp_path / "work" / "members.yaml")):
        source = members_from(tmp_path / "experiment", name)
        assert source.given["teacher"] == {"members": LISTED}
        assert source.complete["teacher"] == {"seed": 0, "members": LISTED}
        source.problems.check()
    with_setting = members_from(tmp_path / "experiment", "none.yaml", "teacher.members=work/members.yaml")
    assert with_setting.given["teacher"]["members"] == LISTED
    assert with_setting.problems.found == {}


def test_members_in_a_file_for_every_cell_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("NETS", "/nets")
    (tmp_path / "members.yaml").write_text(MEMBERS)
    sweep = {"name": "x", **AXES, "experiment": tiny(teacher={"members": "members.yaml"})}
    _, cells = read_cells(write(tmp_path, sweep))
    assert [cell.source.given["teacher"]["members"] for cell in cells] == [LISTED, LISTED]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"a: b", "expected a list of members, got dict"),
        (b"", "expected a list of members, got NoneType"),
        (b"- {", "not a YAML file: "),
        (b"\xff", "not a YAML file: "),
        (b" " * 1_000_001, "larger than 1,000,000 bytes, too large for an experiment"),
    ],
)
def test_a_file_of_members_that_is_none(tmp_path, content, message):
    file = tmp_path / "members.yaml"
    if content is not None:
        file.write_bytes(content)
    source = members_from(tmp_path, "members.yaml")
    with pytest.raises(Problems) as caught:
        make_plan(source)
    ((place, said),) = caught.value.found.items()
    assert str(place) == "teacher.members"
    assert said.startswith(f"{file}: {message}")


def test_what_is_wrong_in_a_file_of_members_is_said_where_the_experiment_has_it(tmp_path):
    (tmp_path / "members.yaml").write_text("- {teacher: {name: trained}}\n- 3\n- {weight: 2020-01-01}\n")
    problems = members_from(tmp_path, "members.yaml").problems
    assert [str(place) for place in problems.found] == ["teacher.members[2].weight"]


def test_a_sweep_is_no_experiment(tmp_path):
    file = write(tmp_path, AXES)
    with pytest.raises(InputError) as caught:
        experiment_file.read(file).source()
    with pytest.raises(InputError, match=r"^.*\.yaml: axis: unknown key; the axes of a sweep are called axes$"):
        experiment_file.read(write(tmp_path, {"axis": {"seed": [0, 1]}, "experiment": "x.yaml"}))
    assert str(caught.value) == f"{file} is a sweep, not an experiment; run it with mimic-keras sweep"


@pytest.mark.parametrize("content", [tiny(), searched(search={"trials": 2}), {"name": "x", **AXES}])
def test_validate_reads_the_file_once(tmp_path, content, monkeypatch):
    file, opened, real = write(tmp_path, content), [], Path.open

    def counted(path, *arguments, **options):
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counted)  # which read_text and read_bytes call
    assert command("validate", file) == 0
    assert opened.count(file) == 1


def test_a_file_of_the_largest_size_is_read_and_a_larger_one_is_not(tmp_path, monkeypatch):
    assert yaml_text.LARGEST_FILE == 1_000_000
    file = write(tmp_path, "a: 1\n")
    monkeypatch.setattr(yaml_text, "LARGEST_FILE", 5)
    assert experiment_file.read(file).content == {"a": 1}
    write(tmp_path, "a: 10\n")
    with pytest.raises(InputError) as caught:
        experiment_file.read(file)
    assert str(caught.value) == f"{file}: larger than 5 bytes, too large for an experiment"


def test_few_aliases_cannot_stand_for_many_values(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 12)]
    file = write(tmp_path, "\n".join(lines))
    with pytest.raises(InputError) as caught:
        experiment_file.read(file)
    assert str(caught.value) == f"{file}: more than 100,000 values once its aliases are filled in"


def test_values_are_counted_with_the_mappings_that_hold_them(monkeypatch):
    monkeypatch.setattr(experiment_file, "MOST_VALUES", 6)
    shared = [1]
    problems = Problems("x.yaml")
    # The mapping, and twice a list of one number beside one text.
    plain = experiment_file.to_plain({"a": shared, "b": shared, "c": "x"}, problems)
    assert plain == {"a": [1], "b": [1], "c": "x"}
    assert plain["a"] is not plain["b"]
    with pytest.raises(InputError, match=r"^x.yaml: more than 6 values once its aliases are filled in$"):
        experiment_file.to_plain({"a": shared, "b": shared, "c": ["x"]}, problems)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: {b: [1, 2020-01-02]}", "a.b[1]", "got datetime.date(2020, 1, 2); quotes make it a text"),
        ("when: 2020-01-02T03:04:05", "when", "datetime.datetime(2020, 1, 2, 3, 4, 5); quotes make it a text"),
        ("a: !!binary aGk=", "a", "expected a text, number, boolean, list or mapping, got b'hi'"),
        ("a: [0, 18446744073709551616]", "a[1]", "a number of 65 bits; at most 64 are accepted"),
        ("{null: 2020-01-02}", "null", "datetime.date(2020, 1, 2)"),
    ],
)
def test_values_that_yaml_has_and_json_does_not_are_problems_of_their_place(tmp_path, text, place, message):
    problems = experiment_file.read(write(tmp_path, text)).problems.found
    assert [str(found) for found in problems] == [place]
    assert message in next(iter(problems.values()))


def test_large_and_odd_values_that_are_accepted(tmp_path):
    text = "{2: 18446744073709551615, true: -1, null: .inf, 1.5: '2020-01-02', a: {}, b: 0o17, c: yes}"
    document = experiment_file.read(write(tmp_path, text))
    assert document.problems.found == {}
    assert document.content == {
        "2": 2**64 - 1,
        "true": -1,
        "null": float("inf"),
        "1.5": "2020-01-02",
        "a": {},
        "b": 15,
        "c": "yes",
    }


# Without a colon at the start, which the YAML library writes without the quotes that it needs to read it.
words = st.text("ab:#- {}[]'\"$!&*%@,\n\\é0", max_size=6).map(lambda text: text.lstrip(":"))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(words, plain, min_size=1, max_size=3))
def test_what_is_written_is_read_back(content):
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), yaml_text.dump(content))
        document = experiment_file.read(file)
    assert document.problems.found == {}
    assert document.content == content


@settings(max_examples=50)
@given(st.text("ab  ,:#'\"[]{}&*!|>\\", min_size=80, max_size=300).map(lambda text: text.lstrip(":")))
def test_a_long_text_is_read_back(text):
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), yaml_text.dump({"name": text, "dataset": [text, text]}))
        assert experiment_file.read(file).content == {"name": text, "dataset": [text, text]}


def test_numbers_are_read_as_yaml_1_2(tmp_path):
    content = tiny()
    text = write(tmp_path, content).read_text().replace("learning_rate: 0.03", "learning_rate: 3e-2")
    assert load(tmp_path, text).student.training.optimizer.learning_rate == 0.03


def test_environment_is_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUS", "/data/x")
    assert load(tmp_path, tiny(dataset={"name": "digits", "root": "${CORPUS}/y"})).dataset.root == "/data/x/y"


def test_every_variable_is_filled_in_or_missed_in_its_place(monkeypatch):
    monkeypatch.setenv("A_1", "x")
    monkeypatch.delenv("NO_SUCH", raising=False)
    problems = Problems("x.yaml")
    given = {"a": ["${A_1}-${A_1}", "$A_1 {A_1} ${}"], "b": {"c": "${A_1}${NO_SUCH}"}, "d": 1}
    source = experiment_file.make_source(given, problems)
    assert source.given == {"a": ["x-x", "$A_1 {A_1} ${}"], "b": {"c": "x${NO_SUCH}"}, "d": 1}
    assert problems.found == {Place("b", "c"): "the environment has no variable NO_SUCH"}
    assert given["a"] == ["${A_1}-${A_1}", "$A_1 {A_1} ${}"]


def test_seed_is_the_default_of_the_others(tmp_path):
    checked = load(tmp_path, tiny(seed=7), "student.seed=3")
    assert (checked.teacher.seed, checked.student.seed) == (7, 3)


def test_baseline_is_the_student_with_its_changes(tmp_path):
    checked = load(tmp_path, tiny(), "baseline.training.optimizer.momentum=0.5")
    assert checked.baseline.architecture.model_dump() == {
        "name": "bottleneck",
        "linear_units": 8,
        "hidden_units": [32],
        "dropout": 0.1,
    }
    assert checked.baseline.training.optimizer.model_dump() == {
        "name": "sgd",
        "learning_rate": 0.03,
        "momentum": 0.5,
        "nesterov": False,
    }
    assert checked.student.training.optimizer.momentum == 0.0


def test_another_architecture_for_the_baseline_inherits_nothing_of_the_students(tmp_path):
    content = tiny(baseline={"architecture": {"name": "mlp", "hidden_units": [5]}})
    assert load(tmp_path, content).baseline.architecture.model_dump() == {"name": "mlp", "hidden_units": [5]}


def test_what_sections_inherit_stands_in_the_complete_experiment_alone(tmp_path):
    source = experiment_file.read(write(tmp_path, tiny(seed=5))).source()
    assert source.given == tiny(seed=5)
    student = tiny()["student"]
    assert source.complete == {
        **tiny(seed=5),
        "teacher": {"seed": 5, **tiny()["teacher"]},
        "student": {"seed": 5, **student},
        "baseline": {
            "architecture": {**student["architecture"], "dropout": 0.1},
            "training": student["training"],
        },
    }
    other = source.with_given({"name": "x", "student": {"seed": 3}, "teacher": "no mapping", "baseline": {}})
    assert other.complete == {"name": "x", "student": {"seed": 3}, "teacher": "no mapping", "baseline": {}}
    assert other.problems is source.problems


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"inputs": {"scale": 1}}, {"name": "arrays", "train": "x.npz", "inputs": {"scale": 1, "offset": -1}}),
        ({}, {"name": "arrays", "train": "x.npz", "inputs": {"scale": 2, "offset": -1}}),
        ({"name": "arrays", "train": "x.npz"}, {"name": "arrays", "train": "x.npz"}),  # whole, as it is written
        (None, None),
    ],
)
def test_a_members_dataset_without_a_name_is_changes_of_the_experiments(own, expected):
    dataset = {"name": "arrays", "train": "x.npz", "inputs": {"scale": 2, "offset": -1}}
    given = {"dataset": dataset, "teacher": {"members": [{"dataset": own}, 3]}}
    source = experiment_file.make_source(given, Problems("x.yaml"))
    assert source.complete["teacher"]["members"] == [{"dataset": expected}, 3]
    assert source.given == given


def test_components_have_kinds_and_places(tmp_path):
    source = experiment_file.read(write(tmp_path, tiny())).source()
    assert [(kind, spec["name"], str(place)) for kind, spec, place in source.components()] == [
        ("dataset", "digits", "dataset"),
        ("teacher", "trained", "teacher.members[0].teacher"),
        ("architecture", "bottleneck", "student.architecture"),
        ("loss", "logit_l2", "student.loss"),
        ("architecture", "bottleneck", "baseline.architecture"),
    ]


def test_components_are_recognised_whatever_else_is_wrong():
    spec = {"name": "x"}
    given = {"teacher": {"members": [3, {"teacher": 4, "dataset": spec}]}, "student": [spec], "dataset": None}
    source = experiment_file.make_source(given, Problems("x.yaml"))
    assert [(kind, str(place)) for kind, _, place in source.components()] == [("dataset", "teacher.members[1].dataset")]
    assert list(experiment_file.make_source({"teacher": {"members": spec}}, Problems("")).components()) == []


def test_inherited_faults_are_dropped_and_those_of_the_file_stay():
    given = {
        "seed": -1,
        "teacher": {"seed": -2},
        "student": {"architecture": {"a": 1}, "training": {"epochs": 0}},
        "baseline": {"architecture": {"b": 1}},
        "dataset": {"name": "x", "c": 1},
    }
    given["teacher"]["members"] = [{"dataset": {"d": 2}}]
    problems = Problems("x.yaml")
    source = experiment_file.make_source(given, problems)
    kept = ["seed", "teacher.seed", "student.training.epochs", "student.architecture.a", "baseline.architecture.b"]
    kept += ["dataset.c", "teacher.members[0].dataset.d"]
    dropped = ["student.seed", "baseline.training.epochs", "baseline.architecture.a", "teacher.members[0].dataset.c"]
    for text in [*kept, *dropped]:
        problems.add(Place.parse(text), "wrong")
    source.drop_inherited_problems()
    assert [str(place) for place in problems.found] == kept


def test_setting_a_name_drops_the_other_keys():
    raw = {"loss": {"name": "temperature", "temperature": 3}}
    experiment_file.apply_setting(raw, "loss.name=kl")
    assert raw == {"loss": {"name": "kl"}}


def test_setting_the_same_name_keeps_the_other_keys():
    raw = {"loss": {"name": "temperature", "temperature": 3}}
    experiment_file.apply_setting(raw, "loss.name=temperature")
    assert raw == {"loss": {"name": "temperature", "temperature": 3}}


def test_setting_the_experiments_own_name_drops_nothing():
    raw = {"name": "a", "seed": 1}
    experiment_file.apply_setting(raw, "name=b")
    assert raw == {"name": "b", "seed": 1}


def test_override_adds_what_is_absent_and_reaches_into_lists():
    raw = {"members": [{"copies": 1}]}
    experiment_file.apply_setting(raw, "members.0.copies=4")
    experiment_file.apply_setting(raw, "members.0.training.epochs=2")
    assert raw == {"members": [{"copies": 4, "training": {"epochs": 2}}]}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a.b", "--set a.b: expected KEY=VALUE, as in --set student.training.epochs=5"),
        ("=3", "--set =3: expected KEY=VALUE, as in --set student.training.epochs=5"),
        ("a[x]=3", "--set a[x]=3: expected KEY=VALUE, as in --set student.training.epochs=5"),
        ("a=[1", "--set a=[1: the value is not YAML: "),
        ("a=b: c: d", "--set a=b: c: d: the value is not YAML: "),
    ],
)
def test_malformed_settings(setting, message):
    content = {"a": 1}
    with pytest.raises(InputError) as caught:
        experiment_file.apply_setting(content, setting)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert content == {"a": 1}


@pytest.mark.parametrize(
    ("text", "value"), [("", None), ("a=b", "a=b"), ("[1, {b: 2}]", [1, {"b": 2}]), ("1e-3", 0.001), ("'3'", "3")]
)
def test_the_value_of_a_setting_is_yaml(text, value):
    content = {}
    experiment_file.apply_setting(content, f"a.b={text}")
    assert content == {"a": {"b": value}}


keys = st.text("abcdef_", min_size=1, max_size=5).filter(lambda key: key != "name")
leaves = st.integers() | st.booleans() | st.text("abc", max_size=3) | st.none()
trees = st.dictionaries(keys, st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3)), max_size=3)


@given(trees, st.lists(keys, min_size=1, max_size=4), st.integers(-99, 99))
def test_an_override_sets_exactly_one_leaf_or_refuses(raw, path, value):
    before = copy.deepcopy(raw)
    try:
        experiment_file.apply_setting(raw, f"{'.'.join(path)}={value}")
    except InputError as error:
        assert "which has no keys" in str(error)
        return
    inner, old = raw, before
    for part in path[:-1]:
        siblings = {key: item for key, item in inner.items() if key != part}
        assert siblings == {key: item for key, item in (old or {}).items() if key != part}
        inner, old = inner[part], (old or {}).get(part)
    assert inner[path[-1]] == value
    assert {k: v for k, v in inner.items() if k != path[-1]} == {k: v for k, v in (old or {}).items() if k != path[-1]}


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            assert isinstance(experiment_file.read(file).content, dict)
        except InputError as error:
            assert str(error).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("base", "changes", "merged"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"name": "x", "a": 1}, {"name": "y"}, {"name": "y"}),
        ({"name": "x", "a": 1}, {"name": "x", "b": 2}, {"name": "x", "a": 1, "b": 2}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ],
)
def test_merge(base, changes, merged):
    assert experiment_file.merge(base, changes) == merged
