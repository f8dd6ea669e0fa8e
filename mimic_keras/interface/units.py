"""What the units of a cluster are doing: a table on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from absl import logging

from mimic_keras.reporting import console

RUNNING, QUEUED, WAITING, DONE, FAILED = "running", "queued", "waiting", "done", "failed"
MOST_ROWS = 6  # a sweep's own table is above
MOST_NAMES = 2


@dataclass
class Followed:
    """A unit that is not finished. `waits_for` is empty once it is handed to the cluster."""

    name: str
    waits_for: str = ""
    since: float = field(default_factory=time.monotonic)

    def wait_for(self, names: Sequence[str]) -> None:
        others = len(names) - MOST_NAMES
        shown = [*names[:MOST_NAMES], *([f"{others} others"] if others > 0 else [])]
        self.waits_for, self.since = ", ".join(shown), time.monotonic()


class Units:
    """The units of a command. `find_places()` is {number of a unit: machine} of what is computed at the moment.

    Example:
        >>> units = Units(dict)
        >>> with units.follow("teacher/0"):
        ...     units.describe()
        '0 running, 1 queued, 0 waiting, 0 done, 0 failed'
    """

    def __init__(self, find_places: Callable[[], Mapping[int, str]]):
        self._find_places = find_places
        self._numbers, self._said = itertools.count(), time.monotonic()
        self._guard, self._open, self._ended = threading.Lock(), dict[int, Followed](), Counter[str]()

    @contextlib.contextmanager
    def follow(self, name: str) -> Iterator[tuple[int, Followed]]:
        """A unit with its number; it has failed if the block raises an error."""
        number, unit, state = next(self._numbers), Followed(name), FAILED
        with self._guard:
            self._open[number] = unit
        try:
            yield number, unit
            state = DONE
        finally:
            with self._guard:
                del self._open[number]
                self._ended[state] += 1
            self._say()

    def _say(self) -> None:
        """Without a terminal, a line, if the last one is old enough."""
        now = time.monotonic()
        with self._guard:
            is_due = not console.DRAWS_BARS and now - self._said > console.SECONDS_BETWEEN_LINES
            self._said = now if is_due else self._said
        if is_due:
            logging.info("cluster: %s", self.describe())

    def describe(self) -> str:
        """How many units are in each state, and how many run on each machine."""
        rows = self._list_open()
        machines = Counter(row["where"] for row in rows if row["state"] == RUNNING)
        counts = Counter(row["state"] for row in rows) + self._ended
        running = ", ".join(f"{name}: {count}" for name, count in sorted(machines.items()))
        texts = [f"{counts[state]} {state}" for state in (RUNNING, QUEUED, WAITING, DONE, FAILED)]
        texts[0] += f" ({running})" if running else ""
        return ", ".join(texts)

    def _list_open(self) -> list[dict[str, Any]]:
        """A row for each unit that is not finished: what runs, what waits for a machine, what waits for others."""
        places, now = self._find_places(), time.monotonic()
        with self._guard:
            found = list(self._open.items())
        rows = []
        for number, unit in found:
            state = WAITING if unit.waits_for else RUNNING if number in places else QUEUED
            where = unit.waits_for or places.get(number)
            rows.append({"unit": unit.name, "state": state, "where": where, "seconds": round(now - unit.since)})
        return sorted(rows, key=lambda row: (RUNNING, QUEUED, WAITING).index(row["state"]))

    def tabulate(self) -> tuple[list[str], list[dict[str, Any]], int]:
        """Columns, rows and the first row, as `console.live_table` takes them."""
        return ["unit", "state", "where", "seconds"], [*self._list_open()[:MOST_ROWS], {"unit": self.describe()}], 0
