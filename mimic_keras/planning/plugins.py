"""Plugins: installed ones, found by their entry points and imported only when needed, and those a command was given."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import importlib.metadata
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import packaging.requirements
import typing_extensions

from mimic_keras.contracts import Architecture, InputError, RunError
from mimic_keras.experiment.problems import did_you_mean
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
    more = "" if suggested else f"; {_describe_missing()}--plugins FILE.py adds those of a file"
    raise InputError(f"no {kind} {name!r}. {suggested}Installed: {', '.join(options) or 'none'}{more}")


def _describe_missing() -> str:
    """How to install the first-party plugins; "" if all of them are installed."""
    lines = map(packaging.requirements.Requirement, importlib.metadata.requires("mimic-keras") or [])
    ours = {line.name for line in lines if line.marker and line.marker.evaluate({"extra": "plugins"})}
    installed_names = {distribution.name for distribution in importlib.metadata.distributions()}
    return "" if ours <= installed_names else "pip install 'mimic-keras[plugins]' adds the first-party ones, "


def code_versions_of(name: str) -> list[str]:
    """Distribution, version and digest of every plugin with this name, whatever its kind."""
    plugins = [known(kind)[name] for kind in GROUPS if name in known(kind)]
    return [f"{plugin.origin} {plugin.digest}" for plugin in plugins]


def is_type(wanted: type, hint: Any) -> bool:
    """Whether `hint` is `wanted` or a union with it."""
    return hint is wanted or any(is_type(wanted, item) for item in _union(hint))


def mentions(wanted: type, hint: Any) -> bool:
    """Whether `hint` is `wanted`, a union with it, or a mapping with a key of it."""
    fields = typing.get_type_hints(hint).values() if typing_extensions.is_typeddict(hint) else _union(hint)
    return hint is wanted or any(mentions(wanted, item) for item in fields)


def _union(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ()
