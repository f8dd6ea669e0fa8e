"""The files of a plugin's distribution, or of a Python file with components, and their digest."""

from __future__ import annotations

import ast
import contextlib
import csv
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import packaging.requirements

from mimic_keras.contracts import file_digest, files_below


def compute_digest(entry_point: importlib.metadata.EntryPoint) -> str:
    """SHA-256 over names and contents of the files of a plugin's distribution, wherever it is installed.

    These are the top-level packages and modules that pip recorded, with their data files, and the one that the entry
    point names. An editable installation has no such record: there, what the code imports from the project counts.
    Plugins that the distribution requires are part of it too, as the architectures that another plugin builds on.

    Raises:
        ModuleNotFoundError: the entry point names no package or module with files.
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256(_describe(_find_files(entry_point)))
    for required in _required_plugins(entry_point.dist):
        digest.update(f"{required.name}\0{compute_digest(required)}\n".encode())
    return digest.hexdigest()


def compute_file_digest(file: Path) -> str:
    """SHA-256 over names and contents of a Python file and of all that it imports from its own folder."""
    return hashlib.sha256(_describe(find_files_beside(file))).hexdigest()


def find_files_beside(file: Path) -> dict[str, Path]:
    """{name: file} of a Python file and of the modules beside it that it imports, as far as Python would find them.

    The folder has to be on Python's path.
    """
    folder = file.resolve().parent
    return {
        file.name: file,
        **_collect_files({file.stem}, lambda place: place.resolve().parent == folder and place.name != "mimic_keras"),
    }


def _describe(files: Mapping[str, Path]) -> bytes:
    return "".join(f"{name}\0{file_digest(file)}\n" for name, file in sorted(files.items())).encode()


def _required_plugins(distribution: importlib.metadata.Distribution | None) -> list[importlib.metadata.EntryPoint]:
    """One component of every top-level package of the installed plugins that a distribution requires."""
    components: dict[str, importlib.metadata.EntryPoint] = {}
    for line in (distribution.requires if distribution else None) or []:
        requirement = packaging.requirements.Requirement(line)
        if requirement.marker is None:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                for component in importlib.metadata.distribution(requirement.name).entry_points:
                    if component.group.startswith("mimic_keras."):
                        components.setdefault(component.module.partition(".")[0], component)
    return [components[package] for package in sorted(components)]


def _find_files(entry_point: importlib.metadata.EntryPoint) -> dict[str, Path]:
    """{name below the folder that holds the package: file}."""
    first = entry_point.module.partition(".")[0]
    recorded, project = {first}, None
    if entry_point.dist:
        recorded |= _recorded_modules(entry_point.dist)
        project = _editable_project(entry_point.dist)
    found = _collect_files(recorded, lambda place: project is not None and _is_in(project, place))
    if not any(name.partition("/")[0].partition(".")[0] == first for name in found):
        raise ModuleNotFoundError(f"No module named {first!r}", name=first)
    return found


def _collect_files(modules: set[str], is_own: Callable[[Path], bool]) -> dict[str, Path]:
    """{name: file} of `modules`, and of what those at places that `is_own` import from such places."""
    found: dict[str, Path] = {}
    seen, waiting = set(modules), sorted(modules)
    while waiting:
        module = waiting.pop()
        places = _places(module)
        is_of_project = bool(places) and all(map(is_own, places))
        if is_of_project or module in modules:
            files = _list_files(module, places)
            found |= files
            if is_of_project:
                imported = _imported_modules(files.values()) - seen
                seen |= imported
                waiting += sorted(imported)
    return found


def _recorded_modules(distribution: importlib.metadata.Distribution) -> set[str]:
    """Names of the top-level packages and modules in the distribution's RECORD or top_level.txt."""
    names = set((distribution.read_text("top_level.txt") or "").split())
    for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        top, _, rest = row[0].partition("/")
        names.add(top if rest else inspect.getmodulename(top) or "")
    # Others are scripts ("..") and metadata ("x.dist-info"); "__" starts __pycache__ and setuptools' import hooks.
    return {name for name in names if name.isidentifier() and not name.startswith("__")}


def _editable_project(distribution: importlib.metadata.Distribution) -> Path | None:
    """The folder of an editable installation (PEP 610)."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(urllib.request.url2pathname(urllib.parse.urlsplit(origin["url"]).path))


def _is_in(project: Path, place: Path) -> bool:
    """Whether `place` is in the project, but not in a virtual environment of it."""
    place, project = place.resolve(), project.resolve()
    return project in place.parents and "site-packages" not in place.relative_to(project).parts


def _places(module: str) -> list[Path]:
    """The folders of a top-level package, or the file of a module; nothing is imported."""
    spec = None
    with contextlib.suppress(ValueError):  # a module without a specification, as __main__
        spec = importlib.util.find_spec(module)
    if spec and spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec and spec.has_location and spec.origin else []


def _list_files(module: str, places: list[Path]) -> dict[str, Path]:
    """{name: file}; of files of one name, Python imports the one in the first place."""
    found: dict[str, Path] = {}
    for place in reversed(places):
        for file in files_below(place) if place.is_dir() else [place]:
            parts = (place.name,) if file == place else (module, *file.relative_to(place).parts)
            if not any(map(_is_left_out, parts)):
                found["/".join(parts)] = file
    return found


def _is_left_out(name: str) -> bool:
    """Compiled Python, and hidden and backup files, which come and go while somebody edits."""
    return name == "__pycache__" or name.startswith(".") or name.endswith((".pyc", "~"))


def _imported_modules(files: Iterable[Path]) -> set[str]:
    """Names of the top-level packages and modules in the import statements of Python files."""
    names = set()
    for file in files:
        if file.suffix == ".py":
            with contextlib.suppress(SyntaxError, ValueError):  # not code, as a template; importing it would fail
                for node in ast.walk(ast.parse(file.read_bytes())):
                    if isinstance(node, ast.Import):
                        names |= {alias.name.partition(".")[0] for alias in node.names}
                    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                        names.add(node.module.partition(".")[0])
    return names
