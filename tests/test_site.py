"""The site of the documentation: its generated pages, its links, and the messages that a page explains."""

import ast
import functools
import os
import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mimic_keras.experiment.schema import Experiment
from website import components, experiment_file, gallery, generated, repository

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))


@functools.cache
def pages():
    """{page: its Markdown} of the site, with links as MkDocs gets them."""
    written = {file.name: file.read_text() for file in (ROOT / "docs").glob("*.md")}
    written |= {name: write() for name, write in generated.PAGES.items()} | repository.write_pages(ROOT)
    return {name: repository.rewrite_links(text, name, ROOT) for name, text in written.items()}


@functools.cache
def anchors(page):
    """The anchors of a page's headings: as the page gives them, or as GitHub and MkDocs make them."""
    found = set(re.findall(r"^::: ([\w.]+)", pages()[page], re.M))
    for heading in re.findall(r"^#+ (.+)$", repository.FENCED.sub("", pages()[page]), re.M):
        given = re.search(r"\{ #([\w-]+) \}", heading)
        made = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading)).lower().replace(" ", "-")
        found.add(given[1] if given else made)
    return found


def test_every_link_leads_to_a_page_and_a_heading():
    """Of the whole site, files of the repository included; `make docs` checks the same on what MkDocs wrote."""
    for page, text in pages().items():
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", repository.FENCED.sub("", text)):
            place = os.path.normpath(Path(page).parent / target) if target else page
            if ":" in target:
                continue
            assert place in pages() or (ROOT / "docs" / place).is_file(), f"{page}: {target}"
            if anchor and not anchor.startswith("mimic_keras."):  # these are made from the code
                assert anchor in anchors(place), f"{page}: {target}#{anchor}"


def test_code_below_a_list_is_code_for_mkdocs_too():
    """Python-Markdown wants eight spaces where GitHub is content with six, and makes text of the rest of the list."""
    for page, text in pages().items():
        found = re.search(r"\n\n {5,7}\S.*", repository.FENCED.sub("", text))
        assert not found, f"{page}: {found[0].strip()}"


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    navigation = YAML(typ="safe").load(text[text.index("\nnav:") :])["nav"]
    listed = {entry if isinstance(entry, str) else next(iter(entry.values())) for entry in flatten(navigation)}
    assert {page for page in pages() if "/" not in page} <= listed
    assert listed <= pages().keys()


def flatten(entries):
    for entry in entries:
        inner = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from flatten(inner) if isinstance(inner, list) else [entry]


def test_links_of_code_are_left_alone():
    text = "[a](../README.md)\n\n```python\nx[0](../README.md)\n```\n"
    assert repository.rewrite_links(text, "start.md", ROOT) == text.replace("../README", "repository/README", 1)


def test_the_gallery_has_every_experiment_with_the_words_that_open_it():
    page = gallery.write()
    assert re.findall(r"^### \[(\w+)\]", page, re.M) != []
    assert sorted(re.findall(r"^### \[(\w+)\]", page, re.M)) == [file.stem for file in EXPERIMENTS]
    card = gallery.read_card(ROOT / "experiments" / "quickstart.yaml")
    assert card.texts["Cost"] == "one to three minutes on two processor cores with other load."
    assert card.texts["Expected"].endswith("the baseline's dropout are ours, chosen on validation.")
    assert gallery.link_pages("mimic-keras run experiments/a.yaml --set x=1, see docs/timit.md") == (
        "`mimic-keras run experiments/a.yaml --set x=1,` see [timit.md](timit.md)"
    )


def test_every_figure_is_of_an_experiment_in_the_gallery_or_of_a_benchmark():
    figures = {file.name for file in (ROOT / "docs" / "figures").glob("*.svg")}
    in_gallery = {name for file in EXPERIMENTS for name in gallery.read_card(file).figures}
    benchmarks = {file.stem for file in (ROOT / "benchmarks").glob("*.py")}
    assert in_gallery <= figures
    assert {re.sub(r"_\d+\.svg$", "", name) for name in figures - in_gallery} <= benchmarks


def test_the_reference_of_the_experiment_file_has_every_key():
    page = experiment_file.write()
    (section,) = re.findall(r"^## experiment .*?(?=^## )", page, re.M | re.S)
    assert re.findall(r"^\| `(\w+)`", section, re.M) == list(Experiment.model_fields)
    assert "| `epochs` | `int >= 1 < 2147483648` | required |  |" in page
    assert "| `seed` | `int >= 0 < 2147483648` | the experiment's |" in page
    assert re.search(r"\| `optimizer` \| \[sgd\]\(#optimizer-sgd\), \[adam\]", page)
    assert re.search(r"\| `publish` \| `bool` \| `true` \| whether a run publishes its student\. \|", page)


def test_the_reference_of_the_components_has_every_one_with_its_arguments():
    page = components.write()
    for file in ROOT.glob("plugins/*/pyproject.toml"):
        for group, names in tomllib.loads(file.read_text())["project"]["entry-points"].items():
            kind = next(kind for kind, name in components.GROUPS.items() if name == group)
            assert all(f"{{ #{kind}-{name} }}" in page for name in names)
    assert "| `temperature` | `float` | `4.0` |" in page
    assert re.search(r"\| `shift` \| `int` \| `0` \| they are moved by up to this many pixels", page)


def test_the_known_plugins_have_their_components():
    rows = dict(
        re.findall(r"^\| \[([\w-]+)\]\([^)]*\) \| (.+?) \|", (ROOT / "docs" / "known_plugins.md").read_text(), re.M)
    )
    for file in [*ROOT.glob("plugins/*/pyproject.toml"), *ROOT.glob("examples/*/pyproject.toml")]:
        project = tomllib.loads(file.read_text())["project"]
        provided = [name for names in project["entry-points"].values() for name in names]
        assert sorted(re.findall(r"`(\w+)`", rows.pop(project["name"]))) == sorted(provided)


@functools.cache
def templates():
    """Every text of the program, with "…" for what is filled in when it is printed."""
    found = []
    for file in [*ROOT.glob("mimic_keras/**/*.py"), *ROOT.glob("plugins/*/mimic_keras_*/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[sdr]", "…", node.value))
    return found


MESSAGES = re.findall(r"^- `(.+?)`(?=:)", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)


@pytest.mark.parametrize("message", MESSAGES)
def test_an_explained_message_is_one_of_the_program(message):
    """Where this fails, a message was changed: change it in docs/troubleshooting.md too, or take it out there."""
    assert any(has_in_order(text, message.split("…")) for text in templates())


def has_in_order(text, pieces):
    place = 0
    for piece in pieces:
        place = text.find(piece, place) + len(piece)
        if place < len(piece):
            return False
    return True
