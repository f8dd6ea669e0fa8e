"""The synthetic corpus: its files, that they are the same every time, and that its sounds are as its table says."""

import re

import numpy as np
import pytest
from mimic_keras_timit import corpus, synthesis
from mimic_keras_timit.phones import PHONES
from mimic_keras_timit.speakers import CORE_TEST, DEVELOPMENT
from mimic_keras_timit.synthesis import SHAPES, Plan, Voice, write_corpus

SMALLEST = Plan(1, 2, 1, 0)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def segments(file):
    return [(int(start), int(end), phone) for start, end, phone in map(str.split, file.read_text().splitlines())]


def transcripts(folder):
    return sorted(folder.rglob("*.PHN"))


# The files


def test_the_layout_is_that_of_the_disc(written):
    speakers = ("TRAIN/DR1/FSY000", "TRAIN/DR2/MSY001", "TEST/DR3/FADG0", "TEST/DR4/MBPM0")
    sentences = [f"{name}.{ending}" for name in ("SA1", "SX1", "SX2") for ending in ("WAV", "PHN", "TXT")]

    assert set(contents(written)) == {"README.TXT", *(f"{folder}/{file}" for folder in speakers for file in sentences)}


def test_nobody_takes_it_for_timit(written):
    notice = "Synthetic sounds in the layout of TIMIT. This is not TIMIT, and contains no part of it.\n"

    assert (written / "README.TXT").read_text() == notice
    for file in written.rglob("S*.TXT"):
        samples = (file.with_suffix(".WAV").stat().st_size - 1024) // 2
        assert file.read_text() == f"0 {samples} {notice}"


def test_transcripts_cover_the_sound_without_gaps(written):
    for file in transcripts(written):
        found = segments(file)
        starts, ends, phones = zip(*found, strict=True)
        assert starts == (0, *ends[:-1])
        assert 2 * ends[-1] == file.with_suffix(".WAV").stat().st_size - 1024
        assert all(end - start >= 240 for start, end, _ in found), "three control points of 5 ms at least"
        assert phones[0] == phones[-1] == "h#"
        assert set(phones[1:-1]) <= {*PHONES} - {"h#"}


def test_all_speakers_share_one_sentence_and_no_other(written):
    def sentences(pattern):
        return [tuple(phone for _, _, phone in segments(file)) for file in written.rglob(pattern)]

    assert len(sentences("SA1.PHN")) == 4
    assert len(set(sentences("SA1.PHN"))) == 1
    assert len({*sentences("SX*.PHN"), *sentences("SA1.PHN")}) == 9


def test_no_two_sounds_are_the_same(written):
    assert len({file.read_bytes() for file in written.rglob("*.WAV")}) == 12


# The plan


@pytest.mark.parametrize(("test_speakers", "validation", "test"), [(2, 1, 1), (3, 1, 2), (16, 8, 8), (48, 24, 24)])
def test_test_voices_are_shared_out(test_speakers, validation, test):
    plan = Plan(5, test_speakers, 3, 0)
    folders = list(plan.speakers())

    assert plan.utterance_counts() == {"train": 15, "validation": 3 * validation, "test": 3 * test}
    assert [folder for folder, _ in folders] == ["TRAIN"] * 5 + ["TEST"] * test_speakers
    names = [name for _, name in folders]
    assert len(set(names)) == len(names)
    assert len(DEVELOPMENT.intersection(names)) == validation
    assert len(CORE_TEST.intersection(names)) == test


def test_the_reader_finds_as_many_as_the_plan_says(written):
    found = corpus.read(written, {})

    assert {split: len(utterances) for split, utterances in found.items()} == Plan(2, 2, 2, 0).utterance_counts()


@pytest.mark.parametrize("largest", [Plan(999, 48, 999, 2**32 - 1), Plan(1, 2, 1, 0)])
def test_the_limits_are_accepted(largest):
    assert len(list(largest.speakers())) == largest.training_speakers + largest.test_speakers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_speakers": 0}, "training_speakers must be from 1 to 999, got 0"),
        ({"training_speakers": 1000}, "training_speakers must be from 1 to 999, got 1000"),
        ({"test_speakers": 1}, "test_speakers must be from 2 to 48, got 1"),
        ({"test_speakers": 49}, "test_speakers must be from 2 to 48, got 49"),
        ({"utterances": 0}, "utterances must be from 1 to 999, got 0"),
        ({"utterances": 1000}, "utterances must be from 1 to 999, got 1000"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, got -1"),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, got 4294967296"),
    ],
)
def test_other_plans_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        Plan(**{"training_speakers": 2, "test_speakers": 2, "utterances": 2, "seed": 0, **changes})


# Writing


def test_the_same_plan_gives_the_same_files_and_is_written_once(tmp_path):
    first, second = (write_corpus(SMALLEST, tmp_path / name) for name in ("new/first", "second"))
    assert contents(first) == contents(second)
    assert first.name == second.name

    (first / "README.TXT").write_text("mine")
    assert write_corpus(SMALLEST, tmp_path / "new/first") == first
    assert (first / "README.TXT").read_text() == "mine", "nothing is written over what is there"


def test_the_seed_is_in_every_sound_and_every_sentence(tmp_path):
    one, two = (contents(write_corpus(Plan(1, 2, 1, seed), tmp_path)) for seed in (0, 1))

    assert one.keys() == two.keys()
    assert [name for name in one if one[name] == two[name]] == ["README.TXT"]


def test_a_larger_plan_has_another_folder(tmp_path):
    small, large = (write_corpus(Plan(count, 2, 1, 0), tmp_path) for count in (1, 2))

    assert small.parent == large.parent == tmp_path
    assert small.name != large.name


def test_what_was_interrupted_is_begun_again(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthesis, "sphere_file", stop)
        with pytest.raises(KeyboardInterrupt):
            write_corpus(SMALLEST, tmp_path)
    (unfinished,) = tmp_path.iterdir()
    (unfinished / "TRAIN" / "DR9").mkdir(parents=True)

    place = write_corpus(SMALLEST, tmp_path)

    assert list(tmp_path.iterdir()) == [place]
    assert place != unfinished
    assert contents(place) == contents(write_corpus(SMALLEST, tmp_path / "other"))
    assert not (place / "TRAIN" / "DR9").exists()


# The sounds


def test_the_table_has_a_row_for_every_phone():
    assert sorted(SHAPES) == sorted(PHONES)
    assert {phone for phone, rows in SHAPES.items() if len(rows) == 2} == {"ey", "ay", "oy", "aw", "ow"}
    assert {rows.shape for rows in SHAPES.values()} == {(1, 8), (2, 8)}
    for phone, rows in SHAPES.items():
        assert rows[0, -1] > 0, f"{phone} lasts"
        assert (np.diff(rows[:, :3]) >= 0).all(), f"the formants of {phone} rise"


def spoken(phone, pitch=115.0, seed=0):
    """(loudness, {Hz: energy}) of the middle of a phone between silences."""
    voice = Voice(pitch, 1.0, 3.0, 1.0, 1e-4)
    sound, parts = voice.say(["h#", phone, "h#"], np.random.default_rng(seed))
    start, end, _ = parts[1]
    middle = sound[start + 400 : end - 400].astype(float)
    energies = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) ** 2
    return np.sqrt(np.mean(middle**2)), np.fft.rfftfreq(len(middle), 1 / 16_000), energies


def share(phone, low, high):
    """Of a phone's energy, what lies between two frequencies."""
    _, frequencies, energies = spoken(phone)
    return energies[(frequencies >= low) & (frequencies < high)].sum() / energies.sum()


@pytest.mark.parametrize(
    ("phone", "low", "high"),
    [("iy", 150, 450), ("aa", 550, 1300), ("uw", 200, 1000), ("s", 4500, 8000), ("sh", 2000, 4500), ("m", 0, 500)],
)
def test_energy_is_where_the_table_says(phone, low, high):
    assert share(phone, low, high) > 0.7


def test_vowels_differ_in_the_second_formant():
    assert share("iy", 1900, 2600) > 3 * share("uw", 1900, 2600)
    assert share("ao", 700, 1000) > 3 * share("iy", 700, 1000)


@pytest.mark.parametrize("closure", ["pcl", "tcl", "kcl", "pau", "epi", "h#"])
def test_closures_are_quiet(closure):
    assert spoken(closure)[0] < spoken("aa")[0] / 50


@pytest.mark.parametrize("pitch", [100.0, 220.0])
def test_a_voice_has_its_pitch(pitch):
    _, frequencies, energies = spoken("aa", pitch)
    logarithms = np.log(energies[frequencies < 3000] + 1)
    cepstrum = np.abs(np.fft.rfft((logarithms - logarithms.mean()) * np.hanning(len(logarithms)), 1 << 14))
    spacing = frequencies[1] * (1 << 14) / np.arange(1, len(cepstrum))
    possible = (spacing > 70) & (spacing < 400)

    # The pitch drifts by a tenth and a little more.
    assert spacing[possible][np.argmax(cepstrum[1:][possible])] == pytest.approx(pitch, rel=0.15)


@pytest.mark.parametrize("sex", ["F", "M"])
def test_voices_are_of_their_sex(sex):
    pitches = [Voice.of(np.random.default_rng(seed), sex == "F").pitch for seed in range(50)]

    low, high = {"F": (160, 250), "M": (92, 143.75)}[sex]
    assert low <= min(pitches) < max(pitches) <= high


def test_women_and_men_speak_with_their_own_voices(tmp_path, monkeypatch):
    made, real = [], Voice.of
    monkeypatch.setattr(Voice, "of", lambda random, is_female: made.append(is_female) or real(random, is_female))

    place = write_corpus(Plan(2, 2, 1, 0), tmp_path)

    assert sorted(file.name[0] for file in place.glob("*/*/*")) == ["F", "F", "M", "M"]
    assert sorted(made) == [False] * 4 + [True] * 4, "each says two sentences"
