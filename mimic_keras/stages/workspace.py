"""One process's use of a home folder: its artefacts, and data sets that are prepared once and held."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mimic_keras.planning.components import Component
from mimic_keras.stages.data import Data, prepare
from mimic_keras.storage import locks
from mimic_keras.storage.files import hash_json
from mimic_keras.storage.store import Store


class Workspace:
    """A home folder in use by this process, for one experiment or for many that share data.

    Example:
        >>> workspace = Workspace(Path("~/.cache/mimic_keras"))
        >>> with workspace.in_use():
        ...     data = workspace.prepare(*plan.transfer)
    """

    def __init__(self, home: Path):
        self.home = home.expanduser().resolve()  # once: artifacts.json is read from other working directories
        self._prepared: dict[str, dict[int, Data]] = {}
        self._experiment = ""

    @contextlib.contextmanager
    def in_use(self, experiment: str = "") -> Iterator[None]:
        """Within the block, no process prunes what was used since the block began; it is noted as used by
        `experiment`, a sweep or a search."""
        with locks.in_use(self.home):
            self._experiment = experiment
            try:
                yield
            finally:
                self._experiment = ""

    def open_store(self, common: Mapping[str, Any]) -> Store:
        """The artefacts of the home folder; `common` goes into every key."""
        return Store(self.home, common, self._experiment)

    def prepare(self, component: Component, seed: int) -> Data:
        """The data set of `component`, prepared at the first call, whatever the `seed` of its augmentation."""
        by_seed = self._prepared.setdefault(hash_json(component.specification()), {})
        if seed not in by_seed:
            others = list(by_seed.values())
            by_seed[seed] = others[0].with_seed(seed) if others else prepare(component, self.home, seed)
        return by_seed[seed]
