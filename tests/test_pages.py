"""HTML pages: what is escaped, and figures as SVG that are the same every time."""

import base64
import io
import re
import xml.etree.ElementTree

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from mimic_keras.reporting import pages


def draw():
    figure = Figure((3, 2))
    figure.subplots(1, 2)[0].plot([0, 1], [2, 3], label="<b>")
    return figure


def test_a_page_stands_in_the_frame_and_escapes_values(tmp_path):
    template = tmp_path / "mine.html.jinja"
    template.write_text(
        '{% extends "page.html.jinja" %}{% block content %}<p>{{ text }}</p>{{ drawn|safe }}{% endblock %}'
    )
    file = tmp_path / "page.html"
    pages.write_page(file, template, title="<t> é", summary="a & b", text="<script>", drawn="<svg/>")
    text = file.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "<title>&lt;t&gt; é - mimic-keras</title>" in text
    assert "<h1>&lt;t&gt; é</h1>" in text
    assert '<p class="lead">a &amp; b</p>' in text
    assert "<p>&lt;script&gt;</p><svg/>" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.html.jinja", "page.html"]


def test_equal_figures_are_equal_text():
    text = pages.to_svg(draw())
    assert text == pages.to_svg(draw())
    assert text.startswith("<svg")
    assert "<dc:date>" not in text
    assert xml.etree.ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_figure_is_as_wide_as_a_telephone_and_never_shown_smaller():
    figure = pages.new_figure(2)
    pages.finish_axes(figure.subplots(), "x", "$y$")
    text = pages.to_svg(figure)
    assert 'style="min-width: 3.6in"' in text
    assert 'width="259.2pt"' in text
    assert ">$y$</text>" in text, "a text, not a drawing of one"


def test_colours_follow_the_page_and_stand_alone():
    figure = pages.new_figure(2)
    figure.subplots().plot([0, 1], color=pages.GREEN)
    text = pages.to_svg(figure)
    assert "stroke: var(--green, #2f7d4f)" in text
    assert "stroke: #2f7d4f" not in text
    assert not re.search(r"fill: #ffffff(?!;? ?opacity: 0)", text), "no white ground on a dark page"


def test_axes_of_whole_numbers_have_no_tick_between_them():
    figure = pages.new_figure(2)
    axes = figure.subplots()
    pages.finish_axes(axes, "trial", "", whole="x")
    axes.plot([1, 2, 3], [0.1, 0.2, 0.4])
    assert all(tick == int(tick) for tick in axes.get_xticks())
    visible = {name: spine.get_visible() for name, spine in axes.spines.items()}
    assert visible == {"left": True, "bottom": True, "right": False, "top": False}


def test_marks_stay_off_the_edge():
    axes = pages.new_figure(2).subplots()
    pages.finish_axes(axes, "", "")
    axes.plot([1, 3], [5, 7])
    low, high = axes.get_xlim()
    assert (low, high) == pytest.approx((0.88, 3.12))  # 6 % of the range on either side


def test_an_image_is_spread_from_black_to_white():
    address = pages.to_png(np.array([[[0.25], [0.75]], [[0.5], [0.25]]]))
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    shades = np.round(255 * matplotlib.image.imread(io.BytesIO(content), "png")).astype(int)
    np.testing.assert_array_equal(shades[..., 0], [[0, 255], [128, 0]])
    assert address == pages.to_png(np.array([[[0.25], [0.75]], [[0.5], [0.25]]]))
    assert pages.to_png(np.zeros([2, 2, 3])).startswith("data:image/png")


def test_a_table_scrolls_beside_its_first_column(tmp_path):
    template = tmp_path / "mine.html.jinja"
    template.write_text(
        '{% extends "page.html.jinja" %}{% import "parts.html.jinja" as parts %}'
        '{% block content %}{{ parts.table(["a", "b"], [["<x>", 1]], classes=["student"]) }}{% endblock %}'
    )
    pages.write_page(tmp_path / "page.html", template, title="t", summary="s")
    text = (tmp_path / "page.html").read_text()
    assert '<div class="scroll" tabindex="0">\n<table>\n<tr><th>a</th><th>b</th></tr>' in text
    assert '<tr class="student"><td>&lt;x&gt;</td><td>1</td></tr>' in text
    assert "td:first-child { text-align: left; position: sticky; left: 0;" in text
    assert "@media (prefers-color-scheme: dark)" in text


def test_every_model_has_a_colour_of_its_own():
    assert set(pages.MODEL_COLOURS) == {"teacher", "baseline", "student"}
    assert len(set(pages.MODEL_COLOURS.values())) == 3
    assert len(set(pages.PALETTE)) == len(pages.PALETTE) == 10
