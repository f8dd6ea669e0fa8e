"""What a rule is given, and how it reports that it is broken."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning.components import Component, bind
from mimic_keras.planning.plugins import Plugin

Arguments = Mapping[str, Any] | Callable[[Path], Mapping[str, Any]]
INPUT_SHAPE, NUM_CLASSES = (8, 8, 3), 5
WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")


class BrokenRuleError(AssertionError):
    """A component breaks its contract; the message names the component, the rule and what was found."""


@dataclass(frozen=True)
class Subject:
    """A component under test, with its arguments as an experiment would write them."""

    plugin: Plugin
    arguments: Arguments

    @property
    def name(self) -> str:
        return f"{self.plugin.kind}/{self.plugin.name}"

    def check(self, rule: Rule, folder: Path) -> None:
        """Apply a rule; `folder` is an empty temporary folder.

        Raises:
            BrokenRuleError: the component breaks the rule, or raises an error of its own.
        """
        __tracebackhide__ = True  # pytest: the message is enough
        where = f"{self.plugin}, rule {rule.__name__}: {' '.join((rule.__doc__ or '').split())}"
        try:
            given = dict(self.arguments(folder) if callable(self.arguments) else self.arguments)
            shape, classes = given.pop("input_shape", INPUT_SHAPE), given.pop("num_classes", NUM_CLASSES)
            problems = Problems("the arguments given to conformance()")
            component = bind(self.plugin.kind, {"name": self.plugin.name, **given}, Place(), problems)
            problems.check()
            assert component
            rule(Case(component, folder, tuple(shape), classes))
        except BrokenRuleError as error:
            raise BrokenRuleError(f"{where}\n  {error}") from None
        except Exception as error:
            raise BrokenRuleError(f"{where}\n  it raised {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Case:
    """What a rule is given: `make(*positional)` calls the component with the positional arguments of its contract."""

    component: Component
    folder: Path
    input_shape: tuple[int, ...]
    num_classes: int

    def make(self, *positional: Any) -> Any:
        return self.component(*positional)


Rule = Callable[[Case], None]


def require(condition: Any, found: str) -> None:
    """Raise BrokenRuleError with the message `found`, unless the condition holds."""
    if not condition:
        raise BrokenRuleError(found)


def require_same(one: Any, other: Any, found: str) -> None:
    """Require two arrays to be equal to the bit, in dtype and shape too."""
    one, other = np.asarray(one), np.asarray(other)
    require(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes(), found)


def are_probabilities(values: np.ndarray) -> bool:
    """Whether all rows are non-negative and sum to 1."""
    return bool((values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3))


_allowed: list[Path] = []
_escaped: list[str] = []


def _watch(event: str, arguments: tuple) -> None:
    if not _allowed:
        return
    path: Any = None
    if event == "open":
        path, _, flags = arguments
        path = path if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None
    elif event in WRITES:
        path = arguments[1 if event in ("os.rename", "os.link", "os.symlink") else 0]
    if isinstance(path, str | bytes | Path):
        place = Path(os.fsdecode(path)).absolute()
        inside = any(folder in (place, *place.parents) for folder in (*_allowed, Path("/dev"), Path("/proc")))
        if not inside and "__pycache__" not in place.parts:
            _escaped.append(str(place))


@contextlib.contextmanager
def writing_only_below(*folders: Path) -> Iterator[None]:
    """Within the block, writing anywhere else breaks the rule."""
    if not getattr(sys, "_mimic_keras_watches", False):
        sys.addaudithook(_watch)
        sys._mimic_keras_watches = True  # type: ignore[attr-defined]
    _allowed[:], _escaped[:] = [folder.absolute() for folder in folders], []
    try:
        yield
    finally:
        _allowed.clear()
    require(not _escaped, f"it wrote {', '.join(sorted(set(_escaped))[:3])}")


@contextlib.contextmanager
def without_network() -> Iterator[None]:
    """Within the block, opening a connection raises OSError."""

    def refused(*_: Any) -> Any:
        raise OSError("the conformance kit runs without a network")

    connect = socket.socket.connect
    socket.socket.connect = refused  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
