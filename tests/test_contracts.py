"""What the contracts give to plugin authors: variables, splits, digests, whole files, and members that count."""

import hashlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from mimic_keras.contracts import (
    ArraySplit,
    InputError,
    MappedSplit,
    Member,
    MimicError,
    RunError,
    array_digest,
    atomic_writer,
    count_parameters,
    error_rate,
    file_digest,
    filled_variable,
    gather_rows,
    host_variable,
    logits_of,
)


def test_importing_the_contracts_imports_neither_keras_nor_tensorflow():
    code = "import sys, mimic_keras.contracts; sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_both_errors_have_one_base():
    assert issubclass(InputError, MimicError)
    assert issubclass(RunError, MimicError)


def test_arrays_are_put_one_after_the_other_in_a_variable():
    first, second = np.arange(20000, dtype=np.int16).reshape(10000, 2), np.full([3, 2], -1, np.int16)
    variable = host_variable(first, second)
    assert variable.dtype == tf.int16
    np.testing.assert_array_equal(variable.numpy(), np.concatenate([first, second]))


def test_a_variable_is_filled_from_arrays_that_come_one_by_one():
    pieces = [np.full([size, 3], size, np.float32) for size in (5000, 1, 2)]
    np.testing.assert_array_equal(filled_variable(5003, iter(pieces)).numpy(), np.concatenate(pieces))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any), st.data())
def test_rows_are_gathered_from_arrays_one_after_the_other(sizes, data):
    starts = np.cumsum([0, *sizes])
    arrays = [
        np.arange(2 * start, 2 * (start + size), dtype=np.int16).reshape(size, 2)
        for start, size in zip(starts, sizes, strict=False)
    ]
    rows = np.array(data.draw(st.lists(st.integers(0, sum(sizes) - 1))), np.int64)
    found = gather_rows(arrays, rows)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, np.concatenate(arrays)[rows])


@pytest.fixture
def mapped(tmp_path):
    """Two arrays on the disk, of 6 and 3 rows."""
    for name, size in (("one", 6), ("two", 3)):
        np.save(tmp_path / f"{name}.npy", np.arange(size * 2, dtype=np.uint8).reshape(size, 2))
    return [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("one", "two")]


def test_a_mapped_split_is_the_split_of_the_same_arrays_in_memory(mapped):
    def prepare(values, ids):
        return tf.cast(values, tf.float32) + tf.cast(ids, tf.float32)[:, None] / 7

    rows, labels = np.array([8, 0, 7, 0, 5]), np.arange(5)
    split = MappedSplit(mapped, labels, rows=rows, prepare=prepare, repeats=3)
    other = ArraySplit(np.concatenate(mapped)[rows], labels, prepare=prepare, repeats=3)
    ids = np.array([14, 0, 7, 7, 3], np.int64)
    expected = other.batch(tf.constant(ids)).numpy()
    np.testing.assert_array_equal(split.batch(tf.constant(ids)), expected)
    batches = tf.data.Dataset.from_tensor_slices(ids).batch(2).map(split.batch, num_parallel_calls=2)
    assert batches.element_spec == tf.TensorSpec([None, 2], tf.float32)
    np.testing.assert_array_equal(np.concatenate(list(batches.as_numpy_iterator())), expected)
    assert (split.num_examples, split.repeats, split.labels.dtype) == (5, 3, np.int32)


def test_a_mapped_split_without_rows_has_all_in_order(mapped):
    split = MappedSplit(mapped)
    np.testing.assert_array_equal(split.batch(tf.range(9, dtype=tf.int64)), np.concatenate(mapped))
    np.testing.assert_array_equal(split.labels, [-1] * 9)


@pytest.mark.parametrize("other", [np.zeros([1, 2]), np.zeros([1, 3], np.uint8), np.zeros([2, 2], np.uint8, order="F")])
def test_a_mapped_split_refuses_what_cannot_be_read_row_by_row(mapped, other):
    with pytest.raises(ValueError, match="expected arrays of one dtype and row shape in C order, got"):
        MappedSplit([*mapped, other])


@pytest.mark.parametrize("rows", [2, 4])
def test_a_variable_is_not_left_partly_filled(rows):
    with pytest.raises(ValueError, match=f"expected {rows} rows, got 3"):
        filled_variable(rows, [np.zeros([3, 2])])


@pytest.mark.parametrize("other", [np.zeros([1, 2], np.int32), np.zeros([1, 3], np.int16)])
def test_arrays_of_two_kinds_are_refused(other):
    with pytest.raises(ValueError, match="expected arrays of one dtype and row shape, got"):
        host_variable(np.zeros([1, 2], np.int16), other)


def test_error_rate_counts_labelled_examples_alone():
    logits = np.eye(4)
    assert error_rate(np.array([0, 1, 3, -1]), logits) == pytest.approx(1 / 3)
    assert np.isnan(error_rate(np.array([-1, -1, -1, -1]), logits))


def test_a_split_of_arrays_repeats_them_and_casts():
    split = ArraySplit(np.arange(3, dtype=np.uint8)[:, None], np.array([2, 0, -1]), repeats=2)
    assert (split.num_examples, split.repeats) == (3, 2)
    assert split.labels.dtype == np.int32
    found = split.batch(tf.constant([1, 4, 2], tf.int64))
    assert found.dtype == tf.float32
    assert found.numpy().tolist() == [[1], [1], [2]]
    assert ArraySplit(np.zeros([2, 1])).labels.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"labels": np.zeros(2)}, "3 inputs but 2 labels"), ({"repeats": 0}, "repeats must be at least 1, got 0")],
)
def test_a_split_refuses_other_lengths_and_no_repeats(arguments, message):
    with pytest.raises(ValueError, match=message):
        ArraySplit(np.zeros([3, 1]), **arguments)


def test_a_written_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    with atomic_writer(file) as stream:
        stream.write(b"new")
        stream.flush()
        assert file.read_bytes() == b"old"
        (sibling,) = tmp_path.glob(".a.bin.*.tmp")
        assert sibling.read_bytes() == b"new"
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("before", [b"old", None])
def test_an_error_leaves_the_file_as_it_was_and_nothing_beside_it(before, tmp_path):
    file = tmp_path / "a.bin"
    if before is not None:
        file.write_bytes(before)

    def write_half():
        with atomic_writer(file) as stream:
            stream.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before] * (before is not None)


def test_numpy_writes_into_the_stream(tmp_path):
    with atomic_writer(tmp_path / "a.npz") as stream:
        np.savez_compressed(stream, a=np.arange(3))
    assert np.load(tmp_path / "a.npz")["a"].tolist() == [0, 1, 2]


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"content" * 100_000)
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"content" * 100_000).hexdigest()


def test_the_digest_of_arrays_by_hand():
    first, second = np.array([[1, 2]], np.uint8), np.array([0.5], np.float32)
    expected = hashlib.sha256(b"uint8 (1, 2)\n\x01\x02" + b"float32 (1,)\n" + second.tobytes()).hexdigest()
    assert array_digest(first, second) == expected


def test_the_digest_of_arrays_tells_dtypes_shapes_values_and_bounds_apart():
    zeros = np.zeros([2, 3], np.float32)
    kinds = [
        [zeros],
        [zeros.T],
        [zeros.reshape(-1)],
        [zeros.view(np.int32)],
        [zeros.astype(">f4")],
        [zeros + 1],
        [zeros[:1], zeros[1:]],
        [zeros, zeros[:0]],
        [np.float32(0)[None][0:0]],
        [np.zeros([], np.float32)],
        [],
    ]
    assert len({array_digest(*arrays) for arrays in kinds}) == len(kinds)


def test_the_digest_of_an_array_does_not_depend_on_its_place_in_memory():
    array = np.arange(12).reshape(3, 4)
    assert array_digest(array.T) == array_digest(np.ascontiguousarray(array.T))
    assert array_digest(array[:, ::2]) == array_digest(array[:, ::2].copy())


def test_objects_have_no_digest():
    with pytest.raises(ValueError, match="expected arrays of numbers, got dtype object"):
        array_digest(np.array([{}, None]))


def test_logits_are_the_output_or_in_it_and_keep_their_dtype():
    logits = tf.zeros([2, 3], tf.float16)
    assert logits_of(logits) is logits
    assert logits_of({"logits": logits, "other": None}) is logits


@pytest.fixture
def net():
    """4 inputs, 3 outputs, and a normalisation of which only half the weights are trained: 4 * 3 + 3 + 2 * 3."""
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])


def test_a_member_counts_the_trainable_weights_of_its_model(net):
    member = Member(net, model=net)
    assert (member.call, member.parameters, member.model) == (net, 21, net)
    assert count_parameters(net.trainable_weights) == 21


@pytest.mark.parametrize("parameters", [0, 5])
def test_a_given_number_of_parameters_is_kept(parameters, net):
    assert Member(net, parameters, net).parameters == parameters
    assert Member(net, parameters).model is None
    assert Member(net, parameters).expects is None


@pytest.mark.parametrize("expects", [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_a_member_expects_a_range(expects):
    assert Member(len, 0, expects=(0.0, 255.0)).expects == (0.0, 255.0)
    with pytest.raises(ValueError, match=re.escape(f"expects: expected (low, high) with low < high, got {expects}")):
        Member(len, 0, expects=expects)


def test_the_parameters_of_a_member_without_a_model_are_not_counted(net):
    assert Member(net).parameters is None


def test_a_member_is_called_or_has_predictions(net):
    member = Member(predict=lambda split, ids: np.zeros([len(ids), 3], np.float32))
    assert (member.call, member.parameters, member.model) == (None, None, None)
    for wrong in ({}, {"call": net, "predict": member.predict}):
        with pytest.raises(ValueError, match="a Member needs either `call` or `predict`"):
            Member(**wrong)


def test_a_member_does_not_change(net):
    with pytest.raises(AttributeError):
        Member(net, model=net).parameters = 3
