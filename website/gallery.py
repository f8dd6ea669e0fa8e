"""The gallery of experiments: a card for each file, from the lines that open it and the figures in docs/."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
OPENING = """# Gallery of experiments

Every file in `experiments/`, with what it costs, what to expect and, where one was drawn, a picture. The texts are
those that open the files; [Results](results.md) has the measured numbers with their seeds and machines, and
[The papers](papers.md) compares the files with the papers.
"""
# {heading: how the source of its experiments begins}
GROUPS = {
    "Small, for two processor cores": "ours",
    "Ba & Caruana 2014": "Ba & Caruana 2014",
    "Urban et al. 2017": "Urban et al. 2017",
}
CODE = re.compile(
    r"mimic-keras (?:run|sweep|validate)(?: [\w/.]+\.yaml)?(?: --set \S+)?|make \w+|\bMIMIC_KERAS_\w+|\b[\w/]+\.yaml"
)
SHOWN = ("Command", "Cost", "Expected", "Source", "Ours")


@dataclass(frozen=True)
class Card:
    """An experiment: its file's name without suffix, its title, {word: text} of the lines that open it, its figures."""

    name: str
    title: str
    texts: dict[str, str]
    figures: list[str]


def write() -> str:
    """The page, as Markdown.

    Raises:
        ValueError: the source of an experiment is in none of the groups.
    """
    cards = [read_card(file) for file in sorted((ROOT / "experiments").glob("*.yaml"))]
    left = {card.name for card in cards}
    parts = [OPENING]
    for heading, source in GROUPS.items():
        group = [card for card in cards if card.texts["Source"].startswith(source)]
        group.sort(key=lambda card: (card.name != "quickstart", not card.figures, card.name))
        left -= {card.name for card in group}
        parts += [f"## {heading}\n", *map(format_card, group)]
    if left:
        raise ValueError(f"{', '.join(sorted(left))}: the source begins with none of {', '.join(GROUPS.values())}")
    return "\n".join(parts)


def read_card(file: Path) -> Card:
    """The card of an experiment's file."""
    lines = [line.removeprefix("#").rstrip() for line in file.read_text().splitlines() if line.startswith("#")]
    texts: dict[str, str] = {}
    for line in lines[1:]:
        opened = re.match(r" (\w+): +(.*)", line)
        word = opened[1] if opened else next(reversed(texts))
        texts[word] = " ".join(filter(None, [texts.get(word), opened[2] if opened else line.strip()]))
    figures = sorted(figure.name for figure in (ROOT / "docs" / "figures").glob(f"{file.stem}_[0-9].svg"))
    return Card(file.stem, lines[0].strip(), texts, figures)


def format_card(card: Card) -> str:
    """A card as Markdown."""
    pictures = [f"![{card.title}](figures/{name})\n" for name in card.figures]
    rows = [f"- **{word}**: {link_pages(card.texts[word])}" for word in SHOWN if word in card.texts]
    heading = f"### [{card.name}](../experiments/{card.name}.yaml) {{ #{card.name} }}\n"
    return "\n".join([heading, f"{card.title}\n", *pictures, *rows, ""])


def link_pages(text: str) -> str:
    """`text` with links to the pages that it names, as docs/results.md, and with commands and files as code."""
    text = CODE.sub(r"`\g<0>`", text)
    return re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", text)
