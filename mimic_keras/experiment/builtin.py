"""The experiments that come with the program, found by name."""

from __future__ import annotations

import os
from pathlib import Path

from mimic_keras.contracts import InputError
from mimic_keras.experiment.problems import did_you_mean

FOLDER = Path(__file__).parent.parent / "experiments"  # in a checkout a link to its experiments/


def find_file(experiment: str | os.PathLike[str]) -> Path:
    """The file that a user means: a path, or, where it has neither folder nor suffix, the name of a built-in one.

    Raises:
        InputError: there is no such file, and no built-in experiment of this name.

    Example:
        >>> find_file("quickstart") == FOLDER / "quickstart.yaml"
        True
    """
    file = Path(experiment)
    if os.path.lexists(file):
        return file
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    if file.name != os.fspath(experiment) or file.suffix:
        known = f"; {file.stem!r} alone is the one that comes with the program" if file.stem in names else ""
        raise InputError(f"{file}: cannot be read: No such file or directory{known}")
    if file.name not in names:
        suggested = did_you_mean(file.name, names)
        raise InputError(
            f"{file}: no such file, and no experiment of this name. {suggested}There are: {', '.join(names)}"
        )
    return FOLDER / f"{file.name}.yaml"
