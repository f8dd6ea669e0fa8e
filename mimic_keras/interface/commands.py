"""What each command of `mimic-keras` does, given its arguments by name: it calls `api` and prints the result.

TensorFlow and plugins are imported inside the commands that need them: --help and plugins answer at once. `cluster`
stands for the arguments of that name and of its tasks, as `api` describes them.
"""

from __future__ import annotations

import csv
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimic_keras.contracts import InputError, RunError
from mimic_keras.interface import api, exports
from mimic_keras.interface.results import NotPublishedError, RunResult, Table
from mimic_keras.interface.session import session

if TYPE_CHECKING:
    from mimic_keras.storage.prune import Choice, Entry


def run(
    experiment: Path,
    settings: Sequence[str],
    plugins: Sequence[Path],
    home: Path,
    runs_dir: Path,
    saved_models_dir: Path,
    publish_to: str | None,
    replace: bool,
    no_export: bool,
    **cluster: Any,
) -> None:
    try:
        result = api.run(
            experiment,
            set=settings,
            plugins=plugins,
            home=home,
            runs_dir=runs_dir,
            saved_models_dir=saved_models_dir,
            export=not no_export,
            publish_to=publish_to,
            replace=replace,
            **cluster,
        )
    except NotPublishedError as error:
        result = error.result
        _show_run(result, home)
        files = [part for file in plugins for part in ("--plugins", str(file))]
        places = ["--home", str(home), "--saved_models_dir", str(saved_models_dir)]
        places += ["--publish_to", publish_to] if publish_to else []
        again = ["mimic-keras", "export", str(result.folder), *files, *places]
        if not result.export:
            from mimic_keras.stages.export import ALL_THE_SAME

            remedy = f"To publish it all the same: {shlex.join([*again, '--set', ALL_THE_SAME])}"
        elif publish_to and not result.address:
            remedy = f"To copy it once that is mended: {shlex.join(again)}"
        else:
            raise
        raise RunError(f"{error.refusal}. {remedy}") from error
    _show_run(result, home)


def _show_run(result: RunResult, home: Path) -> None:
    _show(result)
    if result.deployment:
        _show(result.deployment)
    stages = result.metrics["stages"].values()
    made, reused = (sum(stage[key] for stage in stages) for key in ("made", "reused"))
    print(f"Artefacts: {made} made, {reused} reused, in {home.expanduser().resolve()}")
    print(f"Report:    {result.report}  (numbers: {result.folder / 'metrics.json'})")
    refused = "none, it was refused" if result.metrics["refusal"] else f"none; mimic-keras export {result.folder}"
    print(f"Export:    {result.export or refused}")
    if result.address:
        print(f"Copy:      {result.address}")


def validate(experiment: Path, settings: Sequence[str], plugins: Sequence[Path]) -> None:
    result = api.validate(experiment, set=settings, plugins=plugins)
    print("\n".join(result.lines))
    _show(result)


def sweep(
    experiment: Path, settings: Sequence[str], plugins: Sequence[Path], home: Path, runs_dir: Path, **cluster: Any
) -> None:
    result = api.sweep(experiment, set=settings, plugins=plugins, home=home, runs_dir=runs_dir, **cluster)
    _show(result)
    print(f"Page:      {result.report}  (tables: {result.folder / 'table.md'}, {result.folder / 'results.csv'})")
    result.check()


def tune(
    experiment: Path, settings: Sequence[str], plugins: Sequence[Path], home: Path, runs_dir: Path, **cluster: Any
) -> None:
    result = api.tune(experiment, set=settings, plugins=plugins, home=home, runs_dir=runs_dir, **cluster)
    _show(result)
    print(f"Page:      {result.report}  (numbers: {result.folder / 'trials.csv'})")
    result.check()
    print(f"Best:      {result.best}")


def export(
    run: Path,
    settings: Sequence[str],
    plugins: Sequence[Path],
    home: Path,
    saved_models_dir: Path,
    publish_to: str | None,
    replace: bool,
) -> None:
    result = api.export(
        run,
        set=settings,
        plugins=plugins,
        home=home,
        saved_models_dir=saved_models_dir,
        publish_to=publish_to,
        replace=replace,
    )
    print(f"Export:    {result.path}")
    if result.address:
        print(f"Copy:      {result.address}")


def verify(version: Path) -> None:
    result = exports.verify(version)
    _show(result)
    print(f"{result.warmup_requests} warm-up requests replayed")
    if result.others:
        _show(result.others)


def predict(export: Path, inputs: Sequence[Path], signature: str | None, form: str, output: str) -> None:
    answers = exports.predict(export, *inputs, signature=signature, form=form)
    if output == "table":
        _show(answers)
    elif output == "json":
        print(json.dumps(answers.rows, indent=1))
    else:
        kept = [column for column in answers.columns if column != "probability"]
        writer = csv.writer(sys.stdout, lineterminator="\n")
        labels = [label for row in answers.rows[:1] for label in row["probabilities"]]
        writer.writerow([*kept, *(f"probability of {label}" for label in labels)])
        writer.writerows([[row[key] for key in kept] + [*row["probabilities"].values()] for row in answers.rows])


def _show(table: Table) -> None:
    from mimic_keras.reporting import console

    console.show_table(table.title, table.columns, table.rows)


def new(kind: str, name: str, into: Path) -> None:
    from mimic_keras.interface import scaffold

    folder = scaffold.create_package(kind, name, into)
    print(f"Written: {folder}. Next:")
    print(f"    cd {shlex.quote(str(folder))}")
    print("    python -m pip install -e '.[dev]'")
    print("    python -m pytest")
    code = f"{folder.name.replace('-', '_')}/__init__.py"
    print(f"Then make it yours: change {scaffold.CHANGES[kind].what}, in {code}. README.md has an example.")


def plugins(action: str, component: str | None, check: Sequence[Path] | None, plugins: Sequence[Path]) -> None:
    from mimic_keras.interface import catalogue

    if check:
        _check_files(check)
    elif check is not None:
        _check_installed()
    elif action == "list" and not plugins:  # at once: nothing is imported
        print("\n".join(catalogue.format_plugins()))
    elif action == "list":
        with session(plugins):
            print("\n".join(catalogue.format_plugins()))
    elif component is None:
        raise InputError("plugins show needs a component, as in plugins show loss/temperature")
    else:
        with session(plugins):
            lines = list(catalogue.describe_component(component))
        print("\n".join(lines))


def _check_installed() -> None:
    """Import every installed component."""
    from mimic_keras.interface import catalogue

    broken = catalogue.find_broken()
    everything = catalogue.list_plugins()
    for name, plugin in everything:
        label = f"{plugin.kind}/{name}"
        print(f"{label}: {broken.get(label, 'ok')}")
    if broken:
        raise RunError(f"{len(broken)} of {len(everything)} components cannot be imported")


def _check_files(files: Sequence[Path]) -> None:
    """Test every component of Python files against its contract."""
    from mimic_keras.interface import catalogue

    with session():
        from mimic_keras.planning.files import components_of

        with components_of(files) as given:
            results = [(plugin, catalogue.check_contract(plugin)) for plugin in given]
    for plugin, result in results:
        print(f"{plugin.kind}/{plugin.name}: {result.summary}")
    if failed := [plugin for plugin, result in results if not result.is_kept]:
        raise RunError(f"{len(failed)} of {len(results)} components break their contract")


def cache(
    action: str,
    older_than: float | None,
    max_size: float | None,
    experiment: str | None,
    dry_run: bool,
    home: Path,
) -> None:
    from mimic_keras.storage.prune import Choice

    home = home.expanduser()
    choice = Choice(older_than, max_size, experiment)
    if action == "prune":
        _prune(home, choice, dry_run)
    elif choice != Choice() or dry_run:
        raise InputError(
            f"cache {action} takes no --older_than, --max_size, --experiment or --dry_run; cache prune does"
        )
    elif action == "verify":
        _verify_cache(home)
    else:
        _show_entries(home, is_checked=False)


def _show_entries(home: Path, is_checked: bool) -> Sequence[Entry]:
    from mimic_keras.reporting import console
    from mimic_keras.storage import prune

    entries = prune.list_entries(home, check=is_checked)
    console.show_table(str(home), *_tabulate_entries(entries))
    return entries


def _verify_cache(home: Path) -> None:
    entries = _show_entries(home, is_checked=True)
    wrong = [entry for entry in entries if entry.is_wrong]
    if wrong:
        raise RunError(
            f"{len(wrong)} of {len(entries)} artefacts are not whole; a run that needs one moves it aside and makes it "
            "again"
        )
    print(f"{len(entries)} artefacts, none damaged")


def _prune(home: Path, choice: Choice, dry_run: bool) -> None:
    from mimic_keras.reporting.tables import format_bytes
    from mimic_keras.storage import prune

    if choice == prune.Choice():
        raise InputError("cache prune needs --older_than, --max_size or --experiment, as in --older_than 30d")
    removed, kept = prune.remove_unused(home, choice, dry_run)
    for entry in removed:
        print(f"{'would remove' if dry_run else 'removed'} {entry.kind}/{entry.key}: {entry.label}")
    size = format_bytes(sum(entry.size for entry in removed))
    print(f"{len(removed)} {'to remove' if dry_run else 'removed'}, {size}; {kept} in use and kept")


def _tabulate_entries(entries: Sequence[Entry]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a table."""
    from mimic_keras.reporting.tables import format_bytes

    now = time.time()
    rows = [
        {
            "artefact": f"{entry.kind}/{entry.key}",
            "made for": entry.label,
            "used by": ", ".join(entry.experiments),
            "size": format_bytes(entry.size),
            "days since use": round((now - entry.used) / 86_400, 1),
        }
        | ({"state": entry.state} if entry.state else {})
        for entry in entries
    ]
    columns = ["artefact", "made for", "used by", "size", "days since use"]
    return [*columns, *["state"] * any("state" in row for row in rows)], rows
