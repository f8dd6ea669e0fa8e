"""The division of examples: a partition, sizes by shares, the same for the same seed, and never an empty split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mimic_keras_arrays.shares import check_shares, divide

from mimic_keras.contracts import InputError

LABELS = np.repeat(np.array([-1, 0, 1, 2], np.int32), [5, 40, 20, 10])


@given(
    labels=st.lists(st.integers(-1, 3), min_size=1, max_size=60),
    shares=st.tuples(st.floats(0, 0.49), st.floats(0, 0.49)),
    seed=st.integers(0, 2**32 - 1),
    stratify=st.booleans(),
)
def test_it_is_a_partition_of_the_labelled_examples_by_shares(labels, shares, seed, stratify):
    labels, refused = np.array(labels, np.int32), ""
    try:
        found = divide(labels, *shares, seed, stratify)
    except InputError as error:
        found, refused = {}, str(error)
    if not found:
        assert "leaves none for" in refused or "has a label" in refused
        return
    again = divide(labels, *shares, seed, stratify)
    everything = np.concatenate(list(found.values()))
    np.testing.assert_array_equal(np.sort(everything), np.flatnonzero(labels >= 0))
    for name, share in zip(("train", "validation", "test"), (1 - sum(shares), *shares), strict=True):
        ids = found[name]
        assert ids.dtype == np.int64
        assert (np.diff(ids) > 0).all()
        np.testing.assert_array_equal(ids, again[name])
        assert len(ids) > 0 or (share == 0 and name != "train")
        for group in range(4) if stratify else [labels[labels >= 0]]:
            size = (labels == group).sum() if stratify else len(group)
            count = (labels[ids] == group).sum() if stratify else len(ids)
            assert abs(count - share * size) < 1 + 1e-6


def test_shares_of_every_class_are_exact_where_they_are_whole():
    found = divide(LABELS, 0.1, 0.2, seed=3)
    counts = {name: np.bincount(LABELS[ids]).tolist() for name, ids in found.items()}
    assert counts == {"train": [28, 14, 7], "validation": [4, 2, 1], "test": [8, 4, 2]}


def test_the_seed_draws_the_examples():
    one, other = (divide(LABELS, 0.1, 0.2, seed)["test"] for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_the_odd_examples_of_many_small_classes_go_to_both_splits():
    labels = np.repeat(np.arange(200, dtype=np.int32), 5)
    found = divide(labels, 0.1, 0.1, seed=0)
    assert len(found["validation"]) + len(found["test"]) == 200
    assert 60 < len(found["validation"]) < 140  # the drawn one of two, 200 times: 100 with a deviation of 7


def test_a_share_without_a_file_may_be_left_out():
    assert {name: len(ids) for name, ids in divide(LABELS, 0.1, 0, seed=0).items()} == {
        "train": 63,
        "validation": 7,
        "test": 0,
    }


@pytest.mark.parametrize(
    ("labels", "shares", "message"),
    [
        ([0, 1, 2, 0, 1, 2], (0.1, 0.3), "0.1 of 6 labelled examples, of each class, leaves none for 'validation'"),
        ([0], (0.4, 0.5), "leaves none for "),
        ([-1, -1], (0.1, 0.1), "none of the 2 training examples has a label"),
    ],
)
def test_an_empty_split_is_refused(labels, shares, message):
    with pytest.raises(InputError, match=message):
        divide(np.array(labels, np.int32), *shares, seed=0)


@pytest.mark.parametrize(
    ("shares", "seed", "message"),
    [
        ({"validation": 0.0}, 0, "shares: validation must be above 0 and below 1, got 0.0"),
        ({"test": 1.0}, 0, "shares: test must be above 0 and below 1, got 1.0"),
        ({"validation": 0.5, "test": 0.5}, 0, "expected a sum below 1, got validation: 0.5, test: 0.5"),
        ({}, -1, "split_seed must be from 0 to 4294967295, got -1"),
    ],
)
def test_wrong_shares_are_refused(shares, seed, message):
    with pytest.raises(ValueError, match=message):
        check_shares(shares, seed)
