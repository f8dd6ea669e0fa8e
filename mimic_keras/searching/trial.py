"""One trial of a search, and its file: what a search remembers between processes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimic_keras.contracts import RunError
from mimic_keras.experiment.places import Place
from mimic_keras.storage.files import write_json

RUNNING, DONE, DIVERGED, IMPOSSIBLE, FAILED = STATES = ("running", "done", "diverged", "impossible", "failed")
MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Trial:
    """One point of a search. `score` is None unless `state` is "done"; `note` has the reason.

    `attempts`: how often a process has begun the trial, without those that ended with an error or an interruption.
    `net`: the folder of its student, within the home folder; "" if it has none, or nobody noted it.
    """

    number: int
    values: dict[Place, Any]
    state: str
    score: float | None = None
    seconds: float = 0.0
    note: str = ""
    attempts: int = 1
    net: str = ""

    def named_values(self) -> dict[str, Any]:
        """{place in the file, as text: value}."""
        return {str(place): value for place, value in self.values.items()}


def read_trial(file: Path, number: int, places: Iterable[Place]) -> Trial | None:
    """The trial in `file`, with a value for each of `places`; None without a file.

    Raises:
        RunError: the file is damaged.
    """
    remedy = "remove it, and its trial is done again"
    if not file.exists():
        return None
    content = read_json(file, remedy)
    named = {str(place): place for place in places}
    try:
        values = {named.pop(name): value for name, value in content.pop("values").items()}
        trial = Trial(number, values, **content)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{file} is damaged ({error!r}); {remedy}") from error
    is_scored = isinstance(trial.score, float | int) and math.isfinite(trial.score)
    is_typed = isinstance(trial.attempts, int) and isinstance(trial.net, str)
    if named or trial.state not in STATES or is_scored != (trial.state == DONE) or not is_typed:
        raise RunError(f"{file} is damaged (not a trial of this search); {remedy}")
    return trial


def write_trial(file: Path, trial: Trial) -> None:
    content = {"values": trial.named_values(), "state": trial.state, "score": trial.score}
    more = {"seconds": trial.seconds, "note": trial.note, "attempts": trial.attempts, "net": trial.net}
    write_json(file, content | more)


def read_json(file: Path, remedy: str) -> dict[str, Any]:
    """The mapping in `file`.

    Raises:
        RunError: it is no JSON, or no mapping; the message ends with the `remedy`.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file} is damaged ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise RunError(f"{file} is damaged (no mapping); {remedy}")
    return content
