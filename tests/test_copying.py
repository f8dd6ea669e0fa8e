"""`--publish_to`: a reader of the place never sees a graph without its variables, and no version is ever replaced."""

import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import mimic_keras
from mimic_keras.contracts import InputError, RunError
from mimic_keras.interface.results import NotPublishedError
from mimic_keras.serving import copying
from mimic_keras.serving.copying import Destination
from tests.tiny import command, tiny, write

FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "variables/data": b"weights"}
REPORT = {"report.html": b"page", "metrics.json": b"{}"}
STEPS = ("put_file", "cp_file", "rm_file")  # what changes a store


@pytest.fixture
def store():
    """The memory file system, empty."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield MemoryFileSystem()
    MemoryFileSystem.store.clear()


@pytest.fixture
def finished(tmp_path):
    """Returns (version, run): a version with `digest` in its record, and the folder of its run."""

    def make(number="1", digest="a"):
        version, run = tmp_path / "saved_models" / "net" / number, tmp_path / "runs" / "net"
        for folder, files in ((version, {**FILES, "export.json": digest.encode()}), (run, REPORT)):
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        (run / "log.jsonl").write_text("of this machine")
        return version, run

    return make


def held(store):
    """{file: content} of the store."""
    return {name.removeprefix("/models/"): store.cat_file(name) for name in store.find("/models")}


def files_in(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def expected(*numbers, run=REPORT):
    version = {**FILES, "export.json": b"a"}
    versions = {f"net/{number}/{name}": data for number in numbers for name, data in version.items()}
    return {**versions, **{f"net/report/{name}": data for name, data in run.items()}}


def test_a_version_and_its_report_are_copied(store, finished):
    assert Destination("memory://models/").copy(*finished()) == "memory://models/net/1"
    assert held(store) == expected(1)
    Destination("memory://models").copy(*finished("10"))
    assert held(store) == expected(1, 10)


def test_a_folder_takes_a_version_by_one_renaming(tmp_path, finished, monkeypatch):
    rename, renamed = Path.rename, []
    monkeypatch.setattr(Path, "rename", lambda self, to: (renamed.append((files_in(self), to)), rename(self, to)))
    place = tmp_path / "there"
    assert Destination(str(place)).copy(*finished()) == f"{place}/net/1"
    assert renamed == [({**FILES, "export.json": b"a"}, place / "net" / "1")]
    assert files_in(place) == expected(1)
    assert sorted(os.listdir(place / "net")) == ["1", "report"]
    with pytest.raises(RunError, match="no version is ever replaced"):
        Destination(str(place)).copy(*finished(digest="b"))


def test_the_same_version_is_left_alone_and_another_refused(store, finished, monkeypatch):
    Destination("memory://models").copy(*finished())
    before = {name: store.modified(name) for name in store.find("/models/net/1")}
    assert Destination("memory://models").copy(*finished()) == "memory://models/net/1"
    assert {name: store.modified(name) for name in store.find("/models/net/1")} == before
    version, run = finished(digest="b")
    with pytest.raises(RunError) as caught:
        Destination("memory://models").copy(version, run)
    assert (
        str(caught.value) == f"memory://models/net/1 exists, and is another than {version}; no version is ever replaced"
    )
    store.rm_file("/models/net/1/variables/data")
    with pytest.raises(RunError, match="no version is ever replaced"):
        Destination("memory://models").copy(*finished())
    assert held(store)["net/1/export.json"] == b"a"


@pytest.fixture
def failing(monkeypatch):
    """Has the store fail from its n-th change on; returns how many changes there were."""

    def fail(after):
        counted = itertools.count()
        last = 0

        def counting(function):
            def change(self, *arguments, **options):
                nonlocal last
                last = next(counted)
                if last >= after:
                    raise PermissionError("denied")
                return function(self, *arguments, **options)

            return change

        for name in STEPS:
            monkeypatch.setattr(MemoryFileSystem, name, counting(getattr(MemoryFileSystem, name)))
        return lambda: last + 1

    return fail


def test_a_copy_that_ends_anywhere_shows_no_half_version_and_the_next_completes_it(
    store, finished, monkeypatch, failing
):
    destination = Destination("memory://models")
    destination.copy(*finished())
    version, run = finished("2")
    count = failing(1000)
    destination.copy(version, run)
    monkeypatch.undo()
    files = len(FILES) + 1
    assert count() == len(REPORT) + 3 * files  # each is sent, copied and removed
    begun = set()
    for after in range(len(REPORT) + 2 * files):
        store.rm("/models/net/2", recursive=True)
        failing(after)
        with pytest.raises(RunError) as caught:
            destination.copy(version, run)
        monkeypatch.undo()
        assert str(caught.value) == f"{version} cannot be copied to memory://models/net/2 (PermissionError: denied)"
        found = held(store)
        begun.add("net/2/variables/data" in found)
        assert "net/2/saved_model.pb" not in found
        assert {name: data for name, data in found.items() if "net/1/" in name} == expected(1, run={})
        destination.copy(version, run)
        assert held(store) == expected(1, 2)
    assert begun == {True, False}


def test_what_is_in_a_place_of_a_version_without_a_graph_goes(store, finished):
    store.pipe_file("/models/net/1/assets.extra/old", b"of a killed process")
    store.pipe_file("/models/net/.partial-x/old", b"of another")
    Destination("memory://models").copy(*finished())
    assert held(store) == expected(1)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nope://x", "ValueError: Protocol not known: nope; accepted: s3://BUCKET/PATH, gs://BUCKET/PATH, or a folder"),
        ("memory://a/*", "expected a path without '*', '?' and '[', which fsspec takes for patterns"),
        ("/proc/nowhere", "nothing can be written there (FileNotFoundError: "),
    ],
)
def test_wrong_places(place, message):
    with pytest.raises(InputError) as caught:
        Destination(place)
    assert str(caught.value).startswith(f"--publish_to {place}: {message}")


@pytest.mark.parametrize(
    ("module", "place", "message"),
    [
        (
            "fsspec.core",
            "memory://x",
            "--publish_to needs fsspec, which is not installed: pip install 'mimic-keras[publish]'",
        ),
        ("s3fs", "s3://x/y", "--publish_to s3://x/y: a package is missing (ImportError: "),
    ],
)
def test_without_the_extra(tmp_path, monkeypatch, capsys, module, place, message):
    monkeypatch.setitem(sys.modules, module, None)
    assert command("run", write(tmp_path, tiny()), "--home", tmp_path / "home", "--publish_to", place) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "pip install 'mimic-keras[publish]'" in error
    assert not (tmp_path / "home").exists()


def small():
    experiment = tiny(export={"minimum_agreement": 0})
    del experiment["teacher"], experiment["baseline"]
    experiment["student"] |= {"loss": None, "standardize_logits": False}
    return {**experiment, "student": {key: value for key, value in experiment["student"].items() if value is not None}}


@pytest.fixture(scope="module")
def bucket():
    """An S3 server of this machine with the bucket "models"; returns the environment of its clients."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.get_host_and_port()[1]}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        S3FileSystem().mkdir("models")
        yield S3FileSystem()
        S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(scope="module")
def run_in_s3(bucket, tmp_path_factory):
    """The folder of a run by the command itself, whose version is in the bucket; and what it printed."""
    folder = tmp_path_factory.mktemp("s3")
    options = [f"--{name}={folder / name}" for name in ("home", "runs_dir", "saved_models_dir")]
    line = [
        sys.executable,
        "-m",
        "mimic_keras",
        "run",
        write(folder, small()),
        *options,
        "--publish_to",
        "s3://models/a/b",
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.long
def test_a_run_is_copied_to_s3(bucket, run_in_s3):
    folder, printed = run_in_s3
    assert "\nCopy:      s3://models/a/b/tiny/1\n" in printed
    version = folder / "saved_models_dir" / "tiny" / "1"
    own = {f"1/{name}": content for name, content in files_in(version).items()}
    own |= {f"report/{name}": (folder / "runs_dir" / "tiny" / name).read_bytes() for name in copying.REPORT}
    found = {name.removeprefix("models/a/b/tiny/"): bucket.cat_file(name) for name in bucket.find("models/a/b")}
    assert found == own
    assert json.loads(found["1/export.json"])["files"].keys() | {"export.json"} == {
        name.removeprefix("1/") for name in found if name.startswith("1/")
    }


@pytest.mark.long
def test_a_version_that_another_has_written_to_s3_is_refused(bucket, run_in_s3, capsys):
    folder, _ = run_in_s3
    options = [f"--{name}={folder / name}" for name in ("home", "saved_models_dir")]
    again = ("export", folder / "runs_dir" / "tiny", *options, "--publish_to", "s3://models/a/b")
    assert command(*again) == 0
    assert "Copy:      s3://models/a/b/tiny/1\n" in capsys.readouterr().out
    record = bucket.cat_file("models/a/b/tiny/1/export.json")
    bucket.pipe_file("models/a/b/tiny/1/export.json", record[::-1])
    assert command(*again) == 1
    assert "s3://models/a/b/tiny/1 exists, and is another than " in capsys.readouterr().err
    bucket.pipe_file("models/a/b/tiny/1/export.json", record)


def test_a_bucket_that_is_missing_is_noticed_before_anything_is_computed(bucket, tmp_path, capsys):
    file = write(tmp_path, small())
    assert command("run", file, "--home", tmp_path / "home", "--publish_to", "s3://absent/a") == 2
    assert "--publish_to s3://absent/a: nothing can be written there (FileNotFoundError: " in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_a_store_that_fails_at_the_end_leaves_everything_else_and_the_command_that_copies_it(
    run_in_s3, store, monkeypatch, capsys
):
    folder, _ = run_in_s3
    places = [f"--{name}={folder / name}" for name in ("home", "runs_dir", "saved_models_dir")]

    def refuse(self, *arguments, **options):
        raise PermissionError("denied")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", refuse)
        assert command("run", folder / "experiment.yaml", *places, "--publish_to", "memory://models") == 1
        printed = capsys.readouterr()
        with pytest.raises(NotPublishedError) as caught:
            mimic_keras.run(
                folder / "experiment.yaml",
                **{name: folder / name for name in ("home", "runs_dir", "saved_models_dir")},
                publish_to="memory://models",
            )
    version = folder / "saved_models_dir" / "tiny" / "1"
    assert f"Export:    {version}\n" in printed.out
    reason = f"{version} cannot be copied to memory://models/tiny/1 (PermissionError: denied)"
    message, _, line = printed.err.splitlines()[-1].partition("To copy it once that is mended: ")
    assert message == f"mimic-keras: {reason}. "
    assert (caught.value.refusal, caught.value.result.export, caught.value.result.address) == (reason, version, None)
    assert command(*shlex.split(line)[1:]) == 0
    assert held(store)["tiny/1/saved_model.pb"] == (version / "saved_model.pb").read_bytes()


def test_a_run_that_publishes_nothing_has_nothing_to_copy(store, tmp_path, capsys):
    file = write(tmp_path, small())
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs")
    assert command("run", file, *places, "--no_export", "--publish_to", "memory://models") == 2
    message = "--publish_to memory://models: this run publishes nothing; export.publish is false"
    assert message in capsys.readouterr().err
