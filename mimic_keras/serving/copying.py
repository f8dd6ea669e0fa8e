"""Copies of published versions in an object store, or in another folder: what `--publish_to` names.

An object store renames nothing, and TensorFlow Serving takes the folder of a number for a version as soon as it has one
file. A graph without its variables it even serves (github.com/tensorflow/serving/issues/1086); without a graph it keeps
the version before, and tries again five times, a minute apart. So the files are sent to a hidden folder, which may take
long, and copied from there within the store, the graph last; where folders can be renamed, that one is.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mimic_keras.contracts import InputError, RunError, unique_name
from mimic_keras.serving.publishing import HIDDEN, RECORD
from mimic_keras.storage.files import file_names, sync_folder, sync_tree

GRAPH = "saved_model.pb"
REPORT = ("report.html", "metrics.json", "experiment.yaml", "environment.json")  # files of a run that are copied, too


class Destination:
    """A place that can be written; it is tried at once. Only one process may copy to a base path at a time.

    `place`: s3://BUCKET/PATH, gs://BUCKET/PATH, a folder, or another address that an installed package of fsspec opens.

    Raises:
        InputError: a package is missing, or nothing can be written and removed there.

    Example:
        >>> Destination("s3://students/digits").copy(Path("saved_models/quickstart/1"), Path("runs/quickstart"))
        's3://students/digits/quickstart/1'
    """

    def __init__(self, place: str):
        self.place = place
        self._files, root, self._is_local = _open(place)
        self._root = PurePosixPath(root)
        probe = str(self._root / f"{HIDDEN}{unique_name()}")
        try:
            self._files.pipe_file(probe, b"probe")
            self._files.rm_file(probe)
        except Exception as error:  # every store has errors of its own
            raise InputError(f"--publish_to {place}: nothing can be written there ({_describe(error)})") from error

    def copy(self, version: Path, run: Path) -> str:
        """Copy a version and the report of its run; returns the version's address. One that is there is left alone.

        Raises:
            RunError: a version of this number and of another content is there, or the store fails.
        """
        base = self._root / version.parent.name
        address = f"{self.place.rstrip('/')}/{version.parent.name}/{version.name}"
        try:
            self._files.invalidate_cache()
            is_there = self._check_same(version, base / version.name, address)
            for name in REPORT:
                if (run / name).exists():
                    self._files.put_file(str(run / name), str(base / "report" / name))
            if not is_there:
                self._remove(base, f"{HIDDEN}*")  # of processes that were killed
                self._copy_files(version, base)
        except RunError:
            raise
        except Exception as error:
            raise RunError(f"{version} cannot be copied to {address} ({_describe(error)})") from error
        return address

    def _check_same(self, version: Path, there: PurePosixPath, address: str) -> bool:
        """Whether the version is there; one without a graph is what a killed process left."""
        found = {str(PurePosixPath(name).relative_to(there)): size for name, size in self._list(there).items()}
        if GRAPH not in found:
            return False
        own = {name: (version / name).stat().st_size for name in file_names(version, "")}
        record = (version / RECORD).read_bytes()  # with the digests of the others
        if own != found or self._files.cat_file(str(there / RECORD)) != record:
            raise RunError(f"{address} exists, and is another than {version}; no version is ever replaced")
        return True

    def _copy_files(self, version: Path, base: PurePosixPath) -> None:
        hidden, final = base / f"{HIDDEN}{unique_name()}", base / version.name
        names = sorted(file_names(version, ""), key=lambda name: (name == GRAPH, name))
        with self._removing(hidden):
            for name in names:
                self._files.put_file(str(version / name), str(hidden / name))
            if self._is_local:
                sync_tree(Path(hidden))
                Path(hidden).rename(final)
                sync_folder(Path(base))
                return
            self._remove(base, final.name)
            for name in names:
                self._files.cp_file(str(hidden / name), str(final / name))

    @contextlib.contextmanager
    def _removing(self, hidden: PurePosixPath) -> Iterator[None]:
        """Remove a folder at the end; if that fails, the next copy does it."""
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                self._remove(hidden.parent, hidden.name)

    def _remove(self, folder: PurePosixPath, pattern: str) -> None:
        """Remove the folders in `folder` whose names match."""
        names = {PurePosixPath(name).relative_to(folder).parts[0] for name in self._list(folder)}
        for name in fnmatch.filter(names, pattern):
            self._files.rm(str(folder / name), recursive=True)

    def _list(self, folder: PurePosixPath) -> dict[str, int]:
        """{file: bytes} of every file below a folder, which need not exist."""
        found: dict[str, dict[str, Any]] = self._files.find(str(folder), detail=True)
        return {name: entry["size"] for name, entry in found.items()}


def _open(place: str) -> tuple[Any, str, bool]:
    """A file system of fsspec, the path in it, and whether it is this machine's."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem
    except ImportError as error:
        raise InputError(
            "--publish_to needs fsspec, which is not installed: pip install 'mimic-keras[publish]'"
        ) from error
    try:
        files, root = url_to_fs(place)
    except ImportError as error:
        packages = "pip install 'mimic-keras[publish]' has those of s3:// and gs://"
        raise InputError(f"--publish_to {place}: a package is missing ({_describe(error)}); {packages}") from error
    except Exception as error:
        accepted = "accepted: s3://BUCKET/PATH, gs://BUCKET/PATH, or a folder"
        raise InputError(f"--publish_to {place}: {_describe(error)}; {accepted}") from error
    if {*"*?["} & {*root}:
        raise InputError(
            f"--publish_to {place}: expected a path without '*', '?' and '[', which fsspec takes for patterns"
        )
    is_local = isinstance(files, LocalFileSystem)
    return LocalFileSystem(auto_mkdir=True) if is_local else files, root, is_local


def _describe(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
