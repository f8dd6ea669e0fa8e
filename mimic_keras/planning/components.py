"""The components of an experiment: plugins with their checked arguments."""

from __future__ import annotations

import errno
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimic_keras.contracts import InputError, MimicError, RunError
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems, parse_section
from mimic_keras.planning.plugins import Plugin, PluginError, find_plugin, mentions

# A full, broken or read-only disk is not the plugin's fault.
MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


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
            # With a ValueError, a component says what is wrong with its arguments; all else is a fault of its own.
            kind = "" if type(error) is ValueError else f" raised {type(error).__name__}"
            raise PluginError(f"{self.plugin}{kind}: {' '.join(reason.split())}") from error

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
