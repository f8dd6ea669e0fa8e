"""Features of a corpus: normalised with the training set's float64 statistics, kept on disk once and made good."""

import functools
import shutil

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_timit import features, preparation
from mimic_keras_timit.corpus import SPLITS, Transcript, Utterance, digest

from mimic_keras.contracts import InputError

TRANSCRIPT = Transcript(np.array([0]), np.array([0]), np.array([400]))
FILES = ("features.npy", "mean.npy", "deviation.npy")


class Sound(Utterance):
    """An utterance of noise that lies in memory; `digest` is its seed, 0 for silence."""

    def read(self):
        return noise(self.samples, int(self.digest))


def noise(samples, seed):
    return np.round(np.random.default_rng(seed).normal(size=samples) * 500 * (seed > 0)).astype(np.int16)


@functools.cache
def extracted_once(samples, seed):
    return features.extract(tf.constant(noise(samples, seed))).numpy()


@pytest.fixture
def quick(monkeypatch):
    """The same features, without a graph that is traced anew."""

    def extracted(utterances):
        for item in utterances:
            yield extracted_once(item.samples, int(item.digest)) if item.samples >= 400 else np.zeros([0, 123])

    monkeypatch.setattr(preparation, "_extract", extracted)


def sounds(**lengths):
    """{split: utterances of so many samples}, each a noise of its own."""
    corpus, seed = {}, 0
    for split in SPLITS:
        seeds = range(seed + 1, seed + 1 + len(lengths[split]))
        named = zip(seeds, lengths[split], strict=True)
        corpus[split] = [Sound(f"A/{seed}", None, samples, TRANSCRIPT, str(seed)) for seed, samples in named]
        seed += len(lengths[split])
    return corpus


def small():
    return sounds(train=[2000, 399, 5000], validation=[1200], test=[400, 3000])


def extracted(corpus):
    """Features that nothing has normalised, float64 [frames, 123]."""
    utterances = [utterance for split in SPLITS for utterance in corpus[split] if utterance.samples >= 400]
    return np.concatenate([features.extract(tf.constant(item.read())).numpy() for item in utterances]).astype(float)


def bits(prepared):
    return tuple(np.array(getattr(prepared, name)).tobytes() for name in ("features", "mean", "deviation"))


def kept(folder):
    (place,) = folder.iterdir()
    return place


def forbidden(*_):
    raise AssertionError("what is kept has to be used")


# Normalisation


def test_features_have_the_training_sets_mean_0_and_deviation_1(tmp_path):
    corpus = small()
    values = extracted(corpus)
    training = values[: 11 + 29]

    prepared = preparation.prepare(corpus, tmp_path)

    assert prepared.features.dtype == np.float32
    assert prepared.mean.dtype == prepared.deviation.dtype == np.float64, "so that a served graph gives the same bits"
    assert prepared.features.shape == (11 + 29 + 6 + 1 + 17, 123)
    np.testing.assert_allclose(prepared.mean, training.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(prepared.deviation, training.std(0), rtol=1e-5)
    np.testing.assert_allclose(prepared.features, (values - training.mean(0)) / training.std(0), rtol=0, atol=2e-5)
    found = prepared.features[:40].astype(float)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-6)


def test_statistics_are_summed_in_float64(monkeypatch, tmp_path):
    # 20,000,000 in float32 has neighbours 2 apart, and its square 2**25: no float32 sum tells such values apart.
    frames = np.where(np.arange(1999)[:, None] % 2, np.float32(20_000_000), np.float32(20_000_002))
    values = np.broadcast_to(frames, [1999, 123])
    monkeypatch.setattr(preparation, "_extract", lambda _: [values, values[:1], values[:1]])
    corpus = sounds(train=[400 + 1998 * 160], validation=[400], test=[400])

    prepared = preparation.prepare(corpus, tmp_path)

    # 1,000 values 2 above 999: variance 4 * p * (1 - p).
    above = 1000 / 1999
    deviation = 2 * (above * (1 - above)) ** 0.5
    np.testing.assert_allclose(prepared.deviation, [deviation] * 123, rtol=1e-6)
    expected = np.where(np.arange(1999) % 2, -2 * above, 2 - 2 * above) / deviation
    np.testing.assert_allclose(prepared.features[:1999, 5], expected, rtol=1e-6)


def test_silence_is_0_and_not_a_number_divided_by_0(tmp_path):
    corpus = small()
    corpus["train"] = [Sound("A/1", None, 4000, TRANSCRIPT, "0")]

    prepared = preparation.prepare(corpus, tmp_path)

    np.testing.assert_array_equal(prepared.features[:23], np.zeros([23, 123]))
    np.testing.assert_array_equal(prepared.mean, np.zeros(123))
    np.testing.assert_array_equal(prepared.deviation, np.ones(123))


def test_statistics_are_of_the_training_set_alone(quick, tmp_path):
    corpus, other = small(), small()
    other["validation"] = [Sound("B/1", None, 9000, TRANSCRIPT, "99")]
    other["test"] = other["test"][:1]

    one, two = (preparation.prepare(some, tmp_path) for some in (corpus, other))

    assert bits(one)[1:] == bits(two)[1:]
    assert one.features[:40].tobytes() == two.features[:40].tobytes()
    assert len(list(tmp_path.iterdir())) == 2
    assert one.fingerprint != two.fingerprint


@pytest.mark.parametrize("rows", [1, 7, 40, 41])
def test_statistics_are_gathered_a_few_frames_at_a_time(monkeypatch, rows, quick, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = preparation.prepare(small(), tmp_path / "whole")
    monkeypatch.setattr(preparation, "ROWS_AT_ONCE", rows)

    parts = preparation.prepare(small(), tmp_path / "parts")

    np.testing.assert_allclose(parts.deviation, whole.deviation, rtol=1e-6)
    np.testing.assert_allclose(parts.features, whole.features, rtol=0, atol=1e-5)


def test_a_training_set_without_a_frame_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^no training utterance is as long as one frame, 25 ms$"):
        preparation.prepare(sounds(train=[399, 10], validation=[900], test=[900]), tmp_path)


# What is kept


def test_features_are_made_once(monkeypatch, tmp_path):
    first = preparation.prepare(small(), tmp_path)
    written = {file: file.stat().st_mtime_ns for file in kept(tmp_path).iterdir()}
    monkeypatch.setattr(preparation, "_write_arrays", forbidden)

    again = preparation.prepare(small(), tmp_path)

    assert (again.fingerprint, bits(again)) == (first.fingerprint, bits(first))
    assert {file: file.stat().st_mtime_ns for file in kept(tmp_path).iterdir()} == written
    assert {file.name for file in written} == set(FILES)


def test_two_folders_get_the_same_bits(tmp_path):
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(preparation.prepare(small(), tmp_path / name))

    assert made[0].fingerprint == made[1].fingerprint
    assert bits(made[0]) == bits(made[1])


@pytest.mark.parametrize("change", ["a file", "a name", "one less", "the order", "the split"])
def test_another_corpus_has_features_of_its_own(change, quick, tmp_path):
    corpus = small()
    first = digest(corpus)
    preparation.prepare(corpus, tmp_path)
    train = corpus["train"]
    if change == "a file":
        train[0] = Sound(train[0].name, None, train[0].samples, TRANSCRIPT, "77")
    elif change == "a name":
        train[0] = Sound("Z/1", None, train[0].samples, TRANSCRIPT, train[0].digest)
    elif change == "one less":
        train.pop()
    elif change == "the order":
        train.reverse()
    else:
        corpus["test"].insert(0, train.pop())

    preparation.prepare(corpus, tmp_path)

    assert digest(corpus) != first
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_half_written_is_used(monkeypatch, tmp_path, caplog):
    expected = bits(preparation.prepare(small(), tmp_path))
    place = kept(tmp_path)
    shutil.rmtree(place)
    read, calls = Sound.read, []

    def interrupted(utterance):
        calls.append(utterance)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(utterance)

    monkeypatch.setattr(Sound, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        preparation.prepare(small(), tmp_path)
    assert not place.exists()
    left = kept(tmp_path)
    assert {file.name for file in left.iterdir()} == {"features.npy"}
    monkeypatch.setattr(Sound, "read", read)

    assert bits(preparation.prepare(small(), tmp_path)) == expected
    assert kept(tmp_path) == place
    assert "damaged" not in caplog.text
