"""Entry points to plugin objects, imported only when needed, and the components that experiments make of them."""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import packaging.requirements
import typing_extensions

from mimic_keras import __version__
from mimic_keras.contracts import Architecture, InputError, RunError

if typing.TYPE_CHECKING:
    from mimic_keras.experiment.problems import Problems

GROUPS = {
    "dataset": "mimic_keras.datasets",
    "architecture": "mimic_keras.architectures",
    "teacher": "mimic_keras.teachers",
    "loss": "mimic_keras.losses",
}
# Keras' own constructor arguments of every loss: the trainer decides them, so an experiment can not.
LOSS_INTERNALS = ("name", "dtype", "reduction")
# What a disk answers that is full, broken or can not be written: no fault of the plugin that asked.
MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class PluginError(RunError):
    """A plugin raised something that is not about the user's input: the message names its distribution."""


@dataclass(frozen=True)
class Plugin:
    """One component that a distribution makes known; `load` imports it."""

    kind: str
    name: str
    entry_point: importlib.metadata.EntryPoint
    distribution: str
    version: str
    summary: str

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' ({self.distribution} {self.version})"

    @functools.cached_property
    def target(self) -> Callable[..., Any]:
        """The class or function itself."""
        self._check_version()
        try:
            return self.entry_point.load()
        except Exception as error:
            raise PluginError(f"{self} can not be imported: {type(error).__name__}: {error}") from error

    def _check_version(self) -> None:
        """The contracts are those of the mimic-keras that the distribution requires; without a requirement, of this."""
        found = self.entry_point.dist
        for line in (found.requires if found else None) or []:
            requirement = packaging.requirements.Requirement(line)
            wanted = requirement.name.lower().replace("_", "-") == "mimic-keras" and requirement.marker is None
            if wanted and not requirement.specifier.contains(__version__, prereleases=True):
                raise PluginError(
                    f"{self} is written for mimic-keras {requirement.specifier}, and this is {__version__}"
                )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the sources of the top-level package that holds the component."""
        spec = importlib.util.find_spec(self.entry_point.module.partition(".")[0])
        places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
        files = {file.relative_to(place).as_posix(): file for place in places for file in place.rglob("*.py")}
        if not files and spec and spec.has_location and spec.origin:
            files = {"": Path(spec.origin)}
        digest = hashlib.sha256()
        for name, file in sorted(files.items()):
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.hexdigest()

    def parameters(self) -> dict[str, tuple[Any, Any]]:
        """{name: (type hint, default or inspect.Parameter.empty)} of what an experiment may set."""
        target = self.target
        if inspect.isclass(target) == (self.kind == "architecture"):
            expected = "function" if self.kind == "architecture" else "class"
            raise PluginError(f"the entry point of {self} has to name a {expected}, not {target!r}")
        function = target.__init__ if inspect.isclass(target) else target
        kinds: set[Any] = {inspect.Parameter.KEYWORD_ONLY}
        if self.kind != "architecture":
            kinds.add(inspect.Parameter.POSITIONAL_OR_KEYWORD)
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except Exception as error:
            raise PluginError(f"the type hints of {self} can not be read: {error}") from error
        skipped = ("self", *(LOSS_INTERNALS if self.kind == "loss" else ()))
        return {
            name: (hints.get(name, Any), parameter.default)
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind in kinds and name not in skipped
        }


@dataclass(frozen=True)
class Component:
    """A plugin with its checked arguments, defaults included; an argument may be a component itself."""

    plugin: Plugin
    arguments: Mapping[str, Any]

    def __call__(self, *positional: Any) -> Any:
        """Call the plugin; a nested component is handed over as a function of its own positional parameters."""
        return self.guard(self.plugin.target, *positional, **self.arguments)

    def guard(self, function: Callable[..., Any], *positional: Any, **named: Any) -> Any:
        """Call something of the plugin's; what it raises is raised with its name and distribution."""
        try:
            return function(*positional, **named)
        except (InputError, RunError):
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

    def identity(self) -> dict[str, Any]:
        """What a cache key has to know of the component: what was asked for, and the code that will do it."""
        return {**self.request(), "code": self.code()}

    def code(self) -> list[str]:
        """Distribution, version and digest of every part."""
        return [f"{part.plugin.distribution} {part.plugin.version} {part.plugin.digest}" for part in self.parts()]

    def request(self) -> dict[str, Any]:
        """Name and arguments, without the places of files: the digests of what lies there stand for them."""
        hints = {name: hint for name, (hint, _) in self.plugin.parameters().items()}
        arguments = {
            name: value.request() if isinstance(value, Component) else value
            for name, value in self.arguments.items()
            if not _mentions(Path, hints[name])
        }
        return {"name": self.plugin.name, "arguments": arguments}

    def written(self) -> dict[str, Any]:
        """Name and arguments as the experiment has them, defaults and places included."""
        values = {
            key: value.written() if isinstance(value, Component) else value for key, value in self.arguments.items()
        }
        return {"name": self.plugin.name, "arguments": values}

    def parts(self) -> list[Component]:
        """The component and those nested in it."""
        return [self, *(part for nested in self.nested.values() for part in nested.parts())]


@functools.cache
def installed(kind: str) -> dict[str, Plugin]:
    """{name: plugin} of one kind, sorted by name, without importing any.

    A name that several distributions claim is no key; "distribution:name" is, for each of them.
    """
    claims: dict[str, dict[str, Plugin]] = {}
    for entry_point in importlib.metadata.entry_points(group=GROUPS[kind]):
        meta = entry_point.dist.metadata  # type: ignore[union-attr]
        plugin = Plugin(kind, entry_point.name, entry_point, meta["Name"], meta["Version"], meta["Summary"] or "")
        claims.setdefault(plugin.name, {})[plugin.distribution] = plugin
    found = {
        name if len(of) == 1 else f"{distribution}:{name}": plugin
        for name, of in claims.items()
        for distribution, plugin in of.items()
    }
    return dict(sorted(found.items()))


def find(kind: str, name: str) -> Plugin:
    """The plugin of a name, or of "distribution:name".

    Raises:
        InputError: none has it, or several have.
    """
    from mimic_keras.experiment.problems import suggest

    options = installed(kind)
    if name in options:
        return options[name]
    distribution, _, short = name.rpartition(":")
    if short in options and options[short].distribution == distribution:
        return options[short]
    claimed = [key for key in options if key.endswith(f":{name}")]
    if claimed:
        raise InputError(f"{kind} '{name}' is claimed by several distributions; accepted: {', '.join(claimed)}")
    hint = suggest(name, dict.fromkeys(options, "")).partition("Accepted:")[0]
    raise InputError(f"no {kind} {name!r}. {hint}Installed: {', '.join(options) or 'none'}")


def code_of(name: str) -> list[str]:
    """Distribution, version and digest of whatever has this name."""
    found = [installed(kind)[name] for kind in GROUPS if name in installed(kind)]
    return [f"{plugin.distribution} {plugin.version} {plugin.digest}" for plugin in found]


def bind(kind: str, spec: Mapping[str, Any], path: str, problems: Problems) -> Component | None:
    """The component that `spec`, {name: ..., argument: ...}, describes; None, with the problems added, if none."""
    from mimic_keras.experiment.problems import join, typed

    name = str(spec.get("name"))
    try:
        plugin = find(kind, name)
    except InputError as error:
        problems.add(join(path, "name"), str(error))
        return None
    model, nested = _arguments(plugin)
    unknown = f"unknown argument of '{name}' ({plugin.distribution} {plugin.version})"
    given = {key: value for key, value in spec.items() if key != "name"}
    checked = typed(model, given, path, problems, unknown)
    if checked is None:
        return None
    values = {field.alias: getattr(checked, place) for place, field in model.model_fields.items()}
    for key in nested:
        if values[key] is not None:
            values[key] = bind("architecture", values[key], join(path, key), problems)
            if values[key] is None:
                return None
    return Component(plugin, values)


@functools.cache
def _arguments(plugin: Plugin) -> tuple[Any, list[str]]:
    """The arguments of a plugin as a pydantic model, and which of them are components."""
    import pydantic

    parameters = plugin.parameters()
    nested = [key for key, (hint, _) in parameters.items() if _is(Architecture, hint)]
    fields: dict[str, Any] = {}
    for number, (key, (hint, default)) in enumerate(parameters.items()):
        default = ... if default is inspect.Parameter.empty else default
        # The alias is the argument's name: as a field's own name, "copy" or "json" would hide a method of pydantic's.
        field = pydantic.Field(default, alias=key)
        fields[f"argument_{number}"] = (dict[str, Any] | None if key in nested else hint, field)
    config = pydantic.ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    return pydantic.create_model(plugin.name, __config__=config, **fields), nested


def _is(wanted: type, hint: Any) -> bool:
    """Whether `hint` is `wanted` or a union with it."""
    return hint is wanted or any(_is(wanted, item) for item in _union(hint))


def _mentions(wanted: type, hint: Any) -> bool:
    """Whether `hint` is `wanted`, a union with it, or a mapping with a key of it."""
    fields = typing.get_type_hints(hint).values() if typing_extensions.is_typeddict(hint) else _union(hint)
    return hint is wanted or any(_mentions(wanted, item) for item in fields)


def _union(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ()
