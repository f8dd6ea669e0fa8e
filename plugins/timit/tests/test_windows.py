"""The 15 frames around a frame: by hand, by NumPy for utterances of any length, and the same bits in any batch."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_timit import FrameSplit, Timit, corpus, features
from mimic_keras_timit.corpus import Transcript, Utterance

from mimic_keras.contracts import host_variable

lengths = st.lists(st.one_of(st.sampled_from([1, 2, 14, 15, 16]), st.integers(1, 40)), min_size=1, max_size=6)


def arrays(counts):
    """What `FrameSplit` gathers from; a frame's 123 numbers hold its place in all, times 1,000 plus the column."""
    ends = np.cumsum(counts)
    places = np.arange(ends[-1], dtype=np.float32)[:, None]
    bounds = {"first": ends - counts, "last": ends - 1}
    rows = {name: np.repeat(values, counts).astype(np.int32) for name, values in bounds.items()}
    return {"frames": places * 1000 + np.arange(123, dtype=np.float32), **rows}


def split(counts, offset=0):
    every = arrays(counts)
    variables = {name: host_variable(values) for name, values in every.items()}
    return FrameSplit(variables, offset, np.zeros(len(every["frames"]) - offset, np.int32))


def places_in(windows):
    """Which frame stands at each of the 15 places, int [B, 15]."""
    found = np.asarray(windows)
    np.testing.assert_array_equal(found - found[..., :1], np.broadcast_to(np.arange(123), found.shape))
    return (found[..., 0] / 1000).astype(int).tolist()


def by_numpy(utterances):
    """The windows [frames, 15, 123] of every frame: each utterance [N, 123] padded with its own ends."""
    padded = [np.pad(rows, [(7, 7), (0, 0)], "edge") for rows in utterances if len(rows)]
    return np.concatenate([[rows[at : at + 15] for at in range(len(rows) - 14)] for rows in padded])


def bits(windows):
    return [window.tobytes() for window in np.asarray(windows)]


# By hand


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (0, [0] * 15),
        (1, [1] * 8 + [2] * 7),
        (2, [1] * 7 + [2] * 8),
        (3, [*[3] * 8, 4, 5, 6, 7, 8, 9, 10]),
        (9, [*[3] * 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        (16, [9, 10, 11, 12, 13, 14, 15, *[16] * 8]),
        (24, [17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31]),
        (25, [18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 31]),
    ],
)
def test_windows_of_utterances_of_1_2_14_and_15_frames(frame, expected):
    found = split([1, 2, 14, 15]).batch(tf.constant([frame], tf.int64))

    assert found.dtype == tf.float32
    assert found.shape == (1, 15, 123)
    assert places_in(found) == [expected]


# Any lengths, batches and orders


@settings(max_examples=60, derandomize=True)
@given(lengths)
def test_windows_are_those_of_utterances_padded_alone(counts):
    every = arrays(counts)
    expected = by_numpy(np.split(every["frames"], np.cumsum(counts)[:-1]))

    found = features.gather_windows(*map(tf.constant, every.values()), tf.range(sum(counts), dtype=tf.int64))

    np.testing.assert_array_equal(found, expected)


@settings(max_examples=60, derandomize=True)
@given(lengths, st.data())
def test_the_same_bits_in_any_batch_and_order(counts, data):
    offset = data.draw(st.integers(0, sum(counts) - 1))
    some = split(counts, offset)
    every = bits(some.batch(np.arange(some.num_examples)))
    ids = data.draw(st.lists(st.integers(0, some.num_examples - 1), max_size=50))

    found = some.batch(tf.constant(ids, tf.int64))

    assert bits(found) == [every[place] for place in ids]


def test_the_same_bits_in_a_graph():
    some = split([1, 2, 14, 30], offset=3)
    ids = np.random.default_rng(0).permutation(some.num_examples)
    traced = tf.function(some.batch, input_signature=[tf.TensorSpec([None], tf.int64)])

    assert bits(traced(ids)) == bits(some.batch(ids))
    assert traced(np.zeros(0, np.int64)).shape == (0, 15, 123)


def test_ids_count_from_the_first_frame_of_the_split():
    found = split([1, 2, 14], offset=3).batch(tf.constant([0], tf.int64))

    assert places_in(found) == [[3] * 8 + [4, 5, 6, 7, 8, 9, 10]]


# In the data set


class Sound(Utterance):
    """An utterance of noise that lies in memory."""

    def read(self):
        return np.random.default_rng(self.samples).integers(-9999, 9999, self.samples).astype(np.int16)


def spoken(split_name, samples):
    transcript = Transcript(np.array([0, 1]), np.array([0, samples // 2]), np.array([samples // 2, samples]))
    return Sound(f"{split_name.upper()}/{samples}", None, samples, transcript, str(samples))


# Samples: too short for a frame, or of 1, 2, 14 and more frames.
SAMPLES = {"train": [399, 400, 720, 2480, 5000], "validation": [559, 1, 560, 3000], "test": [640, 9000, 2479, 30]}


@pytest.fixture(scope="module")
def timit(tmp_path_factory):
    small = {name: [spoken(name, count) for count in counts] for name, counts in SAMPLES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "find", lambda root: root)
        patch.setattr(corpus, "read", lambda root, expected: small)
        data = Timit()
        data.prepare(tmp_path_factory.mktemp("windows"))
    return data


@pytest.mark.parametrize(
    ("name", "frames"),
    [("train", [0, 1, 3, 14, 29]), ("validation", [1, 0, 2, 17]), ("test", [2, 54, 13, 0])],
)
def test_windows_of_a_corpus_with_utterances_too_short_for_a_frame(timit, name, frames):
    utterances = [
        (features.extract(tf.constant(spoken(name, count).read())).numpy() - timit.mean) / timit.deviation
        for count in SAMPLES[name]
        if count >= 400
    ]
    some = timit.split(name)

    found = some.batch(np.arange(some.num_examples)).numpy()

    assert [features.num_frames(count) for count in SAMPLES[name]] == frames
    assert some.num_examples == len(some.labels) == sum(frames)
    np.testing.assert_allclose(found, by_numpy(utterances), rtol=0, atol=1e-4)
    # Bit by bit: the middles of a split's windows are its frames, of which every window is made.
    assert bits(found) == bits(by_numpy(np.split(found[:, 7], np.cumsum(frames)[:-1])))
