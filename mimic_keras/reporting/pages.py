"""Self-contained HTML pages with Matplotlib figures as SVG, readable on a telephone and on a dark screen."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib import image
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mimic_keras.storage.files import write_bytes

# {name: (on a light page, on a dark one)}. Figures are drawn in the first; on a page, CSS chooses.
COLOURS = {
    "green": ("#2f7d4f", "#63c08a"),
    "blue": ("#3b5b92", "#8fb0ea"),
    "orange": ("#b0682f", "#e6a06a"),
    "purple": ("#8a4f9e", "#cf9ae2"),
    "red": ("#b03a48", "#f0858f"),
    "teal": ("#4a8f99", "#7fcad5"),
    "olive": ("#7a7a2e", "#c2c26e"),
    "slate": ("#555555", "#b4b4b4"),
    "gold": ("#c08a00", "#e8bd45"),
    "navy": ("#1d2733", "#cbd8e8"),
    "grey": ("#9aa5ad", "#7d8890"),
    "ink": ("#000000", "#e8e8e3"),
    "rule": ("#dddddd", "#3c434b"),
}
GREEN, BLUE, ORANGE, GREY, INK, RULE = (COLOURS[name][0] for name in ("green", "blue", "orange", "grey", "ink", "rule"))
# For series without a meaning of their own, in the order in which they are drawn.
PALETTE = tuple(light for light, _ in list(COLOURS.values())[:10])
MODEL_COLOURS = {"teacher": BLUE, "baseline": ORANGE, "student": GREEN}
ON_LIGHT, ON_DARK = "#111111", "#ffffff"  # texts on an image, which is the same on every page

WIDTH = 3.6  # inches, 346 pixels of CSS: a telephone shows the texts in their own size
SMALL = 8  # points, of ticks and legends: 10.7 pixels
SVG: Any = {"svg.hashsalt": "mimic-keras", "svg.fonttype": "none"}
PIXELS_PER_INCH = 200  # of the parts of a figure that are no lines


@dataclass(frozen=True)
class Picture:
    """A figure of a page: its caption, its SVG, a sentence below it, and whether it takes the page's whole width."""

    title: str
    svg: str
    note: str = ""
    is_wide: bool = False


def write_page(file: Path, template: Path, **values: Any) -> None:
    """Write a page from `template`, which extends page.html.jinja; everything not marked safe is escaped."""
    loader = jinja2.FileSystemLoader([template.parent, Path(__file__).parent])
    page = jinja2.Environment(loader=loader, autoescape=True).get_template(template.name)
    write_bytes(file, page.render(colours=COLOURS, **values).encode())


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of a page, in inches; what is drawn in it is arranged so that nothing overlaps."""
    return Figure((width, height), layout="constrained")


def finish_axes(axes: Any, xlabel: str, ylabel: str, whole: str = "") -> None:
    """Name the axes, with small ticks, room around the marks and without a frame; `whole` ("x", "y" or "xy"): the axes
    on which only whole numbers have a tick."""
    axes.set_xlabel(literal(xlabel), fontsize=9)
    axes.set_ylabel(literal(ylabel), fontsize=9)
    axes.tick_params(labelsize=SMALL)
    axes.margins(0.06)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for name in whole:
        getattr(axes, f"{name}axis").set_major_locator(MaxNLocator(nbins=6, integer=True))


def draw_legend(figure: Figure, axes: Any, columns: int = 2) -> None:
    """A legend below the axes, where it hides nothing; none without labels."""
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower left", ncols=columns, fontsize=SMALL, frameon=False)


def to_svg(figure: Figure) -> str:
    """A figure as an SVG element; equal figures give equal text.

    Its texts are texts, and its colours follow the page: `var(--green, #2f7d4f)` is the second where there is no page.
    It is never shown smaller than it was drawn.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(SVG):
        figure.savefig(stream, format="svg", transparent=True, dpi=PIXELS_PER_INCH, metadata={"Date": None})
    text = stream.getvalue()[stream.getvalue().index("<svg") :]
    for name, (light, _) in COLOURS.items():
        text = re.sub(rf"(fill|stroke): {light}\b", rf"\1: var(--{name}, {light})", text)
    return text.replace("<svg ", f'<svg style="min-width: {figure.get_figwidth():g}in" ', 1)


def to_png(rows: np.ndarray) -> str:
    """An image, float [height, width, 1 or 3], as an address of its PNG; its values are spread from black to white."""
    low, high = float(rows.min()), float(rows.max())
    shades = np.clip((rows - low) / max(high - low, 1e-12), 0, 1)
    stream = io.BytesIO()
    pixels = np.round(255 * np.broadcast_to(shades, (*rows.shape[:2], 3))).astype(np.uint8)
    undated: Any = {"Software": None}
    image.imsave(stream, np.ascontiguousarray(pixels), format="png", metadata=undated)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def format_facts(facts: Mapping[str, Any]) -> list[list[str]]:
    """Rows of a table of names and values, in words: an empty list is "none", and None is "not set".

    Example:
        >>> format_facts({"gpus": [], "onednn": True})
        [['gpus', 'none'], ['onednn', 'yes']]
    """
    words = {"None": "not set", "True": "yes", "False": "no"}

    def say(value: Any) -> str:
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value)) or "none"
        return words.get(str(value), str(value))

    return [[name, say(value)] for name, value in facts.items()]


def literal(text: str) -> str:
    """`text` for a figure, where Matplotlib would typeset what is between two dollar signs as a formula."""
    return text.replace("$", r"\$")
