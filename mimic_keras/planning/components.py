"""Plugins, found by their entry points and imported only when needed, and the components that experiments configure."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import errno
import functools
import importlib.metadata
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import packaging.requirements
import typing_extensions

from mimic_keras.contracts import Architecture, InputError, MimicError, RunError
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems, did_you_mean, parse_section
from mimic_keras.planning import sources

GROUPS = {
    "dataset": "mimic_keras.datasets",
    "architecture": "mimic_keras.architectures",
    "teacher": "mimic_keras.teachers",
    "loss": "mimic_keras.losses",
}
# Constructor arguments that every Keras loss has: the trainer decides them, not the experiment.
KERAS_LOSS_ARGUMENTS = ("name", "dtype", "reduction")
# A file and a name in it, or a dotted name, where the name of a component is expected.
NAMED_CODE = re.compile(r"(?:(?P<file>.+\.py):|(?P<module>[A-Za-z_][\w.]*)\.)(?P<name>[A-Za-z_]\w*)")
PYTHON = "Python"  # the distribution of objects that a program gave
# A full, broken or read-only disk is not the plugin's fault.
MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
# {(distribution, where it is installed, top-level package): digest}, shared by the plugins of a distribution.
_digests: dict[tuple[str, str, str], str] = {}
# What `knowing` adds to the installed plugins.
_given: contextvars.ContextVar[tuple[Plugin, ...]] = contextvars.ContextVar("_given", default=())


class PluginError(RunError):
    """A plugin failed, through no fault of the user's input; the message names its distribution."""


@dataclass(frozen=True)
class Plugin:
    """A component that a distribution provides through an entry point; `target` imports it."""

    kind: str
    name: str
    entry_point: importlib.metadata.EntryPoint
    distribution: str
    version: str
    summary: str

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' ({self.origin})"

    @property
    def origin(self) -> str:
        """Distribution and version, as messages and keys name it."""
        return f"{self.distribution} {self.version}"

    @functools.cached_property
    def target(self) -> Callable[..., Any]:
        """The class or function itself."""
        self._check_requirement()
        try:
            self.digest  # noqa: B018 - before the import
            return self.entry_point.load()
        except Exception as error:
            raise PluginError(f"{self} cannot be imported: {type(error).__name__}: {error}") from error

    def _check_requirement(self) -> None:
        """Refuse a plugin whose distribution requires another version of mimic-keras."""
        distribution, ours = self.entry_point.dist, importlib.metadata.version("mimic-keras")
        for line in (distribution.requires if distribution else None) or []:
            requirement = packaging.requirements.Requirement(line)
            wanted = requirement.name.lower().replace("_", "-") == "mimic-keras" and requirement.marker is None
            if wanted and not requirement.specifier.contains(ours, prereleases=True):
                raise PluginError(f"{self} requires mimic-keras {requirement.specifier}, but this is {ours}")

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the code, taken once a process and before the import, so that it is that of the imported code."""
        distribution = self.entry_point.dist
        place = str(distribution.locate_file("")) if distribution else ""
        of = (self.distribution, place, self.entry_point.module.partition(".")[0])
        if of not in _digests:
            _digests[of] = sources.compute_digest(self.entry_point)
        return _digests[of]

    def digest_now(self) -> str:
        """SHA-256 of the code as it is on the disk now."""
        return sources.compute_digest(self.entry_point)

    def check_unchanged(self) -> None:
        """Raise RunError if the code on the disk is no longer the code that was imported."""
        try:
            is_same = self.digest_now() == self.digest
        except (OSError, ImportError):
            is_same = False
        if not is_same:
            raise RunError(
                f"{self.origin} was changed after this process imported it; what needs it is not kept. Run again"
            )

    def parameters(self) -> dict[str, tuple[Any, Any]]:
        """{name: (type hint, default or inspect.Parameter.empty)} of what an experiment may set."""
        target = self.target
        if inspect.isclass(target) == (self.kind == "architecture"):
            expected = "function" if self.kind == "architecture" else "class"
            raise PluginError(f"the entry point of {self} must name a {expected}, not {target!r}")
        function = target.__init__ if inspect.isclass(target) else target
        kinds: set[Any] = {inspect.Parameter.KEYWORD_ONLY}
        if self.kind != "architecture":
            kinds.add(inspect.Parameter.POSITIONAL_OR_KEYWORD)
        skipped = ("self", *(KERAS_LOSS_ARGUMENTS if self.kind == "loss" else ()))
        settable = {
            name: parameter
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind in kinds and name not in skipped
        }
        hints = self._read_hints(function, settable)
        return {name: (hints.get(name, Any), parameter.default) for name, parameter in settable.items()}

    def _read_hints(self, function: Any, names: Iterable[str]) -> dict[str, Any]:
        """Of these parameters alone: another hint, as that of the result, may name what only type checkers import."""
        annotations = {name: hint for name, hint in inspect.get_annotations(function).items() if name in names}
        part = types.SimpleNamespace(__annotations__=annotations, __wrapped__=function)
        try:
            return typing.get_type_hints(part, include_extras=True)
        except Exception as error:
            raise PluginError(f"the type hints of {self} cannot be read: {error}") from error

    @functools.cached_property
    def arguments_model(self) -> Any:
        """The parameters as a pydantic model."""
        import pydantic

        nested = self.nested_parameters
        fields: dict[str, Any] = {}
        for number, (key, (hint, default)) in enumerate(self.parameters().items()):
            default = ... if default is inspect.Parameter.empty else default
            # The argument's name is an alias: a field called "copy" or "json" would hide a method of pydantic.
            field = pydantic.Field(default, alias=key)
            fields[f"argument_{number}"] = (dict[str, Any] | None if key in nested else hint, field)
        config = pydantic.ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
        return pydantic.create_model(self.name, __config__=config, **fields)

    @property
    def nested_parameters(self) -> list[str]:
        """The names of the parameters that are components."""
        return [key for key, (hint, _) in self.parameters().items() if is_type(Architecture, hint)]


@dataclass(frozen=True)
class GivenPlugin(Plugin):
    """A component that a command was given and that is not installed; `distribution` says where it comes from.

    `given`: the class or function. `identity`: the digest that stands for it in keys, taken before it was imported;
    `identity_now` takes it again.
    """

    given: Callable[..., Any] = dataclasses.field(compare=False)
    identity: str
    identity_now: Callable[[], str] = dataclasses.field(compare=False)

    @property
    def origin(self) -> str:
        return self.distribution

    @property
    def target(self) -> Callable[..., Any]:
        return self.given

    @property
    def digest(self) -> str:
        return self.identity

    def digest_now(self) -> str:
        return self.identity_now()

    def describe_use(self) -> str:
        """How an experiment can name it again, for people."""
        return f"--plugins {inspect.getsourcefile(self.given)} makes it known; its digest was {self.identity[:16]}"


@dataclass(frozen=True)
class Component:
    """A plugin with its checked arguments, defaults included. An argument may itself be a component."""

    plugin: Plugin
    arguments: Mapping[str, Any]

    def __call__(self, *positional: Any) -> Any:
        """Call the plugin with its arguments; a nested component is passed as a function."""
        return self.guard(self.plugin.target, *positional, **self.arguments)

    def guard(self, function: Callable[..., Any], *positional: Any, **named: Any) -> Any:
        """Call a function of the plugin; errors are raised again with the plugin's name and distribution."""
        try:
            return function(*positional, **named)
        except MimicError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
                raise
            # Keras colours its messages, and ends them with the arguments of its own calls.
            reason = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("\n\nArguments received by")[0]
            raise PluginError(f"{self.plugin} raised {type(error).__name__}: {' '.join(reason.split())}") from error

    @property
    def nested(self) -> dict[str, Component]:
        return {name: value for name, value in self.arguments.items() if isinstance(value, Component)}

    def key_inputs(self) -> dict[str, Any]:
        """What goes into a cache key: the configuration, and the code that carries it out."""
        return {**self.configuration(), "code": self.code_versions()}

    def code_versions(self) -> list[str]:
        """Distribution, version and digest of this component and of every nested one."""
        return [f"{part.plugin.origin} {part.plugin.digest}" for part in self.parts()]

    def configuration(self) -> dict[str, Any]:
        """Name and arguments, for keys and seeds: without file locations, for which the digests of the files' contents
        stand, and without defaults, so that an argument that a later release adds changes no seed."""
        parameters = self.plugin.parameters()
        arguments = {
            name: value.configuration() if isinstance(value, Component) else value
            for name, value in self.arguments.items()
            if not mentions(Path, parameters[name][0]) and value != parameters[name][1]
        }
        source = {"source": self.source_digest} if self.source_digest else {}
        return {"name": self.plugin.name, "arguments": arguments, **source}

    @functools.cached_property
    def source_digest(self) -> str | None:
        """The digest of the files that an architecture starts from, taken once; None if it reads none."""
        return self._digest_source()

    def _digest_source(self) -> str | None:
        digest = getattr(self.plugin.target, "source_digest", None) if self.plugin.kind == "architecture" else None
        return self.guard(digest, **self.arguments) if digest else None

    def specification(self) -> dict[str, Any]:
        """Name and all arguments, defaults and file locations included."""
        values = {
            key: value.specification() if isinstance(value, Component) else value
            for key, value in self.arguments.items()
        }
        return {"name": self.plugin.name, "arguments": values}

    def paths(self) -> list[Path]:
        """Every file location among the arguments."""
        return [path for part in self.parts() for path in _paths_in(part.arguments)]

    def check_unchanged(self) -> None:
        """Raise RunError if the code of this component or of a nested one was changed after its import, or the files
        that an architecture starts from after they were digested."""
        for part in self.parts():
            part.plugin.check_unchanged()
            if part._digest_source() != part.source_digest:
                raise RunError(f"{part.plugin}: its file was changed; what needs it is not kept. Run again")

    def parts(self) -> list[Component]:
        """This component and those nested in it."""
        return [self, *(part for nested in self.nested.values() for part in nested.parts())]


@functools.cache
def installed(kind: str) -> dict[str, Plugin]:
    """{name: plugin} of one kind, sorted by name; imports none.

    A name that several distributions claim is replaced by "distribution:name" for each of them.
    """
    found = []
    for entry_point in importlib.metadata.entry_points(group=GROUPS[kind]):
        meta = entry_point.dist.metadata  # type: ignore[union-attr]
        found.append(Plugin(kind, entry_point.name, entry_point, meta["Name"], meta["Version"], meta["Summary"] or ""))
    return _by_name(found)


def _by_name(plugins: Iterable[Plugin]) -> dict[str, Plugin]:
    claims: dict[str, dict[str, Plugin]] = {}
    for plugin in plugins:
        claims.setdefault(plugin.name, {})[plugin.distribution] = plugin
    found = {
        name if len(of) == 1 else f"{distribution}:{name}": plugin
        for name, of in claims.items()
        for distribution, plugin in of.items()
    }
    return dict(sorted(found.items()))


@contextlib.contextmanager
def knowing(plugins: Iterable[Plugin]) -> Iterator[None]:
    """Within the block, experiments may name `plugins` as they name installed ones; afterwards nothing is left."""
    token = _given.set((*_given.get(), *plugins))
    try:
        yield
    finally:
        _given.reset(token)


def known(kind: str) -> dict[str, Plugin]:
    """{name: plugin} of one kind, as `installed`, with those that the command was given."""
    given = [plugin for plugin in _given.get() if plugin.kind == kind]
    return _by_name([*installed(kind).values(), *given]) if given else installed(kind)


def find_plugin(kind: str, name: str) -> Plugin:
    """The plugin called `name`, or "distribution:name".

    Raises:
        InputError: no plugin has the name, or several have it.
    """
    options = known(kind)
    if name in options:
        return options[name]
    distribution, _, short = name.rpartition(":")
    if short in options and options[short].distribution == distribution:
        return options[short]
    claimed = [key for key in options if key.endswith(f":{name}")]
    if claimed:
        raise InputError(f"{kind} '{name}' is claimed by several distributions; accepted: {', '.join(claimed)}")
    if distribution == PYTHON:
        raise InputError(f"no {kind} {name!r}: it was an object of a program, and only that program can run this again")
    if code := NAMED_CODE.fullmatch(name):
        file = code["file"] or f"{code['module'].replace('.', '/')}.py"
        raise InputError(
            f"no {kind} {name!r}: an experiment cannot name code; use --plugins {file} and name: {code['name']}"
        )
    suggested = did_you_mean(name, options)
    of_files = "" if suggested else "; --plugins FILE.py adds those of a file"
    raise InputError(f"no {kind} {name!r}. {suggested}Installed: {', '.join(options) or 'none'}{of_files}")


def code_versions_of(name: str) -> list[str]:
    """Distribution, version and digest of every plugin with this name, whatever its kind."""
    plugins = [known(kind)[name] for kind in GROUPS if name in known(kind)]
    return [f"{plugin.origin} {plugin.digest}" for plugin in plugins]


def bind(kind: str, spec: Mapping[str, Any], place: Place, problems: Problems) -> Component | None:
    """The component that `spec`, {name: ..., argument: ...}, describes; None, with the problems added, if none."""
    name = str(spec.get("name"))
    try:
        plugin = find_plugin(kind, name)
    except InputError as error:
        problems.add(place / "name", str(error))
        return None
    model = plugin.arguments_model
    unknown = f"unknown argument of '{name}' ({plugin.origin})"
    given = {key: value for key, value in spec.items() if key != "name"}
    checked = parse_section(model, given, place, problems, unknown)
    if checked is None:
        return None
    values = {field.alias: getattr(checked, field_name) for field_name, field in model.model_fields.items()}
    for key in plugin.nested_parameters:
        if values[key] is not None:
            values[key] = bind("architecture", values[key], place / key, problems)
            if values[key] is None:
                return None
    component = Component(plugin, values)
    try:
        component.source_digest  # noqa: B018 - a missing file is a problem of the experiment
    except MimicError as error:
        problems.add(place, str(error))
        return None
    return component


def _paths_in(value: Any) -> list[Path]:
    if isinstance(value, Path):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [path for item in items for path in _paths_in(item)]


def is_type(wanted: type, hint: Any) -> bool:
    """Whether `hint` is `wanted` or a union with it."""
    return hint is wanted or any(is_type(wanted, item) for item in _union(hint))


def mentions(wanted: type, hint: Any) -> bool:
    """Whether `hint` is `wanted`, a union with it, or a mapping with a key of it."""
    fields = typing.get_type_hints(hint).values() if typing_extensions.is_typeddict(hint) else _union(hint)
    return hint is wanted or any(mentions(wanted, item) for item in fields)


def _union(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ()
