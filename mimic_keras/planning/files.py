"""Components in Python files that a command is given (`--plugins my_parts.py`), known as long as it runs."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mimic_keras.contracts import Dataset, InputError, MimicError, Teacher
from mimic_keras.planning import sources
from mimic_keras.planning.plugins import GROUPS, GivenPlugin, knowing

ACCEPTED = (
    "a subclass of keras.losses.Loss, or of Dataset or Teacher of mimic_keras.contracts, or a function "
    "(input_shape, num_classes, *, ...) that builds a keras.Model; a loss that is a function becomes the method `call` "
    "of a subclass of keras.losses.Loss"
)


@contextlib.contextmanager
def components_of(files: Sequence[Path]) -> Iterator[list[GivenPlugin]]:
    """Within the block, experiments may name what `files` define; afterwards their modules are forgotten.

    Each file is imported as the module of its name, so that a file may import others beside it. Public classes and
    functions of the kinds in ACCEPTED are components under their own names; others are helpers.

    Raises:
        InputError: a file is missing, is no Python file, cannot be imported, or has no component.

    Example:
        >>> with components_of([Path("my_parts.py")]) as plugins:
        ...     plan = make_plan(source)
    """
    with contextlib.ExitStack() as stack:
        plugins: list[GivenPlugin] = []
        for file in dict.fromkeys(Path(each).resolve() for each in files):
            plugins += stack.enter_context(_imported(file))
        stack.enter_context(knowing(plugins))
        yield plugins


@contextlib.contextmanager
def _imported(file: Path) -> Iterator[list[GivenPlugin]]:
    """Within the block, the file is imported; yields its components."""
    with _on_path(_check(file)):
        importlib.invalidate_caches()
        found = importlib.machinery.PathFinder.find_spec(file.stem)
        if file.stem in sys.builtin_module_names or not found or Path(found.origin or "").resolve() != file:
            raise InputError(f"--plugins: a module '{file.stem}' is installed; give {file.name} another name")
        digest = sources.compute_file_digest(file)  # before the import
        own = {name.partition("/")[0].removesuffix(".py") for name in sources.find_files_beside(file)}
        with _forgetting(own):
            yield _list_components(file, _import_file(file), digest)


def _check(file: Path) -> Path:
    """The file, if it can be one of Python's."""
    if not file.is_file():
        raise InputError(f"--plugins: no such file: {file}")
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise InputError(f"--plugins: expected a Python file, as my_parts.py, got {file}")
    return file


@contextlib.contextmanager
def _on_path(file: Path) -> Iterator[None]:
    """Within the block, Python finds the modules beside the file, after all others."""
    folder = str(file.parent)
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.reverse()
        sys.path.remove(folder)  # the last one
        sys.path.reverse()


@contextlib.contextmanager
def _forgetting(modules: set[str]) -> Iterator[None]:
    """Within the block, `modules` are imported afresh; afterwards those of before are back.

    Nothing compiled is kept: Python would take it for that of a file which was edited within the same second.
    """

    def take() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in modules]
        return {name: sys.modules.pop(name) for name in names}

    before, keeps_nothing = take(), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = keeps_nothing
        take()
        sys.modules.update(before)


def _import_file(file: Path) -> ModuleType:
    """Import the file from its text, never from what Python compiled earlier."""
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification
    module = importlib.util.module_from_spec(specification)
    sys.modules[file.stem] = module
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    except MimicError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _list_components(file: Path, module: ModuleType, digest: str) -> list[GivenPlugin]:
    found = []
    for name, value in vars(module).items():
        kind = kind_of(value)
        if kind and not name.startswith("_") and value.__module__ == file.stem:
            entry_point = importlib.metadata.EntryPoint(name, f"{file.stem}:{name}", GROUPS[kind])
            summary = (inspect.getdoc(value) or "").partition("\n")[0]
            take = functools.partial(sources.compute_file_digest, file)
            found.append(GivenPlugin(kind, name, entry_point, file.name, "", summary, value, digest, take))
    if not found:
        raise InputError(f"{file} has no component; expected {ACCEPTED}")
    return found


def kind_of(value: Any) -> str | None:
    """The kind of component that a class or function can be; None for anything else."""
    if inspect.isclass(value) and not inspect.isabstract(value):
        keras = sys.modules.get("keras")  # not imported: then nothing is a loss of it
        bases = {"dataset": Dataset, "teacher": Teacher, **({"loss": keras.losses.Loss} if keras else {})}
        return next((kind for kind, base in bases.items() if issubclass(value, base)), None)
    if inspect.isfunction(value) and list(inspect.signature(value).parameters)[:2] == ["input_shape", "num_classes"]:
        return "architecture"
    return None
