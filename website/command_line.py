"""The reference of the command line: what every command's --help prints."""

import contextlib
import io
import os
from unittest import mock

from mimic_keras.interface.arguments import COMMANDS, parse

OPENING = """# Command line

What `mimic-keras COMMAND --help` prints. The exit code is 0 on success, 2 for invalid input, 130 or 143 when
interrupted, and 1 for any other failure.
"""


def write() -> str:
    """The page, as Markdown."""
    names = [command.name for command in COMMANDS]
    sections = [f"## mimic-keras {name}\n\n```text\n{capture_help(name)}```\n" for name in names]
    return "\n".join([OPENING, f"```text\n{capture_help()}```\n", *sections])


def capture_help(*command: str) -> str:
    """What `mimic-keras COMMAND --help` prints, 80 columns wide."""
    printed = io.StringIO()
    terminal = mock.patch.dict(os.environ, COLUMNS="82")  # argparse leaves two columns free
    with terminal, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        parse(["mimic-keras", *command, "--help"])
    return printed.getvalue()
