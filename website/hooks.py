"""What MkDocs calls while it builds the site: it adds the generated pages, and turns links to the repository's files
into links to pages that show them."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

from website import generated, repository

ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each generated text and for each file outside docs/ that a page links to."""
    for name, write in generated.PAGES.items():
        files.append(File.generated(config, name, content=write()))
    for name, content in repository.write_pages(ROOT).items():
        page = File.generated(config, name, content=content)
        page.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return repository.rewrite_links(markdown, page.file.src_uri, ROOT)
