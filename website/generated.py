"""The pages that are written from the program itself, so that they cannot differ from it."""

from collections.abc import Callable

from website import command_line, components, experiment_file, gallery

# {page: what writes its Markdown}, links as from a file in docs/
PAGES: dict[str, Callable[[], str]] = {
    "gallery.md": gallery.write,
    "experiment_file.md": experiment_file.write,
    "components.md": components.write,
    "command_line.md": command_line.write,
}
