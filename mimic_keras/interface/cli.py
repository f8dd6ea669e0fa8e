"""The `mimic-keras` command: run, validate, tune, sweep, export, verify, plugins, new, cache.

Exit codes: 0 done, 2 the input is wrong, 130 and 143 interrupted, 1 anything else.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from absl import app
from absl.flags import argparse_flags

from mimic_keras import __version__
from mimic_keras.contracts import InputError
from mimic_keras.interface import commands


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse_flags.ArgumentParser(
        prog="mimic-keras", description="Train small student nets to mimic deep teacher nets, and export them."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = parsers.add_parser("run", help="run an experiment; what is finished already is reused")
    validate = parsers.add_parser("validate", help="check an experiment and print its plan; reads no data")
    export = parsers.add_parser("export", help="publish the student of a finished run again, with other options")
    verify = parsers.add_parser(
        "verify", help="whether an export answers as its student does, and survives bad requests"
    )
    plugins = parsers.add_parser("plugins", help="list the installed components (imports none), show one, check all")
    tune = parsers.add_parser("tune", help="search the ranges of an experiment; several processes may share the work")
    sweep = parsers.add_parser("sweep", help="run every experiment of a table or figure; what is finished is reused")
    for command in (run, validate, tune, sweep):
        what = "the sweep" if command is sweep else "the experiment" + " or sweep" * (command is validate)
        command.add_argument("experiment", type=Path, help=f"{what}, a YAML file")
    export.add_argument("run", type=Path, help="the folder of the run, as runs/quickstart")
    verify.add_argument("version", type=Path, help="the folder of the version, as saved_models/quickstart/1")
    for command in (run, validate, tune, sweep, export):
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="set one value of the file, as in --set student.training.epochs=5; may be repeated",
        )
    plugins.add_argument("action", nargs="?", choices=("list", "show"), default="list")
    plugins.add_argument("component", nargs="?", metavar="KIND/NAME", help="what to show, as loss/temperature")
    plugins.add_argument("--check", action="store_true", help="import each in a process of its own; say what is broken")
    home = os.environ.get("MIMIC_KERAS_HOME") or "~/.cache/mimic_keras"
    for command in (run, tune, sweep):
        command.add_argument("--runs_dir", type=Path, default=Path("runs"), help="one folder a run goes here")
    for command in (run, export):
        command.add_argument("--saved_models_dir", type=Path, default=Path("saved_models"), help="exports go here")
    new = parsers.add_parser("new", help="write a plugin of your own to start from, with tests that pass")
    new.add_argument("kind", choices=("loss", "architecture", "teacher", "dataset"))
    new.add_argument("name", help="of the package and of the component, as my-loss")
    new.add_argument("--into", type=Path, default=Path(), help="where its folder is made")
    cache = parsers.add_parser("cache", help="what experiments share: list and verify it, or remove what is old")
    cache.add_argument("action", nargs="?", choices=("list", "prune"), default="list")
    cache.add_argument("--older-than", type=_days, metavar="AGE", help="prune what was not used for so long: 30d, 12h")
    for command in (run, tune, sweep, export, cache):
        command.add_argument("--home", type=Path, default=Path(home), help="what experiments share ($MIMIC_KERAS_HOME)")
    for name, command in parsers.choices.items():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(function=getattr(commands, name))
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> int:
    """Run one command; every failure ends in one message and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    again = shlex.join(["mimic-keras", *sys.argv[1:]])
    try:
        arguments.function(arguments)
        return 0
    except InputError as error:
        return _fail(arguments, str(error), 2)
    except KeyboardInterrupt:
        return _fail(arguments, f"interrupted; what was finished is kept. To continue: {again}", 130)
    except _Terminated:
        return _fail(arguments, f"terminated; what was finished is kept. To continue: {again}", 143)
    except BrokenPipeError:  # the reader of our output, as head, has enough; Python would complain at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A failed write does not know its file.
        folders = [str(getattr(arguments, name, "")) for name in ("home", "runs_dir", "saved_models_dir")]
        place = f"{error.filename or ' or '.join(filter(None, folders))}: "
        reason = f"{place}{error.strerror or error}"
        return _fail(arguments, f"{reason}; what was finished is kept. To continue, when that is mended: {again}", 1)
    except Exception as error:  # the last resort: anything else is one line, and a traceback on demand
        ours = type(error).__module__.startswith("mimic_keras.")
        return _fail(arguments, str(error) if ours else f"{type(error).__name__}: {error}", 1)


def entry() -> None:
    app.run(main, flags_parser=parse)


def _fail(arguments: argparse.Namespace, message: str, code: int) -> int:
    if arguments.debug:
        traceback.print_exc()
    print(f"mimic-keras: {message}", file=sys.stderr)
    return code


class _Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, nothing on the way may take it for an error."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _days(text: str) -> float:
    """'30d' or '12h' in seconds."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?[dh]", text):
        raise argparse.ArgumentTypeError(f"expected a number of days or hours, as 30d or 12h; got {text!r}")
    return float(text[:-1]) * {"d": 86_400, "h": 3600}[text[-1]]
