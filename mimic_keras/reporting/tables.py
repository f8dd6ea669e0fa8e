"""Numbers as text, and rows of mappings as CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any


def format_value(value: Any) -> str:
    """A value as a table shows it; None is left empty.

    Example:
        >>> format_value(12345), format_value(0.012345), format_value(None)
        ('12,345', '0.0123', '')
    """
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_share(share: float | None, examples: int) -> str:
    """A share of so many examples in per cent, with as many digits as one example more or less can be seen in; at most
    two, since more are noise. Without the sign, which the heading of a column has.

    Example:
        >>> format_share(0.0714, 350), format_share(0.0714, 10_000), format_share(0.25, 36), format_share(None, 1)
        ('7.1', '7.14', '25', '')
    """
    if share is None:
        return ""
    return f"{100 * share:.{min(2, max(0, math.ceil(math.log10(max(examples, 1))) - 2))}f}"


def format_count(count: int | None) -> str:
    """A number of parameters or multiply-adds; None is one that cannot be known.

    Example:
        >>> format_count(12345), format_count(None)
        ('12,345', 'not counted')
    """
    return "not counted" if count is None else f"{count:,}"


def format_bytes(count: float) -> str:
    """A number of bytes in decimal units.

    Example:
        >>> format_bytes(696_245_732)
        '696 MB'
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A header and the rows, in UTF-8; missing values are left empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def to_markdown(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| " + " | ".join(map(_escape, columns)) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_escape(row.get(column, "")) for column in columns) + " |" for row in rows]


def _escape(text: str) -> str:
    """What Markdown shows as `text` within a cell, where neither a line ends nor HTML begins."""
    return re.sub(r"[\\|<]", r"\\\g<0>", re.sub(r"[\r\n]+", " ", text))
