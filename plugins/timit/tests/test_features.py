"""The 123 numbers of a frame against a second implementation, of SciPy and the HTK Book's formulas in float64."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import scipy.signal
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_timit import corpus, features

TIMIT = os.environ.get("MIMIC_KERAS_TEST_TIMIT")
REAL_UTTERANCES = 60  # of all, evenly spaced
SECOND = np.arange(16_000) / 16_000


def triangles():
    """Filters [257, 40], each 0, 1, 0 at three neighbouring points of the mel scale (HTK Book, eq. 5.13)."""

    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    corners, bins = np.linspace(0, mel(8000), 42), mel(np.arange(257) * 16_000 / 512)
    return np.stack([np.interp(bins, corners[place : place + 3], [0, 1, 0]) for place in range(40)], 1)


def by_scipy(samples):
    """Features, float64 [frames, 123], of at least 400 samples."""
    sound = np.asarray(samples, np.float64)
    frames = np.stack([sound[start : start + 400] for start in range(0, len(sound) - 399, 160)])
    power = np.abs(scipy.fft.rfft(frames * scipy.signal.windows.hamming(400), 512)) ** 2
    statics = np.log(np.maximum(np.column_stack([power @ triangles(), (frames**2).sum(1)]), 1))
    first = slopes(statics)
    return np.concatenate([statics, first, slopes(first)], 1)


def slopes(values):
    """(HTK Book, eq. 5.16): the sum of step * (later - earlier) over twice the sum of step**2, for steps 1 and 2."""
    return scipy.ndimage.correlate1d(values, np.array([-2, -1, 0, 1, 2]) / 10, axis=0, mode="nearest")


def noise(count, scale, seed=0):
    return np.round(np.random.default_rng(seed).normal(size=count) * scale).clip(-32768, 32767).astype(np.int16)


def click(count, at):
    return np.where(np.arange(count) == at, 32767, 0).astype(np.int16)


SOUNDS = {
    "silence": np.zeros(4000, np.int16),
    "silence, then noise": np.concatenate([np.zeros(3000, np.int16), noise(3000, 1000)]),
    "the last bit": noise(8000, 0.5),
    "quiet noise": noise(8000, 20),
    "loud noise": noise(8000, 30_000),
    "the smallest number": np.full(2000, -32768, np.int16),
    "a click": click(2000, 900),
    "a loud tone": np.round(32_000 * np.sin(2 * np.pi * 100 * SECOND)).astype(np.int16),
    "a sweep": np.round(9000 * scipy.signal.chirp(SECOND, 0, 1, 8000)).astype(np.int16),
    "a square wave": np.where(np.arange(5000) // 80 % 2, 32767, -32768).astype(np.int16),
}


@pytest.mark.parametrize("sound", SOUNDS.values(), ids=SOUNDS)
def test_features_are_scipys(sound):
    found = features.extract(tf.constant(sound))

    assert found.dtype == tf.float32
    assert found.shape == (features.num_frames(len(sound)), 123)
    np.testing.assert_allclose(found, by_scipy(sound), rtol=0, atol=1e-4)


@settings(max_examples=60, derandomize=True)
@given(count=st.integers(400, 3000), scale=st.sampled_from([0.3, 5, 300, 20_000]), seed=st.integers(0, 2**32 - 1))
def test_features_of_any_noise_are_scipys(count, scale, seed):
    sound = noise(count, scale, seed)

    np.testing.assert_allclose(features.extract(tf.constant(sound)), by_scipy(sound), rtol=0, atol=1e-4)


def assert_scipys(utterances):
    compute = tf.function(features.extract, input_signature=[tf.TensorSpec([None], tf.int16)])
    for utterance in utterances:
        sound = utterance.read()
        np.testing.assert_allclose(compute(sound), by_scipy(sound), rtol=0, atol=1e-4, err_msg=utterance.name)


def test_features_of_synthetic_utterances_are_scipys(written):
    utterances = [utterance for found in corpus.read(written, {}).values() for utterance in found]
    assert len(utterances) == 8

    assert_scipys(utterances)


@pytest.mark.skipif(not TIMIT, reason="MIMIC_KERAS_TEST_TIMIT does not say where TIMIT is")
def test_features_of_timit_are_scipys():
    utterances = [utterance for found in corpus.read(corpus.find(Path(TIMIT)), {}).values() for utterance in found]

    assert_scipys(utterances[:: max(1, len(utterances) // REAL_UTTERANCES)])


def test_silence_by_hand():
    np.testing.assert_array_equal(features.extract(tf.zeros([880], tf.int16)), np.zeros([4, 123]))


def test_a_constant_by_hand():
    found = features.extract(tf.fill([1040], tf.constant(3, tf.int16))).numpy()

    np.testing.assert_allclose(found[:, 40], [np.log(400 * 9)] * 5, rtol=1e-6)
    np.testing.assert_allclose(found[:, 41:], 0, atol=1e-6)


def test_derivatives_by_hand():
    # A click in frames 2, 3 and 4 of nine. A slope is (2 * (v[t + 2] - v[t - 2]) + v[t + 1] - v[t - 1]) / 10.
    found = features.extract(tf.constant(click(400 + 8 * 160, 700))).numpy() / np.log(32767**2)

    np.testing.assert_allclose(found[:, 40], [0, 0, 1, 1, 1, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[:, 81] * 10, [2, 3, 3, 0, -3, -3, -2, 0, 0], atol=1e-5)
    np.testing.assert_allclose(found[:, 122] * 100, [3, -3, -13, -18, -13, 1, 9, 8, 4], atol=1e-4)


@pytest.mark.parametrize("bin_", [3, 12, 25, 38])
def test_a_tone_is_loudest_in_the_filter_around_it(bin_):
    corner = 2595 * np.log10(1 + 8000 / 700) * (bin_ + 1) / 41
    hertz = 700 * (10 ** (corner / 2595) - 1)

    found = features.extract(tf.constant(1000 * np.sin(2 * np.pi * hertz * SECOND))).numpy()

    assert set(found[:, :40].argmax(1)) == {bin_}


def test_floats_in_the_scale_of_samples_give_the_same_bits():
    sound = SOUNDS["quiet noise"]

    expected = features.extract(tf.constant(sound)).numpy().tobytes()

    assert features.extract(tf.constant(sound.astype(np.float32))).numpy().tobytes() == expected


# Filters


def test_filters_are_the_triangles_of_the_htk_book():
    found = features.mel_filters()

    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, triangles(), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_filters_are_those_of_tensorflow_io():
    with warnings.catch_warnings(action="ignore"):
        tfio = pytest.importorskip("tensorflow_io", exc_type=ImportError)
        found = tfio.audio.melscale(tf.eye(257), rate=16_000, mels=40, fmin=0.0, fmax=8000.0).numpy()

    np.testing.assert_allclose(found, features.mel_filters().numpy(), rtol=0, atol=1e-5)


# Frames


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2), (719, 2), (720, 3), (16_000, 98)]
)
def test_frames_in_a_sound(samples, frames):
    traced = tf.function(features.extract, input_signature=[tf.TensorSpec([None], tf.int16)])

    assert features.num_frames(samples) == frames
    np.testing.assert_array_equal(features.frame_centres(frames), [200 + 160 * frame for frame in range(frames)])
    assert traced(tf.zeros([samples], tf.int16)).shape == (frames, 123)
    assert features.extract(tf.zeros([samples], tf.int16)).shape == (frames, 123)


def test_a_frame_is_its_own_400_samples():
    sound = SOUNDS["loud noise"].copy()
    before = features.extract(tf.constant(sound)).numpy()[:, :41]
    sound[1600:2000] = 7  # all of frame 10: 1600 to 1999

    changed = (features.extract(tf.constant(sound)).numpy()[:, :41] != before).any(1)

    # Frame 8 ends before sample 1680, frame 12 begins at 1920; frame 7 ends at 1519 and frame 13 begins at 2080.
    np.testing.assert_array_equal(np.flatnonzero(changed), [8, 9, 10, 11, 12])
