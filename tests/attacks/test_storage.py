"""Attacks on the home folder: what prune removes, processes with equal ids, unreadable files, swapped folders."""

import contextlib
import errno
import json
import os
import select
import shutil
import stat
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from mimic_keras import runner
from mimic_keras.contracts import InputError, atomic_writer
from mimic_keras.serving import publishing
from mimic_keras.stages import data, export, student
from mimic_keras.stages.workspace import Workspace
from mimic_keras.storage import locks, prune
from mimic_keras.storage.files import write_json
from mimic_keras.storage.prune import Choice
from mimic_keras.storage.store import Store, damaged_files
from tests.tiny import command, tiny, write

ROOT = Path(__file__).parent.parent.parent
DAY = 86_400
FILES = ("one", "folder/two", "zwei")


class Prepared:
    """A data set, and its component. Refuses a folder with some of its files, as data sets do whose archive is gone."""

    def __init__(self, name="prepared", failing=False):
        self.plugin, self.failing = types.SimpleNamespace(name=name), failing

    def __call__(self):
        return self

    def guard(self, function, *arguments):
        return function(*arguments)

    def paths(self):
        return []

    def check_unchanged(self):
        pass

    def key_inputs(self):
        return {}

    def prepare(self, folder):
        missing = [name for name in FILES if not (folder / name).exists()]
        if missing and len(missing) < len(FILES):
            raise InputError(f"missing: {missing}")
        for name in missing:
            if "/" in name:
                (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name)
            if self.failing:
                raise OSError(errno.ENOSPC, "disk full")
        return "fingerprint"


def prepare(home, name="prepared"):
    return data.prepare(Prepared(name), home, 0).folder


def make(home, name, kind="students"):
    """The artefact of that name: a file with it, and one in a folder."""

    def fill(folder):
        (folder / "inner").mkdir(exist_ok=True)
        for file in ("data", "inner/more"):
            (folder / file).write_text(name)

    return Store(home, {}).get_or_make(kind, {"name": name}, name, fill)


def aged(folder, days=40):
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (time.time() - days * DAY,) * 2, follow_symlinks=False)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


def foreign(home):
    """A project with folders of the names that a home folder has."""
    names = (
        "datasets/imagenet/a.jpg",
        "teachers/thesis/chapter.tex",
        "students/0123456789abcdef/grades",
        "damaged/a/b",
    )
    names += ("logits/.keep/x", "teachers/.thesis.partial/x", "damaged/students-2024/photo.jpg")
    for name in names:
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text("foreign")
    for key in ("teachers", "students/other"):
        folder = home / "teachers" / f"record-{Path(key).name}"
        folder.mkdir(parents=True)
        (folder / "artifact.json").write_text(json.dumps({"kind": key, "key": Path(key).name, "files": {}}))
    return contents(aged(home))


def test_h3_prune_and_list_leave_out_what_is_not_ours(tmp_path, monkeypatch, capsys):
    before = foreign(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert command("cache", "prune", "--older_than", "30d", "--home", ".") == 0
    assert "0 removed" in capsys.readouterr().out
    assert contents(tmp_path) == before, "and no locks beside it"
    ours = make(tmp_path, "ours").folder
    assert command("cache", "--home", ".") == 0
    said = capsys.readouterr().out
    assert ours.name in said
    assert not any(name in said for name in ("imagenet", "thesis", "0123456789abcdef", "damaged/", "keep", "record"))
    aged(ours)
    assert command("cache", "prune", "--older_than", "30d", "--home", ".") == 0
    assert "1 removed" in capsys.readouterr().out
    assert contents(tmp_path).items() >= before.items()


def test_h3_a_link_neither_aborts_prune_nor_is_followed(tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    prepare(home)
    (home / "datasets" / "prepared").rename(elsewhere)
    (home / "datasets" / "prepared").symlink_to(elsewhere)
    assert prepare(home) == home / "datasets" / "prepared", "a run follows it"
    old = aged(make(home, "old").folder)
    before = contents(aged(elsewhere))
    assert [entry.folder for entry in prune.remove_unused(home, Choice(DAY))[0]] == [old]
    assert contents(elsewhere) == before
    assert (home / "datasets" / "prepared").is_symlink()


def test_h3_a_data_set_is_not_prepared_in_a_foreign_folder(tmp_path):
    before = foreign(tmp_path)
    with pytest.raises(InputError, match=r"imagenet holds files that mimic-keras did not put there .*another --home"):
        prepare(tmp_path, "imagenet")
    assert contents(tmp_path).items() >= before.items()
    aged(tmp_path)
    assert prune.remove_unused(tmp_path, Choice(DAY)) == ([], 0)


def test_h3_a_half_finished_data_set_is_ours(tmp_path):
    with pytest.raises(OSError, match="disk full"):
        data.prepare(Prepared(failing=True), tmp_path, 0)
    folder = tmp_path / "datasets" / "prepared"
    assert [(entry.folder, entry.state) for entry in prune.list_entries(tmp_path)] == [(folder, "unfinished")]
    with pytest.raises(InputError, match="missing:"):
        prepare(tmp_path)  # the data set's own opinion; ours would name another --home
    aged(folder)
    assert [entry.folder for entry in prune.remove_unused(tmp_path, Choice(DAY))[0]] == [folder]
    assert damaged_files(prepare(tmp_path)) == []


def test_a_record_that_is_damaged_is_listed_and_not_removed(tmp_path):
    folder = make(tmp_path, "net").folder
    (folder / "artifact.json").write_text("{")
    aged(folder)
    assert [entry.state for entry in prune.list_entries(tmp_path)] == ["damaged: artifact.json"]
    assert prune.remove_unused(tmp_path, Choice(DAY)) == ([], 0)
    assert make(tmp_path, "net").made, "which moves it aside"
    aged(tmp_path / "damaged")
    assert [entry.kind for entry in prune.remove_unused(tmp_path, Choice(DAY))[0]] == ["damaged"]


@pytest.mark.parametrize("goes_on", [True, False])
def test_h4_what_a_run_uses_that_began_during_the_prune_is_kept(goes_on, tmp_path, monkeypatch):
    old = {name: aged(make(tmp_path, name).folder) for name in ("one", "two", "three")}
    rmtree, during = shutil.rmtree, contextlib.ExitStack()

    def begin_and_remove(folder, *arguments, **named):
        monkeypatch.setattr(shutil, "rmtree", rmtree)
        with locks.in_use(tmp_path) if not goes_on else contextlib.nullcontext():
            if goes_on:
                during.enter_context(locks.in_use(tmp_path))
            used = [make(tmp_path, name).made for name, place in old.items() if place.exists()]
        assert used[-1:] == [False]
        return rmtree(folder, *arguments, **named)

    monkeypatch.setattr(shutil, "rmtree", begin_and_remove)
    with during:
        removed, kept = prune.remove_unused(tmp_path, Choice(0 if goes_on else DAY))
    assert (len(removed), kept) == (1, 2)
    assert sum(place.exists() for place in old.values()) == 2


@pytest.mark.parametrize("is_whole", [True, False])
def test_h4_the_student_of_an_export_is_kept(is_whole, tmp_path, monkeypatch):
    home, folder = tmp_path / "home", aged(make(tmp_path / "home", "student").folder)
    write_json(tmp_path / "artifacts.json", {"student": {"model": str(folder)}})
    write_json(tmp_path / "metrics.json", {"models": {"student": {"validation": {}}}})
    if not is_whole:
        (folder / "data").unlink()
    experiment = types.SimpleNamespace(name="tiny", export=None)
    workspace, plan = Workspace(home), types.SimpleNamespace(transfer=(None, 0), experiment=experiment)

    def prepare(*_):
        prune.remove_unused(home, Choice(0))
        return types.SimpleNamespace(split=lambda _: types.SimpleNamespace(labels=None))

    monkeypatch.setattr(workspace, "prepare", prepare)
    monkeypatch.setattr(export, "find_refusal", lambda *_: None)
    monkeypatch.setattr(student, "load", lambda place: pytest.fail("removed") if not place.exists() else sys.exit(7))
    with pytest.raises(SystemExit if is_whole else InputError, match="7" if is_whole else "missing or damaged"):
        runner.republish(plan, tmp_path, workspace, tmp_path / "exports")


def test_h4_a_data_set_that_a_prune_removes_while_a_run_waits_is_prepared_again(tmp_path, monkeypatch):
    folder = prepare(tmp_path)
    locked = data.locked

    @contextlib.contextmanager
    def after_a_prune(file, label):
        aged(folder)
        assert len(prune.remove_unused(tmp_path, Choice(DAY))[0]) == 1
        with locked(file, label):
            yield

    monkeypatch.setattr(data, "locked", after_a_prune)
    assert damaged_files(prepare(tmp_path)) == []


# For every line "HOME NUMBER ORDER", a process of its own prunes HOME and dies at its NUMBERth rename or removal; in
# listings, the record comes first or last. Answers with how it ended.
PRUNER = """
import os, shutil, signal, sys
from pathlib import Path
from mimic_keras.storage import prune

scandir = os.scandir

class Listing:
    def __init__(self, folder="."):
        with scandir(folder) as found:
            self.found = iter(sorted(found, key=lambda entry: (entry.name == "artifact.json") == (order == "last")))
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def close(self): pass
    def __iter__(self): return self
    def __next__(self): return next(self.found)

def deadly(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

for line in sys.stdin:
    home, left, order = line.split()
    left, child = int(left), os.fork()
    if not child:
        os.scandir, os.unlink, os.rmdir, os.rename = Listing, *map(deadly, (os.unlink, os.rmdir, os.rename))
        prune.remove_unused(Path(home), prune.Choice(86400))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("order", ["first", "last"])
def test_m7_a_prune_may_be_killed_at_every_removal(order, tmp_path):
    template = tmp_path / "template"
    prepare(template), make(template, "old"), make(template, "teacher", "teachers")
    (template / "students" / f".{'0' * 16}.partial").mkdir()
    (template / "students" / f".{'0' * 16}.partial" / "state").write_text("state")
    for kind in ("datasets", "students", "teachers"):
        aged(template / kind)
    assert not make(template, "teacher", "teachers").made, "and so it is young"
    pruner = subprocess.Popen(
        [sys.executable, "-c", PRUNER],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    code, number, halves = -9, 0, 0
    while code == -9:
        number += 1
        home = tmp_path / str(number)
        shutil.copytree(template, home)
        pruner.stdin.write(f"{home} {number} {order}\n")
        pruner.stdin.flush()
        code = int(pruner.stdout.readline())
        halves += any(home.glob("*/.*.removing"))
        assert not make(home, "teacher", "teachers").made
        assert damaged_files(make(home, "old").folder) == []
        assert damaged_files(prepare(home)) == [], number
        prune.remove_unused(home, Choice(DAY))
        assert not list(home.glob("*/.*.removing"))
        shutil.rmtree(home)
    pruner.communicate()
    assert code == 0
    # 4 + 3 + 1 files, 2 + 2 + 1 folders, 3 renames, 3 notes of experiments; then it ends.
    assert (number, halves > 5) == (20, True)


def test_m8_two_writers_with_one_process_id(tmp_path):
    file = tmp_path / "page.html"
    with atomic_writer(file) as one:
        one.write(b"one")
        with atomic_writer(file) as other:
            other.write(b"other")
        assert file.read_bytes() == b"other"
    assert file.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [file]


def test_m8_the_owner_is_named_with_its_host(tmp_path):
    with locks.owned(tmp_path), pytest.raises(InputError, match=rf"process {os.getpid()} on host \S+ has been running"):  # noqa: SIM117
        with locks.owned(tmp_path):
            pass


def test_m8_leftovers_of_dead_writers_are_removed_and_nothing_else(tmp_path):
    folder = prepare(tmp_path)
    left = [f".zca.npz.host-a-{'0' * 32}.tmp", ".zca.npz.123.tmp"]
    for name in [*left, ".hidden.tmp", "a.tmp"]:
        (folder / name).write_text("x")
    prepare(tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "artifact.json",
        "one",
        "folder",
        "zwei",
        ".hidden.tmp",
        "a.tmp",
    }
    assert damaged_files(folder) == []


def namespace():
    """The command that gives a process a process id of its own world."""
    command_ = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    for each in (command_, [*command_, "--user", "--map-root-user"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*each, "true"], capture_output=True).returncode == 0:
                return each
    pytest.skip("unshare may not make process namespaces here (needs root, or user namespaces)")


# Uses the home folder, says so, and waits for a word; then makes an artefact and writes a file that others write too.
USER = """
import os, sys, types
from pathlib import Path
from mimic_keras.storage import locks
from mimic_keras.storage.files import write_json
from mimic_keras.storage.store import Store

locks.time = types.SimpleNamespace(time=lambda: 1_700_000_000.0)
home = Path(sys.argv[1])
with locks.in_use(home):
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    for number in range(50):
        write_json(home / "shared.json", {"number": number})
        Store(home, {}).get_or_make("students", {"n": number}, "net", lambda to: write_json(to / "data", [1] * number))
"""


def test_m8_equal_process_ids_do_not_collide(tmp_path):
    begin = [*namespace(), sys.executable, "-c", USER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    users = [subprocess.Popen(begin, env=environment(), **pipes) for _ in range(2)]
    try:
        for user in users:
            assert select.select([user.stdout], [], [], 60)[0], "it waits for the other"
            assert user.stdout.readline() == b"1\n"
        for user in users:
            user.stdin.write(b"\n")
            user.stdin.flush()
        for user in users:
            assert user.communicate()[1].decode() == ""
            assert user.returncode == 0
    finally:
        for user in users:
            user.kill()
    assert json.loads((tmp_path / "shared.json").read_text()) == {"number": 49}
    assert {entry.state for entry in prune.list_entries(tmp_path)} == {"whole"}
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list((tmp_path / ".users").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(20))
def test_m8_two_runs_with_process_id_1_share_a_home(attempt, tmp_path):
    inside, runs = namespace(), []
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        experiment = tiny(name=f"seed_{seed}")
        experiment["student"]["seed"] = seed
        places = (
            "--home",
            tmp_path / "home",
            "--runs_dir",
            tmp_path / "runs",
            "--saved_models_dir",
            tmp_path / "exports",
        )
        arguments = ["run", write(tmp_path / str(seed), experiment), *places]
        started = [*inside, sys.executable, "-m", "mimic_keras", *map(str, arguments)]
        runs.append(subprocess.Popen(started, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    for process in runs:
        said = process.communicate()[1].decode()
        assert process.returncode == 0, said
    stages = [json.loads(file.read_text())["stages"] for file in (tmp_path / "runs").glob("*/metrics.json")]
    assert sum(stage["teachers"]["made"] for stage in stages) == 2
    assert {entry.state for entry in prune.list_entries(tmp_path / "home")} == {"whole"}
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", ["artifact.json", "data"])
def test_m11_a_file_that_cannot_be_read_now_is_not_damaged(name, number, tmp_path, monkeypatch):
    folder = make(tmp_path, "net").folder
    opened = Path.open

    def fail(path, *arguments, **named):
        if path == folder / name:
            raise OSError(number, os.strerror(number), *([] if number == errno.EIO and name == "data" else [str(path)]))
        return opened(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fail)
        with pytest.raises(OSError, match=os.strerror(number)) as raised:
            make(tmp_path, "net")
        assert raised.value.filename == str(folder / name)
        (entry,) = prune.list_entries(tmp_path)
        assert entry.state == f"unreadable: {os.strerror(number)}"
    assert not make(tmp_path, "net").made
    assert not (tmp_path / "damaged").exists()


@pytest.mark.parametrize("kind", ["folder", "folder in its path"])
def test_m11_another_thing_in_a_files_place_is_damage(kind, tmp_path):
    folder = make(tmp_path, "net").folder
    if kind == "folder":
        (folder / "data").unlink()
        (folder / "data").mkdir()
    else:
        shutil.rmtree(folder / "inner")
        (folder / "inner").write_text("a file")
    assert make(tmp_path, "net").made
    assert damaged_files(folder) == []


@pytest.mark.parametrize("kind", ["teachers", "students"])
def test_m12_swapped_folders_are_not_used(kind, tmp_path, caplog):
    one, two = make(tmp_path, "one", "students").folder, make(tmp_path, "two", kind).folder
    for source, target in ((one, tmp_path / "swap"), (two, one), (tmp_path / "swap", two)):
        source.rename(target)
    assert {entry.state for entry in prune.list_entries(tmp_path)} == {"damaged: artifact.json"}
    for name, place in (("one", "students"), ("two", kind)):
        again = make(tmp_path, name, place)
        assert (again.made, (again.folder / "data").read_text()) == (True, name)
    assert "is damaged (artifact.json); moved to" in caplog.text
    assert {path.read_text() for path in (tmp_path / "damaged").rglob("data")} == {"one", "two"}


@pytest.mark.parametrize("extra", ["00002.npy", "inner/00002.npy"])
def test_m12_an_extra_file_is_moved_aside(extra, tmp_path, caplog):
    folder = make(tmp_path, "net", "logits").folder
    (folder / extra).write_text("extra")
    assert [entry.state for entry in prune.list_entries(tmp_path)] == [f"damaged: {extra}"]
    again = make(tmp_path, "net", "logits")
    assert not again.made, "all files of the record are whole"
    assert sorted(contents(folder)) == [Path("artifact.json"), Path("data"), Path("inner/more")]
    assert [path.read_text() for path in (tmp_path / "damaged").rglob("00002.npy")] == ["extra"]
    assert f"{folder} holds {extra} beside its files; moved to" in caplog.text


def test_low_junk_among_the_users(tmp_path, caplog):
    old = aged(make(tmp_path, "old").folder)
    (tmp_path / ".users").mkdir()
    for name in ("junk.lock", "1e9-host.lock", "nan-host.lock"):
        (tmp_path / ".users" / name).write_text("")
    assert [entry.folder for entry in prune.remove_unused(tmp_path, Choice(DAY))[0]] == [old]
    assert len(list((tmp_path / ".users").iterdir())) == 3
    assert caplog.text.count("junk.lock is no process's lock") == 1


def test_low_a_failed_run_leaves_no_user(tmp_path):
    with pytest.raises(KeyError), locks.in_use(tmp_path):
        raise KeyError
    assert not list((tmp_path / ".users").iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o700), (0o022, 0o755), (0o027, 0o750)])
def test_low_a_published_folder_respects_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        version = publishing.publish(tmp_path, lambda folder: (folder / "saved_model.pb").write_text("graph"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(version.stat().st_mode) == mode
    assert stat.S_IMODE((version / "saved_model.pb").stat().st_mode) == mode & 0o666


def test_low_places_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(Path("home"))
    assert workspace.home == tmp_path / "home"
    assert make(workspace.home, "net").folder.is_absolute()
