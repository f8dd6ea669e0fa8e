"""HTML pages: what is escaped, and figures as SVG that are the same every time."""

import xml.etree.ElementTree

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


def test_two_lines_of_the_frame_stay():
    figure = draw()
    assert pages.hide_frame(figure) is figure
    for axes in figure.axes:
        visible = {name: spine.get_visible() for name, spine in axes.spines.items()}
        assert visible == {"left": True, "bottom": True, "right": False, "top": False}


def test_every_model_has_a_colour_of_its_own():
    assert set(pages.MODEL_COLOURS) == {"teacher", "baseline", "student"}
    assert len(set(pages.MODEL_COLOURS.values())) == 3
    assert len(set(pages.PALETTE)) == len(pages.PALETTE) == 10
