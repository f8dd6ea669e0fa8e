"""Every damaged file of a corpus is in one message, with its path and what is wrong with it."""

import re
from pathlib import Path

import pytest
from mimic_keras_timit import Timit, corpus
from mimic_keras_timit.phones import PHONES

from mimic_keras.contracts import InputError
from plugins.timit.tests import fake

SPEAKER = "TRAIN/DR1/FSY000"
WAV, PHN = f"{SPEAKER}/SX1.WAV", f"{SPEAKER}/SX1.PHN"
TONE = [0, 100, 0, -100] * 4000
KINDS = []


def damaged(*problems):
    """Register `damage(root)` of a corpus of 16,000 samples and its `problems`; '...' stands for what Python says."""

    def register(damage):
        KINDS.append(pytest.param(damage, problems, id=damage.__name__))
        return damage

    return register


def sound(content):
    return lambda root: (root / WAV).write_bytes(content)


def transcript(*lines):
    return lambda root: (root / PHN).write_text("".join(f"{line}\n" for line in lines))


# Sounds

AUDIO = {
    "short": (fake.sphere(TONE)[:-2000], "cut off: 15,000 samples, the header says 16,000"),
    "a byte short": (fake.sphere(TONE)[:-1], "cut off: 15,999 samples, the header says 16,000"),
    "part of the header": (fake.sphere(TONE)[:100], "SPHERE header: it has no end_head"),
    "empty": (b"", "empty"),
    "a web page": (b"<!DOCTYPE html>", "neither a NIST SPHERE nor a RIFF file"),
    "raw samples": (fake.sphere(TONE)[1024:], "neither a NIST SPHERE nor a RIFF file"),
    "other length": (
        fake.sphere(TONE).replace(b"   1024", b"   none"),
        r"SPHERE header: its length is b'   none\n'...",
    ),
    "compressed": (
        fake.sphere(TONE, sample_coding="-s26 pcm,embedded-shorten-v2.00"),
        "SPHERE header: sample_coding is pcm,embedded-shorten-v2.00, expected pcm: unpack the file with sph2pipe",
    ),
    "8 kHz": (fake.sphere(TONE, sample_rate="-i 8000"), "SPHERE header: sample_rate is 8000, expected 16000"),
    "stereo": (fake.sphere(TONE, channel_count="-i 2"), "SPHERE header: channel_count is 2, expected 1"),
    "no byte order": (
        fake.sphere(TONE, sample_byte_format=None),
        "SPHERE header: sample_byte_format is missing, expected 01 or 10",
    ),
    "no count": (fake.sphere(TONE, sample_count=None), "SPHERE header: sample_count is missing, expected a number"),
    "RIFF, short": (fake.riff(TONE)[:-2], "cut off: 15,999 samples, the header says 16,000"),
    "RIFF, its name alone": (b"RIFF", "RIFF header: it ends too early"),
    "RIFF, a chunk beyond the end": (fake.riff(TONE).replace(b"fmt \x10", b"fmt \xff"), "RIFF header: ..."),
    "RIFF at 44.1 kHz": (fake.riff(TONE, rate=44_100), "RIFF header: 44100 samples a second, expected 16000"),
    "RIFF in stereo": (fake.riff(TONE, channels=2), "RIFF header: 2 channels, expected 1"),
}
for name, (content, said) in AUDIO.items():
    KINDS.append(pytest.param(sound(content), [f"{WAV}: {said}"], id=f"sound: {name}"))

# Transcripts

TRANSCRIPTS = {
    "empty": ([], "no phones"),
    "unknown phone": (["0 900 h#", "900 16000 xx"], f"line 2: unknown phone 'xx'; TIMIT's are {' '.join(PHONES)}"),
    "after the sound": (
        ["0 900 h#", "900 16161 iy"],
        "line 2: 900 to 16161 lies outside the sound's 16000 samples",
    ),
    "begins after the sound": (
        ["0 16000 h#", "16000 16010 iy"],
        "line 2: 16000 to 16010 lies outside the sound's 16000 samples",
    ),
    "overlap": (["0 900 h#", "899 1000 iy"], "line 2: 899 to 1000 after 900: boundaries have to rise"),
    "no length": (["0 900 h#", "900 900 iy"], "line 2: 900 to 900 after 900: boundaries have to rise"),
    "the words": (["0 16000 She had"], "line 1: expected 'begin end phone', got '0 16000 She had'"),
    "before the sound": (["-80 900 h#"], "line 1: expected 'begin end phone', got '-80 900 h#'"),
}
for name, (lines, said) in TRANSCRIPTS.items():
    KINDS.append(pytest.param(transcript(*lines), [f"{PHN}: {said}"], id=f"transcript: {name}"))


@damaged(f"{PHN}: line 1: expected 'begin end phone', got 'NIST_1A'")
def a_sound_in_place_of_a_transcript(root):
    (root / PHN).write_bytes(fake.sphere(TONE))


@damaged(f"{WAV}: empty", f"{PHN}: line 1: ...")
def a_huge_boundary_beside_a_damaged_sound(root):
    sound(b"")(root)
    transcript("0 99999999999999999999 h#")(root)


# Files


@damaged(f"{WAV}: its .PHN file is missing")
def no_transcript(root):
    (root / PHN).unlink()


@damaged(f"{PHN}: its .WAV file is missing")
def no_sound(root):
    (root / WAV).unlink()


@damaged(f"{WAV}: its .PHN file is missing", f"{WAV}: empty")
def no_transcript_and_a_damaged_sound(root):
    sound(b"")(root)
    (root / PHN).unlink()


@damaged(f"{PHN}: its .WAV file is missing", f"{PHN}: no phones")
def no_sound_and_a_damaged_transcript(root):
    transcript()(root)
    (root / WAV).unlink()


@damaged(f"{PHN}: ...")
def a_folder_in_place_of_a_file(root):
    (root / PHN).unlink()
    (root / PHN).mkdir()


@damaged(f"{WAV}: ...")
def a_link_to_nothing(root):
    (root / WAV).unlink()
    (root / WAV).symlink_to(root / "nowhere")


@damaged("no utterances of the train speakers")
def no_training_speakers(root):
    for region in (root / "TRAIN").iterdir():
        region.rename(root / region.name)


@damaged("no utterances of the validation speakers")
def no_development_speakers(root):
    (root / "TEST/DR3/FADG0").rename(root / "TEST/DR3/MSTR0")


@damaged("no utterances of the validation speakers", "no utterances of the test speakers")
def an_empty_half(root):
    (root / "TEST").rename(root / "DOC")
    (root / "TEST").mkdir()


@damaged(
    "no utterances of the test speakers",
    f"{SPEAKER}/SX1.WAV: cut off: 15,999 samples, the header says 16,000",
    f"{SPEAKER}/SX2.PHN: line 2: 900 to 17000 lies outside the sound's 16000 samples",
    "TRAIN/DR2/MSY001/SX1.WAV: its .PHN file is missing",
    "TRAIN/DR2/MSY001/SX2.WAV: neither a NIST SPHERE nor a RIFF file",
    f"TRAIN/DR2/MSY001/SX2.PHN: line 1: unknown phone 'H#'; TIMIT's are {' '.join(PHONES)}",
    "TEST/DR3/FADG0/SX2.PHN: no phones",
)
def several_at_once(root):
    sound(fake.sphere(TONE)[:-1])(root)
    (root / SPEAKER / "SX2.PHN").write_text("0 900 h#\n900 17000 iy\n")
    (root / "TRAIN/DR2/MSY001/SX1.PHN").unlink()
    (root / "TRAIN/DR2/MSY001/SX2.WAV").write_bytes(b"text")
    (root / "TRAIN/DR2/MSY001/SX2.PHN").write_text("0 900 H#\n")
    (root / "TEST/DR3/FADG0/SX2.PHN").write_text("")
    (root / "TEST/DR4/MBPM0").rename(root / "MBPM0")


# The tests


@pytest.fixture
def root(copied):
    """A corpus of which every sound is `TONE`."""
    for file in copied.rglob("*.WAV"):
        file.write_bytes(fake.sphere(TONE))
        file.with_suffix(".PHN").write_text("0 900 h#\n900 9000 iy\n9000 16000 h#\n")
    return copied


def refusal(root):
    with pytest.raises(InputError) as caught:
        corpus.read(root, {})
    return str(caught.value)


def check(root, problems):
    """The message is the problems, each after its file's whole path."""
    lines = [f"{root}/{problem}" if re.match(r"TRAIN|TEST", problem) else problem for problem in problems]
    count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''}"
    expected, message = "\n  ".join([f"{root}: {count}", *lines]), refusal(root)

    assert re.fullmatch(re.escape(expected).replace(re.escape("..."), "[^\n]*"), message), message
    assert not re.search(": $", message, re.MULTILINE), "a file has no reason"


def test_the_undamaged_corpus_is_read(root):
    assert [len(utterances) for utterances in corpus.read(root, {}).values()] == [4, 2, 2]


@pytest.mark.parametrize(("damage", "problems"), KINDS)
def test_what_is_wrong_is_said_with_its_path(damage, problems, root):
    damage(root)

    check(root, problems)


def test_a_file_without_permission_is_named(root, monkeypatch):
    real = Path.read_bytes

    def read_bytes(file):
        if file.name == "SX1.PHN" and file.parent.name == "FSY000":
            raise PermissionError(13, "Permission denied", str(file))
        return real(file)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)

    check(root, [f"{PHN}: ...Permission denied..."])


def test_a_speaker_in_two_regions_is_named(root):
    """As a folder copied by mistake would be."""
    (root / "TRAIN/DR1 (copy)").symlink_to(root / "TRAIN/DR1")

    message = refusal(root)

    assert f"{root}/TRAIN/DR1/FSY000" in message
    assert f"{root}/TRAIN/DR1 (copy)/FSY000" in message


def test_the_sentences_that_nobody_learns_may_be_damaged(root):
    (root / SPEAKER / "SA1.WAV").write_bytes(b"")
    (root / "TEST/DR3/FADG0/SA1.PHN").unlink()

    assert len(corpus.read(root, {})["train"]) == 4


def test_more_than_a_message_holds_are_counted(root, monkeypatch):
    assert corpus.PROBLEMS_SHOWN == 100
    monkeypatch.setattr(corpus, "PROBLEMS_SHOWN", 3)
    for file in root.rglob("SX*.PHN"):
        file.unlink()

    assert refusal(root).splitlines() == [
        f"{root}: 8 problems",
        *(f"  {root}/{name}.WAV: its .PHN file is missing" for name in (f"{SPEAKER}/SX1", f"{SPEAKER}/SX2")),
        f"  {root}/TRAIN/DR2/MSY001/SX1.WAV: its .PHN file is missing",
        "  and 5 more",
    ]


def test_nothing_is_computed_of_a_damaged_corpus(root, tmp_path):
    sound(b"")(root)
    (tmp_path / "data").mkdir()

    with pytest.raises(InputError, match="^" + re.escape(f"{root}: 1 problem\n  {root}/{WAV}: empty") + "$"):
        Timit(root.parent).prepare(tmp_path / "data")

    assert not list((tmp_path / "data").iterdir())
