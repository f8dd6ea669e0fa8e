"""The data set keeps its contract, on sounds that the tests write."""

import io
import wave

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_sound_folder import SoundFolder

from mimic_keras.contracts import InputError
from mimic_keras.testing import conformance

CLASSES = ("high", "low", "middle")


def encode(samples, rate=8000):
    """int16 [samples, channels] as the content of a WAV file."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


def tone(hertz, rate=8000, seconds=0.2):
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)[:, None]


def write(folder, count=16, classes=CLASSES, seed=0):
    """Noise, `count` of each class, half of it in stereo and some below the class folder; it ends in silence."""
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name / "more").mkdir(parents=True)
        for number in range(count):
            samples = random.integers(-9000, 9000, (1600, 1 + number % 2))
            samples[-100:] = 0
            place = folder / name / ("more" if number % 3 == 0 else "") / f"{number}.wav"
            place.write_bytes(encode(samples))
    return folder


def sounds(folder):
    """What an experiment would write, and the files that it names."""
    write(folder / "sounds")
    write(folder / "extra", 5, ["any"], seed=1)
    arguments = {"root": str(folder / "sounds"), "unlabelled": str(folder / "extra")}
    return {**arguments, "seconds": 0.2, "rate": 8000, "validation": 0.2, "test": 0.2}


test_conformance = conformance("mimic-keras-sound-folder", {"dataset/sound_folder": sounds})


def prepared(folder, **arguments):
    dataset = SoundFolder(folder, **{"seconds": 0.2, "rate": 8000, **arguments})
    dataset.prepare(folder)
    return dataset


def all_of(split):
    return split.batch(tf.range(split.num_examples, dtype=tf.int64)).numpy()


@pytest.mark.parametrize("hertz", [500, 1000, 2000])
@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_a_tone_is_loudest_in_its_mel_band_at_any_rate(hertz, rate, tmp_path):
    dataset = SoundFolder(tmp_path, seconds=0.2, rate=8000)
    energies = dataset._prepare(tf.constant(encode(tone(hertz, rate), rate))).numpy()[..., 0]
    assert energies.shape == (18, 64)
    # https://en.wikipedia.org/wiki/Mel_scale: band b is centred on the b + 1st of 65 equal steps from 20 to 4000 Hz
    mel = 1127 * np.log1p(np.array([20, hertz, 4000]) / 700)
    expected = (mel[1] - mel[0]) / (mel[2] - mel[0]) * 65 - 1
    assert np.abs(energies[5:12].argmax(-1) - expected).max() <= 1


def test_a_short_sound_is_filled_with_silence_and_a_long_one_cut(tmp_path):
    dataset = SoundFolder(tmp_path, seconds=0.2, rate=8000)
    short, whole, long = (
        dataset._prepare(tf.constant(encode(tone(1000, seconds=seconds)))).numpy() for seconds in (0.1, 0.2, 0.3)
    )
    np.testing.assert_array_equal(short[-7:], np.full([7, 64, 1], np.log(np.float32(1e-6))))
    np.testing.assert_array_equal(whole, long)


def test_copies_of_a_sound_are_in_one_split_and_adding_sounds_moves_none(tmp_path):
    folder = write(tmp_path / "sounds")
    before = {name: {row.tobytes() for row in all_of(prepared(folder).split(name))} for name in ("train", "test")}
    for file in list(folder.rglob("*5.wav")):
        file.with_name(f"copy of {file.name}").write_bytes(file.read_bytes())
    write(tmp_path / "new", 10, seed=5)
    (tmp_path / "new" / "low").rename(folder / "low" / "new")
    dataset = prepared(folder)
    after = {name: {row.tobytes() for row in all_of(dataset.split(name))} for name in ("train", "test")}
    assert before["train"] <= after["train"]
    assert before["test"] <= after["test"]
    assert not after["train"] & after["test"]


def test_unlabelled_sounds_join_the_transfer_set_behind_the_training_sounds(tmp_path):
    dataset = prepared(write(tmp_path / "sounds"), unlabelled=write(tmp_path / "extra", 4, ["any"], seed=1))
    train, transfer = dataset.split("train"), dataset.split("transfer")
    assert transfer.num_examples == train.num_examples + 4
    assert transfer.labels[-4:].tolist() == [-1] * 4


def test_unlabelled_sounds_that_are_held_out_are_refused(tmp_path):
    folder = write(tmp_path / "sounds")
    with pytest.raises(InputError, match=r"unlabelled: \d+ of the 48 sounds of .* are validation or test sounds"):
        prepared(folder, unlabelled=folder)


def test_files_that_are_no_sounds_are_listed(tmp_path):
    folder = write(tmp_path / "sounds")
    (folder / "low" / "broken.wav").write_bytes(b"no sound")
    (folder / "low" / "cut.wav").write_bytes(encode(tone(500))[:30])
    pattern = r"2 of 50 files cannot be read as 16-bit WAV:\n  .*broken.wav: .*\n  .*cut.wav: "
    with pytest.raises(InputError, match=pattern):
        prepared(folder)


def test_a_root_without_classes_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a folder with one folder per class, got"):
        prepared(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"expected at least two class folders in .*, found 1"):
        prepared(write(tmp_path / "sounds", classes=["one"]))


def test_too_few_sounds_are_refused(tmp_path):
    with pytest.raises(InputError, match="falls into '"):
        prepared(write(tmp_path / "sounds", 1, ["a", "b"]))


@pytest.mark.parametrize("arguments", [{"seconds": 0.0}, {"validation": 0.0}, {"validation": 0.5, "test": 0.5}])
def test_wrong_arguments(arguments, tmp_path):
    with pytest.raises(ValueError, match="must be"):
        SoundFolder(tmp_path, **arguments)
