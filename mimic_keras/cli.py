"""The `mimic-keras` command: run, validate, export, verify, plugins, new, cache.

Exit codes: 0 done, 2 the input is wrong, 130 and 143 interrupted, 1 anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import re
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from absl import app
from absl.flags import argparse_flags

from mimic_keras import __version__
from mimic_keras.contracts import InputError, RunError

# TensorFlow and the plugins are imported inside the commands that need them: --help and plugins answer at once.


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse_flags.ArgumentParser(
        prog="mimic-keras", description="Train small student nets to mimic deep teacher nets, and export them."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run an experiment; what is finished already is reused")
    validate = commands.add_parser("validate", help="check an experiment and print its plan; reads no data")
    export = commands.add_parser("export", help="publish the student of a finished run again, with other options")
    verify = commands.add_parser(
        "verify", help="whether an export answers as its student does, and survives bad requests"
    )
    plugins = commands.add_parser("plugins", help="list the installed components (imports none), show one, check all")
    tune = commands.add_parser("tune", help="search the ranges of an experiment; several processes may share the work")
    sweep = commands.add_parser("sweep", help="run every experiment of a table or figure; what is finished is reused")
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
    new = commands.add_parser("new", help="write a plugin of your own to start from, with tests that pass")
    new.add_argument("kind", choices=("loss", "architecture", "teacher", "dataset"))
    new.add_argument("name", help="of the package and of the component, as my-loss")
    new.add_argument("--into", type=Path, default=Path(), help="where its folder is made")
    cache = commands.add_parser("cache", help="what experiments share: list and verify it, or remove what is old")
    cache.add_argument("action", nargs="?", choices=("list", "prune"), default="list")
    cache.add_argument("--older-than", type=_days, metavar="AGE", help="prune what was not used for so long: 30d, 12h")
    for command in (run, tune, sweep, export, cache):
        command.add_argument("--home", type=Path, default=Path(home), help="what experiments share ($MIMIC_KERAS_HOME)")
    functions = {
        run: _run,
        validate: _validate,
        tune: _tune,
        sweep: _sweep,
        export: _export,
        verify: _verify,
        plugins: _plugins,
        new: _new,
        cache: _cache,
    }
    for command, function in functions.items():
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(function=function)
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


def _run(arguments: argparse.Namespace) -> None:
    plan = _planned(arguments.experiment, arguments.set)
    from mimic_keras import console, runner
    from mimic_keras.stages.evaluation import table

    folders = runner.Folders(arguments.home.expanduser(), arguments.runs_dir, arguments.saved_models_dir)
    metrics = runner.run(plan, folders)
    console.show_table(plan.experiment.name, *table(metrics["models"]))
    made, reused = (sum(stage[key] for stage in metrics["stages"].values()) for key in ("made", "reused"))
    folder = arguments.runs_dir / plan.experiment.name
    print(f"Artefacts: {made} made, {reused} reused, in {folders.home}")
    print(f"Report:    {folder / 'report.html'}  (numbers: {folder / 'metrics.json'})")
    print(f"Export:    {metrics['export']['path']}")


def _tune(arguments: argparse.Namespace) -> None:
    source = _source(arguments.experiment, arguments.set)
    from mimic_keras import artifacts, console, plan
    from mimic_keras.searching import page, trials
    from mimic_keras.stages import data

    search = trials.of(source, arguments.runs_dir)
    folder = arguments.runs_dir / plan.make(search.middle()).experiment.name
    search = dataclasses.replace(search, folder=folder)
    home = arguments.home.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with artifacts.in_use(home), console.brief(folder / "log.jsonl"):
        search.work(home, data.prepared_once())
    page.write(search)
    columns, rows = page.table(search)
    best = {trial.number: place for place, trial in enumerate(search.best())}
    shown = sorted(rows, key=lambda row: best.get(row["trial"], len(rows)))
    console.show_table(f"{source.given['name']}, the best first", columns[:-1], shown)
    print(f"Page:      {folder / 'search.html'}  (numbers: {folder / 'trials.csv'})")
    print(f"Best:      {folder / 'best.yaml'}")


def _sweep(arguments: argparse.Namespace) -> None:
    sweep, cells, folder = _planned_sweep(arguments, arguments.runs_dir)
    from mimic_keras import console, runner
    from mimic_keras.sweeping import page, results, running

    write = functools.partial(page.write_tables, sweep, folder=folder)
    outcomes = running.run(sweep, cells, folder, arguments.home.expanduser(), write)
    environment = runner.describe_environment(cells[0].plan.experiment.distribution)
    page.write(sweep, outcomes, folder, arguments.experiment.read_text(encoding="utf-8"), environment)
    console.show_table(sweep.name, *results.columns_and_rows(sweep, outcomes))
    print(f"Page:      {folder / 'report.html'}  (tables: {folder / 'table.md'}, {folder / 'results.csv'})")
    if failed := [each for each in outcomes if each.state == running.FAILED]:
        notes = "".join(f"\n  {each.cell}: {each.note}" for each in failed)
        raise RunError(f"{len(failed)} of {len(outcomes)} cells failed; run it again to try them once more{notes}")


def _planned_sweep(arguments: argparse.Namespace, runs: Path) -> tuple[Any, list[Any], Path]:
    """The sweep of a file, its `running.Planned` cells, and its folder."""
    from mimic_keras.sweeping import cells

    sweep, found = cells.read(arguments.experiment, arguments.set)
    _import_tensorflow()
    from mimic_keras.sweeping import running

    folder = runs / sweep.name
    planned = functools.partial(running.planned, folder=folder, built={})
    return sweep, cells.with_problems_together(str(arguments.experiment), found, planned), folder


def _validate(arguments: argparse.Namespace) -> None:
    from mimic_keras import console, experiment_file
    from mimic_keras.ranges import find
    from mimic_keras.sweeping.cells import is_sweep

    if is_sweep(experiment_file.read_yaml(arguments.experiment)):
        sweep, cells, _ = _planned_sweep(arguments, Path())
        from mimic_keras.sweeping import results

        print("\n".join(results.describe(sweep, cells)))
        console.show_table("", *results.plan_rows(sweep, cells))
        return
    source = _source(arguments.experiment, arguments.set)
    from mimic_keras import plan

    searched = "search" in source.given or any(True for _ in find(source.given, "tune"))
    if searched:
        from mimic_keras.searching import trials

        search = trials.of(source, Path())
        source = search.middle()
    planned = plan.make(source)
    if searched:
        print(f"search      {search.section.trials} trials over {len(search.space)} ranges; below: the middle of each")
    print("\n".join(plan.describe(planned)))
    console.show_table("", *plan.estimates(planned))


def _export(arguments: argparse.Namespace) -> None:
    for setting in arguments.set:
        if not setting.startswith(("export.", "name=")):
            raise InputError(f"--set {setting}: the student is trained already; accepted: export.KEY=VALUE, name=NAME")
    plan = _planned(arguments.run / "experiment.yaml", arguments.set)
    from mimic_keras import runner

    folders = runner.Folders(arguments.home.expanduser(), arguments.run, arguments.saved_models_dir)
    published = runner.republish(plan, arguments.run, folders)
    print(f"Export:    {published.path}")


def _verify(arguments: argparse.Namespace) -> None:
    from mimic_keras import artifacts, console

    damaged = artifacts.damaged_files(arguments.version, "export.json")
    if not (arguments.version / "export.json").exists():
        raise InputError(f"{arguments.version} is no export: it has no export.json")
    if damaged:
        raise InputError(f"{arguments.version} is damaged: {', '.join(damaged)}")
    with _quiet_native_libraries():
        from mimic_keras.serving import verification
    result = verification.verify(arguments.version)
    rows = [
        {
            "signature": name,
            "examples": found["examples"],
            "largest difference": found["largest_difference"],
            "bad requests refused": found["refused"],
            "bad requests answered": found["answered"],
        }
        for name, found in result["signatures"].items()
    ]
    console.show_table(str(arguments.version), list(rows[0]), rows)
    print(f"{result['warmup_requests']} warm-up requests replayed")


def _new(arguments: argparse.Namespace) -> None:
    from mimic_keras import scaffold

    folder = scaffold.create(arguments.kind, arguments.name, arguments.into)
    print(f"Written: {folder}. Next:")
    print(f"    cd {shlex.quote(str(folder))}")
    print("    python -m pip install -e '.[dev]'")
    print("    python -m pytest")


def _planned(file: Path, overrides: list[str]) -> Any:
    """The experiment's `plan.Plan`. What is no experiment at all is refused before TensorFlow is imported."""
    source = _source(file, overrides)
    from mimic_keras import plan

    return plan.make(source)


def _source(file: Path, overrides: list[str]) -> Any:
    """The experiment's `experiment_file.Source`, with TensorFlow imported."""
    from mimic_keras import experiment_file
    from mimic_keras.sweeping.cells import is_sweep

    if is_sweep(experiment_file.read_yaml(file)):
        raise InputError(f"{file} is a sweep, and no experiment; mimic-keras sweep runs it")
    source = experiment_file.read(file, overrides)
    _import_tensorflow()
    return source


def _import_tensorflow() -> None:
    from mimic_keras import console

    console.show_messages()
    with _quiet_native_libraries():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _quiet_native_libraries() -> Iterator[None]:
    """Hold back what TensorFlow's libraries write while they load, which no setting silences; shown if they fail."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Keras would write a keras.json into the user's home, and read one, which can change what nets compute.
    os.environ.setdefault("KERAS_HOME", os.devnull)
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            yield
        except BaseException:
            notices.seek(0)
            os.write(kept, notices.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _cache(arguments: argparse.Namespace) -> None:
    from mimic_keras import cache, console

    home = arguments.home.expanduser()
    if arguments.action == "list":
        if arguments.older_than is not None:
            raise InputError("cache list takes no --older-than; cache prune does")
        console.show_table(str(home), *cache.table(cache.entries(home)))
        return
    if arguments.older_than is None:
        raise InputError("cache prune needs --older-than, as in --older-than 30d")
    removed, kept = cache.prune(home, arguments.older_than)
    for entry in removed:
        print(f"removed {entry.kind}/{entry.key}: {entry.label}")
    print(f"{len(removed)} removed, {sum(entry.size for entry in removed) / 1e6:,.1f} MB; {kept} in use and kept")


def _days(text: str) -> float:
    """'30d' or '12h' in seconds."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?[dh]", text):
        raise argparse.ArgumentTypeError(f"expected a number of days or hours, as 30d or 12h; got {text!r}")
    return float(text[:-1]) * {"d": 86_400, "h": 3600}[text[-1]]


def _plugins(arguments: argparse.Namespace) -> None:
    from mimic_keras import catalogue

    if arguments.action == "show":
        if arguments.component is None:
            raise InputError("plugins show needs a component, as in plugins show loss/temperature")
        with _quiet_native_libraries():
            lines = list(catalogue.shown(arguments.component))
        print("\n".join(lines))
    elif arguments.check:
        broken = catalogue.broken()
        for name, plugin in catalogue.everything():
            label = f"{plugin.kind}/{name}"
            print(f"{label}: {broken.get(label, 'ok')}")
        if broken:
            raise RunError(f"{len(broken)} of {len(catalogue.everything())} components can not be imported")
    else:
        print("\n".join(catalogue.listed()))
