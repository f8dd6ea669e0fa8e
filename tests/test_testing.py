"""The conformance kit finds every wrong plugin of a catalogue, says which rule it breaks, and passes the right ones."""

import importlib.metadata
import inspect

import pytest

from mimic_keras.contracts import Dataset, Teacher
from mimic_keras.planning.plugins import Plugin
from mimic_keras.testing import RULES, conformance
from mimic_keras.testing.rules import BrokenRuleError, Subject
from tests import wrong_plugins
from tests.wrong_plugins import RULE


def kind_of(component):
    if not inspect.isclass(component):
        return "architecture"
    return "dataset" if issubclass(component, Dataset) else "teacher" if issubclass(component, Teacher) else "loss"


def subject(component):
    name = component.__name__
    entry_point = importlib.metadata.EntryPoint(name, f"tests.wrong_plugins:{name}", "wrong")
    return Subject(Plugin(kind_of(component), name, entry_point, "wrong-plugins", "1.0", ""), {})


@pytest.fixture(autouse=True)
def bound(monkeypatch):
    """Components are found here, not among what is installed."""
    from mimic_keras.planning.components import Component
    from mimic_keras.testing import rules

    def bind(kind, spec, path, problems):
        arguments = {key: value for key, value in spec.items() if key != "name"}
        return Component(subject(getattr(wrong_plugins, spec["name"])).plugin, arguments)

    monkeypatch.setattr(rules, "bind", bind)


def broken_by(component, folder):
    """{rule: message} of every rule that the component breaks."""
    found = {}
    for rule in RULES[kind_of(component)]:
        place = folder / rule.__name__
        place.mkdir()
        try:
            subject(component).check(rule, place)
        except BrokenRuleError as error:
            found[rule.__name__] = str(error)
    return found


def test_the_catalogue_is_large_and_of_every_kind():
    assert len(RULE) >= 40
    assert {kind_of(component) for component in RULE} == set(RULES)
    covered = {(kind_of(component), rule) for component, rule in RULE.items()}
    for kind, rules in RULES.items():
        missing = {rule.__name__ for rule in rules} - {rule for of, rule in covered if of == kind}
        assert missing <= {"works_in_keras_compile", "comes_back_from_a_saved_model"}


@pytest.mark.parametrize("component", RULE, ids=lambda component: component.__name__)
def test_a_wrong_plugin_is_found(component, tmp_path):
    message = broken_by(component, tmp_path).get(RULE[component], "")
    assert f"{kind_of(component)} '{component.__name__}' (wrong-plugins 1.0), rule {RULE[component]}: " in message
    specification = next(rule.__doc__ for rule in RULES[kind_of(component)] if rule.__name__ == RULE[component])
    assert " ".join(specification.split()) in message


@pytest.mark.parametrize("component", [wrong_plugins.Right, wrong_plugins.RightTeacher])
def test_what_they_are_made_from_is_right(component, tmp_path):
    assert broken_by(component, tmp_path) == {}


@pytest.mark.parametrize("name", ["mimic-keras-nothing", "pytest"])
def test_a_distribution_without_components_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is not installed, or has no entry point in mimic_keras.datasets"):
        conformance(name)


def test_arguments_and_skips_have_to_be_of_something():
    with pytest.raises(ValueError, match="mimic-keras-digits has no dataset/digit; it has dataset/digits: an_id_is"):
        conformance("mimic-keras-digits", {"dataset/digit": {}})
    with pytest.raises(ValueError, match="has no dataset/digits: no_rule"):
        conformance("mimic-keras-digits", skip={"dataset/digits: no_rule": "why"})


def test_a_skip_has_a_reason():
    name = "dataset/digits: runs_in_a_graph"
    test = conformance("mimic-keras-digits", skip={name: "no graph today"})
    (cases,) = (mark.args[1] for mark in test.pytestmark)
    (skipped,) = [case for case in cases if case.marks]
    assert (skipped.id, skipped.marks[0].kwargs) == (name, {"reason": "no graph today"})


def test_wrong_arguments_are_said(tmp_path, monkeypatch):
    monkeypatch.undo()
    from mimic_keras.planning.plugins import installed

    wrong = Subject(installed("loss")["temperature"], {"temprature": 3.0})
    with pytest.raises(BrokenRuleError, match="temprature: unknown argument of 'temperature'"):
        wrong.check(RULES["loss"][0], tmp_path)


@pytest.mark.parametrize("name", ["Huber", "CosineSimilarity"])
def test_keras_own_losses_work_through_an_entry_point(name, tmp_path, monkeypatch):
    from mimic_keras.planning.components import Component
    from mimic_keras.testing import rules

    entry_point = importlib.metadata.EntryPoint(name.lower(), f"keras.losses:{name}", "mimic_keras.losses")
    plugin = Plugin("loss", name.lower(), entry_point, "my-losses", "1.0", "")
    monkeypatch.setattr(rules, "bind", lambda *_: Component(plugin, {}))
    for rule in RULES["loss"]:
        Subject(plugin, {}).check(rule, tmp_path)
