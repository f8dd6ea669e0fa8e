"""The data set: what is in which split, its information before anything is read, and the metrics of known logits."""

import itertools

import numpy as np
import pytest
from mimic_keras_timit import SyntheticTimit, Timit, corpus, decoding
from mimic_keras_timit.corpus import Transcript, Utterance
from mimic_keras_timit.features import num_frames
from mimic_keras_timit.phones import CLASSES, FOLDED, PHONES
from mimic_keras_timit.speakers import CORE_TEST, DEVELOPMENT

from mimic_keras.contracts import SPLITS, Confusion, InputError, error_rate

PHONE = 1600  # samples, ten frames: every state of a phone has some


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def synthetic(home):
    data = SyntheticTimit(training_speakers=2, test_speakers=2, utterances=2)
    data.fingerprint = data.prepare(home)
    return data


def names(data, split):
    return [utterance.name for utterance in data.corpus[split]]


def contents(split):
    return [window.tobytes() for window in split.batch(np.arange(split.num_examples)).numpy()]


# Splits


def test_the_splits_are_of_different_speakers(synthetic):
    speakers = {split: {name.split("/")[0] for name in names(synthetic, split)} for split in synthetic.corpus}

    assert {split: len(names(synthetic, split)) for split in speakers} == {"train": 4, "validation": 2, "test": 2}
    assert speakers["validation"] < DEVELOPMENT
    assert speakers["test"] < CORE_TEST
    for one, two in itertools.combinations(synthetic.corpus, 2):
        assert not speakers[one] & speakers[two]
        assert not set(contents(synthetic.split(one))) & set(contents(synthetic.split(two)))


def test_sentences_that_all_speakers_read_are_left_out(synthetic, home):
    (root,) = home.glob("synthetic-*")
    assert len(list(root.rglob("SA1.WAV"))) == 4

    found = [name for split in synthetic.corpus for name in names(synthetic, split)]

    assert {name.split("/")[1] for name in found} == {"SX1", "SX2"}


@pytest.mark.parametrize("name", SPLITS)
def test_what_a_split_holds(synthetic, name):
    utterances = synthetic.corpus["train" if name == "transfer" else name]
    split = synthetic.split(name)

    frames = sum(num_frames(utterance.samples) for utterance in utterances)
    assert split.num_examples == len(split.labels) == frames > 200
    assert split.repeats == 1
    assert split.labels.dtype == np.int32
    assert 0 <= split.labels.min() < split.labels.max() < synthetic.info.num_classes
    windows = split.batch(np.array([0, frames - 1])).numpy()
    assert (windows.shape, windows.dtype) == ((2, *synthetic.info.input_shape), np.float32)
    assert np.isfinite(windows).all()
    # The phones of the frames are those of the transcripts, in order.
    spoken = np.concatenate([utterance.transcript.phones for utterance in utterances])
    assert [key for key, _ in itertools.groupby(split.labels // 3)] == [key for key, _ in itertools.groupby(spoken)]


def test_the_transfer_set_is_the_training_set(synthetic):
    train, transfer = synthetic.split("train"), synthetic.split("transfer")

    np.testing.assert_array_equal(transfer.labels, train.labels)
    assert contents(transfer) == contents(train)


def test_the_seed_of_a_split_moves_nothing(synthetic):
    assert contents(synthetic.split("test", seed=0)) == contents(synthetic.split("test", seed=5))


def test_training_windows_are_normalised(synthetic):
    split = synthetic.split("train")
    middles = split.batch(np.arange(split.num_examples)).numpy()[:, 7].astype(float)

    np.testing.assert_allclose(middles.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(middles.std(0), 1, atol=1e-5)


# Fingerprints


def test_the_same_corpus_anywhere_has_the_same_fingerprint(synthetic, home, written, copied, tmp_path):
    assert Timit(written).prepare(tmp_path) == synthetic.fingerprint
    assert Timit(copied).prepare(home) == synthetic.fingerprint
    again = SyntheticTimit(training_speakers=2, test_speakers=2, utterances=2)
    assert again.prepare(home) == synthetic.fingerprint


@pytest.mark.parametrize("change", ["a boundary", "a sample", "an utterance less"])
def test_another_corpus_has_another_fingerprint(synthetic, copied, change, tmp_path):
    (file,) = copied.glob("TRAIN/*/FSY000/SX1.PHN")
    sound = file.with_suffix(".WAV")
    if change == "a boundary":
        begin, end, phone = file.read_text().splitlines()[-1].split()
        file.write_text(file.read_text().replace(f"{begin} {end} {phone}", f"{begin} {int(end) - 1} {phone}"))
    elif change == "a sample":
        content = sound.read_bytes()
        sound.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.unlink()
        sound.unlink()

    assert Timit(copied).prepare(tmp_path) != synthetic.fingerprint


# Information and the place of the corpus


def test_information_needs_no_corpus():
    info = Timit().info

    assert (info.name, info.version, info.input_shape, info.num_classes) == ("timit", "1", (15, 123), 183)
    assert info.class_names[:4] == ("aa/0", "aa/1", "aa/2", "ae/0")
    assert len(set(info.class_names)) == 183
    sizes = {"train": 3696 * 304, "validation": 400 * 304, "test": 192 * 304, "transfer": 3696 * 304}
    assert info.num_examples == sizes


@pytest.mark.parametrize(("test_speakers", "validation", "test"), [(2, 1, 1), (3, 1, 2), (16, 8, 8), (48, 24, 24)])
def test_information_of_a_synthetic_corpus(test_speakers, validation, test):
    info = SyntheticTimit(training_speakers=5, test_speakers=test_speakers, utterances=3).info

    assert (info.name, info.input_shape, info.num_classes) == ("timit_synthetic", (15, 123), 183)
    assert {split: count / 3 / 304 for split, count in info.num_examples.items()} == {
        "train": 5,
        "validation": validation,
        "test": test,
        "transfer": 5,
    }


def test_the_environment_says_where_the_corpus_is(written, synthetic, home, monkeypatch):
    monkeypatch.setenv("MIMIC_KERAS_TIMIT", str(written))

    assert Timit().prepare(home) == synthetic.fingerprint


def test_without_a_corpus_it_is_said_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match=r"^dataset\.root: no such folder: .*nowhere\nTIMIT is a licensed corpus"):
        Timit(tmp_path / "nowhere").prepare(tmp_path)


# Metrics


class Sound(Utterance):
    """An utterance of noise that lies in memory."""

    def read(self):
        return np.random.default_rng(self.samples).integers(-9999, 9999, self.samples).astype(np.int16)


SPOKEN = {
    "train": ["h# aa q iy h#", "h# iy iy s h#", "h# s aa zh s h#"],
    "validation": ["h# s aa h#", "h# q iy zh h#"],
    "test": ["h# aa iy s h#", "h# iy q iy h#", "s"],
}


@pytest.fixture(scope="module")
def timit(home):
    spoken, sentences = {split: [] for split in SPOKEN}, ((key, one) for key, all_ in SPOKEN.items() for one in all_)
    for number, (split, sentence) in enumerate(sentences):
        phones = np.array([PHONES.index(phone) for phone in sentence.split()])
        bounds = np.arange(len(phones) + 1) * PHONE
        transcript = Transcript(phones, bounds[:-1], bounds[1:])
        spoken[split].append(Sound(f"A/{number}", None, int(bounds[-1]), transcript, str(number)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "find", lambda root: root)
        patch.setattr(corpus, "read", lambda root, expected: spoken)
        data = Timit()
        data.prepare(home)
    return data


def sure(states, height=60):
    return np.eye(183, dtype=np.float32)[states] * height


def random_logits(data, splits):
    random = np.random.default_rng(0)
    return {split: random.normal(size=[data.split(split).num_examples, 183]) * 9 for split in splits}


def folded(sentences):
    phones = [PHONES.index(phone) for sentence in sentences for phone in sentence.split() if phone != "q"]
    return np.bincount(FOLDED[phones], minlength=40)


def test_perfect_logits_have_no_errors(timit):
    logits = {split: sure(timit.split(split).labels) for split in SPOKEN}

    found = timit.evaluate(logits)

    assert list(found) == ["train", "validation", "test"]
    for split, metrics in found.items():
        assert set(metrics) == {"error_rate", "phone_error_rate", "phones"}
        assert float(metrics["phone_error_rate"]) == float(metrics["error_rate"]) == 0
        assert isinstance(metrics["phones"], Confusion)
        assert metrics["phones"].names == (*CLASSES, "(nothing)")
        expected = np.diag(folded(SPOKEN[split]))
        np.testing.assert_array_equal(metrics["phones"].counts, expected)


def test_known_errors_are_counted(timit):
    # Ten phones, q left out: aa is taken for s. A state that begins a frame late makes no other phone.
    states = timit.split("test").labels.copy()
    aa = states // 3 == PHONES.index("aa")
    states[aa] += 3 * (PHONES.index("s") - PHONES.index("aa"))
    iy = np.flatnonzero(states == 3 * PHONES.index("iy") + 1)[0]
    states[iy] -= 1
    logits = {"validation": sure(timit.split("validation").labels), "test": sure(states)}

    found = timit.evaluate(logits)["test"]

    assert float(found["phone_error_rate"]) == 1 / 10
    assert float(found["error_rate"]) == error_rate(timit.split("test").labels, logits["test"]) > 0
    places = {name: place for place, name in enumerate(found["phones"].names)}
    expected = np.diag(folded(SPOKEN["test"]))
    expected[places["aa"], places["aa"]] -= 1
    expected[places["aa"], places["s"]] += 1
    np.testing.assert_array_equal(found["phones"].counts, expected)


def test_the_decoder_is_given_the_training_sets_bigram_and_what_validation_chose(timit, monkeypatch):
    chosen, given = decoding.Constants(2.0, -4.0), []
    decode = decoding.decode
    monkeypatch.setattr(decoding, "choose", lambda *arguments: given.append(arguments) or chosen)
    monkeypatch.setattr(decoding, "decode", lambda *arguments: given.append(arguments) or decode(*arguments))
    logits = random_logits(timit, ["test", "validation"])

    timit.evaluate(logits)

    (scores, references, bigram), *decoded = given
    assert [len(rows) for rows in scores] == [num_frames(item.samples) for item in timit.corpus["validation"]]
    for found, row in zip(scores, timit.scores("validation", logits["validation"]), strict=True):
        np.testing.assert_array_equal(found, row)
    assert [reference.tolist() for reference in references] == [
        item.transcript.phones.tolist() for item in timit.corpus["validation"]
    ]
    expected = decoding.Bigram.of([item.transcript.phones for item in timit.corpus["train"]], 61)
    for name in ("first", "next", "last"):
        np.testing.assert_array_equal(getattr(bigram, name), getattr(expected, name))
    assert [arguments[1:] for arguments in decoded] == [(bigram, 2.0, -4.0)] * 2


def test_other_splits_change_nothing_that_validation_says(timit):
    logits = random_logits(timit, SPOKEN)

    alone = timit.evaluate({"validation": logits["validation"]})["validation"]
    found = timit.evaluate(logits)

    assert float(found["validation"]["phone_error_rate"]) == float(alone["phone_error_rate"]) > 0
    np.testing.assert_array_equal(found["validation"]["phones"].counts, alone["phones"].counts)
    for split, metrics in found.items():
        np.testing.assert_array_equal(metrics["phones"].counts.sum(1)[:39], folded(SPOKEN[split])[:39])


def test_the_transfer_set_has_the_training_sets_metrics(timit):
    logits = random_logits(timit, SPOKEN)

    found = timit.evaluate(logits | {"transfer": logits["train"]})

    assert float(found["transfer"]["phone_error_rate"]) == float(found["train"]["phone_error_rate"]) > 0


def test_errors_are_counted_by_speaker(timit):
    """One frame of the last test utterance is wrong: one error, of that utterance's speaker."""
    states = timit.split("test").labels.copy()
    states[-1] = (states[-1] + 90) % 183
    logits = {"validation": sure(timit.split("validation").labels), "test": sure(states)}

    found = timit.evaluate(logits)["test"]

    names = [utterance.name.split("/")[0] for utterance in timit.corpus["test"]]
    order = sorted(set(names))
    for metric in ("error_rate", "phone_error_rate"):
        assert found[metric].errors.shape == found[metric].counts.shape == (len(order),)
    expected = np.zeros(len(order), int)
    expected[order.index(names[-1])] = 1
    np.testing.assert_array_equal(found["error_rate"].errors, expected)
    assert found["error_rate"].counts.sum() == len(states)
    assert found["phone_error_rate"].counts.sum() == folded(SPOKEN["test"])[:39].sum()


def test_phones_of_no_training_frame_are_never_decoded(timit):
    # Of 61 phones training has five: whatever the logits say, nothing else is recognised.
    spoken = {FOLDED[PHONES.index(phone)] for phone in ("h#", "aa", "iy", "s", "zh")}
    counts = timit.evaluate(random_logits(timit, SPOKEN))["test"]["phones"].counts

    assert set(np.flatnonzero(counts[:, :39].sum(0))) <= spoken


def test_without_validation_nothing_can_be_chosen(timit):
    message = r"^the decoder's constants are chosen on 'validation', whose logits are missing$"
    with pytest.raises(ValueError, match=message):
        timit.evaluate({"test": sure(timit.split("test").labels)})
