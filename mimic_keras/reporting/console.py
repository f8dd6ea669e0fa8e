"""What the user sees while a run works: messages, progress bars with rates, and the table at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging as standard_logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.live
import rich.progress
import rich.table
from absl import logging
from rich.text import Text

from mimic_keras.reporting.tables import format_value

console = rich.console.Console(stderr=True, width=None if sys.stderr.isatty() else 140, highlight=False, emoji=False)

SECONDS_BETWEEN_LINES = 30  # of progress, where no bar can be drawn
DRAWS_BARS = console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


@contextlib.contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    """A progress bar of `total` units; yields `advance(count, note="")`. Without a terminal, a line now and then."""
    columns = (
        rich.progress.TextColumn("{task.description:<12}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]}"),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.fields[note]}", markup=False),
    )
    started, done, last = time.monotonic(), 0, ""
    said = started
    with rich.progress.Progress(*columns, console=console, transient=True, disable=not DRAWS_BARS) as bar:
        task = bar.add_task(label, total=total, rate="", note="")

        def advance(count: int, note: str = "") -> None:
            nonlocal done, last, said
            done, last, now = done + count, note or last, time.monotonic()
            rate = f"{done / max(now - started, 1e-9):,.0f} {unit}/s"
            if not DRAWS_BARS and now - said > SECONDS_BETWEEN_LINES:
                logging.info("%s: %d of %d %s (%s); %s", label, done, total, unit, rate, last)
                said = now
            bar.update(task, advance=count, rate=rate, note=last)

        yield advance
    seconds = time.monotonic() - started
    rate = done / max(seconds, 1e-9)
    logging.info(
        "%s: %d %s in %.1f s (%s/s)%s", label, done, unit, seconds, f"{rate:,.0f}", f"; {last}" if last else ""
    )


@contextlib.contextmanager
def waiting(label: str) -> Iterator[None]:
    """On a terminal, say what the program does while nothing else is shown; the line is gone afterwards.

    It does not move: the standard error may be held back meanwhile, as while TensorFlow's libraries load.
    """
    if console.is_terminal:
        console.print(f"{label} ...", end="\r", markup=False)
    try:
        yield
    finally:
        if console.is_terminal:
            console.print(" " * (len(label) + 4), end="\r")


class _ConsoleHandler(standard_logging.Handler):
    """Shows our messages, those of plugins, and errors of Keras and TensorFlow without tearing a progress bar."""

    brief = False

    def filter(self, record: standard_logging.LogRecord) -> bool:
        is_foreign = {"keras", "tensorflow"} & set(Path(record.pathname).parts)
        is_hidden = self.brief and getattr(record, "is_reuse", False)
        return not is_hidden and (not is_foreign or record.levelno >= standard_logging.ERROR)

    def emit(self, record: standard_logging.LogRecord) -> None:
        prefix = "" if record.levelno <= standard_logging.INFO else f"{record.levelname.lower()}: "
        console.print(f"{prefix}{record.getMessage()}", markup=False, soft_wrap=True)


class _JournalHandler(standard_logging.Handler):
    """Writes messages as lines of JSON, and collects the warnings, each once."""

    def __init__(self, file: Path):
        super().__init__()
        self.warnings: list[str] = []
        self.stream = file.open("a", encoding="utf-8")

    def emit(self, record: standard_logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= standard_logging.WARNING and message not in self.warnings:
            self.warnings.append(message)
        line = {"time": round(record.created, 3), "level": record.levelname, "message": message}
        self.stream.write(json.dumps(line) + "\n")
        self.stream.flush()

    def close(self) -> None:
        self.stream.close()
        super().close()


@contextlib.contextmanager
def showing_messages() -> Iterator[None]:
    """Within the block, show absl's messages on the console, from INFO on; the loggers are as before afterwards."""
    logger, tensorflow = logging.get_absl_logger(), standard_logging.getLogger("tensorflow")
    before = logging.get_verbosity(), logger.propagate, list(logger.handlers), tensorflow.level
    logging.set_verbosity(max(before[0], logging.INFO))
    logger.propagate = False
    logger.handlers = [_ConsoleHandler()]
    tensorflow.setLevel(standard_logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before[0])
        logger.propagate, logger.handlers = before[1:3]
        tensorflow.setLevel(before[3])


@contextlib.contextmanager
def journal(file: Path) -> Iterator[list[str]]:
    """Write every message inside the block to `file` too; yields the list to which warnings are added."""
    handler, logger = _JournalHandler(file), logging.get_absl_logger()
    logger.addHandler(handler)
    try:
        yield handler.warnings
    finally:
        logger.removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def brief(file: Path) -> Iterator[None]:
    """For many experiments that share most artefacts: messages about reuse go only to the journal `file`."""
    handlers = [each for each in logging.get_absl_logger().handlers if isinstance(each, _ConsoleHandler)]
    with journal(file):
        for handler in handlers:
            handler.brief = True
        try:
            yield
        finally:
            for handler in handlers:
                handler.brief = False


def _cells(columns: Sequence[str], row: Mapping[str, Any]) -> list[Text]:
    """A row's cells; as texts, since rich would take "[bold]" in a plain string for markup."""
    return [Text(format_value(row.get(column))) for column in columns]


def show_table(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print `rows` to standard output, never cut to the terminal's width; missing values are left empty."""
    _print_table(rich.console.Console(highlight=False), title, columns, rows)


def format_table(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """What `show_table` prints, as text without colours."""
    stream = io.StringIO()
    _print_table(rich.console.Console(file=stream, highlight=False, width=1), title, columns, rows)
    return stream.getvalue().rstrip("\n")


def _print_table(
    output: rich.console.Console, title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    heading = Text(title, style="table.title") if title else None
    table = rich.table.Table(
        title=heading, title_justify="left", box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    for column in columns:
        table.add_column(
            Text(column.replace(" ", "\n").replace("-", "-\n")),
            justify="left" if column == columns[0] else "right",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*_cells(columns, row))
    output.width = max(output.width, output.measure(table, options=output.options.update(width=1000)).maximum)
    output.print(table)


@contextlib.contextmanager
def live_table(content: Callable[[], tuple[Sequence[str], Sequence[Mapping[str, Any]], int]]) -> Iterator[None]:
    """On a terminal, show a table that follows `content()`: columns, rows, and the index of the row to keep visible."""
    if not console.is_terminal:
        yield
        return

    def draw() -> rich.table.Table:
        columns, rows, current = content()
        height = max(5, console.height - 12)
        first = max(0, min(current - height // 2, len(rows) - height))
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for column in columns:
            table.add_column(Text(column))
        for place, row in enumerate(rows[first : first + height], first):
            table.add_row(*_cells(columns, row), style="bold" if place == current else None)
        return table

    with rich.live.Live(get_renderable=draw, console=console, refresh_per_second=2, transient=True):
        yield
