"""What each command of `mimic-keras` does, given its arguments.

TensorFlow and the plugins are imported inside the commands that need them: --help and plugins answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mimic_keras.contracts import InputError, RunError


def run(arguments: argparse.Namespace) -> None:
    plan = _planned(arguments.experiment, arguments.set)
    from mimic_keras import runner
    from mimic_keras.reporting import console
    from mimic_keras.stages.evaluation import table

    folders = runner.Folders(arguments.home.expanduser(), arguments.runs_dir, arguments.saved_models_dir)
    metrics = runner.run(plan, folders)
    console.show_table(plan.experiment.name, *table(metrics["models"]))
    made, reused = (sum(stage[key] for stage in metrics["stages"].values()) for key in ("made", "reused"))
    folder = arguments.runs_dir / plan.experiment.name
    print(f"Artefacts: {made} made, {reused} reused, in {folders.home}")
    print(f"Report:    {folder / 'report.html'}  (numbers: {folder / 'metrics.json'})")
    print(f"Export:    {metrics['export']['path']}")


def tune(arguments: argparse.Namespace) -> None:
    source = _source(arguments.experiment, arguments.set)
    from mimic_keras.reporting import console
    from mimic_keras.searching import page, trials
    from mimic_keras.stages import data
    from mimic_keras.storage import locks

    search = trials.of(source, arguments.runs_dir)
    folder = arguments.runs_dir / search.example().experiment.name
    search = dataclasses.replace(search, folder=folder)
    home = arguments.home.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with locks.in_use(home), console.brief(folder / "log.jsonl"):
        search.work(home, data.prepared_once())
    page.write(search)
    columns, rows = page.table(search)
    best = {trial.number: place for place, trial in enumerate(search.best())}
    shown = sorted(rows, key=lambda row: best.get(row["trial"], len(rows)))
    console.show_table(f"{source.given['name']}, the best first", columns[:-1], shown)
    print(f"Page:      {folder / 'search.html'}  (numbers: {folder / 'trials.csv'})")
    if not best:
        raise RunError("no trial has a score; the page says why of each")
    print(f"Best:      {folder / 'best.yaml'}")


def sweep(arguments: argparse.Namespace) -> None:
    sweep, cells, folder = _planned_sweep(arguments, arguments.runs_dir)
    from mimic_keras import runner
    from mimic_keras.reporting import console
    from mimic_keras.sweeping import page, results, running

    write = functools.partial(page.write_tables, sweep, folder=folder)
    outcomes = running.run(sweep, cells, folder, arguments.home.expanduser(), write)
    environment = runner.describe_environment(cells[0].plan.experiment.distribution)
    settings = "".join(f"# --set {setting}\n" for setting in arguments.set)
    page.write(sweep, outcomes, folder, settings + arguments.experiment.read_text(encoding="utf-8"), environment)
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


def validate(arguments: argparse.Namespace) -> None:
    from mimic_keras.experiment import file as experiment_file
    from mimic_keras.experiment.ranges import find
    from mimic_keras.reporting import console
    from mimic_keras.sweeping.cells import is_sweep

    if is_sweep(experiment_file.read_yaml(arguments.experiment)):
        sweep, cells, _ = _planned_sweep(arguments, Path())
        from mimic_keras.sweeping import planning

        print("\n".join(planning.describe(sweep, cells)))
        console.show_table("", *planning.rows(sweep, cells))
        return
    source = _source(arguments.experiment, arguments.set)
    from mimic_keras.planning import plan

    searched = "search" in source.given or any(True for _ in find(source.given, "tune"))
    if searched:
        from mimic_keras.searching import trials

        search = trials.of(source, Path())
        planned = search.example()
        print(f"search      {search.section.trials} trials over {len(search.space)} ranges; below: the middle of each")
    else:
        planned = plan.make(source)
    print("\n".join(plan.describe(planned)))
    console.show_table("", *plan.estimates(planned))


def export(arguments: argparse.Namespace) -> None:
    for setting in arguments.set:
        if not setting.startswith(("export.", "name=")):
            raise InputError(f"--set {setting}: the student is trained already; accepted: export.KEY=VALUE, name=NAME")
    plan = _planned(arguments.run / "experiment.yaml", arguments.set)
    from mimic_keras import runner

    folders = runner.Folders(arguments.home.expanduser(), arguments.run, arguments.saved_models_dir)
    published = runner.republish(plan, arguments.run, folders)
    print(f"Export:    {published.path}")


def verify(arguments: argparse.Namespace) -> None:
    from mimic_keras.reporting import console
    from mimic_keras.storage import store

    damaged = store.damaged_files(arguments.version, "export.json")
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


def new(arguments: argparse.Namespace) -> None:
    from mimic_keras.interface import scaffold

    folder = scaffold.create(arguments.kind, arguments.name, arguments.into)
    print(f"Written: {folder}. Next:")
    print(f"    cd {shlex.quote(str(folder))}")
    print("    python -m pip install -e '.[dev]'")
    print("    python -m pytest")


def _planned(file: Path, overrides: list[str]) -> Any:
    """The experiment's `plan.Plan`. What is no experiment at all is refused before TensorFlow is imported."""
    source = _source(file, overrides)
    from mimic_keras.planning import plan

    return plan.make(source)


def _source(file: Path, overrides: list[str]) -> Any:
    """The experiment's `experiment_file.Source`, with TensorFlow imported."""
    from mimic_keras.experiment import file as experiment_file
    from mimic_keras.sweeping.cells import is_sweep

    if is_sweep(experiment_file.read_yaml(file)):
        raise InputError(f"{file} is a sweep, and no experiment; mimic-keras sweep runs it")
    source = experiment_file.read(file, overrides)
    _import_tensorflow()
    return source


def _import_tensorflow() -> None:
    from mimic_keras.reporting import console

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


def cache(arguments: argparse.Namespace) -> None:
    from mimic_keras.reporting import console
    from mimic_keras.storage import prune

    home = arguments.home.expanduser()
    if arguments.action == "list":
        if arguments.older_than is not None:
            raise InputError("cache list takes no --older-than; cache prune does")
        console.show_table(str(home), *prune.table(prune.entries(home)))
        return
    if arguments.older_than is None:
        raise InputError("cache prune needs --older-than, as in --older-than 30d")
    removed, kept = prune.prune(home, arguments.older_than)
    for entry in removed:
        print(f"removed {entry.kind}/{entry.key}: {entry.label}")
    print(f"{len(removed)} removed, {sum(entry.size for entry in removed) / 1e6:,.1f} MB; {kept} in use and kept")


def plugins(arguments: argparse.Namespace) -> None:
    from mimic_keras.interface import catalogue

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
