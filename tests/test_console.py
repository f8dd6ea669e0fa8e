"""Messages on the console and in journals, progress without a terminal, and tables."""

import contextlib
import io
import json
import logging as standard_logging

import pytest
from absl import logging

from mimic_keras.reporting import console
from mimic_keras.storage.store import REUSED


@pytest.fixture
def shown(monkeypatch):
    """A function that returns the lines on the console since its last call."""
    stream = io.StringIO()
    monkeypatch.setattr(console, "console", console.rich.console.Console(file=stream, width=40, highlight=False))
    logger = logging.get_absl_logger()
    before = list(logger.handlers), logging.get_verbosity(), logger.propagate

    def lines():
        found = stream.getvalue().splitlines()
        stream.truncate(stream.seek(0))
        return found

    with console.showing_messages():
        yield lines
    assert (logger.handlers, logging.get_verbosity(), logger.propagate) == before


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_messages_from_info_on_are_shown_whole(shown):
    logging.debug("hidden")
    logging.info("a %s of more than forty characters is on one line", "message")
    logging.warning("[bold]%d[/bold]", 3)
    logging.error("bad")
    assert shown() == [
        "a message of more than forty characters is on one line",
        "warning: [bold]3[/bold]",
        "error: bad",
    ]


@pytest.mark.parametrize("library", ["keras", "tensorflow"])
def test_of_libraries_only_errors_are_shown(shown, library):
    def said(path, level):
        record = standard_logging.LogRecord("absl", level, path, 1, "%s", (library,), None)
        logging.get_absl_logger().handle(record)
        return shown()

    path = f"/site-packages/{library}/src/x.py"
    assert said(path, standard_logging.WARNING) == []
    assert said(path, standard_logging.ERROR) == [f"error: {library}"]
    assert said(f"/mimic_{library}/x.py", standard_logging.WARNING) == [f"warning: {library}"]


def test_brief_hides_what_is_marked_as_reuse_and_nothing_else(shown, tmp_path):
    def say():
        logging.info("marked", extra=REUSED)
        logging.info("reused, but not marked")
        logging.warning("marked", extra={"is_reuse": True})
        logging.warning("made", extra={"is_reuse": False})

    everything = ["marked", "reused, but not marked", "warning: marked", "warning: made"]
    say()
    assert shown() == everything
    with console.brief(tmp_path / "log.jsonl"):
        say()
    assert shown() == ["reused, but not marked", "warning: made"]
    assert [line["message"] for line in read(tmp_path / "log.jsonl")] == [
        "marked",
        "reused, but not marked",
        "marked",
        "made",
    ]
    say()
    assert shown() == everything
    assert len(read(tmp_path / "log.jsonl")) == 4


def test_an_error_ends_brevity(shown, tmp_path):
    with contextlib.suppress(ValueError), console.brief(tmp_path / "log.jsonl"):
        raise ValueError
    logging.info("marked", extra=REUSED)
    assert shown() == ["marked"]


def test_a_journal_is_lines_of_json_behind_those_of_before(shown, tmp_path):
    file = tmp_path / "log.jsonl"
    logging.info("before")
    with console.journal(file):
        logging.info("two\nlines %s", "é")
        assert len(read(file)) == 1, "each message is there at once"
        logging.debug("hidden")
    with console.journal(file) as warnings:
        logging.warning("later")
    assert warnings == ["later"]
    logging.info("after")
    found = read(file)
    assert [(line["level"], line["message"]) for line in found] == [("INFO", "two\nlines é"), ("WARNING", "later")]
    assert [set(line) for line in found] == [{"time", "level", "message"}] * 2
    assert 0 < found[0]["time"] <= found[1]["time"]


def test_progress_without_a_terminal_is_a_line_now_and_then(shown, monkeypatch):
    clock = iter([100.0, 101.0, 132.0, 133.0, 140.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress("labelling", 3000, "examples") as advance:
        advance(1000)
        advance(1000, "loss 0.5")
        advance(1000)
    assert shown() == [
        "labelling: 2000 of 3000 examples (62 examples/s); loss 0.5",  # 2,000 in 32 s
        "labelling: 3000 examples in 40.0 s (75/s); loss 0.5",
    ]


def test_progress_without_notes(shown, monkeypatch):
    clock = iter([0.0, 1.0, 2.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress("reading", 4000, "files") as advance:
        advance(4000)
    assert shown() == ["reading: 4000 files in 2.0 s (2,000/s)"]


def test_a_table_is_whole_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    row = {"model": "teacher/12", "multiply-adds": 738_000_000, "test error rate": 0.0123456, "nothing": None}
    console.show_table("a table", list(row), [row])
    printed = capsys.readouterr().out
    for piece in ("teacher/12", "738,000,000", "0.0123", "multiply-", "adds"):
        assert piece in printed


def test_a_table_line_by_line(capsys):
    console.show_table("title", ["net", "size"], [{"net": "a", "size": 1234}, {"net": None, "other": 1}])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "title"
    assert [line.split() for line in lines[1:] if line and "─" not in line] == [["net", "size"], ["a", "1,234"]]


def test_without_a_terminal_a_live_table_is_never_drawn(shown):
    with console.live_table(lambda: pytest.fail("drawn")):
        pass
    assert shown() == []
