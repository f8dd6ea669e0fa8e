"""Artefacts are written whole or not at all, found again by what they were made from, and never used damaged."""

import json
import multiprocessing
import time
import types

import pytest

from mimic_keras.stages import data
from mimic_keras.storage.files import hash_json, write_json
from mimic_keras.storage.store import Store, damaged_files


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


def test_other_inputs_or_another_common_part_make_another(store, tmp_path):
    first = store.get_or_make("things", {"a": 1}, "thing", fill(b"1"))
    second = store.get_or_make("things", {"a": 2}, "thing", fill(b"2"))
    third = Store(tmp_path, {"trainer": 2}).get_or_make("things", {"a": 1}, "thing", fill(b"3"))
    assert len({first.key, second.key, third.key}) == 3


def test_the_key_does_not_depend_on_the_order_of_keys():
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})


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


def test_write_json_replaces_whole_files(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(file, {"a": float("nan")})
    assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


class Prepared:
    """A data set that keeps a file and a folder, and its component."""

    plugin = types.SimpleNamespace(name="prepared")

    def __init__(self):
        self.made = []

    def __call__(self):
        return self

    def guard(self, function, *arguments):
        return function(*arguments)

    def key_inputs(self):
        return {}

    def paths(self):
        return []

    def prepare(self, folder):
        for name in ("file", "folder/one", "folder/two"):
            top = folder / name.split("/")[0]
            if not top.exists() or (name == "folder/two" and self.made[-1:] == ["folder/one"]):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(name)
                self.made.append(name)
        return "fingerprint"


def prepared(home):
    made = Prepared()
    data.prepare(made, home, 0)
    return made.made


def test_a_data_set_finds_what_it_left_or_nothing(tmp_path, caplog):
    everything = ["file", "folder/one", "folder/two"]
    assert (prepared(tmp_path), prepared(tmp_path)) == (everything, [])
    folder = tmp_path / "datasets" / "prepared"
    (folder / "folder" / "two").write_text("flipped")
    assert prepared(tmp_path) == everything[1:]
    assert "data set prepared: " in caplog.text
    assert "is damaged (folder/two), moved to" in caplog.text
    assert [path.read_text() for path in (tmp_path / "damaged").rglob("two")] == ["flipped"]
    (folder / "file").unlink()
    assert (prepared(tmp_path), prepared(tmp_path)) == (everything[:1], [])
    (folder / "artifact.json").write_text("")
    assert prepared(tmp_path) == everything  # what is there cannot be judged
    assert damaged_files(folder) == []
