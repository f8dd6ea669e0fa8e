"""Self-contained HTML pages with Matplotlib figures as SVG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

from mimic_keras.storage.files import write_bytes

GREEN, BLUE, ORANGE, GREY = "#2f7d4f", "#3b5b92", "#b0682f", "#9aa5ad"
# For series without a meaning of their own, in the order in which they are drawn.
PALETTE = (GREEN, BLUE, ORANGE, "#8a4f9e", "#b03a48", "#4a8f99", "#7a7a2e", "#555555", "#c08a00", "#1d2733")
MODEL_COLOURS = {"teacher": BLUE, "baseline": ORANGE, "student": GREEN}


def write_page(file: Path, template: Path, **values: Any) -> None:
    """Write a page from `template`, which extends page.html.jinja; everything not marked safe is escaped."""
    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    page = jinja2.Environment(loader=loader, autoescape=True).get_template(template.name)
    write_bytes(file, page.render(**values).encode())


def to_svg(figure: Figure) -> str:
    """A figure as an SVG element; equal figures give equal text."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mimic-keras"}):
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def literal(text: str) -> str:
    """`text` for a figure, where Matplotlib would typeset what is between two dollar signs as a formula."""
    return text.replace("$", r"\$")


def hide_frame(figure: Figure) -> Figure:
    """Leave only the left and bottom axis lines."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure
