"""The commands of `mimic-keras` with their arguments, examples and help."""

from __future__ import annotations

import argparse
import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimic_keras.contracts import InputError
from mimic_keras.experiment.formats import FORMATS, SAVED_MODEL
from mimic_keras.interface import commands, folders


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


def parse_size(text: str) -> float:
    """'500MB' or '20GB' in bytes, of decimal units."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?(MB|GB)", text):
        raise argparse.ArgumentTypeError(f"expected a number of MB or GB, as 500MB or 20GB; got {text!r}")
    return float(text[:-2]) * {"MB": 1e6, "GB": 1e9}[text[-2:]]


def parse_folder(text: str) -> Path:
    return _parse(folders.as_folder, text)


def parse_exports_folder(text: str) -> Path:
    return _parse(folders.as_exports_folder, text)


def _parse(convert: Callable[[str], Path], text: str) -> Path:
    """`convert(text)`; its InputError becomes argparse's, which names the option."""
    try:
        return convert(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


SHELLS = ("bash", "zsh", "tcsh")  # that shtab writes completions for
EXPERIMENT = argument("experiment", type=Path, help="a YAML file, or the name of a built-in experiment, as quickstart")
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
    default=folders.default_home(),
    help="folder of the artefacts that experiments share ($MIMIC_KERAS_HOME)",
)
RUNS_DIR = argument("--runs_dir", type=parse_folder, default="runs", help="folder with one folder per run")
SAVED_MODELS_DIR = argument(
    "--saved_models_dir", type=parse_exports_folder, default="saved_models", help="folder of the exports"
)
PUBLISH_TO = argument(
    "--publish_to",
    metavar="PLACE",
    help="copy the version and the report there, too: s3://BUCKET/PATH, gs://BUCKET/PATH, or a folder",
)
CLUSTER = (
    argument("--cluster", metavar="ADDRESS", help="compute on the Ray cluster there; auto: the one of this machine"),
    argument("--cpus_per_task", type=float, default=1, metavar="N", help="processors that a task reserves there (1)"),
    argument("--gpus_per_task", type=float, default=0, metavar="N", help="GPUs that a task reserves there (0)"),
)
REPLACE = argument(
    "--replace", action="store_true", help="replace the results, or follow the exports, of another experiment"
)


@dataclass(frozen=True)
class Command:
    """A function of `commands`, which takes its arguments by name; `examples` are lines behind its name."""

    function: Callable[..., None]
    summary: str
    arguments: tuple[Argument, ...]
    examples: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.function.__name__


def completion(shell: str) -> None:
    """Print the script that completes this command line in a shell."""
    import shtab

    print(shtab.complete(make_parser(shtab.FILE), shell))


COMMANDS = (
    Command(
        commands.run,
        "run an experiment; what is finished already is reused",
        (
            EXPERIMENT,
            SETTINGS,
            PLUGINS,
            HOME,
            RUNS_DIR,
            SAVED_MODELS_DIR,
            PUBLISH_TO,
            REPLACE,
            argument("--no_export", action="store_true", help="publish nothing: --set export.publish=false"),
            *CLUSTER,
        ),
        ("quickstart", "mine.yaml --set student.training.epochs=5 --set name=short"),
    ),
    Command(
        commands.validate,
        "check an experiment or sweep and print its plan; reads no data",
        (EXPERIMENT, SETTINGS, PLUGINS),
        ("quickstart", "mine.yaml --plugins my_parts.py"),
    ),
    Command(
        commands.sweep,
        "run every experiment of a table or figure; what is finished already is reused",
        (
            argument("experiment", type=Path, help="a YAML file, or the name of a built-in sweep, as ba_figure1_small"),
            SETTINGS,
            PLUGINS,
            HOME,
            RUNS_DIR,
            *CLUSTER,
        ),
        ("ba_figure1_small", "my_sweep.yaml --runs_dir results", "my_sweep.yaml --cluster auto"),
    ),
    Command(
        commands.tune,
        "search the ranges of an experiment; several processes may share the work",
        (EXPERIMENT, SETTINGS, PLUGINS, HOME, RUNS_DIR, *CLUSTER),
        ("my_search.yaml", "my_search.yaml --set search.trials=50"),
    ),
    Command(
        commands.export,
        "publish the student of a finished run, or again with other options",
        (
            argument("run", type=Path, help="the folder of the run, as runs/quickstart"),
            SETTINGS,
            PLUGINS,
            HOME,
            SAVED_MODELS_DIR,
            PUBLISH_TO,
            REPLACE,
        ),
        ("runs/quickstart", "runs/quickstart --set name=small --set export.formats=[saved_model,litert_int8]"),
    ),
    Command(
        commands.verify,
        "check that an export answers as its student does, and survives bad requests",
        (argument("version", type=Path, help="the folder of the version, as saved_models/quickstart/1"),),
        ("saved_models/quickstart/1",),
    ),
    Command(
        commands.predict,
        "classify examples with an export",
        (
            argument("export", type=Path, help="the folder of the version, as saved_models/quickstart/1"),
            argument(
                "inputs", type=Path, nargs="+", help="arrays (.npy, .npz), rows (.csv), images, other files, or folders"
            ),
            argument("--signature", help="which signature to use; by default the only one that takes the inputs"),
            argument(
                "--format", dest="form", choices=(SAVED_MODEL, *FORMATS), default=SAVED_MODEL, help="which files to run"
            ),
            argument(
                "--output",
                choices=("table", "csv", "json"),
                default="table",
                help="csv and json have the probability of every class",
            ),
        ),
        ("saved_models/quickstart/1 digits.npy", "saved_models/pets/3 cat.jpg dog.jpg --format litert"),
    ),
    Command(
        commands.new,
        "write a plugin package to start from, with tests that pass",
        (
            argument("kind", choices=("loss", "architecture", "teacher", "dataset")),
            argument("name", help="of the package and of the component, as my-loss"),
            argument("--into", type=Path, default=Path(), help="where the package's folder is created"),
        ),
        ("loss my-loss", "dataset birds --into plugins"),
    ),
    Command(
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
        ("", "show loss/temperature", "--check", "--check my_parts.py"),
    ),
    Command(
        commands.cache,
        "list the artefacts that experiments share, verify that they are whole, or remove some",
        (
            argument("action", nargs="?", choices=("list", "verify", "prune"), default="list"),
            argument(
                "--older_than", type=parse_age, metavar="AGE", help="prune what was not used for so long: 30d, 12h"
            ),
            argument(
                "--max_size",
                type=parse_size,
                metavar="SIZE",
                help="prune what was not used for longest, until the rest takes no more than this: 500MB, 20GB",
            ),
            argument("--experiment", metavar="NAME", help="prune what only this experiment, sweep or search has used"),
            argument("--dry_run", action="store_true", help="say what would be pruned, and remove nothing"),
            HOME,
        ),
        ("", "verify", "prune --older_than 30d --dry_run", "prune --experiment quickstart", "prune --max_size 20GB"),
    ),
    Command(
        completion,
        "print a script that completes commands, options and files in a shell",
        (argument("shell", choices=SHELLS),),
        ("bash > ~/.local/share/bash-completion/completions/mimic-keras", "zsh > ~/.zfunc/_mimic-keras"),
    ),
)
OF_THE_PARSER = ("command", "function", "debug")  # what a command is not given


def parse(argv: list[str]) -> argparse.Namespace:
    """The command to call, as `function`, and its arguments; without any, the help is printed."""
    parser = make_parser()
    # One spelling is documented; "--older-than" is typed by those who are used to the other.
    given = [re.sub("^--[a-z-]+", lambda option: "--" + option[0][2:].replace("-", "_"), each) for each in argv[1:]]
    if not given:
        parser.print_help()
        parser.exit()
    if given[0] not in ("--help", "-h", "--version") and given[0].startswith("-"):
        parser.error(f"{given[0]}: options come after the command, as in mimic-keras run FILE --home FOLDER")
    arguments, unknown = parser.parse_known_args(given)
    if unknown:
        option = unknown[0].partition("=")[0]
        takers = [each.name for each in COMMANDS if any(option in taken.names for taken in each.arguments)]
        known = f"; {arguments.command} takes no {option}, but {', '.join(takers)}" if takers else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{known}")
    return arguments


def make_parser(files: Any = None) -> argparse.ArgumentParser:
    """The parser of the command line; `files` is what arguments that are paths get as `complete`, for shtab."""
    parser = _Parser(
        prog="mimic-keras",
        description="Train small student nets to mimic deep teacher nets, and export them.",
        epilog=_format_examples("mimic-keras", ("run quickstart", "run --help")),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {importlib.metadata.version('mimic-keras')}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        examples = _format_examples(f"mimic-keras {command.name}", command.examples)
        described = f"{command.summary[0].upper()}{command.summary[1:]}."
        its = parsers.add_parser(command.name, help=command.summary, description=described, epilog=examples)
        for each in command.arguments:
            action = its.add_argument(*each.names, **each.options)
            if each.options.get("type") in (Path, parse_folder, parse_exports_folder):
                action.complete = files  # type: ignore[attr-defined]
        its.add_argument("--debug", action="store_true", help="show the traceback of an error")
        its.set_defaults(function=command.function)
    return parser


class _Parser(argparse.ArgumentParser):
    """Takes whole options only, and keeps the lines of the examples apart."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)


def _format_examples(command: str, arguments: tuple[str, ...]) -> str:
    return "\n".join(["examples:", *(f"  {command} {each}".rstrip() for each in arguments)])
