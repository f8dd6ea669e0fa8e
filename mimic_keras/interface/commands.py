"""What each command of `mimic-keras` does, given its arguments by name.

TensorFlow and plugins are imported inside the commands that need them: --help and plugins answer at once.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimic_keras.contracts import InputError, RunError

if TYPE_CHECKING:
    from mimic_keras.experiment.file import Document, Source
    from mimic_keras.planning.plan import Plan
    from mimic_keras.storage.prune import Entry
    from mimic_keras.sweeping.cells import Sweep
    from mimic_keras.sweeping.running import Outcome, PlannedCell


def run(
    experiment: Path,
    settings: Sequence[str],
    home: Path,
    runs_dir: Path,
    saved_models_dir: Path,
    replace: bool,
    no_export: bool,
) -> None:
    if no_export:
        settings = [*settings, "export.publish=false"]
    plan = _make_plan(_read(experiment, settings).source())
    from mimic_keras import runner
    from mimic_keras.reporting import console
    from mimic_keras.stages import formats
    from mimic_keras.stages.evaluation import tabulate
    from mimic_keras.stages.workspace import Workspace

    folder = runs_dir / plan.experiment.name
    _check_writable(home, folder)
    if plan.experiment.export.publish:
        exports = saved_models_dir / plan.experiment.name  # created only to publish: a server may watch it
        _check_writable(saved_models_dir, *[exports] * exports.exists())
    workspace = Workspace(home)
    metrics = runner.run(plan, workspace, runs_dir, saved_models_dir, replace)
    console.show_table(plan.experiment.name, *tabulate(metrics["models"]))
    if deployment := (metrics["export"] or {}).get("deployment"):
        title = f"one request, milliseconds on {deployment['threads']} thread"
        console.show_table(title, *formats.tabulate(deployment))
    made, reused = (sum(stage[key] for stage in metrics["stages"].values()) for key in ("made", "reused"))
    print(f"Artefacts: {made} made, {reused} reused, in {workspace.home}")
    print(f"Report:    {folder / 'report.html'}  (numbers: {folder / 'metrics.json'})")
    print(f"Export:    {metrics['export']['path'] if metrics['export'] else f'none; mimic-keras export {folder}'}")


def validate(experiment: Path, settings: Sequence[str]) -> None:
    document = _read(experiment, settings)
    from mimic_keras.reporting import console

    if document.kind == "sweep":
        sweep, cells = _plan_sweep(document, Path())
        from mimic_keras.sweeping import forecast

        print("\n".join(forecast.describe_sweep(sweep, cells)))
        console.show_table("", *forecast.tabulate_cells(sweep, cells))
        return
    source = document.source()
    if document.kind == "search":
        _import_tensorflow()
        from mimic_keras.searching import trials

        search = trials.open_search(source, Path())
        plan = search.plan_example()
        print(f"search      {search.section.trials} trials over {len(search.space)} ranges; below: the middle of each")
    else:
        plan = _make_plan(source)
    from mimic_keras.interface import plan_table

    print("\n".join(plan_table.describe_stages(plan)))
    console.show_table("", *plan_table.estimate_resources(plan))


def sweep(experiment: Path, settings: Sequence[str], home: Path, runs_dir: Path) -> None:
    document = _read(experiment, settings)
    if document.kind != "sweep":
        raise InputError(f"{experiment} is not a sweep: it has no axes; mimic-keras run runs an experiment")
    sweep, cells = _plan_sweep(document, runs_dir)
    from mimic_keras import runner
    from mimic_keras.reporting import console
    from mimic_keras.stages.workspace import Workspace
    from mimic_keras.sweeping import page, results, running

    folder = runs_dir / sweep.name
    _check_writable(home, folder)
    outcomes: Sequence[Outcome] = ()
    for outcomes in running.run_cells(sweep, cells, folder, Workspace(home)):
        page.write_tables(sweep, outcomes, folder)
    environment = runner.describe_environment(cells[0].plan.experiment.distribution)
    applied = "".join(f"# --set {setting}\n" for setting in settings)
    page.write_page(sweep, outcomes, folder, applied + document.text, environment)
    console.show_table(sweep.name, *results.tabulate_groups(sweep, outcomes))
    print(f"Page:      {folder / 'report.html'}  (tables: {folder / 'table.md'}, {folder / 'results.csv'})")
    if failed := [each for each in outcomes if each.state == running.FAILED]:
        notes = "".join(f"\n  {each.cell}: {each.note}" for each in failed)
        raise RunError(f"{len(failed)} of {len(outcomes)} cells failed; the same command tries them again{notes}")


def tune(experiment: Path, settings: Sequence[str], home: Path, runs_dir: Path) -> None:
    source = _read(experiment, settings).source()
    _import_tensorflow()
    from mimic_keras import runner
    from mimic_keras.reporting import console
    from mimic_keras.searching import page, trials
    from mimic_keras.stages.workspace import Workspace

    runner.configure_devices(source)
    search = trials.open_search(source, runs_dir)
    search = search.with_folder(runs_dir / search.plan_example().experiment.name)
    _check_writable(home, search.folder)
    workspace = Workspace(home)
    with workspace.in_use(), console.brief(search.folder / "log.jsonl"):
        search.work(workspace)
    page.write_page(search)
    columns, rows = page.tabulate_trials(search)
    ranks = {trial.number: rank for rank, trial in enumerate(search.rank_trials())}
    rows = sorted(rows, key=lambda row: ranks.get(row["trial"], len(rows)))
    console.show_table(f"{source.given['name']}, the best first", columns[:-1], rows)
    print(f"Page:      {search.folder / 'search.html'}  (numbers: {search.folder / 'trials.csv'})")
    if not ranks:
        raise RunError("no trial has a score; the page shows the reason for each")
    print(f"Best:      {search.folder / 'best.yaml'}")


def export(run: Path, settings: Sequence[str], home: Path, saved_models_dir: Path, replace: bool) -> None:
    for setting in settings:
        if not setting.startswith(("export.", "name=")):
            raise InputError(f"--set {setting}: the student is trained already; accepted: export.KEY=VALUE, name=NAME")
    plan = _make_plan(_read(run / "experiment.yaml", settings).source())
    from mimic_keras import runner
    from mimic_keras.stages.workspace import Workspace

    _check_writable(home, saved_models_dir)
    published = runner.republish(plan, run, Workspace(home), saved_models_dir, replace)
    print(f"Export:    {published.path}")


def verify(version: Path) -> None:
    from mimic_keras.reporting import console
    from mimic_keras.storage.store import damaged_files, read_record

    damaged = damaged_files(version, "export.json")
    if not (version / "export.json").exists():
        raise InputError(f"{version} is not an export: it has no export.json")
    if damaged:
        raise InputError(f"{version} is damaged: {', '.join(damaged)}")
    with _quiet_native_libraries():
        from mimic_keras.serving import portable, verification
    record = read_record(version, "export.json") or {}
    portable.check_installed(record.get("formats", {}))
    result = verification.verify(version)
    rows = [
        {
            "signature": name,
            "examples": checked["examples"],
            "largest difference": checked["largest_difference"],
            "bad requests refused": checked["refused"],
            "bad requests answered": checked["answered"],
        }
        for name, checked in result["signatures"].items()
    ]
    console.show_table(str(version), list(rows[0]), rows)
    print(f"{result['warmup_requests']} warm-up requests replayed")
    if others := portable.verify(version, record):
        console.show_table("other formats", list(others[0]), others)


def predict(export: Path, inputs: Sequence[Path], signature: str | None, form: str) -> None:
    from mimic_keras.reporting import console
    from mimic_keras.storage.store import read_record

    record = read_record(export, "export.json")
    if record is None:
        raise InputError(f"{export} is not an export: it has no whole export.json")
    with _quiet_native_libraries():
        from mimic_keras.serving import portable, prediction

        runtimes = portable.load(export, record, form)
    examples = prediction.read(inputs)
    if signature and signature not in runtimes:
        raise InputError(f"--signature {signature}: {form} has {', '.join(runtimes)}")
    known = {name: each.inputs for name, each in runtimes.items() if signature in (None, name)}
    chosen, request = prediction.choose(known, examples)
    rows = list(prediction.predict(runtimes[chosen], request, examples.names, record["class_names"]))
    columns = ["example", *["row"] * any("row" in row for row in rows), "class", "label", "probability"]
    console.show_table(f"{chosen}, {form}", columns, rows)


def new(kind: str, name: str, into: Path) -> None:
    from mimic_keras.interface import scaffold

    folder = scaffold.create_package(kind, name, into)
    print(f"Written: {folder}. Next:")
    print(f"    cd {shlex.quote(str(folder))}")
    print("    python -m pip install -e '.[dev]'")
    print("    python -m pytest")


def plugins(action: str, component: str | None, check: bool) -> None:
    from mimic_keras.interface import catalogue

    if action == "show":
        if component is None:
            raise InputError("plugins show needs a component, as in plugins show loss/temperature")
        with _quiet_native_libraries():
            lines = list(catalogue.describe_component(component))
        print("\n".join(lines))
    elif check:
        broken = catalogue.find_broken()
        everything = catalogue.list_plugins()
        for name, plugin in everything:
            label = f"{plugin.kind}/{name}"
            print(f"{label}: {broken.get(label, 'ok')}")
        if broken:
            raise RunError(f"{len(broken)} of {len(everything)} components cannot be imported")
    else:
        print("\n".join(catalogue.format_plugins()))


def cache(action: str, older_than: float | None, home: Path) -> None:
    from mimic_keras.reporting import console
    from mimic_keras.reporting.tables import format_bytes
    from mimic_keras.storage import prune

    home = home.expanduser()
    if action == "list":
        if older_than is not None:
            raise InputError("cache list takes no --older-than; cache prune does")
        console.show_table(str(home), *_tabulate_entries(prune.list_entries(home)))
        return
    if older_than is None:
        raise InputError("cache prune needs --older-than, as in --older-than 30d")
    removed, kept = prune.remove_unused(home, older_than)
    for entry in removed:
        print(f"removed {entry.kind}/{entry.key}: {entry.label}")
    size = format_bytes(sum(entry.size for entry in removed))
    print(f"{len(removed)} removed, {size}; {kept} in use and kept")


def _tabulate_entries(entries: Sequence[Entry]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a table."""
    from mimic_keras.reporting.tables import format_bytes

    now = time.time()
    rows = [
        {
            "artefact": f"{entry.kind}/{entry.key}",
            "made for": entry.label,
            "size": format_bytes(entry.size),
            "days since use": round((now - entry.used) / 86_400, 1),
            "state": entry.state,
        }
        for entry in entries
    ]
    return ["artefact", "made for", "size", "days since use", "state"], rows


def _read(file: Path, settings: Sequence[str]) -> Document:
    from mimic_keras.experiment.file import read

    return read(file, settings)


def _check_writable(*folders: Path) -> None:
    """Notice a folder that cannot be written before anything is computed."""
    from mimic_keras.storage.files import check_writable

    for folder in folders:
        check_writable(folder)


def _make_plan(source: Source) -> Plan:
    _import_tensorflow()
    from mimic_keras import runner
    from mimic_keras.planning.plan import make_plan

    runner.configure_devices(source)
    return make_plan(source)


def _plan_sweep(document: Document, runs_dir: Path) -> tuple[Sweep, list[PlannedCell]]:
    from mimic_keras.sweeping import cells

    sweep, made = cells.make_cells(document)
    _import_tensorflow()
    from mimic_keras import runner
    from mimic_keras.sweeping import running

    for cell in made:
        runner.configure_devices(cell.source)
    return sweep, running.plan_cells(document.name, made, runs_dir / sweep.name)


def _import_tensorflow() -> None:
    """Import TensorFlow without its notices, and show messages on the console from here on."""
    from mimic_keras.reporting import console

    console.show_messages()
    with _quiet_native_libraries():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _quiet_native_libraries() -> Iterator[None]:
    """Hold back what TensorFlow's libraries print while they load, which no setting silences; shown if they fail."""
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
