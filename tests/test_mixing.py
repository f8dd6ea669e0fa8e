"""Mixed virtual copies: pure functions of the ids, equal to the definition in NumPy, and artefacts of their own."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_keras.contracts import ArraySplit
from mimic_keras.runner import train_and_evaluate
from mimic_keras.stages.workspace import Workspace
from mimic_keras.training.batches import Examples
from mimic_keras.training.mixing import MixedSplit
from tests.tiny import plan_of, tiny

COUNT = 7
PERMUTATION, SHARES = [0, 1, 3, 2, 4], [0.025388, 0.57962]


def shifted(repeats=2):
    """Copy c of example i is [i, 10 * c], so that every value says where it comes from."""
    rows = np.stack([np.arange(COUNT), np.zeros(COUNT)], 1).astype(np.float32)
    copies = np.float32([0, 10])
    return ArraySplit(
        rows,
        np.arange(COUNT) % 3,
        prepare=lambda chosen, ids: chosen + tf.cast(ids // COUNT, tf.float32)[:, None] * copies,
        repeats=repeats,
    )


def rows(split, ids):
    return split.batch(tf.constant(ids, tf.int64)).numpy()


def test_own_copies_come_first_and_are_unchanged():
    split, mixed = shifted(), MixedSplit(shifted(), 3, 1.0, 5)
    assert (mixed.num_examples, mixed.repeats) == (COUNT, 5)
    np.testing.assert_array_equal(rows(mixed, np.arange(2 * COUNT)), rows(split, np.arange(2 * COUNT)))
    np.testing.assert_array_equal(mixed.labels, [*split.labels, *split.labels, *[-1] * 3 * COUNT])
    assert mixed.labels.dtype == np.int32


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixtures_equal_their_definition(alpha):
    mixed, split = MixedSplit(shifted(), 3, alpha, 5), shifted()
    for copy in range(3):
        generator = np.random.RandomState([5, copy])
        partners, shares = generator.permutation(COUNT), generator.beta(alpha, alpha, COUNT)[:, None]
        own = copy % 2 * COUNT
        expected = shares * rows(split, own + np.arange(COUNT)) + (1 - shares) * rows(split, own + partners)
        found = rows(mixed, (2 + copy) * COUNT + np.arange(COUNT))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_draws_of_a_seed_never_change():
    """No version is part of a key, so the numbers must not depend on NumPy's."""
    generator = np.random.RandomState([0, 1])
    assert generator.permutation(5).tolist() == PERMUTATION
    assert generator.beta(1.0, 1.0, 2).round(6).tolist() == SHARES


@settings(max_examples=25, derandomize=True)
@given(ids=st.lists(st.integers(0, 5 * COUNT - 1), min_size=1, max_size=9))
def test_an_id_is_always_the_same_bits(ids):
    whole = rows(MIXED, np.arange(5 * COUNT))
    np.testing.assert_array_equal(rows(MIXED, ids), whole[ids])


MIXED = MixedSplit(shifted(), 3, 1.0, 5)


def test_another_seed_draws_other_mixtures():
    ids = 2 * COUNT + np.arange(3 * COUNT)
    assert not np.array_equal(rows(MixedSplit(shifted(), 3, 1.0, 6), ids), rows(MIXED, ids))


def test_examples_join_a_mixture_with_its_own_logits_and_no_label():
    logits = np.arange(5 * COUNT * 2, dtype=np.float32).reshape(-1, 2)
    ids = tf.constant([3, COUNT + 3, 2 * COUNT + 3, 4 * COUNT + 6], tf.int64)
    batch = Examples(MIXED, logits).batch(ids)
    assert batch["labels"].numpy().tolist() == [0, 0, -1, -1]
    np.testing.assert_array_equal(batch["teacher_logits"], logits[ids.numpy()])
    np.testing.assert_array_equal(batch["inputs"], rows(MIXED, ids))


@pytest.mark.long
def test_a_student_of_mixtures_keeps_teachers_and_the_other_logits(tmp_path):
    """Two members are reused, their logits on validation and test too; transfer is labelled again, the student new."""
    workspace = Workspace(tmp_path / "home")

    def made(mixup):
        experiment = tiny(baseline=None)
        experiment["student"]["mixup"] = mixup
        with workspace.in_use():
            results = train_and_evaluate(plan_of(tmp_path, experiment), workspace)
        folders = [results.teacher.folders[name]["transfer"] for name in results.teacher.folders]
        assert {sum(len(np.load(file)) for file in folder.glob("*.npy")) for folder in folders} == {
            1097 * (1 + (mixup or {"copies": 0})["copies"])
        }
        return [results.stages[name]["made"] for name in ("teachers", "logits", "student")]

    assert made(None) == [2, 6, 1]
    assert made({"copies": 2}) == [0, 2, 1]
    assert made({"copies": 2, "alpha": 0.4}) == [0, 2, 1]
    assert made({"copies": 2, "alpha": 1.0}) == [0, 0, 0]
    assert made(None) == [0, 0, 0]
