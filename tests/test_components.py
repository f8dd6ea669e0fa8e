"""Plugins found by name, bound to checked arguments, and guarded when they fail."""

import errno
import hashlib
import importlib.metadata
import inspect
from pathlib import Path
from typing import Annotated

import annotated_types
import keras
import pytest
from typing_extensions import TypedDict

from mimic_keras.contracts import Architecture, InputError, RunError
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning import components, plugins
from mimic_keras.planning.components import Component
from mimic_keras.planning.plugins import Plugin, PluginError

PLACE = Place("teacher", "members", 0, "teacher")


class Stored(TypedDict):
    file: Path
    rate: int


class Everything:
    """A component with an argument of every kind."""

    def __init__(
        self,
        width: Annotated[int, annotated_types.Ge(1)],
        architecture: Architecture | None = None,
        root: Path | None = None,
        stored: Stored | None = None,
        copy: bool = False,
        *,
        json: list[float] = [0.5],  # noqa: B006 - as a plugin's author might write it
    ):
        self.given = (width, architecture, root, stored, copy, json)


def loaded(input_shape, num_classes, *, path: Path) -> keras.Model:
    return small(input_shape, num_classes)


def _digest_loaded(path):
    if not path.is_file():
        raise InputError(f"path: no such file: {path}")
    return path.read_text()


loaded.source_digest = _digest_loaded


def small(input_shape, num_classes, *, units: int = 3) -> keras.Model:
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(units)])


def plugin(kind="teacher", name="everything", distribution="my-plugins", target=Everything):
    entry = importlib.metadata.EntryPoint(name, "tests.test_components:Everything", plugins.GROUPS[kind])
    made = Plugin(kind, name, entry, distribution, "2.0", "")
    made.__dict__["target"] = target  # as if it had been imported
    return made


@pytest.fixture
def installed(monkeypatch):
    """The plugins that this test says are installed, {(kind, name): plugin}."""
    found = {
        ("teacher", "everything"): plugin(),
        ("architecture", "small"): plugin("architecture", "small", target=small),
    }
    monkeypatch.setattr(
        plugins, "installed", lambda kind: {name: each for (of, name), each in found.items() if of == kind}
    )
    return found


@pytest.fixture
def problems():
    return Problems("x.yaml")


def bind(problems, **arguments):
    return components.bind("teacher", {"name": "everything", **arguments}, PLACE, problems)


def test_a_plugin_is_found_by_its_name_or_with_its_distribution(installed):
    expected = installed["teacher", "everything"]
    assert plugins.find_plugin("teacher", "everything") is expected
    assert plugins.find_plugin("teacher", "my-plugins:everything") is expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("evrything", "no teacher 'evrything'. Did you mean 'everything'? Installed: everything"),
        ("zz", "no teacher 'zz'. Installed: everything; --plugins FILE.py adds those of a file"),
        ("other:everything", "no teacher 'other:everything'. Did you mean 'everything'? Installed: everything"),
    ],
)
def test_a_name_that_no_plugin_has(installed, name, message):
    with pytest.raises(InputError) as caught:
        plugins.find_plugin("teacher", name)
    assert str(caught.value) == message


def test_a_kind_without_plugins(installed):
    with pytest.raises(InputError) as caught:
        plugins.find_plugin("loss", "kl")
    assert str(caught.value) == "no loss 'kl'. Installed: none; --plugins FILE.py adds those of a file"


def test_a_core_that_stands_alone_says_how_to_get_the_rest(installed, monkeypatch):
    requirements = ["numpy>=1.26", 'scipy; extra == "dev"', "mimic-keras-absent==0.1.0; extra == 'plugins'"]
    monkeypatch.setattr(plugins.importlib.metadata, "requires", lambda _: requirements)
    with pytest.raises(InputError) as caught:
        plugins.find_plugin("loss", "kl")
    more = "pip install 'mimic-keras[plugins]' adds the first-party ones, --plugins FILE.py adds those of a file"
    assert str(caught.value) == f"no loss 'kl'. Installed: none; {more}"


def test_a_name_that_two_distributions_claim(installed):
    for distribution in ("first", "second"):
        installed["loss", f"{distribution}:twice"] = plugin("loss", "twice", distribution)
    with pytest.raises(InputError) as caught:
        plugins.find_plugin("loss", "twice")
    assert str(caught.value) == (
        "loss 'twice' is claimed by several distributions; accepted: first:twice, second:twice"
    )
    assert plugins.find_plugin("loss", "second:twice").distribution == "second"


def test_arguments_are_bound_with_their_defaults(installed, problems):
    bound = bind(problems, width=2)
    assert problems.found == {}
    defaults = {"architecture": None, "root": None, "stored": None, "copy": False, "json": [0.5]}
    assert bound.arguments == {"width": 2, **defaults}
    assert bound().given == (2, None, None, None, False, [0.5])


def test_a_nested_architecture_is_a_component_of_its_own(installed, problems):
    bound = bind(problems, width=2, architecture={"name": "small", "units": 7})
    nested = bound.arguments["architecture"]
    assert bound.nested == {"architecture": nested}
    assert (nested.plugin.name, nested.arguments) == ("small", {"units": 7})
    assert bound.parts() == [bound, nested]
    assert nested((4,), 3).output_shape == (None, 7)
    assert bound.specification()["arguments"]["architecture"] == {"name": "small", "arguments": {"units": 7}}
    assert bound.configuration()["arguments"]["architecture"] == {"name": "small", "arguments": {"units": 7}}


@pytest.mark.parametrize(
    ("arguments", "place", "message"),
    [
        ({}, "width", "required, but missing"),
        ({"width": 0}, "width", "expected int >= 1, got 0"),
        ({"width": "2"}, "width", "expected int >= 1, got '2'"),
        ({"width": 1, "copy": 1}, "copy", "expected bool, got 1"),
        ({"width": 1, "json": [1, "x"]}, "json[1]", "expected number, got 'x'"),
        ({"width": 1, "stored": {"file": "x"}}, "stored", "expected {file: Path, rate: int} | null, got {'file': 'x'}"),
        ({"width": 1, "architecture": {"name": "smal"}}, "architecture.name", "no architecture 'smal'. Did you mean"),
        ({"width": 1, "architecture": {"name": "small", "units": "x"}}, "architecture.units", "expected int, got 'x'"),
        ({"width": 1, "architecture": {}}, "architecture.name", "no architecture 'None'. Installed: small"),
    ],
)
def test_arguments_that_do_not_fit_are_problems_of_their_place(installed, problems, arguments, place, message):
    assert bind(problems, **arguments) is None
    assert [str(found) for found in problems.found] == [f"{PLACE}.{place}"]
    assert next(iter(problems.found.values())).startswith(message)


def test_an_unknown_argument_is_answered_with_the_signature(installed, problems):
    assert bind(problems, width=1, widht=2) is None
    assert problems.found == {
        PLACE / "widht": "unknown argument of 'everything' (my-plugins 2.0).\nDid you mean 'width'? Accepted: "
        "width: int >= 1, architecture: dict[str, Any] | null = null, root: Path | null = null, "
        "stored: {file: Path, rate: int} | null = null, copy: bool = false, json: list[float] = [0.5]"
    }


def test_where_files_lie_is_no_part_of_a_key(installed, problems):
    arguments = {"width": 1, "root": "/data/x", "stored": {"file": "/data/y", "rate": 3}}
    bound = bind(problems, **arguments)
    assert bound.arguments["root"] == Path("/data/x")
    known = {"width": 1, "architecture": None, "copy": False, "json": [0.5]}
    given = {"width": 1}
    assert bound.configuration() == {"name": "everything", "arguments": given}
    assert bound.key_inputs() == {"name": "everything", "arguments": given, "code": bound.code_versions()}
    located = {"root": Path("/data/x"), "stored": {"file": Path("/data/y"), "rate": 3}}
    assert bound.specification() == {"name": "everything", "arguments": {**known, **located}}
    assert bind(problems, width=1).key_inputs() == bound.key_inputs()


def test_an_argument_is_part_of_keys_and_seeds_unless_it_has_its_default(installed, problems):
    assert bind(problems, width=1, copy=False).configuration() == bind(problems, width=1).configuration()
    assert bind(problems, width=1, copy=True).configuration()["arguments"] == {"width": 1, "copy": True}


def test_the_content_of_an_architectures_file_is_part_of_every_key_it_is_in(installed, problems, tmp_path, monkeypatch):
    installed["architecture", "loaded"] = plugin("architecture", "loaded", target=loaded)
    file = tmp_path / "net"
    file.write_text("one")
    nested = {"name": "loaded", "path": str(file)}
    bound = bind(problems, width=1, architecture=nested)
    expected = {"name": "loaded", "arguments": {}, "source": "one"}
    assert bound.configuration()["arguments"]["architecture"] == expected
    assert bound.key_inputs()["arguments"]["architecture"] == expected
    file.write_text("other")
    assert bound.configuration()["arguments"]["architecture"] == expected, "what was digested is what was planned"
    assert bind(problems, width=1, architecture=nested).configuration() != bound.configuration()
    monkeypatch.setattr(Plugin, "check_unchanged", lambda plugin: None)
    with pytest.raises(RunError, match=r"architecture 'loaded' \(my-plugins 2.0\): its file was changed"):
        bound.check_unchanged()
    file.unlink()
    assert bind(problems, width=1, architecture=nested) is None
    assert problems.found == {PLACE / "architecture": f"path: no such file: {file}"}


def test_the_version_of_the_code_is_the_digest_of_its_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "digested" / "inner").mkdir(parents=True)
    (tmp_path / "digested" / "__init__.py").write_text("a = 1\n")
    (tmp_path / "digested" / "inner" / "b.py").write_text("b = 2\n")
    (tmp_path / "digested" / "data.txt").write_text("a table")
    (tmp_path / "alone.py").write_text("c = 3\n")

    def made(module):
        return Plugin("loss", "x", importlib.metadata.EntryPoint("x", f"{module}:X", ""), "mine", "2.0", "")

    def digest_of(*names):
        files = [(name, hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()) for name in names]
        return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in files).encode()).hexdigest()

    expected = digest_of("digested/__init__.py", "digested/data.txt", "digested/inner/b.py")
    assert made("digested.inner.b").digest == expected
    assert Component(made("digested"), {}).code_versions() == [f"mine 2.0 {expected}"]
    assert made("alone").digest == digest_of("alone.py")


def test_a_plugins_error_is_one_line_with_its_distribution():
    def fails():
        raise ValueError("\x1b[1mtwo\x1b[0m\n  lines\n\nArguments received by Dense.call():\n  inputs=3")

    with pytest.raises(PluginError) as caught:
        Component(plugin(), {}).guard(fails)
    assert str(caught.value) == "teacher 'everything' (my-plugins 2.0): two lines"
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [OSError(number, "disk") for number in components.MACHINE_ERRORS])
def test_errors_of_the_disk_are_not_the_plugins(error):
    with pytest.raises(OSError, match="disk") as caught:
        Component(plugin(), {}).guard(lambda: (_ for _ in ()).throw(error).__next__())
    assert caught.value is error


@pytest.mark.parametrize("error", [InputError("no folder"), RunError("no model"), KeyboardInterrupt()])
def test_messages_of_our_own_pass(error):
    def fails():
        raise error

    with pytest.raises(type(error)) as caught:
        Component(plugin(), {}).guard(fails)
    assert caught.value is error


def test_another_error_of_the_system_is_the_plugins():
    def fails():
        raise FileNotFoundError(errno.ENOENT, "No such file", "x.npy")

    with pytest.raises(PluginError, match=r"raised FileNotFoundError: .*No such file: 'x.npy'"):
        Component(plugin(), {}).guard(fails)


def test_parameters_are_those_that_an_experiment_may_set():
    class Loss(keras.losses.Loss):
        def __init__(self, power: float, name: str = "x", dtype: str | None = None, reduction: str = "sum", **kwargs):
            super().__init__()

    def build(input_shape: tuple, num_classes: int, extra: int = 1, *, units: int) -> keras.Model:
        raise NotImplementedError

    nothing = object()
    shown = {
        kind: {
            name: (hint, nothing if default is inspect.Parameter.empty else default)
            for name, (hint, default) in plugin(kind, target=target).parameters().items()
        }
        for kind, target in (("loss", Loss), ("architecture", build))
    }
    assert shown == {"loss": {"power": (float, nothing)}, "architecture": {"units": (int, nothing)}}


@pytest.mark.parametrize(
    ("kind", "target", "expected"),
    [("architecture", Everything, "function"), ("teacher", small, "class"), ("loss", 3, "class")],
)
def test_an_entry_point_of_the_wrong_kind(kind, target, expected):
    with pytest.raises(PluginError) as caught:
        plugin(kind, target=target).parameters()
    assert str(caught.value) == (
        f"the entry point of {kind} 'everything' (my-plugins 2.0) must name a {expected}, not {target!r}"
    )


def test_type_hints_that_cannot_be_read():
    def build(input_shape, num_classes, *, units: "Nothing"):  # noqa: F821 - that is the point
        raise NotImplementedError

    with pytest.raises(PluginError) as caught:
        plugin("architecture", target=build).parameters()
    assert str(caught.value) == (
        "the type hints of architecture 'everything' (my-plugins 2.0) cannot be read: name 'Nothing' is not defined"
    )


def test_only_the_type_hints_of_the_arguments_are_read():
    def build(input_shape, num_classes: "Nothing", *, units: "int" = 3) -> "Nothing":  # noqa: F821 - for type checkers
        raise NotImplementedError

    assert plugin("architecture", target=build).parameters() == {"units": (int, 3)}


def test_a_module_that_is_not_there():
    entry = importlib.metadata.EntryPoint("x", "no_such_module:X", "")
    with pytest.raises(PluginError, match=r"^loss 'x' \(mine 2.0\) cannot be imported: ModuleNotFoundError: No module"):
        _ = Plugin("loss", "x", entry, "mine", "2.0", "").target
