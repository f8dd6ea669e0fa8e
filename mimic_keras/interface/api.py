"""The program as a library: `import mimic_keras` has these functions, and the commands print what they return.

TensorFlow and plugins are imported inside the functions that need them. Invalid input is an `InputError`, and whatever
else ends a run a `RunError`, with the message that the command would print (`spelling`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimic_keras.contracts import InputError, RunError
from mimic_keras.experiment import yaml_text
from mimic_keras.interface.folders import Place, as_exports_folder, as_folder, as_home, check_writable
from mimic_keras.interface.results import (
    ExportResult,
    NotPublishedError,
    PlanResult,
    RunResult,
    SweepResult,
    TuneResult,
)
from mimic_keras.interface.session import import_tensorflow, session

if TYPE_CHECKING:
    import tensorflow as tf

    from mimic_keras.engine import Resources
    from mimic_keras.experiment.file import Document, Source
    from mimic_keras.planning.plan import Plan
    from mimic_keras.planning.plugins import GivenPlugin
    from mimic_keras.serving.copying import Destination
    from mimic_keras.stages.workspace import Workspace
    from mimic_keras.sweeping.cells import Cell, Sweep

# A file, the name of a built-in one, or the same as a mapping, in which objects may stand for components.
Experiment = Place | Mapping[str, Any]
# {"student.training.epochs": 5}, or ["student.training.epochs=5"] as on the command line.
Settings = Mapping[str, Any] | Sequence[str]


def run(
    experiment: Experiment,
    *,
    set: Settings = (),
    home: Place | None = None,
    runs_dir: Place = "runs",
    saved_models_dir: Place = "saved_models",
    export: bool = True,
    publish_to: str | None = None,
    replace: bool = False,
    plugins: Sequence[Place] = (),
    cluster: str | None = None,
    cpus_per_task: float = 1,
    gpus_per_task: float = 0,
) -> RunResult:
    """Run an experiment; what is finished already is reused.

    Args:
        experiment: a YAML file, the name of one that comes with the program, or a mapping of the same keys. In a
            mapping, an object may stand where the file has a component, or for its name: `{"loss": MyLoss()}`,
            `{"architecture": {"name": build, "units": 8}}`.
        set: values of the experiment to change.
        home: folder of the artefacts that experiments share; None: $MIMIC_KERAS_HOME or ~/.cache/mimic_keras.
        runs_dir: the run's files are in its folder of the experiment's name.
        saved_models_dir: folder of the exports.
        export: whether to publish the student.
        publish_to: where the published version and the report are copied to: s3://BUCKET/PATH, gs://BUCKET/PATH, or a
            folder; as `mimic_keras.serving.copying.Destination` takes it.
        replace: whether the results and exports of another experiment of this name may be replaced.
        plugins: Python files whose components the experiment may name.
        cluster: address of the Ray cluster that computes, "auto" for the one of this machine; None: this process does.
        cpus_per_task: processors that a task on the cluster reserves.
        gpus_per_task: GPUs that a task on the cluster reserves.

    Raises:
        InputError: the experiment, the data or the cluster is invalid.
        NotPublishedError: the student is not worth publishing, or not copied; `result` of the error is the run's.
        SystemExit: this process is one of several workers (docs/cluster.md) but not their chief, who is done.
        RunError: the run cannot continue, and not because of the input.

    Example:
        >>> result = mimic_keras.run("quickstart", set={"name": "second"})
        >>> round(result.metrics["models"]["student"]["test"]["agreement"], 3)
        0.946
    """
    document, objects = _read(experiment, set, () if export else ("export.publish=false",))
    source = document.source()
    resources = _check_cluster(cluster, cpus_per_task, gpus_per_task, objects)
    places = as_home(home), as_folder(runs_dir), as_exports_folder(saved_models_dir)
    destination = _open_destination(publish_to)
    with session(_as_files(plugins), objects):
        from mimic_keras import runner
        from mimic_keras.stages.evaluation import tabulate

        workers = _join_workers([source], cluster)
        plan = _make_plan(source)
        if destination and not plan.experiment.export.publish:
            raise InputError(f"--publish_to {publish_to}: this run publishes nothing; export.publish is false")
        name, (cache, runs, exports) = plan.experiment.name, places
        check_writable(cache, runs / name)
        if plan.experiment.export.publish:  # its folder is created only to publish: a server may watch it
            check_writable(exports, *[exports / name] * (exports / name).exists())
        with _open_workspace(cache, cluster, resources, plugins, workers) as workspace:
            finished = runner.run(plan, workspace, runs, exports, replace)
        published, refusal, address = finished.metrics["export"], finished.metrics["refusal"], None
        if destination and published:
            try:
                address = destination.copy(Path(published["path"]), finished.folder)
            except RunError as error:
                refusal = "; ".join(filter(None, [refusal, str(error)]))
        result = RunResult(name, *tabulate(finished.metrics["models"]), finished, address)
        if refusal:
            raise NotPublishedError(result, refusal)
        return result


def validate(experiment: Experiment, *, set: Settings = (), plugins: Sequence[Place] = ()) -> PlanResult:
    """Check an experiment, search or sweep, and say what running it would do; reads no data.

    Arguments and errors as of `run`.

    Example:
        >>> mimic_keras.validate("quickstart").costs["student"].parameters
        53658
    """
    document, objects = _read(experiment, set)
    with session(_as_files(plugins), objects):
        if document.kind == "sweep":
            from mimic_keras.sweeping import forecast, running

            sweep, made = _make_cells(document)
            cells = running.plan_cells(document.name, made, Path(sweep.name))
            running.check_sweep_metric(sweep, cells, f"{document.name}: metric")
            lines = forecast.describe_sweep(sweep, cells)
            return PlanResult("", *forecast.tabulate_cells(sweep, cells), list(lines), [cell.plan for cell in cells])
        from mimic_keras.interface import plan_table

        opening, source = [], document.source()
        if document.kind == "search":
            from mimic_keras.searching import trials

            search = trials.open_search(source, Path())
            plan = search.plan_example()
            size = f"{search.section.trials} trials over {len(search.space)} ranges"
            opening = [f"search      {size}; below: the middle of each"]
        else:
            plan = _make_plan(source)
        lines = [*opening, *plan_table.describe_stages(plan), *plan_table.note_missing(plan)]
        return PlanResult("", *plan_table.estimate_resources(plan), lines, [plan])


def sweep(
    experiment: Experiment,
    *,
    set: Settings = (),
    home: Place | None = None,
    runs_dir: Place = "runs",
    plugins: Sequence[Place] = (),
    cluster: str | None = None,
    cpus_per_task: float = 1,
    gpus_per_task: float = 0,
) -> SweepResult:
    """Run every experiment of a table or figure; what is finished already is reused.

    Arguments and errors as of `run`. A cell that fails stops no other; `check()` of the result raises the failures.
    """
    document, objects = _read(experiment, set)
    if document.kind != "sweep":
        raise InputError(f"{document.name} is not a sweep: it has no axes; mimic-keras run runs an experiment")
    cache, runs = as_home(home), as_folder(runs_dir)
    resources = _check_cluster(cluster, cpus_per_task, gpus_per_task, objects)
    with session(_as_files(plugins), objects):
        from mimic_keras import runner
        from mimic_keras.sweeping import page, results, running

        plan, made = _make_cells(document)
        workers = _join_workers([cell.source for cell in made], cluster)
        folder = runs / plan.name
        cells = running.plan_cells(document.name, made, folder)
        check_writable(cache, folder)
        outcomes: Sequence[running.Outcome] = ()
        with _open_workspace(cache, cluster, resources, plugins, workers) as workspace:
            for outcomes in running.run_cells(plan, cells, folder, workspace):
                page.write_tables(plan, outcomes, folder)
        environment = runner.describe_environment(cells[0].plan.experiment.distribution)
        applied = "".join(f"# --set {setting}\n" for setting in _as_texts(set))
        page.write_page(plan, outcomes, folder, applied + document.text, environment)
        failed = {str(each.cell): each.note for each in outcomes if each.state == running.FAILED}
        return SweepResult(plan.name, *results.tabulate_groups(plan, outcomes), folder, failed, len(outcomes))


def tune(
    experiment: Experiment,
    *,
    set: Settings = (),
    home: Place | None = None,
    runs_dir: Place = "runs",
    plugins: Sequence[Place] = (),
    cluster: str | None = None,
    cpus_per_task: float = 1,
    gpus_per_task: float = 0,
) -> TuneResult:
    """Search the ranges of an experiment; several processes may share the work.

    Arguments and errors as of `run`. `check()` of the result raises an error if no trial has a score.
    """
    document, objects = _read(experiment, set)
    source, cache, runs = document.source(), as_home(home), as_folder(runs_dir)
    resources = _check_cluster(cluster, cpus_per_task, gpus_per_task, objects)
    with session(_as_files(plugins), objects):
        from mimic_keras import runner
        from mimic_keras.reporting import console
        from mimic_keras.searching import page, trials

        runner.configure_devices(source)
        workers = _join_workers([source], cluster)
        search = trials.open_search(source, runs)
        search = search.with_folder(runs / search.plan_example().experiment.name)
        check_writable(cache, search.folder)
        with (
            _open_workspace(cache, cluster, resources, plugins, workers) as workspace,
            workspace.in_use(search.folder.name),
            console.brief(search.folder / "log.jsonl"),
        ):
            search.work(workspace)
        page.write_page(search, workspace.home)
        columns, rows = page.tabulate_trials(search)
        ranks = {trial.number + 1: rank for rank, trial in enumerate(search.rank_trials())}
        rows = sorted(rows, key=lambda row: ranks.get(row["trial"], len(rows)))
        best = search.folder / "best.yaml" if ranks else None
        return TuneResult(f"{source.given['name']}, the best first", columns[:-1], rows, search.folder, best)


def export(
    run: Place | RunResult,
    *,
    set: Settings = (),
    home: Place | None = None,
    saved_models_dir: Place = "saved_models",
    publish_to: str | None = None,
    replace: bool = False,
    plugins: Sequence[Place] = (),
) -> ExportResult:
    """Publish the student of a finished run, with the options in `set`, which may change `export` and `name` alone.

    `run` is its result or its folder; the other arguments and errors are those of `run`.
    """
    folder = run.folder if isinstance(run, RunResult) else Path(run)
    for setting in _as_texts(set):
        if not setting.startswith(("export.", "name=")):
            raise InputError(f"--set {setting}: the student is trained already; accepted: export.KEY=VALUE, name=NAME")
    document, _ = _read(folder / "experiment.yaml", set)
    source, cache, exports = document.source(), as_home(home), as_exports_folder(saved_models_dir)
    destination = _open_destination(publish_to)
    with session(_as_files(plugins)):
        from mimic_keras import runner
        from mimic_keras.stages.workspace import Workspace

        plan = _make_plan(source)
        check_writable(cache, exports)
        published = runner.republish(plan, folder, Workspace(cache), exports, replace)
        address = destination.copy(published.path, folder) if destination else None
        return ExportResult(published.path, published.made, address)


def _as_files(plugins: Sequence[Place]) -> list[Path]:
    return [Path(file) for file in ([plugins] if isinstance(plugins, str | os.PathLike) else plugins)]


def _as_texts(settings: Settings) -> list[str]:
    """KEY=VALUE of every setting; JSON is YAML."""
    if isinstance(settings, str):
        return [settings]
    if not isinstance(settings, Mapping):
        return list(settings)
    try:
        return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    except TypeError as error:
        raise InputError(f"set: expected numbers, texts, booleans, lists and mappings: {error}") from error


def _read(
    experiment: Experiment, settings: Settings, more: Sequence[str] = ()
) -> tuple[Document, Sequence[GivenPlugin]]:
    """The experiment with its settings, and the objects in it."""
    from mimic_keras.experiment import builtin, file

    texts = [*_as_texts(settings), *more]
    if not isinstance(experiment, Mapping):
        return file.read(builtin.find_file(experiment), texts), ()
    import_tensorflow()
    from mimic_keras.interface.objects import Objects

    objects = Objects()
    content = objects.name_all(experiment)
    return file.make_document("experiment", yaml_text.dump(content), content, texts), objects.plugins


def _check_cluster(
    cluster: str | None, cpus_per_task: float, gpus_per_task: float, objects: Sequence[GivenPlugin]
) -> Resources:
    """What a task reserves.

    Raises:
        InputError: there is no Ray, or it cannot do what is asked.
    """
    from mimic_keras.engine import Resources, import_ray

    resources = Resources(cpus_per_task, gpus_per_task)
    if cluster is None:
        if resources != Resources():
            raise InputError("--cpus_per_task and --gpus_per_task are of a cluster's tasks; they need --cluster")
        return resources
    import_ray()
    if objects:
        raise InputError("cluster: no object can go to a worker; write its code to a file, and give plugins=[FILE]")
    return resources


@contextlib.contextmanager
def _open_workspace(
    home: Path,
    cluster: str | None,
    resources: Resources,
    plugins: Sequence[Place],
    workers: tf.distribute.Strategy | None,
) -> Iterator[Workspace]:
    """The workspace of a home folder, in which this process computes, with the other `workers`, or a cluster."""
    if workers:
        from mimic_keras.interface.leading import leading

        with leading(home, workers, _as_files(plugins)) as workspace:
            yield workspace
        return
    if cluster is None:
        from mimic_keras.stages.workspace import Workspace

        yield Workspace(home)
        return
    from mimic_keras.interface.cluster import connected

    with connected(home, cluster, resources, _as_files(plugins)) as workspace:
        yield workspace


def _open_destination(publish_to: str | None) -> Destination | None:
    """Where a version is copied to, if anywhere.

    Raises:
        InputError: nothing can be written there.
    """
    if publish_to is None:
        return None
    from mimic_keras.serving.copying import Destination

    return Destination(publish_to)


def _join_workers(sources: Sequence[Source], cluster: str | None) -> tf.distribute.Strategy | None:
    """As `leading.join_workers`; on a cluster, its workers join each other."""
    from mimic_keras.interface.leading import join_workers

    return join_workers(sources) if cluster is None else None


def _make_plan(source: Source) -> Plan:
    from mimic_keras.reporting import console

    with console.waiting("checking the experiment, building every net once"):
        from mimic_keras import runner
        from mimic_keras.planning.plan import make_plan

        runner.configure_devices(source)
        return make_plan(source)


def _make_cells(document: Document) -> tuple[Sweep, list[Cell]]:
    """A sweep and its cells, with the process-wide settings of all applied."""
    from mimic_keras import runner
    from mimic_keras.sweeping import cells

    sweep, made = cells.make_cells(document)
    for cell in made:
        runner.configure_devices(cell.source)
    return sweep, made
