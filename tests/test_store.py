"""Artefacts are written whole or not at all, found again by what they were made from, and never used damaged."""

import hashlib
import json
import multiprocessing
import os
import time

import pytest

from mimic_keras.storage.store import Store, Wanted, damaged_files


def fill(content):
    def make(folder):
        (folder / "data").write_bytes(content)
        (folder / "inner").mkdir(exist_ok=True)
        (folder / "inner" / "more").write_bytes(b"more")

    return make


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, {"trainer": 1})


def test_the_same_inputs_are_made_once(store):
    first = store.get_or_make("things", {"a": 1}, "thing", fill(b"1"))
    again = store.get_or_make("things", {"a": 1}, "thing", lambda folder: pytest.fail("made twice"))
    assert (first.made, again.made, again.folder) == (True, False, first.folder)
    assert store.counts == {"made": 1, "reused": 1}


def test_what_is_missing_of_a_group_is_made_together(store):
    made = []

    def together(folders):
        made.append(list(folders))
        for folder in folders.values():
            fill(b"1")(folder)

    def want(label, group=together):
        return Wanted("things", {"label": label}, label, fill(b"1"), make_together=group)

    there = store.get_or_make("things", {"label": "b"}, "b", fill(b"1"))
    found = list(store.get_or_make_all([want("a"), want("b"), want("c"), want("d", None)]))
    assert made == [["a", "c"]]
    assert [each.made for each in found] == [True, False, True, True]
    assert found[1].folder == there.folder
    assert len({each.key for each in found}) == 4
    assert not any(damaged_files(each.folder) for each in found)


def test_other_inputs_or_another_common_part_make_another(store, tmp_path):
    first = store.get_or_make("things", {"a": 1}, "thing", fill(b"1"))
    second = store.get_or_make("things", {"a": 2}, "thing", fill(b"2"))
    third = Store(tmp_path, {"trainer": 2}).get_or_make("things", {"a": 1}, "thing", fill(b"3"))
    assert len({first.key, second.key, third.key}) == 3


def test_the_record_says_what_it_was_made_from(store):
    artifact = store.get_or_make("things", {"a": 1}, "thing", fill(b"1"))
    record = artifact.read_json("artifact.json")
    assert record["made_from"] == {"trainer": 1, "a": 1}
    assert sorted(record["files"]) == ["data", "inner/more"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "record", "empty record", "inner"])
def test_a_damaged_artefact_is_made_again(store, damage):
    folder = store.get_or_make("things", {"a": 1}, "thing", fill(b"12345")).folder
    if damage == "flip":
        (folder / "data").write_bytes(b"12344")
    if damage == "truncate":
        (folder / "data").write_bytes(b"1234")
    if damage == "remove":
        (folder / "data").unlink()
    if damage == "inner":
        (folder / "inner" / "more").write_bytes(b"mare")
    if damage == "record":
        (folder / "artifact.json").write_text('{"files": 3}')
    if damage == "empty record":
        (folder / "artifact.json").write_text("")
    again = store.get_or_make("things", {"a": 1}, "thing", fill(b"12345"))
    assert again.made
    assert (again.folder / "data").read_bytes() == b"12345"
    assert (again.folder / "inner" / "more").read_bytes() == b"more"
    assert damaged_files(again.folder) == []
    aside = {path.name: path.read_bytes() for path in (store.home / "damaged").rglob("*") if path.is_file()}
    changed = {"flip": b"12344", "truncate": b"1234", "inner": b"mare", "record": b'{"files": 3}', "empty record": b""}
    assert damage == "remove" or changed[damage] in aside.values()
    assert {"data", "more", "artifact.json"} >= aside.keys()
    assert ("data" in aside) == (damage != "remove" and damage != "inner")


def test_what_fails_leaves_no_artefact_and_the_next_one_finds_its_files(store):
    def fail(folder):
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.get_or_make("things", {"a": 1}, "thing", fail)
    assert not (store.home / "things" / store.key({"a": 1})).exists()
    seen = []
    store.get_or_make("things", {"a": 1}, "thing", lambda folder: seen.extend(path.name for path in folder.iterdir()))
    assert seen == ["half"]


def slowly(home, results):
    def make(folder):
        time.sleep(0.5)
        (folder / "data").write_text("x")

    results.put(Store(home, {}).get_or_make("things", {"a": 1}, "thing", make).made)


def test_two_processes_make_one_artefact_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=slowly, args=(tmp_path, results)) for _ in range(2)]
    for process in processes:
        process.start()
    made = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(made) == [False, True]


def test_a_key_is_the_digest_of_everything_that_goes_into_it(store):
    text = json.dumps({"a": 1, "trainer": 1}, sort_keys=True, separators=(",", ":"))
    assert store.key({"a": 1}) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_an_unfinished_file_of_an_interrupted_run_is_removed(store):
    partial = store.home / "things" / f".{store.key({})}.partial"
    partial.mkdir(parents=True)
    for name in (".data.123.tmp", "kept"):
        (partial / name).write_text("x")
    folder = store.get_or_make("things", {}, "thing", fill(b"1")).folder
    assert sorted(path.name for path in folder.iterdir()) == ["artifact.json", "data", "inner", "kept"]


def test_reuse_is_logged_as_such_and_renews_the_time_of_the_last_use(store, caplog):
    folder = store.get_or_make("things", {}, "thing", fill(b"1")).folder
    os.utime(folder / "artifact.json", (1, 1))
    with caplog.at_level("INFO", "absl"):
        store.get_or_make("things", {}, "thing", fill(b"1"))
    (record,) = [each for each in caplog.records if "reused" in each.getMessage()]
    assert record.getMessage() == f"thing: reused (things/{folder.name})"
    assert record.is_reuse
    assert (folder / "artifact.json").stat().st_mtime > 1


def test_a_record_without_a_key_or_of_another_shape_is_damaged(tmp_path):
    folder = tmp_path / "things" / "x"
    folder.mkdir(parents=True)
    own = {"kind": "things", "key": "x"}
    for content in ({"files": {}}, own, {**own, "files": [1]}, {**own, "key": "y", "files": {}}, [], None):
        (folder / "artifact.json").write_text(json.dumps(content))
        assert damaged_files(folder) == ["artifact.json"]
    (folder / "artifact.json").write_text(json.dumps({**own, "files": {}}))
    assert damaged_files(folder) == []
