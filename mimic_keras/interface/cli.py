"""The `mimic-keras` command: every command with its arguments, and how errors become messages and exit codes.

Exit codes: 0 done, 2 the input is wrong, 128 plus its number for a signal (129 SIGHUP, 130 SIGINT, 143 SIGTERM), 1
anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from absl import app
from absl.flags import argparse_flags

from mimic_keras.contracts import InputError, MimicError
from mimic_keras.experiment.formats import FORMATS, SAVED_MODEL
from mimic_keras.interface import api, commands


@dataclass(frozen=True)
class Argument:
    """An argument of a command, as `add_argument` of argparse takes it."""

    names: tuple[str, ...]
    options: dict[str, Any]


def argument(*names: str, **options: Any) -> Argument:
    return Argument(names, options)


def parse_age(text: str) -> float:
    """'30d' or '12h' in seconds."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?[dh]", text):
        raise argparse.ArgumentTypeError(f"expected a number of days or hours, as 30d or 12h; got {text!r}")
    return float(text[:-1]) * {"d": 86_400, "h": 3600}[text[-1]]


def parse_folder(text: str) -> Path:
    return _parse(api.as_folder, text)


def parse_exports_folder(text: str) -> Path:
    return _parse(api.as_exports_folder, text)


def _parse(convert: Callable[[str], Path], text: str) -> Path:
    """`convert(text)`; its InputError becomes argparse's, which names the option."""
    try:
        return convert(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


EXPERIMENT = argument("experiment", type=Path, help="the experiment, a YAML file")
SETTINGS = argument(
    "--set",
    dest="settings",
    action="append",
    default=[],
    metavar="KEY=VALUE",
    help="set one value of the file, as in --set student.training.epochs=5; may be repeated",
)
PLUGINS = argument(
    "--plugins",
    action="append",
    default=[],
    type=Path,
    metavar="FILE.py",
    help="a Python file whose components the experiment may name; may be repeated",
)
HOME = argument(
    "--home",
    type=parse_folder,
    default=api.default_home(),
    help="folder of the artefacts that experiments share ($MIMIC_KERAS_HOME)",
)
RUNS_DIR = argument("--runs_dir", type=parse_folder, default="runs", help="folder with one folder per run")
SAVED_MODELS_DIR = argument(
    "--saved_models_dir", type=parse_exports_folder, default="saved_models", help="folder of the exports"
)

CLUSTER = (
    argument("--cluster", metavar="ADDRESS", help="compute on the Ray cluster there; auto: the one of this machine"),
    argument("--cpus_per_task", type=float, default=1, metavar="N", help="processors that a task reserves there (1)"),
    argument("--gpus_per_task", type=float, default=0, metavar="N", help="GPUs that a task reserves there (0)"),
)
REPLACE = argument(
    "--replace", action="store_true", help="replace the results, or follow the exports, of another experiment"
)

# A command is a function of `commands`, which takes its arguments by name; its summary is the help text.
COMMANDS: tuple[tuple[Callable[..., None], str, tuple[Argument, ...]], ...] = (
    (
        commands.run,
        "run an experiment; what is finished already is reused",
        (
            EXPERIMENT,
            SETTINGS,
            PLUGINS,
            HOME,
            RUNS_DIR,
            SAVED_MODELS_DIR,
            REPLACE,
            argument("--no_export", action="store_true", help="publish nothing: --set export.publish=false"),
            *CLUSTER,
        ),
    ),
    (
        commands.validate,
        "check an experiment or sweep and print its plan; reads no data",
        (argument("experiment", type=Path, help="the experiment or sweep, a YAML file"), SETTINGS, PLUGINS),
    ),
    (
        commands.sweep,
        "run every experiment of a table or figure; what is finished already is reused",
        (
            argument("experiment", type=Path, help="the sweep, a YAML file"),
            SETTINGS,
            PLUGINS,
            HOME,
            RUNS_DIR,
            *CLUSTER,
        ),
    ),
    (
        commands.tune,
        "search the ranges of an experiment; several processes may share the work",
        (EXPERIMENT, SETTINGS, PLUGINS, HOME, RUNS_DIR, *CLUSTER),
    ),
    (
        commands.export,
        "publish the student of a finished run, or again with other options",
        (
            argument("run", type=Path, help="the folder of the run, as runs/quickstart"),
            SETTINGS,
            PLUGINS,
            HOME,
            SAVED_MODELS_DIR,
            REPLACE,
        ),
    ),
    (
        commands.verify,
        "check that an export answers as its student does, and survives bad requests",
        (argument("version", type=Path, help="the folder of the version, as saved_models/quickstart/1"),),
    ),
    (
        commands.predict,
        "classify examples with an export",
        (
            argument("export", type=Path, help="the folder of the version, as saved_models/quickstart/1"),
            argument("inputs", type=Path, nargs="+", help="arrays (.npy, .npz), rows (.csv), images, or other files"),
            argument("--signature", help="which signature to use; by default the only one that takes the inputs"),
            argument(
                "--format", dest="form", choices=(SAVED_MODEL, *FORMATS), default=SAVED_MODEL, help="which files to run"
            ),
        ),
    ),
    (
        commands.new,
        "write a plugin package to start from, with tests that pass",
        (
            argument("kind", choices=("loss", "architecture", "teacher", "dataset")),
            argument("name", help="of the package and of the component, as my-loss"),
            argument("--into", type=Path, default=Path(), help="where the package's folder is created"),
        ),
    ),
    (
        commands.plugins,
        "list the installed components (imports none), show one, or check all or those of a file",
        (
            argument("action", nargs="?", choices=("list", "show"), default="list"),
            argument("component", nargs="?", metavar="KIND/NAME", help="what to show, as loss/temperature"),
            argument(
                "--check",
                nargs="*",
                type=Path,
                metavar="FILE.py",
                help="import each installed component in a process of its own; or test the components of files",
            ),
            PLUGINS,
        ),
    ),
    (
        commands.cache,
        "list and check the artefacts that experiments share, or remove old ones",
        (
            argument("action", nargs="?", choices=("list", "prune"), default="list"),
            argument(
                "--older-than", type=parse_age, metavar="AGE", help="prune what was not used for so long: 30d, 12h"
            ),
            HOME,
        ),
    ),
)
OF_THE_PARSER = ("command", "function", "debug")  # what a command is not given


def parse(argv: list[str]) -> argparse.Namespace:
    """The command to call, as `function`, and its arguments."""
    parser = argparse_flags.ArgumentParser(
        prog="mimic-keras", description="Train small student nets to mimic deep teacher nets, and export them."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {importlib.metadata.version('mimic-keras')}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for function, summary, arguments in COMMANDS:
        command = parsers.add_parser(function.__name__, help=summary)
        for each in arguments:
            command.add_argument(*each.names, **each.options)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(function=function)
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> int:
    """Run one command; every failure ends in one message and an exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    again = shlex.join(["mimic-keras", *sys.argv[1:]])
    try:
        arguments.function(**{name: value for name, value in vars(arguments).items() if name not in OF_THE_PARSER})
        return 0
    except InputError as error:
        return _fail(arguments, str(error), 2)
    except KeyboardInterrupt:
        return _fail(arguments, f"interrupted; what was finished is kept. To resume: {again}", 130)
    except _Terminated as error:
        return _fail(arguments, f"terminated; what was finished is kept. To resume: {again}", 128 + error.number)
    except BrokenPipeError:  # the reader of our output, such as head, has enough; Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A failed write does not know its file.
        folders = [str(getattr(arguments, name, "")) for name in ("home", "runs_dir", "saved_models_dir")]
        reason = f"{error.filename or ' or '.join(filter(None, folders))}: {error.strerror or error}"
        return _fail(arguments, f"{reason}; what was finished is kept. To resume once that is fixed: {again}", 1)
    except MimicError as error:
        return _fail(arguments, str(error), 1)
    except Exception as error:  # a bug: one line, and the traceback on demand
        return _fail(arguments, f"{type(error).__name__}: {error}", 1)


def entry() -> None:
    """The console script."""
    _open_standard_streams()
    app.run(main, flags_parser=parse)


def _open_standard_streams() -> None:
    """Have a closed standard stream go nowhere, and text that the locale does not have be escaped, not be an error."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file that is opened would take its number, and receive what is printed
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _fail(arguments: argparse.Namespace, message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # after SIGHUP there may be no terminal
        if arguments.debug:
            traceback.print_exc()
        print(f"mimic-keras: {message}", file=sys.stderr)
    return code


class _Terminated(BaseException):
    """SIGTERM or SIGHUP; a BaseException like KeyboardInterrupt, so that no handler of errors catches it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated(number)
