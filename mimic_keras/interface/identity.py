"""What identifies an object of a program: a digest of all that its behaviour depends on, equal in every process."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
import sysconfig
import types
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import array_digest, unique_name
from mimic_keras.planning import sources

PLAIN = (type(None), bool, int, float, complex, str, bytes)
INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))

_without: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


class NoIdentityError(Exception):
    """Something that the object depends on cannot be digested; the message says what."""


def identify(value: Any) -> str:
    """SHA-256, 64 hexadecimal digits, over everything that `value` is made of.

    Numbers, texts, arrays and containers count by their values; Keras' models and other objects by configuration and
    weights; functions and classes by their compiled code and what that refers to, so a comment changes nothing; modules
    of the user by their file; what is installed by its name and its package's version; other objects by their class and
    attributes.

    Raises:
        NoIdentityError: it depends on something else, as an open file.

    Example:
        >>> identify(lambda x: x + 1) == identify(lambda x: x + 2)
        False
    """
    digest = hashlib.sha256()
    for part in _Walk().parts(value):
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()


def temporary_identity(value: Any) -> str:
    """An identity that no other process and no other object has, for what has none of its own."""
    try:
        return _without.setdefault(value, unique_name())
    except TypeError:  # it cannot be referred to weakly, or has no hash
        return unique_name()


class _Walk:
    """One traversal. A function or class that is met again, or anything inside of itself, counts by its number."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def parts(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, PLAIN):
            yield f"{type(value).__name__} {value!r}".encode()
            return
        if id(value) in self.numbers:
            yield f"again {self.numbers[id(value)]}".encode()
            return
        self.numbers[id(value)] = len(self.numbers)
        yield type(value).__name__.encode()
        yield from self._parts_of_object(value)
        if not isinstance(value, type | types.FunctionType):  # equal values count alike, whether they are one or two
            del self.numbers[id(value)]

    def _parts_of_object(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, np.ndarray | np.generic | tf.Tensor | tf.Variable | keras.Variable):
            yield _digest_array(np.asarray(value))
        elif isinstance(value, Path):
            yield str(value).encode()
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from self.parts(key)
                yield from self.parts(item)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self.parts(item)
        elif isinstance(value, set | frozenset):
            yield b"".join(sorted(b"".join(_Walk().parts(item)) for item in value))
        elif isinstance(value, types.ModuleType):
            yield _describe_module(value)
        elif isinstance(value, type) or inspect.isroutine(value):
            yield from self._parts_of_code(value)
        elif isinstance(value, types.CodeType):
            yield from self._parts_of_compiled(value)
        else:
            yield from self._parts_of_instance(value)

    def _parts_of_code(self, value: Any) -> Iterator[bytes]:
        """Of a function, a method or a class."""
        module = sys.modules.get(getattr(value, "__module__", None) or "builtins")
        if module and _is_installed(module):
            yield f"{_describe_module(module).decode()} {getattr(value, '__qualname__', value)}".encode()
        elif isinstance(value, type):
            yield value.__qualname__.encode()
            yield from self.parts(value.__bases__)
            yield from self.parts({name: item for name, item in vars(value).items() if _is_written(name, item)})
        elif inspect.ismethod(value):
            yield from self.parts(value.__self__)
            yield from self.parts(value.__func__)
        elif isinstance(value, types.FunctionType):
            yield from self.parts(value.__code__)
            yield from self.parts([value.__defaults__, value.__kwdefaults__])
            yield from self.parts([cell.cell_contents for cell in value.__closure__ or ()])
            yield from self.parts({name: value.__globals__[name] for name in _globals_of(value)})
        else:
            raise NoIdentityError(f"{value!r} is compiled")

    def _parts_of_compiled(self, code: types.CodeType) -> Iterator[bytes]:
        """Bytecode and constants, without their places in the source."""
        yield code.co_code
        yield from self.parts([code.co_consts, code.co_names, code.co_varnames, code.co_freevars])

    def _parts_of_instance(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, functools.partial):
            yield from self.parts([value.func, value.args, value.keywords])
            return
        if isinstance(value, staticmethod | classmethod):
            yield from self.parts(value.__func__)
            return
        if isinstance(value, property):
            yield from self.parts([value.fget, value.fset])
            return
        yield from self.parts(type(value))
        if isinstance(value, keras.Model | keras.layers.Layer):
            content = _without_names(keras.saving.serialize_keras_object(value), {})
            yield json.dumps(content, sort_keys=True, default=str).encode()
            yield from (_digest_array(weight) for weight in value.get_weights())
        elif isinstance(value, keras.losses.Loss):
            for content in (value.get_config(), _state(value)):  # Keras counts up the name too
                yield from self.parts({key: item for key, item in content.items() if key != "name"})
        else:
            yield from self.parts(_state(value))


def _without_names(content: Any, names: dict[str, str]) -> Any:
    """A configuration with names numbered in their order, which Keras counts up in a process, and uncompiled."""
    if isinstance(content, dict):
        name = content["config"].get("name") if isinstance(content.get("config"), dict) else None
        if isinstance(name, str):
            names.setdefault(name, f"name {len(names)}")
        return {key: _without_names(item, names) for key, item in content.items() if key != "compile_config"}
    if isinstance(content, list | tuple):
        return [_without_names(item, names) for item in content]
    return names.get(content, content) if isinstance(content, str) else content


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an object."""
    if type(value).__module__ != "builtins" and hasattr(value, "__dict__"):
        return vars(value)
    raise NoIdentityError(f"{value!r} is a {type(value).__name__}")


def _is_written(name: str, item: Any) -> bool:
    """Whether an attribute of a class is its author's, rather than one of those that Python adds, some of them late."""
    if name == "_abc_impl":
        return False
    return not name.startswith("__") or isinstance(item, types.FunctionType | staticmethod | classmethod)


def _globals_of(function: types.FunctionType) -> list[str]:
    """Names of the global variables that a function, or one inside of it, reads."""

    def names(code: types.CodeType) -> set[str]:
        inner = [item for item in code.co_consts if isinstance(item, types.CodeType)]
        return set(code.co_names).union(*map(names, inner))

    return sorted(name for name in names(function.__code__) if name in function.__globals__)


def _is_installed(module: types.ModuleType) -> bool:
    """Whether a module is Python's or an installed package's, rather than the user's."""
    file, top = getattr(module, "__file__", None), module.__name__.partition(".")[0]
    if top in ("__main__", *sys.stdlib_module_names, "mimic_keras"):
        return top != "__main__"
    return file is not None and any(place in Path(file).resolve().parents for place in INSTALLED)


def _describe_module(module: types.ModuleType) -> bytes:
    file = getattr(module, "__file__", None)
    if _is_installed(module):
        top = sys.modules.get(module.__name__.partition(".")[0], module)
        return f"{module.__name__} {getattr(top, '__version__', '')}".encode()
    if not file:
        raise NoIdentityError(f"the module {module.__name__} has no file")
    return f"{module.__name__} {sources.compute_file_digest(Path(file))}".encode()


def _digest_array(array: np.ndarray) -> bytes:
    try:
        return array_digest(array).encode()
    except ValueError as error:
        raise NoIdentityError(str(error)) from error
