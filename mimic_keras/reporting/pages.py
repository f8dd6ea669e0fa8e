"""Self-contained HTML pages with matplotlib's pictures as SVG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

from mimic_keras.storage.files import write_bytes


def write(file: Path, template: Path, **values: Any) -> None:
    """Write the page of `template`, which extends page.html.jinja; everything is escaped that is not marked safe."""
    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    page = jinja2.Environment(loader=loader, autoescape=True).get_template(template.name)
    write_bytes(file, page.render(**values).encode())


def picture(figure: Figure) -> str:
    """A figure as an SVG element, the same text for the same figure."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mimic-keras"}):
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def tidy(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure
