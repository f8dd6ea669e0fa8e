"""`mimic-keras cache`: what it lists, what it verifies, and that it never removes what is in use."""

import multiprocessing
import os
import re
import time

import pytest

from mimic_keras.interface.commands import _tabulate_entries
from mimic_keras.storage import locks, prune
from mimic_keras.storage.prune import Choice
from mimic_keras.storage.store import Store
from tests.tiny import command

DAY = 86_400


def make(home, name, days=0.0):
    """An artefact that was last used so many days ago."""
    artifact = Store(home, {}).get_or_make("students", {"name": name}, name, lambda to: (to / "data").write_text(name))
    for file in artifact.folder.iterdir():
        os.utime(file, (time.time() - days * DAY,) * 2)
    return artifact.folder


def listed(home, capsys):
    assert command("cache", "--home", home) == 0
    return capsys.readouterr().out


def use(home, name, experiment):
    """The artefact of `name`, made or reused by an experiment."""
    return (
        Store(home, {}, experiment)
        .get_or_make("students", {"name": name}, name, lambda to: (to / "data").write_text(name))
        .folder
    )


def test_the_list_says_what_is_whole_damaged_unfinished_and_moved_aside(tmp_path, capsys):
    make(tmp_path, "baseline", days=3)
    damaged = make(tmp_path, "student")
    (damaged / "data").write_text("changed")
    (tmp_path / "students" / f".{'0' * 16}.partial").mkdir()
    aside = f"students-{'0' * 16}-{time.time_ns()}"
    (tmp_path / "damaged" / aside).mkdir(parents=True)
    rows = {row["artefact"]: row for row in _tabulate_entries(prune.list_entries(tmp_path))[1]}
    assert {(row["made for"], row["days since use"], row["state"]) for row in rows.values()} >= {
        ("baseline", 3.0, "whole"),
        ("student", 0.0, "damaged: data"),
    }
    assert rows[f"students/{'0' * 16}"]["state"] == "unfinished"
    assert rows[f"damaged/{aside}"]["state"] == "moved aside"
    assert command("cache", "verify", "--home", tmp_path) == 1
    said, error = capsys.readouterr()
    assert all(name in said for name in (*rows, "damaged: data", "moved aside"))
    assert "1 of 4 artefacts are not whole; a run that needs one moves it aside and makes it again" in error
    assert damaged.exists(), "nothing is changed"
    assert "damaged: data" not in listed(tmp_path, capsys), "a list reads no artefact"


def test_verify_says_that_all_is_whole(tmp_path, capsys):
    make(tmp_path, "student")
    assert command("cache", "verify", "--home", tmp_path) == 0
    assert "1 artefacts, none damaged" in capsys.readouterr().out


def test_the_list_names_the_experiments(tmp_path, capsys):
    use(tmp_path, "shared", "first")
    use(tmp_path, "shared", "second")
    use(tmp_path, "shared", "second")
    assert "first, second" in listed(tmp_path, capsys)


def test_prune_removes_what_one_experiment_alone_has_used(tmp_path, capsys):
    own, shared, other = (use(tmp_path, name, "first") for name in ("own", "shared", "other"))
    use(tmp_path, "shared", "second")
    unknown = make(tmp_path, "unknown")
    assert command("cache", "prune", "--experiment", "first", "--dry_run", "--home", tmp_path) == 0
    assert "would remove" in (said := capsys.readouterr().out)
    assert "2 to remove" in said
    assert all(folder.exists() for folder in (own, shared, other, unknown))
    assert command("cache", "prune", "--experiment", "first", "--home", tmp_path) == 0
    assert [folder.exists() for folder in (own, other, shared, unknown)] == [False, False, True, True]
    assert [file.name for file in (tmp_path / "students").glob(".*.experiments")] == [f".{shared.name}.experiments"]


def test_prune_removes_the_least_recently_used_until_the_rest_is_small_enough(tmp_path):
    folders = [make(tmp_path, name, days) for name, days in (("a", 3), ("b", 2), ("c", 1))]
    sizes = [entry.size for entry in prune.list_entries(tmp_path, check=False)]
    removed, _ = prune.remove_unused(tmp_path, Choice(max_size=sizes[2]))
    assert [entry.label for entry in removed] == ["a", "b"]
    assert [folder.exists() for folder in folders] == [False, False, True]
    assert prune.remove_unused(tmp_path, Choice(max_size=sizes[2])) == ([], 0)


@pytest.mark.parametrize("size", ["", "5", "GB", "5gb", "-1GB", "1TB"])
def test_a_size_is_a_number_of_mb_or_gb(size, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        command("cache", "prune", f"--max_size={size}", "--home", tmp_path)
    assert exit_.value.code == 2
    assert f"expected a number of MB or GB, as 500MB or 20GB; got {size!r}" in capsys.readouterr().err


def test_an_empty_home_has_an_empty_list(tmp_path, capsys):
    listed(tmp_path / "nowhere", capsys)
    assert not (tmp_path / "nowhere").exists()


def test_prune_removes_what_was_not_used_for_so_long(tmp_path, capsys):
    old, young = make(tmp_path, "old", days=31), make(tmp_path, "young", days=29)
    assert command("cache", "prune", "--older_than", "30d", "--home", tmp_path) == 0
    assert (old.exists(), young.exists()) == (False, True)
    said = capsys.readouterr().out
    assert f"removed students/{old.name}: old" in said
    assert re.search(r"1 removed, \d+ B; 0 in use and kept", said)
    assert command("cache", "prune", "--older-than", "12h", "--home", tmp_path) == 0
    assert not young.exists()


def test_reuse_makes_an_artefact_young(tmp_path):
    folder = make(tmp_path, "old", days=31)
    Store(tmp_path, {}).get_or_make("students", {"name": "old"}, "old", lambda to: pytest.fail("made again"))
    assert prune.remove_unused(tmp_path, Choice(30 * DAY)) == ([], 0)
    assert folder.exists()


def hold(home, name, ready, done):
    """Another process: a run that has used the artefact, or one that makes it."""
    if name == "used":
        with locks.in_use(home):
            Store(home, {}).get_or_make("students", {"name": name}, name, lambda to: None)
            ready.set()
            done.wait(60)
    else:
        with locks.locked(home / "students" / f".{Store(home, {}).key({'name': name})}.lock", name):
            ready.set()
            done.wait(60)


@pytest.mark.long
@pytest.mark.parametrize("name", ["used", "locked"])
def test_prune_keeps_what_a_running_experiment_uses(name, tmp_path):
    folder, other = make(tmp_path, name, days=40), make(tmp_path, "other", days=40)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, name, ready, done))
    process.start()
    assert ready.wait(60)
    removed, kept = prune.remove_unused(tmp_path, Choice(0))
    assert ([entry.folder for entry in removed], kept) == ([other], 1)
    done.set()
    process.join()
    removed, kept = prune.remove_unused(tmp_path, Choice(0))
    assert ([entry.folder for entry in removed], kept) == ([folder], 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cache", "prune"], "cache prune needs --older_than, --max_size or --experiment, as in --older_than 30d"),
        (["cache", "--older_than", "3d"], "cache list takes no --older_than, --max_size, --experiment or --dry_run"),
        (["cache", "verify", "--dry_run"], "cache verify takes no --older_than"),
    ],
)
def test_incomplete_commands(arguments, message, tmp_path, capsys):
    assert command(*arguments, "--home", tmp_path) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("age", ["", "30", "d", "xd", "3w", "nand", "infh"])
def test_an_age_is_a_number_of_days_or_hours(age, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        command("cache", "prune", "--older-than", age, "--home", tmp_path)
    assert exit_.value.code == 2
    assert f"expected a number of days or hours, as 30d or 12h; got {age!r}" in capsys.readouterr().err
