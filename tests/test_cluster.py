"""Units on a cluster: the bits of a local run, whoever dies. Workers are in this process, or on a real Ray cluster."""

import contextlib
import csv
import dataclasses
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import pytest
from ruamel.yaml import YAML

import mimic_keras
from mimic_keras import engine, runner
from mimic_keras.contracts import InputError, RunError
from mimic_keras.engine import Resources, WorkerDied
from mimic_keras.interface import bench, cluster, tasks, worker
from mimic_keras.reporting import console
from mimic_keras.stages.workspace import Workspace, settle
from mimic_keras.storage.files import hash_json
from tests.tiny import command, plan_of, tiny, write


class EngineHere:
    """One slot, in this process. `assigned`: of every task; workers die of evaluating what is trained by `deadly`."""

    slots, dashboard = 1, "127.0.0.1:8265"

    def __init__(self):
        self.assigned, self.deadly = [], None

    def find_places(self):
        return {}

    def call(self, number, function, task, assigned):
        self.assigned.append(assigned)
        if assigned is None and task.given["student"]["loss"]["name"] == self.deadly:
            raise WorkerDied("its worker died 3 times")
        answer = function(*pickle.loads(pickle.dumps((task, assigned))))
        return pickle.loads(pickle.dumps(answer))


class NoThreads(contextlib.nullcontext):
    """An executor that computes at once: two sessions in two threads of one process would disturb each other."""

    def submit(self, function, *arguments):
        return settle(lambda: function(*arguments))

    def __enter__(self):
        return self


@pytest.fixture
def here(monkeypatch):
    """The engine of `cluster="here"`."""
    found = EngineHere()
    monkeypatch.setattr(engine, "import_ray", lambda: None)
    monkeypatch.setattr(engine, "connected", lambda address, resources: contextlib.nullcontext(found))
    monkeypatch.setattr(cluster, "ThreadPoolExecutor", NoThreads)
    return found


@pytest.fixture(scope="module")
def address():
    """The address of two Ray nodes with one slot each."""
    pytest.importorskip("ray", reason="Ray, the extra [ray], is not installed")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # else 127.0.0.1 becomes the interface's address
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        yield nodes.address
        nodes.shutdown()


def artefacts(home):
    """{kind/key: {file: digest, or the arrays of a net}} of what is finished."""
    found = {}
    for record in home.glob("*/[!.]*/artifact.json"):
        files = json.loads(record.read_text())["files"]
        if "model.keras" in files:  # its layers' names count the nets of a process
            files["model.keras"] = weights(record.with_name("model.keras"))
        found[str(record.parent.relative_to(home))] = files
    return found


def weights(file):
    found = {}

    def read(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes()

    with zipfile.ZipFile(file) as archive, archive.open("model.weights.h5") as stream, h5py.File(stream) as content:
        content.visititems(read)
    return found


def places(folder):
    return {"home": folder / "home", "runs_dir": folder / "runs"}


def small(**sections):
    """One member and a student."""
    experiment = tiny(baseline=None, **sections)
    experiment["teacher"]["members"][0]["copies"] = 1
    return experiment


def student_alone(**distribution):
    """A student that learns the labels, on these devices."""
    experiment = tiny(baseline=None, teacher=None, distribution=distribution)
    del experiment["student"]["loss"], experiment["student"]["standardize_logits"]
    return experiment


TOGETHER = {"strategy": "multi_worker", "workers": 2}


def sweep_file(folder):
    """Two cells that share everything but the student's loss."""
    write(folder, small())
    content = {
        "name": "table",
        "axes": {"loss": ["kl", "logit_l2"]},
        "experiment": "experiment.yaml",
        "set": {
            "student.loss": {"name": {"axis": "loss"}},
            "student.standardize_logits": {"axis": "loss", "kl": False, "otherwise": True},
        },
    }
    file = folder / "sweep.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump(content, stream)
    return file


def rows(folder):
    found = list(csv.DictReader((folder / "runs" / "table" / "results.csv").open()))
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in found]


@pytest.fixture(scope="module")
def local_sweep(tmp_path_factory):
    """The file of a sweep, and the folder where this process has run it."""
    folder = tmp_path_factory.mktemp("local")
    file = sweep_file(folder)
    mimic_keras.sweep(file, **places(folder)).check()
    return file, folder


@pytest.mark.long
def test_what_two_cells_share_is_made_once(tmp_path, local_sweep, here, monkeypatch, capsys):
    file, folder = local_sweep
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", -1)
    mimic_keras.sweep(file, **places(tmp_path), cluster="here").check()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cluster: ")]
    assert said[0] == "cluster: 1 tasks at the same time; Ray's dashboard: http://127.0.0.1:8265"
    assert said[-1] == "cluster: 0 running, 0 queued, 0 waiting, 8 done, 0 failed"  # six artefacts, two cells
    assert artefacts(tmp_path / "home") == artefacts(folder / "home")
    assert rows(tmp_path) == rows(folder)
    made = [key for key in here.assigned if key]
    assert len(made) == len(set(made)) == 1 + 3 + 2  # the member, its logits on each split, students
    here.assigned.clear()
    mimic_keras.sweep(file, **places(tmp_path), cluster="here").check()
    assert here.assigned == []
    mimic_keras.sweep(file, set={"name": "again"}, **places(tmp_path), cluster="here").check()
    assert here.assigned == [None, None]
    users = [file.read_text().split() for file in (tmp_path / "home").glob("*/.*.experiments")]
    assert users == [["table", "again"]] * 6


@pytest.mark.long
def test_a_cell_whose_workers_die_stops_no_other(tmp_path, local_sweep, here):
    here.deadly = "logit_l2"
    result = mimic_keras.sweep(local_sweep[0], **places(tmp_path), cluster="here")
    assert list(result.failed.values()) == ["its worker died 3 times"]
    assert (result.cells, len(result.failed)) == (2, 1)


@pytest.mark.long
@pytest.mark.parametrize("parallel", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_searchs_trials_are_those_of_one_process(tmp_path, address, parallel):
    """Two at a time where they may be; the third follows from the first, or from both."""
    experiment = student_alone() | {"search": {"trials": 4, "random_trials": 2, "parallel_trials": parallel}}
    experiment["student"]["training"]["optimizer"]["learning_rate"] = {"tune": {"min": 0.01, "max": 0.1}}
    file = write(tmp_path, experiment)
    found = []
    for name, options in {"local": {}, "cluster": {"cluster": address}}.items():
        mimic_keras.tune(file, **places(tmp_path / name), **options).check()
        trials = [json.loads(each.read_text()) for each in sorted((tmp_path / name).glob("runs/tiny/trials/*.json"))]
        found.append([{**trial, "seconds": 0} for trial in trials])
    assert len(found[0]) == 4
    assert found[0] == found[1]
    assert artefacts(tmp_path / "local" / "home") == artefacts(tmp_path / "cluster" / "home")


@pytest.fixture
def task(tmp_path):
    plan = plan_of(tmp_path, small())
    data = hash_json(Workspace(tmp_path / "home").prepare(*plan.transfer).identity)
    given = (plan.source.given, plan.source.complete, "tiny.yaml", bench.describe_code(plan), (data,))
    return tasks.Task(pickle.dumps(runner.train_and_evaluate), *given, tmp_path / "home", (), Path.cwd())


def test_what_arrives_at_a_worker_imports_no_tensorflow(task):
    """Its session does, without notices and without the keras.json of whoever owns the worker's machine."""
    code = "import pickle, sys; pickle.load(sys.stdin.buffer); print(*{'keras', 'tensorflow'} & set(sys.modules))"
    arrived = pickle.dumps((worker.compute, task, "key"))
    assert subprocess.check_output([sys.executable, "-c", code], input=arrived) == b"\n"


def test_a_worker_says_what_is_missing(task):
    answer = worker.compute(task)
    assert (answer.value, answer.error) == (None, None)
    assert [(each.kind, each.label) for each in answer.missing] == [("teachers", "teacher/0")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            lambda task: {"code": (*task.code[:-1], "mimic-keras-losses 0.0.9 abc")},
            "the driver has mimic-keras-losses 0.0.9 abc",
        ),
        (lambda task: {"data": ("another",)}, "has other data of 'digits' than the driver"),
        (lambda task: {"complete": {**task.complete, "dataset": {"name": "digit"}}}, "cannot plan what the driver can"),
    ],
)
def test_a_worker_that_differs_is_refused(task, changes, message):
    error = worker.compute(dataclasses.replace(task, **changes(task))).error
    assert isinstance(error, InputError)
    assert message in str(error)


def test_a_worker_without_the_home_folder_is_refused(task):
    missing = worker.compute(task).missing[0]
    key = hash_json({**missing.common, **missing.inputs})
    assert "--home has to be a folder that all machines share" in str(worker.compute(task, key).error)


def test_a_worker_makes_nothing_but_what_it_is_asked_for(task):
    assert "does not come to what the driver asks it for" in str(worker.compute(task, "0" * 16).error)


@pytest.mark.parametrize("name", ["run", "sweep", "tune"])
def test_without_ray(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setitem(sys.modules, "ray", None)
    file = sweep_file(tmp_path) if name == "sweep" else write(tmp_path, small())
    assert command(name, file, "--cluster", "auto") == 2
    assert "--cluster needs Ray, which is not installed: pip install 'mimic-keras[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus_per_task", "1"), "--cpus_per_task and --gpus_per_task are of a cluster's tasks; they need --cluster"),
        (
            ("--cluster", "x", "--cpus_per_task", "0"),
            "--cpus_per_task: expected a number above 0, whole if it is above 1",
        ),
        (("--cluster", "x", "--gpus_per_task", "1.5"), "--gpus_per_task: expected a number of at least 0, whole if"),
    ],
)
def test_wrong_tasks(tmp_path, here, capsys, options, message):
    assert command("run", write(tmp_path, small()), *options) == 2
    assert message in capsys.readouterr().err


def test_objects_stay_in_their_process(tmp_path, here):
    import keras

    experiment = small()
    experiment["student"]["loss"] = keras.losses.Huber()
    with pytest.raises(InputError, match="no object can go to a worker"):
        mimic_keras.run(experiment, **places(tmp_path), cluster="here")


def test_slots_are_what_fits_on_each_machine():
    node = {"CPU": 8.0, "GPU": 2.0}
    assert [Resources(cpus, gpus).count_fitting(node) for cpus, gpus in ((1, 0), (3, 0), (1, 1), (1, 0.5))] == [
        8,
        2,
        2,
        4,
    ]
    assert Resources(1, 1).count_fitting({"CPU": 8.0}) == 0


@pytest.mark.long
def test_a_run_on_ray_has_the_bits_of_a_local_run(tmp_path, address):
    file = write(tmp_path, tiny(baseline=None))
    found = []
    for name, options in {"local": {}, "ray": {"cluster": address}}.items():
        exports = tmp_path / name / "exports"
        result = mimic_keras.run(file, **places(tmp_path / name), saved_models_dir=exports, export=False, **options)
        found.append((artefacts(tmp_path / name / "home"), result.metrics["models"]))
    assert found[0] == found[1]
    made = {name: stage["made"] for name, stage in result.metrics["stages"].items()}
    assert (made["teachers"], made["logits"], made["student"]) == (2, 6, 1)


@pytest.mark.long
def test_ray_says_where_a_call_is_computed_and_when_it_has_ended(address):
    seen = set()
    with ThreadPoolExecutor(1) as threads, engine.connected(address, Resources()) as connection:
        call = threads.submit(connection.call, 7, time.sleep, 5)
        while not call.done():
            seen.update(connection.find_places().items())
            time.sleep(0.1)
        assert call.result() is None
        while connection.find_places():  # workers do not wait for the board
            time.sleep(0.1)
    assert seen == {(7, socket.gethostname())}
    assert connection.find_places() == {}


FRAGILE = '''
import inspect, os, signal, sys
from mimic_keras_architectures import mlp

def fragile(input_shape, num_classes, *, flag: str = "", keeps: bool = False):
    """A net whose training kills a worker if there is the file `flag`, which it removes unless it `keeps` it."""
    is_training = any(frame.function == "_train_net" for frame in inspect.stack())
    if is_training and sys.argv[0].endswith("default_worker.py") and os.path.exists(flag):
        if not keeps:
            os.remove(flag)
        os.kill(os.getpid(), signal.SIGKILL)
    return mlp(input_shape, num_classes, hidden_units=[8])
'''


def fragile(folder, **arguments):
    """A file with the component, the flag, and the experiment."""
    component, flag = folder / "fragile_net.py", folder / "flag"
    component.write_text(FRAGILE)
    flag.touch()
    experiment = small()
    experiment["student"]["architecture"] = {"name": "fragile", "flag": str(flag), **arguments}
    return component, flag, write(folder, experiment)


@pytest.mark.slow
def test_what_a_killed_worker_computed_is_computed_again(tmp_path, address):
    component, flag, file = fragile(tmp_path)
    options = {"plugins": [component], "export": False, "saved_models_dir": tmp_path / "exports"}
    mimic_keras.run(file, **places(tmp_path / "local"), **options)
    assert flag.exists()
    mimic_keras.run(file, **places(tmp_path / "ray"), **options, cluster=address)
    assert not flag.exists()
    assert artefacts(tmp_path / "ray" / "home") == artefacts(tmp_path / "local" / "home")


@pytest.mark.slow
def test_workers_that_die_three_times_end_their_unit(tmp_path, address):
    component, _, file = fragile(tmp_path, keeps=True)
    options = {"plugins": [component], "export": False, "saved_models_dir": tmp_path / "exports"}
    with pytest.raises(WorkerDied, match="its worker died 3 times"):
        mimic_keras.run(file, **places(tmp_path), **options, cluster=address)
    assert len([*(tmp_path / "home" / "logits").glob("[!.]*")]) == 3


@pytest.mark.slow
def test_a_driver_that_is_killed_does_nothing_twice(tmp_path, local_sweep, address):
    file, folder = local_sweep
    options = [item for name, place in places(tmp_path).items() for item in (f"--{name}", str(place))]
    driver = subprocess.Popen([sys.executable, "-m", "mimic_keras", "sweep", file, *options, "--cluster", address])
    while not [*tmp_path.glob("home/logits/[!.]*")]:
        assert driver.poll() is None
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {net: os.stat(net).st_mtime_ns for net in tmp_path.glob("home/*/[!.]*/model.keras")}
    mimic_keras.sweep(file, **places(tmp_path), cluster=address).check()
    assert before
    assert {net: os.stat(net).st_mtime_ns for net in before} == before
    assert artefacts(tmp_path / "home") == artefacts(folder / "home")
    assert rows(tmp_path) == rows(folder)


@pytest.fixture(scope="module")
def mirrored_student(tmp_path_factory):
    """The artefacts of a student on two devices of this process."""
    folder = tmp_path_factory.mktemp("mirrored")
    file = write(folder, student_alone(strategy="mirrored", virtual_devices=2))
    mimic_keras.run(file, **places(folder), export=False)
    return artefacts(folder / "home")


@pytest.mark.long
def test_two_workers_of_a_cluster_train_one_net(tmp_path, address, mirrored_student):
    mimic_keras.run(write(tmp_path, student_alone(**TOGETHER)), **places(tmp_path), export=False, cluster=address)
    assert artefacts(tmp_path / "home") == mirrored_student


def test_more_workers_than_a_cluster_has_slots(tmp_path, address):
    file = write(tmp_path, student_alone(strategy="multi_worker", workers=3))
    with pytest.raises(InputError, match=r"distribution\.workers: 3, but the cluster computes 2 tasks at once"):
        mimic_keras.run(file, **places(tmp_path), export=False, cluster=address)


@pytest.mark.slow
def test_workers_that_trained_together_with_one_that_died_train_again(tmp_path, address):
    component, flag, _ = fragile(tmp_path)
    experiment = student_alone(strategy="mirrored", virtual_devices=2)
    experiment["student"]["architecture"] = {"name": "fragile", "flag": str(flag)}
    options = {"plugins": [component], "export": False}
    mimic_keras.run(write(tmp_path, experiment), **places(tmp_path / "local"), **options)
    experiment["distribution"] = TOGETHER
    mimic_keras.run(write(tmp_path, experiment), **places(tmp_path / "ray"), **options, cluster=address)
    assert not flag.exists()
    assert artefacts(tmp_path / "ray" / "home") == artefacts(tmp_path / "local" / "home")


@pytest.mark.slow
def test_an_error_of_all_workers_is_the_runs(tmp_path, address):
    experiment = student_alone(**TOGETHER)
    experiment["student"]["training"]["optimizer"]["learning_rate"] = 1e30
    with pytest.raises(RunError, match="the loss became"):
        mimic_keras.run(write(tmp_path, experiment), **places(tmp_path), export=False, cluster=address)


@pytest.mark.long
def test_the_simulation_of_a_cluster_runs_to_its_end():
    """benchmarks/cluster_simulation.py stands in for an engine: a change of what units answer is seen here."""
    script = Path(__file__).parent.parent / "benchmarks" / "cluster_simulation.py"
    few = "--searches 2 --trials 2 --members 3 --slots 4 --scale 1000000".split()
    done = subprocess.run([sys.executable, script, *few], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("### 7 trainings of 3145 s on average on 4 slots\n")
