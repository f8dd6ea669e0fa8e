"""Members label a split in shards, those of one data set together, and go on with what an interrupted run has left."""

import hashlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from mimic_keras.contracts import ArraySplit, RunError
from mimic_keras.stages import labelling
from mimic_keras.stages.labelling import label_splits, load_shards
from mimic_keras.stages.teachers import TeacherMember
from mimic_keras.storage.store import Store
from mimic_keras.training import models
from mimic_keras.training.models import Cost

EXAMPLES, FEATURES, CLASSES = 1300, 6, 3


class Data:
    """Random examples; `read` has the ids of every batch."""

    dataset = SimpleNamespace(info=SimpleNamespace(num_classes=CLASSES))

    def __init__(self, identity="one", seed=0):
        self.identity, self.read = identity, []
        inputs = np.random.default_rng(seed).normal(size=[EXAMPLES, FEATURES]).astype("f4")

        def prepare(rows, ids):
            def note(ids):
                self.read.append(ids.tolist())
                return ids

            with tf.control_dependencies([tf.numpy_function(note, [ids], tf.int64)]):
                return tf.identity(rows)

        self.examples = ArraySplit(inputs, prepare=prepare)

    def split(self, name):
        return self.examples


def member(number, data, key=None):
    keras.utils.set_random_seed(number)
    net = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(CLASSES)])
    name = f"teacher/{number}"
    return TeacherMember(name, key or name, Cost(4, 4), None, {}, number, 1.0, data, lambda: net)


def label(members, store):
    """{member: its logits on test}"""
    return {name: splits["test"] for name, splits in label_splits(members, ("test",), store).items()}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, {})


@pytest.fixture
def short(monkeypatch):
    """A shard is two batches, the last batch of 300; the third shard is a batch of 100."""
    monkeypatch.setattr(labelling, "SHARD_EXAMPLES", 600)
    monkeypatch.setattr(models, "PREDICTION_BATCH", 300)


def batches(start, stop):
    return [list(range(first, min(first + 300, stop))) for first in range(start, stop, 300)]


@pytest.mark.usefixtures("short")
def test_members_of_one_data_set_read_each_batch_once_and_get_the_bits_of_their_own(store):
    data, other = Data(), Data("other", seed=1)
    members = [member(1, data), member(2, other), member(3, data)]
    found = label(members, store)
    assert list(found) == ["teacher/1", "teacher/2", "teacher/3"]
    assert sorted(data.read) == sorted(other.read) == batches(0, EXAMPLES)
    for each in members:
        alone = models.make_predictor(each.load())(each.data.examples, np.arange(EXAMPLES))
        np.testing.assert_array_equal(load_shards(found[each.name]), alone)
        assert len(labelling.list_shards(found[each.name])) == 3
    assert store.counts == {"made": 3, "reused": 0}
    data.read.clear()
    assert label(members, store)["teacher/3"].folder == found["teacher/3"].folder
    assert store.counts == {"made": 3, "reused": 3}
    assert data.read == [], "what is there is not computed again"


@pytest.mark.usefixtures("short")
def test_a_net_that_is_a_member_twice_labels_once(store):
    data = Data()
    found = label([member(1, data, "same"), member(2, data, "same"), member(3, data)], store)
    assert found["teacher/1"].folder == found["teacher/2"].folder
    assert store.counts == {"made": 2, "reused": 1}
    assert len(data.read) == 5


@pytest.mark.usefixtures("short")
def test_each_member_goes_on_with_its_own_missing_shards(store, monkeypatch):
    """The process dies after the second member's first shard; then one more member joins."""
    data, real, left = Data(), labelling._write_shard, [2]

    def dies(folder, index, values):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(folder, index, values)

    members = [member(1, data), member(2, data)]
    expected = {each.name: models.make_predictor(each.load())(data.examples, np.arange(EXAMPLES)) for each in members}
    with monkeypatch.context() as patched:
        patched.setattr(labelling, "_write_shard", dies)
        with pytest.raises(KeyboardInterrupt):
            label(members, store)
    data.read.clear()
    written = []
    monkeypatch.setattr(labelling, "_write_shard", lambda *call: (written.append(call[1]), real(*call)))
    label(members, store)
    assert sorted(data.read) == batches(600, EXAMPLES), "the first shard of both was whole"
    assert written == [1, 1, 2, 2]
    found = label([*members, member(3, data)], store)
    assert written == [1, 1, 2, 2, 0, 1, 2]
    for name, logits in expected.items():
        np.testing.assert_array_equal(load_shards(found[name]), logits)


def test_members_that_are_large_together_run_one_after_another(store, monkeypatch):
    data = Data()
    monkeypatch.setattr(labelling, "BYTES_AT_ONCE", 2 * 4 * (4 + CLASSES * labelling.SHARD_EXAMPLES))
    label([member(number, data) for number in range(3)], store)
    assert len(data.read) == 2 * 3, "two together, then one"


def test_three_hundred_small_members_label(store, monkeypatch):
    """Artefacts that are made together are held one within the other: not as deep as Python's stack."""
    monkeypatch.setattr(labelling._Together, "_fill", lambda *_: None)
    data = Data()
    members = [
        TeacherMember(f"{i:03}", f"{i:03}", Cost(4, 4), None, {}, i, 1.0, data, lambda: None) for i in range(300)
    ]
    assert list(label(members, store)) == [each.name for each in members]


def test_infinite_logits_are_refused_by_the_name_of_their_member(store):
    data = Data()
    bad = TeacherMember(
        "teacher/7", "bad", Cost(0, 0), None, {}, 0, 1.0, data, lambda: lambda x: x[:, :CLASSES] / tf.zeros([])
    )
    with pytest.raises(RunError, match=r"^teacher/7 gives infinite or NaN logits; a student cannot mimic them$"):
        label([member(1, data), bad], store)
    assert store.counts == {"made": 0, "reused": 0}


def test_a_shard_is_whole_if_its_name_is_its_digest(tmp_path):
    labelling._write_shard(tmp_path, 3, np.ones([2, 4], np.float32))
    (file,) = tmp_path.iterdir()
    assert file.name == f"00003.{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}.npy"
    assert labelling._have_shard(tmp_path, 3, 2)
    assert not labelling._have_shard(tmp_path, 4, 2)
    surplus = tmp_path / "00003.ffffffffffffffff.npy"
    surplus.write_bytes(file.read_bytes())
    assert labelling._have_shard(tmp_path, 3, 2)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert not labelling._have_shard(tmp_path, 3, 1), "of another number of rows"
    assert list(tmp_path.iterdir()) == []
