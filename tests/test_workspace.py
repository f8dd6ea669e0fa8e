"""One process's use of a home folder: data sets prepared once, its store, and its mark of use."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning.components import bind
from mimic_keras.stages import workspace as stage
from mimic_keras.stages.workspace import Unit, Workspace
from mimic_keras.storage.locks import USERS


def digits(**arguments):
    return bind("dataset", {"name": "digits", **arguments}, Place("dataset"), Problems("x.yaml"))


@pytest.fixture
def prepared(monkeypatch):
    """(seed, arguments) of every data set that is prepared."""
    calls, real = [], stage.prepare

    def counted(component, home, seed):
        calls.append((seed, component.arguments))
        return real(component, home, seed)

    monkeypatch.setattr(stage, "prepare", counted)
    return calls


def test_a_data_set_of_one_specification_is_prepared_once(tmp_path, prepared):
    workspace = Workspace(tmp_path)
    first = workspace.prepare(digits(), 3)
    assert workspace.prepare(digits(copies=1), 3) is first, "its default written out is the same"
    assert prepared == [(3, {"copies": 1, "shift": 1})]
    assert first.split("train") is workspace.prepare(digits(), 3).split("train")
    assert (first.seed, first.folder) == (3, tmp_path / "datasets" / "digits")
    assert Workspace(tmp_path).prepare(digits(), 3) is not first


def test_another_seed_or_argument_is_another_data_set(tmp_path, prepared):
    workspace = Workspace(tmp_path)
    made = [workspace.prepare(digits(), 3), workspace.prepare(digits(), 4), workspace.prepare(digits(copies=2), 3)]
    assert prepared == [(3, {"copies": 1, "shift": 1}), (3, {"copies": 2, "shift": 1})], "once for all seeds"
    assert made[0].dataset is made[1].dataset
    assert [each.identity["augmentation"] for each in made] == [3, 4, 3]
    assert len({str(each.identity) for each in made}) == 3
    assert [workspace.prepare(digits(), 4), len(prepared)] == [made[1], 2]


def test_another_seed_gives_other_virtual_copies_of_the_same_examples(tmp_path):
    workspace = Workspace(tmp_path)
    one, other = (workspace.prepare(digits(copies=2), seed).split("train") for seed in (3, 4))
    ids = tf.range(2 * one.num_examples, dtype=tf.int64)
    originals, copies = np.split(one.batch(ids) == other.batch(ids), 2)
    assert originals.all()
    assert not copies.all()


def test_the_home_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Workspace(Path("~/.cache/x")).home == tmp_path / ".cache" / "x"
    assert Workspace(tmp_path / "~").home == tmp_path / "~"


def test_a_store_lies_in_the_home_folder(tmp_path):
    store = Workspace(tmp_path).open_store({"trainer": 1}, Unit(print, None))
    assert (store.home, store.common, store.counts) == (tmp_path, {"trainer": 1}, {"made": 0, "reused": 0})


def test_use_is_marked_for_the_block(tmp_path):
    with Workspace(tmp_path).in_use():
        assert len(list((tmp_path / USERS).iterdir())) == 1
    assert list((tmp_path / USERS).iterdir()) == []
