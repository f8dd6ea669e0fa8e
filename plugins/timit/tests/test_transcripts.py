"""Boundaries and phones of a .PHN file are read, or refused with the first line that is wrong."""

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mimic_keras_timit.corpus import parse_transcript
from mimic_keras_timit.phones import PHONES

many = settings(max_examples=120, derandomize=True)

steps = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 9000), st.sampled_from(PHONES)), min_size=1, max_size=60
)


@given(steps, st.sampled_from(["\n", "\r\n", "\n\n", " \n"]), st.sampled_from([" ", "\t", "  "]), st.booleans())
@many
def test_rising_boundaries_are_read(steps, newline, space, is_known):
    rows, at = [], 0
    for gap, length, phone in steps:
        rows.append((at + gap, at + gap + length, phone))
        at = rows[-1][1]
    text = newline.join(space.join(map(str, row)) for row in rows)

    found = parse_transcript(text, at if is_known else None)

    values = zip(found.starts.tolist(), found.ends.tolist(), [PHONES[place] for place in found.phones], strict=True)
    assert list(values) == rows
    assert {column.dtype for column in (found.phones, found.starts, found.ends)} == {np.dtype(np.int64)}


def reason(text, samples=None):
    """Why a transcript is refused; None if it is not."""
    try:
        parse_transcript(text, samples)
    except ValueError as error:
        return str(error)
    return None


@given(
    st.lists(st.tuples(*[st.sampled_from([0, 1, 98, 99, 100, 101, 259, 261])] * 2), min_size=1, max_size=4),
    st.sampled_from([None, 100]),
)
@settings(many, max_examples=300)
def test_other_boundaries_are_refused_with_the_first_wrong_line(rows, samples):
    """Boundaries rise, a phone begins within the sound, and ends at most a frame shift after it."""
    wrong, before = [], 0
    for number, (start, end) in enumerate(rows, 1):
        if start < before or end <= start:
            wrong.append(f"line {number}: {start} to {end} after {before}: boundaries have to rise")
        elif samples and (start >= samples or end > samples + 160):
            wrong.append(f"line {number}: {start} to {end} lies outside the sound's 100 samples")
        before = end

    assert reason("".join(f"{start} {end} iy\n" for start, end in rows), samples) == (wrong[0] if wrong else None)


@pytest.mark.parametrize(("end", "is_accepted"), [(1000, True), (1159, True), (1160, True), (1161, False)])
def test_the_last_phone_may_end_a_frame_shift_after_the_sound(end, is_accepted):
    refused = f"line 2: 500 to {end} lies outside the sound's 1000 samples"

    assert reason(f"0 500 h#\n500 {end} iy\n", 1000) == (None if is_accepted else refused)


LINE = "line 2: expected 'begin end phone', got "
KNOWN = (
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy jh k kcl "
    "l m n ng nx ow oy p pau pcl q r s sh t tcl th uh uw ux v w y z zh"
)
WRONG = {
    "nothing": ("", "no phones"),
    "empty lines": ("\n \n\r\n", "no phones"),
    "two columns": ("0 9 h#\n9 20\n", LINE + "'9 20'"),
    "four columns": ("0 9 h#\n9 20 iy 1\n", LINE + "'9 20 iy 1'"),
    "words": ("0 9 h#\n9 20 She had your\n", LINE + "'9 20 She had your'"),
    "commas": ("0 9 h#\n9,20,iy\n", LINE + "'9,20,iy'"),
    "seconds": ("0 9 h#\n0.5 0.75 iy\n", LINE + "'0.5 0.75 iy'"),
    "a minus": ("0 9 h#\n-9 20 iy\n", LINE + "'-9 20 iy'"),
    "other digits": ("0 9 h#\n٩ 20 iy\n", LINE + "'٩ 20 iy'"),
    "phone first": ("0 9 h#\niy 9 20\n", LINE + "'iy 9 20'"),
    "unknown phone": ("0 9 h#\n9 20 sil\n", f"line 2: unknown phone 'sil'; TIMIT's are {KNOWN}"),
    "a phone in upper case": ("0 9 h#\n9 20 IY\n", f"line 2: unknown phone 'IY'; TIMIT's are {KNOWN}"),
    "overlap": ("0 9 h#\n8 20 iy\n", "line 2: 8 to 20 after 9: boundaries have to rise"),
    "backwards": ("0 9 h#\n20 9 iy\n", "line 2: 20 to 9 after 9: boundaries have to rise"),
    "no length": ("0 9 h#\n9 9 iy\n", "line 2: 9 to 9 after 9: boundaries have to rise"),
    "the third of five": ("0 9 h#\n\n9 9 iy\n9 9 xx\n9\n", "line 3: 9 to 9 after 9: boundaries have to rise"),
}


@pytest.mark.parametrize("samples", [None, 20])
@pytest.mark.parametrize(("text", "expected"), WRONG.values(), ids=WRONG)
def test_the_first_wrong_line_is_named(text, expected, samples):
    assert reason(text, samples) == expected


numbers = st.integers(0, 2**70) | st.integers(0, 20)


@given(
    st.text() | st.lists(st.tuples(numbers, numbers, st.sampled_from(["h#", "q", "xx"]))), st.sampled_from([None, 9])
)
@example([(0, 2**63, "h#")], None)
@many
def test_any_text_is_a_transcript_or_has_a_reason(text, samples):
    """Without known samples too: the sound may be damaged as well."""
    if not isinstance(text, str):
        text = "".join(f"{start} {end} {phone}\n" for start, end, phone in text)

    assert re.match(r"line \d+: .|no phones$", reason(text, samples) or "no phones")
