"""The view of a cluster's units: what each is doing, where, and how many have ended."""

import json

import pytest

from mimic_keras.interface.units import MOST_ROWS, Units
from mimic_keras.reporting import console


def rows(units):
    return [(row["unit"], row.get("state"), row.get("where")) for row in units.tabulate()[1]]


def test_units_run_somewhere_wait_for_others_and_end():
    places = {}
    units = Units(lambda: places)
    with units.follow("table.yaml") as (first, unit), units.follow("teacher/0") as (second, _):
        assert rows(units)[:2] == [("table.yaml", "queued", None), ("teacher/0", "queued", None)]
        unit.wait_for(["teacher/0", "student"])
        places[second] = "node-7"
        expected = "1 running (node-7: 1), 0 queued, 1 waiting, 0 done, 0 failed"
        assert rows(units) == [
            ("teacher/0", "running", "node-7"),
            ("table.yaml", "waiting", "teacher/0, student"),
            (expected, None, None),
        ]
        unit.wait_for([])
        places[first] = "node-7"
        assert units.describe() == "2 running (node-7: 2), 0 queued, 0 waiting, 0 done, 0 failed"
    with pytest.raises(OSError, match="gone"), units.follow("student"):
        raise OSError("gone")
    assert rows(units) == [("0 running, 0 queued, 0 waiting, 2 done, 1 failed", None, None)]


def test_machines_are_counted_beside_units_that_wait_and_are_queued():
    units = Units(lambda: {0: "node-9", 1: "node-1", 2: "node-9"})
    with units.follow("a"), units.follow("b"), units.follow("c"), units.follow("d"), units.follow("e") as (_, waiting):
        waiting.wait_for(["a", "b", "c", "d"])
        assert rows(units)[-2:-1] == [("e", "waiting", "a, b, 2 others")]
        assert units.describe() == "3 running (node-1: 1, node-9: 2), 1 queued, 1 waiting, 0 done, 0 failed"


def test_the_table_is_short():
    units = Units(dict)
    stack = [units.follow(str(number)) for number in range(MOST_ROWS + 5)]
    for each in stack:
        each.__enter__()
    assert len(rows(units)) == MOST_ROWS + 1
    assert rows(units)[-1][0] == f"0 running, {MOST_ROWS + 5} queued, 0 waiting, 0 done, 0 failed"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-1, ["0 running, 0 queued, 0 waiting, 1 done, 0 failed"]), (60, [])]
)
def test_without_a_terminal_a_line_now_and_then(tmp_path, monkeypatch, seconds, expected):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", seconds)
    monkeypatch.setattr(console, "DRAWS_BARS", False)
    with console.showing_messages(), console.journal(tmp_path / "log.jsonl"), Units(dict).follow("student"):
        pass
    lines = [json.loads(line)["message"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [f"cluster: {line}" for line in expected]
