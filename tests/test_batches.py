"""The order of the data is a pure function of (seed, step)."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_keras.contracts import ArraySplit
from mimic_keras.training.batches import Examples, ordered_batches, shuffled_ids, training_batches


def split(count, repeats=1):
    inputs = np.arange(count, dtype=np.float32)[:, None]
    labels = np.where(np.arange(count) % 3 == 0, -1, np.arange(count) % 5)
    # The input of a virtual id is the id itself, so that a batch shows what it was made from.
    return ArraySplit(inputs, labels, prepare=lambda rows, ids: ids[:, None], repeats=repeats)


def take(examples, batch_size, seed, start, count):
    return [
        ids.tolist()
        for ids in itertools.islice(shuffled_ids(examples, batch_size, seed, start).as_numpy_iterator(), count)
    ]


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31 - 1), st.integers(0, 12))
def test_starting_at_a_step_continues_the_same_sequence(count, batch_size, seed, start):
    examples = Examples(split(count, repeats=2))
    assert take(examples, batch_size, seed, 0, start + 4)[start:] == take(examples, batch_size, seed, start, 4)


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 4), st.integers(0, 1000))
def test_a_pass_holds_every_original_once_and_pass_r_is_copy_r(count, batch_size, repeats, seed):
    examples = Examples(split(count, repeats))
    steps = examples.steps_per_pass(batch_size)
    batches = take(examples, batch_size, seed, 0, steps * (repeats + 1))
    for number in range(repeats + 1):
        ids = [id for batch in batches[number * steps : (number + 1) * steps] for id in batch]
        copy = number % repeats
        assert sorted(ids) == list(range(copy * count, (copy + 1) * count))
    assert all(len(batch) <= batch_size for batch in batches)


def test_another_seed_or_pass_gives_another_order():
    examples = Examples(split(100))
    first, second = take(examples, 100, 1, 0, 2)
    (other,) = take(examples, 100, 2, 0, 1)
    assert first != second
    assert first != other


def test_a_share_of_the_examples():
    ids = np.array([3, 5, 7, 11])
    examples = Examples(split(20, repeats=2), ids=ids)
    first, second = take(examples, 4, 0, 0, 2)
    assert sorted(first) == ids.tolist()
    assert sorted(second) == (ids + 20).tolist()


def test_columns_are_joined_by_id():
    source = split(10, repeats=2)
    logits = np.arange(20, dtype=np.float32)[:, None] * 10
    for batch in training_batches(Examples(source, logits), 4, seed=3).take(6).as_numpy_iterator():
        ids = batch["inputs"][:, 0].astype(int)
        np.testing.assert_array_equal(batch["labels"], source.labels[ids % 10])
        np.testing.assert_array_equal(batch["teacher_logits"][:, 0], ids * 10)


def test_ordered_batches_are_the_originals_in_order():
    batches = list(ordered_batches(Examples(split(10, repeats=3)), 4).as_numpy_iterator())
    assert [batch["inputs"][:, 0].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(("labels", "expected"), [([-1, -1], False), ([-1, 0], True)])
def test_has_labels(labels, expected):
    assert Examples(ArraySplit(np.zeros([2, 1]), np.array(labels))).has_labels is expected
