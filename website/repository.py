"""Pages that show the repository's files outside docs/, so that a link to one leads to a page of the site.

`experiments/quickstart.yaml` is shown by the page `repository/experiments/quickstart.yaml.md`. Which files have a page
follows from the links: those that the pages in docs/ link to, those that these link to, and so on.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from website import generated

LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?=[)#])")
FENCED = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2 *$", re.M | re.S)
PREFIX = "repository/"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".sh": "bash", ".html": "html"}
# Folders whose files a page lists, and what stands for them; any other folder is shown by its README.md.
FOLDERS = {"experiments": "gallery.md"}


def write_pages(root: Path) -> dict[str, str]:
    """{page: Markdown} of every file that is linked to, directly or from such a page.

    Raises:
        FileNotFoundError: a link leads nowhere.
    """
    waiting = [(f"docs/{file.name}", file.read_text()) for file in sorted((root / "docs").glob("*.md"))]
    waiting += [(f"docs/{name}", write()) for name, write in generated.PAGES.items()]
    waiting += [(name, show_file(root / name)) for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
    pages: dict[str, str] = {}
    while waiting:
        origin, content = waiting.pop()
        if not origin.startswith("docs/"):
            pages[to_page(origin)] = content
        for target in find_targets(content, origin):
            target = show_folder(target, root)
            if not target.startswith("docs/") and to_page(target) not in pages:
                pages[to_page(target)] = ""
                waiting.append((target, show_file(root / target)))
    return pages


def rewrite_links(markdown: str, page: str, root: Path) -> str:
    """`markdown` of the site's `page`, its links to files of the repository replaced by links to their pages."""
    origin = to_origin(page)

    def replace(match: re.Match[str]) -> str:
        target = show_folder(resolve(match["path"], origin), root)
        return os.path.relpath(to_page(target), PurePosixPath(page).parent)

    pieces, end = [], 0
    for block in FENCED.finditer(markdown):
        pieces += [LINK.sub(replace, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*pieces, LINK.sub(replace, markdown[end:])])


def find_targets(markdown: str, origin: str) -> Iterator[str]:
    """The files of the repository, that a Markdown file of the repository links to outside blocks of code."""
    for match in LINK.finditer(FENCED.sub("", markdown)):
        yield resolve(match["path"], origin)


def resolve(link: str, origin: str) -> str:
    """Where a relative link in the file `origin` leads, from the repository's root.

    Example:
        >>> resolve("../experiments/quickstart.yaml", "docs/papers.md")
        'experiments/quickstart.yaml'
    """
    return os.path.normpath(PurePosixPath(origin).parent / link)


def to_page(target: str) -> str:
    """The site's page for a file of the repository.

    Example:
        >>> to_page("docs/papers.md"), to_page("README.md"), to_page("experiments/quickstart.yaml")
        ('papers.md', 'repository/README.md', 'repository/experiments/quickstart.yaml.md')
    """
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return PREFIX + (target if target.endswith(".md") else f"{target}.md")


def to_origin(page: str) -> str:
    """The file of the repository that a page shows; `to_page` the other way round, but for a Markdown file's suffix."""
    return page.removeprefix(PREFIX) if page.startswith(PREFIX) else f"docs/{page}"


def show_folder(target: str, root: Path) -> str:
    """What stands for a folder; a file stands for itself."""
    if target in FOLDERS:
        return f"docs/{FOLDERS[target]}"
    return f"{target}/README.md" if (root / target).is_dir() else target


def show_file(file: Path) -> str:
    """A file as Markdown: Markdown as it is, a notebook's cells, anything else as a block of code."""
    text = file.read_text()
    if file.suffix == ".md":
        return text
    hidden = "---\nsearch: {exclude: true}\n---\n\n"
    if file.suffix == ".ipynb":
        return hidden + "\n\n".join(show_cell(cell) for cell in json.loads(text)["cells"])
    return f"{hidden}# {file.name}\n\n````{LANGUAGES.get(file.suffix, '')}\n{text}````\n"


def show_cell(cell: dict) -> str:
    source = "".join(cell["source"])
    return f"```python\n{source}\n```" if cell["cell_type"] == "code" else source
