"""Which images are in class folders, with folders for the splits or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mimic_keras.contracts import InputError, files_below
from mimic_keras_arrays.labels import order_classes

UNLABELLED = "unlabelled"
FOLDERS_SHOWN = 10


@dataclass(frozen=True)
class Listing:
    """`files`: {split: [(file, label)]}, splits "train", "validation", "test" and "unlabelled" (label -1)."""

    class_names: tuple[str, ...]
    files: Mapping[str, Sequence[tuple[Path, int]]]


def list_images(path: Path, drawn: Sequence[str], classes: Sequence[str] | None = None) -> Listing:
    """List the images of class folders.

    Args:
        path: has the folders train, validation and test, but not those in `drawn`, each with one folder per class, and
            maybe a folder unlabelled. If all but train are drawn, the class folders may be in `path` itself. Every file
            in or below a class folder is an image, unless it or a folder that it is in has a name with a leading ".".
        drawn: splits that are drawn from the training images.
        classes: the order of the class folders; None: sorted by name.

    Raises:
        InputError: the folders are not like this.
    """
    folders = _folders(path)
    fixed = [name for name in ("train", "validation", "test") if name not in drawn]
    roots = {name: path / name for name in fixed}
    if fixed == ["train"] and "train" not in folders:
        roots = {"train": path}
    missing = [name for name, root in roots.items() if root != path and name not in folders]
    if missing:
        found = ", ".join(folders[:FOLDERS_SHOWN]) or "none"
        raise InputError(
            f"path: no folder {' and '.join(missing)} in {path}, which has {found}; "
            "expected train, validation and test, each with one folder per class; or, with shares of validation and "
            "test, one folder per class"
        )
    both = [name for name in drawn if name in folders]
    if both:
        raise InputError(f"path: {path} has a folder {both[0]}, but shares draws {both[0]}; remove one of them")
    names: Sequence[str] = [name for name in _folders(roots["train"]) if roots["train"] / name != path / UNLABELLED]
    if len(names) < 2:
        raise InputError(f"path: expected at least two class folders in {roots['train']}, found {len(names)}")
    names = order_classes(names, classes, f"the class folders of {roots['train']}")
    files = {split: _list_classes(root, names, split) for split, root in roots.items()}
    files[UNLABELLED] = [(file, -1) for file in _visible_files(path / UNLABELLED)] if UNLABELLED in folders else []
    return Listing(names, files)


def _list_classes(root: Path, names: Sequence[str], split: str) -> list[tuple[Path, int]]:
    other = [name for name in _folders(root) if name not in names]
    if other and split != "train":
        raise InputError(f"path: {root} has the class folder {other[0]}, which the training images do not have")
    files = [(file, label) for label, name in enumerate(names) for file in _visible_files(root / name)]
    if not files:
        raise InputError(f"path: no images for '{split}' in the class folders of {root}")
    return files


def _folders(path: Path) -> list[str]:
    if not path.exists():
        raise InputError(f"path: no such folder: {path}")
    if not path.is_dir():
        raise InputError(f"path: expected a folder, got the file {path}")
    return sorted(child.name for child in path.iterdir() if child.is_dir() and child.name[0] != ".")


def _visible_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = files_below(folder)
    return [file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts)]
