"""The blocks of code in the documents, and what each is: tests check them by their kind."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# How the blocks begin that no program reads: pictures, the layout of folders, a list of rooms.
DRAWINGS = (
    "data ──>",
    "interface\n",
    "          command line",
    "argv --",
    "driver: ",
    "$MIMIC_KERAS_HOME/  ",
    "saved_models/quickstart/\n",
)
PROGRAMS = (
    "mimic-keras",
    "make",
    "pip",
    "python",
    "python3.11",
    "for",
    "export",
    "docker",
    "curl",
    "ray",
    "cd",
    "uv",
    "pipx",
    ".",
)


@dataclass(frozen=True)
class Block:
    """A block of code: its page, the number of its first line, its language ("" if it is indented) and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def kind(self) -> str:
        """Its language; of an indented block, what it looks like."""
        if self.language:
            return self.language
        if self.text.startswith(DRAWINGS):
            return "drawing"
        if self.text.startswith("model_config_list"):
            return "models.config"
        first = re.sub(r"^(\w+=\S+ )+", "", self.text.lstrip()).split()[0]  # without variables of the environment
        return "shell" if Path(first).name in PROGRAMS or first == "." else "python"

    @property
    def commands(self) -> list[list[str]]:
        """The command lines of a block of shell as words, without variables, loops, comments and explanations."""
        found = []
        for line in self.text.replace("\\\n", " ").splitlines():
            line = re.sub(r"(^|(?<=\S))\s{3,}[a-z].*", "", line).strip()  # the explanation has a column of its own
            words = shlex.split(re.sub(r"^(\w+=\S+ )+", "", line), comments=True)
            if words and words[0] not in ("for", "done"):
                found.append(words[: words.index(">")] if ">" in words else words)
        return found


def read_blocks() -> Iterator[Block]:
    """Every block of code of every page."""
    parser = MarkdownIt("commonmark").enable("table")
    for page in PAGES:
        for token in parser.parse(page.read_text()):
            if token.type in ("fence", "code_block"):
                yield Block(str(page.relative_to(ROOT)), token.map[0] + 1, token.info.strip(), token.content)


BLOCKS = list(read_blocks())


def blocks_of(kind: str, page: str = "") -> list[Block]:
    return [block for block in BLOCKS if block.kind == kind and page in block.page]


def parametrize_commands(*programs: str) -> pytest.MarkDecorator:
    """A test for every command line in the documents of one of these programs: its argument `words`."""
    found = {
        " ".join(words): words
        for block in blocks_of("shell")
        for words in block.commands
        if Path(words[0]).name in programs
    }
    return pytest.mark.parametrize("words", found.values(), ids=found.keys())
