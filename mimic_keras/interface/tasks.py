"""What a driver and its workers send each other: tasks, and answers to them."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """What a worker is sent: `function` of a plan and a workspace, and all that both follow from.

    `function` is pickled: unpickling it imports TensorFlow, for which a worker is ready within its session only.
    `given` and `complete` are those of the experiment's Source, `file` is its name. `code`: what the driver's plan is
    carried out by. `data`: hashes of its data sets' identities. `folder`: the driver's working directory.
    """

    function: bytes
    given: dict[str, Any]
    complete: dict[str, Any]
    file: str
    code: tuple[str, ...]
    data: tuple[str, ...]
    home: Path
    plugins: tuple[Path, ...]
    folder: Path

    @property
    def workers(self) -> int | None:
        """How many train one net together; None: one does."""
        workers: int | None = (self.complete.get("distribution") or {}).get("workers")
        return workers

    def compute(self, plan: Any, workspace: Any) -> Any:
        """What the function gives."""
        return pickle.loads(self.function)(plan, workspace)


@dataclass(frozen=True)
class Missing:
    """An artefact that a unit waits for; arguments of `Store`."""

    common: Mapping[str, Any]
    kind: str
    inputs: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class Answer:
    """What a worker sends back: the unit's `value` and the folders of the artefacts that it `used`, what is `missing`
    for it, or its `error`; and what was logged.
    """

    value: Any = None
    used: tuple[Path, ...] = ()
    missing: tuple[Missing, ...] = ()
    error: Exception | None = None
    messages: list[logging.LogRecord] = field(default_factory=list)
