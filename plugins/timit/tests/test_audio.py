"""Sounds of both kinds of file come back as they were written, and every other file is refused with its reason."""

import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_timit import audio

from plugins.timit.tests import fake

SAMPLES = [0, 1, -2, 300, -32768, 32767]
SOUND = struct.pack("<6h", *SAMPLES)
SPHERE, RIFF = fake.sphere(SAMPLES), fake.riff(SAMPLES)

many = settings(max_examples=60, derandomize=True)
sounds = st.lists(st.integers(-32768, 32767), min_size=1, max_size=40)
FIELD_NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1).filter(lambda name: not name.startswith("end_head"))
FIELD_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="{}"), max_size=20)


def refusal(data):
    """Why `data` is refused; the reason is one line of text."""
    with pytest.raises(ValueError, match=r"^[^\n]*[^\n: ]$") as caught:
        audio.decode(data)
    return str(caught.value)


# What is read


@given(sounds, st.sampled_from([512, 1024, 2048, 65536]), st.booleans(), st.permutations(list(fake.FIELDS)))
@many
def test_a_sphere_file_is_read_in_either_byte_order(samples, size, big, order):
    found = audio.decode(fake.sphere(samples, size, big, **{name: fake.FIELDS[name] for name in order}))

    assert found.dtype == np.int16
    assert found.tolist() == samples


@given(st.dictionaries(FIELD_NAMES, FIELD_VALUES, max_size=5))
@many
def test_fields_of_other_names_do_not_matter(fields):
    others = {f"x_{name}": f"-s{len(value)} {value}" for name, value in fields.items()}

    assert audio.decode(fake.sphere(SAMPLES, 4096, **others)).tolist() == SAMPLES


@given(sounds)
@many
def test_a_riff_file_is_read(samples):
    found = audio.decode(fake.riff(samples))

    assert found.dtype == np.int16
    assert found.tolist() == samples


@pytest.mark.parametrize(
    "data",
    [
        fake.riff_of(fake.chunk(b"LIST", b"INFOmade by"), fake.pcm(), fake.chunk(b"data", SOUND)),
        fake.riff_of(fake.pcm(more=b"\0\0"), fake.chunk(b"fact", b"\6\0\0\0"), fake.chunk(b"data", SOUND)),
        fake.riff_of(fake.pcm(), fake.chunk(b"data", SOUND), fake.chunk(b"LIST", b"INFO")),
        fake.sphere(SAMPLES, sample_coding="-s3 pcm"),
        fake.sphere(SAMPLES) + b"rest",
    ],
    ids=["chunks before", "an extended format", "chunks after", "sample_coding", "bytes after the samples"],
)
def test_what_other_tools_write_is_read(data):
    assert audio.decode(data).tolist() == SAMPLES


@pytest.mark.parametrize(("order", "sign"), [("01", "<"), ("10", ">")])
def test_the_writer_writes_what_nist_describes(order, sign):
    data = audio.sphere_file(np.array(SAMPLES, np.int16), order)

    assert data[:16] == b"NIST_1A\n   1024\n"
    assert data[1024:] == struct.pack(f"{sign}6h", *SAMPLES)
    assert data[16:1024].decode().rstrip(" ").splitlines() == [
        *("channel_count -i 1", "sample_count -i 6", "sample_rate -i 16000", "sample_n_bytes -i 2"),
        *(f"sample_byte_format -s2 {order}", "sample_sig_bits -i 16", "end_head"),
    ]


# What is refused

LENGTH = "SPHERE header: its length is "
WRONG = {
    "nothing": (b"", "empty"),
    "text": (b"<!DOCTYPE html>", "neither a NIST SPHERE nor a RIFF file"),
    "CRLF put into it": (SPHERE.replace(b"\n", b"\r\n"), "neither a NIST SPHERE nor a RIFF file"),
    # SPHERE
    "the first line": (b"NIST_1A\n", LENGTH + "b''..."),
    "no length": (SPHERE.replace(b"   1024", b"  10 24"), LENGTH + r"b'  10 24\n'..."),
    "length of nothing": (SPHERE.replace(b"   1024", b"      0"), LENGTH + r"b'      0\n'..."),
    "negative length": (SPHERE.replace(b"   1024", b"  -1024"), LENGTH + r"b'  -1024\n'..."),
    "huge length": (SPHERE.replace(b"   1024", b"9999999"), LENGTH + r"b'9999999\n'..."),
    "no end_head": (SPHERE.replace(b"end_head", b"end_tail"), "SPHERE header: it has no end_head"),
    "end_head too late": (SPHERE.replace(b"   1024", b"     64"), "SPHERE header: it has no end_head"),
    "two channels": (
        fake.sphere(SAMPLES, channel_count="-i 2"),
        "SPHERE header: channel_count is 2, expected 1",
    ),
    "8 kHz": (fake.sphere(SAMPLES, sample_rate="-i 8000"), "SPHERE header: sample_rate is 8000, expected 16000"),
    "8 bits": (fake.sphere(SAMPLES, sample_n_bytes="-i 1"), "SPHERE header: sample_n_bytes is 1, expected 2"),
    "compressed": (
        fake.sphere(SAMPLES, sample_coding="-s26 pcm,embedded-shorten-v2.00"),
        "SPHERE header: sample_coding is pcm,embedded-shorten-v2.00, expected pcm: unpack the file with sph2pipe",
    ),
    "no byte order": (
        fake.sphere(SAMPLES, sample_byte_format=None),
        "SPHERE header: sample_byte_format is missing, expected 01 or 10",
    ),
    "byte order of one byte": (
        fake.sphere(SAMPLES, sample_byte_format="-s1 1"),
        "SPHERE header: sample_byte_format is 1, expected 01 or 10",
    ),
    "no count": (fake.sphere(SAMPLES, sample_count=None), "SPHERE header: sample_count is missing, expected a number"),
    "negative count": (
        fake.sphere(SAMPLES, sample_count="-i -6"),
        "SPHERE header: sample_count is -6, expected a number",
    ),
    "count in words": (
        fake.sphere(SAMPLES, sample_count="-s3 six"),
        "SPHERE header: sample_count is six, expected a number",
    ),
    "no samples": (fake.sphere([]), "the header says that it has no samples"),
    "header alone": (SPHERE[:1024], "cut off: 0 samples, the header says 6"),
    "a sample missing": (SPHERE[:-2], "cut off: 5 samples, the header says 6"),
    "half a sample missing": (SPHERE[:-1], "cut off: 5 samples, the header says 6"),
    "many samples missing": (
        fake.sphere(SAMPLES * 500, sample_count="-i 46797"),
        "cut off: 3,000 samples, the header says 46,797",
    ),
    # RIFF
    "four letters": (b"RIFF", "RIFF header: it ends too early"),
    "half a format": (RIFF[:24], "RIFF header: it ends too early"),
    "a film": (b"RIFF\4\0\0\0AVI ", "RIFF header: not a WAVE file"),
    "no chunks": (fake.riff_of(), "RIFF header: ..."),
    "no data": (fake.riff_of(fake.pcm()), "RIFF header: ..."),
    "data before the format": (fake.riff_of(fake.chunk(b"data", SOUND), fake.pcm()), "RIFF header: ..."),
    "a chunk beyond the end": (RIFF.replace(b"fmt \x10", b"fmt \xff"), "RIFF header: ..."),
    "floats": (fake.riff_of(fake.pcm(3, width=4), fake.chunk(b"data", SOUND)), "RIFF header: unknown format: 3"),
    "stereo RIFF": (fake.riff(SAMPLES, channels=2), "RIFF header: 2 channels, expected 1"),
    "24-bit RIFF": (fake.riff(SAMPLES, width=3), "RIFF header: 3 bytes a sample, expected 2"),
    "44.1 kHz RIFF": (fake.riff(SAMPLES, rate=44_100), "RIFF header: 44100 samples a second, expected 16000"),
    "RIFF of nothing": (fake.riff([]), "the header says that it has no samples"),
    "RIFF header alone": (RIFF[:44], "cut off: 0 samples, the header says 6"),
    "a sample of RIFF missing": (RIFF[:-2], "cut off: 5 samples, the header says 6"),
    "half a sample of RIFF missing": (RIFF[:-1], "cut off: 5 samples, the header says 6"),
}


@pytest.mark.parametrize(("data", "expected"), WRONG.values(), ids=WRONG)
def test_the_reason_is_said(data, expected):
    """'...' stands for what Python's module says."""
    message = refusal(data)

    assert re.fullmatch(re.escape(expected).replace(re.escape("..."), ".*"), message), message


@pytest.mark.parametrize("data", [SPHERE, RIFF], ids=["SPHERE", "RIFF"])
def test_a_file_cut_anywhere_is_refused(data):
    for length in range(len(data)):
        refusal(data[:length])


def check_answer_or_reason(data):
    """Samples or one line of text, and nothing else."""
    try:
        found = audio.decode(data)
    except ValueError as error:
        reason = str(error)
    else:
        assert found.dtype == np.int16
        assert len(found) > 0
        return
    assert re.fullmatch(r"[^\n]*[^\n: ]", reason), reason


@given(st.sampled_from([SPHERE, RIFF]), st.dictionaries(st.integers(0, 300), st.integers(0, 255), max_size=4))
@settings(many, max_examples=300)
def test_changed_bytes_of_a_header_give_an_answer_or_a_reason(data, changes):
    changed = bytearray(data)
    for place, value in changes.items():
        changed[place % min(len(data), 300)] = value
    check_answer_or_reason(bytes(changed))


@given(st.sampled_from([b"", b"NIST_1A\n   1024\n", b"RIFF", RIFF[:12], RIFF[:20], RIFF[:36]]), st.binary())
@settings(many, max_examples=200)
def test_any_bytes_after_a_beginning_give_an_answer_or_a_reason(beginning, rest):
    check_answer_or_reason(beginning + rest)


@given(st.sampled_from(list(fake.FIELDS)), FIELD_VALUES)
@settings(many, max_examples=200)
def test_any_value_of_a_sphere_field_gives_an_answer_or_a_reason(name, value):
    check_answer_or_reason(fake.sphere(SAMPLES, **{name: value}))
    check_answer_or_reason(fake.sphere(SAMPLES, **{name: f"-i {value}"}))
