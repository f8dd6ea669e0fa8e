"""Phones, states, classes and speakers, against the published lists."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_timit import phones, speakers
from mimic_keras_timit.phones import CLASSES, FOLDED, NUM_STATES, PHONES, STATE_NAMES

# phoncode.doc of the corpus, in its order: stops and closures, affricates, fricatives, nasals, semivowels and glides,
# vowels, others.
DISC = """
b d g p t k dx q bcl dcl gcl pcl tcl kcl jh ch s sh z zh f th v dh m n ng em en eng nx l r w y hh hv el
iy ih eh ey ae aa aw ay ah ao oy ow uh uw ux er ax ix axr ax-h pau epi h#
""".split()
# Lee & Hon 1989, Table 2, as phones.60-48-39.map of Kaldi's TIMIT recipe has it: every phone and its class.
FOLDING = """
aa aa, ae ae, ah ah, ao aa, aw aw, ax ah, ax-h ah, axr er, ay ay, b b, bcl sil, ch ch, d d, dcl sil, dh dh, dx dx,
eh eh, el l, em m, en n, eng ng, epi sil, er er, ey ey, f f, g g, gcl sil, h# sil, hh hh, hv hh, ih ih, ix ih, iy iy,
jh jh, k k, kcl sil, l l, m m, n n, ng ng, nx n, ow ow, oy oy, p p, pau sil, pcl sil, r r, s s, sh sh, t t, tcl sil,
th th, uh uh, uw uw, ux uw, v v, w w, y y, z z, zh sh
"""
CLASS_OF = dict(pair.split() for pair in FOLDING.replace("\n", " ").split(","))
# testset.doc of the corpus, Table 2.
CORE = {
    "DR1": "MDAB0 MWBT0 FELC0",
    "DR2": "MTAS1 MWEW0 FPAS0",
    "DR3": "MJMP0 MLNT0 FPKT0",
    "DR4": "MLLL0 MTLS0 FJLM0",
    "DR5": "MBPM0 MKLT0 FNLP0",
    "DR6": "MCMJ0 MJDH0 FMGD0",
    "DR7": "MGRT0 MNJM0 FDHC0",
    "DR8": "MJLN0 MPAM0 FMLD0",
}
places = st.lists(st.integers(0, 60), max_size=30)


def folded(names):
    return [CLASSES[place] for place in phones.fold(np.array([PHONES.index(name) for name in names], np.int64))]


def test_the_phones_are_those_of_the_disc():
    assert len(DISC) == 61
    assert sorted(PHONES) == sorted(DISC)
    assert list(PHONES) == sorted(PHONES), "their order is part of every saved model"


def test_each_phone_has_three_states_in_a_row():
    assert (phones.STATES, NUM_STATES, len(STATE_NAMES)) == (3, 183, 183)
    assert list(STATE_NAMES) == [f"{phone}/{state}" for phone in sorted(DISC) for state in (0, 1, 2)]


def test_the_39_classes_are_those_of_lee_and_hon():
    assert len(CLASS_OF) == 60
    assert len(CLASSES) == 39
    assert list(CLASSES) == sorted(set(CLASS_OF.values()))


@pytest.mark.parametrize("phone", DISC)
def test_a_phone_folds_as_in_the_table(phone):
    assert folded([phone]) == ([CLASS_OF[phone]] if phone != "q" else [])


def test_only_the_glottal_stop_has_no_class():
    assert FOLDED.shape == (61,)
    assert [phone for phone, place in zip(PHONES, FOLDED, strict=True) if place < 0] == ["q"]
    assert sorted(set(FOLDED.tolist())) == list(range(-1, 39))


@given(places, places)
@settings(max_examples=50, derandomize=True)
def test_folding_keeps_the_order_and_merges_nothing(first, second):
    names = [PHONES[place] for place in first + second]

    assert folded(names) == [CLASS_OF[name] for name in names if name != "q"]
    assert folded(names) == folded(names[: len(first)]) + folded(names[len(first) :])


def test_the_core_test_set_is_two_men_and_a_woman_of_each_region():
    regions = [names.split() for names in CORE.values()]

    assert {name for names in regions for name in names} == speakers.CORE_TEST
    assert len(speakers.CORE_TEST) == 24
    assert [sorted(name[0] for name in names) for names in regions] == [["F", "M", "M"]] * 8


def test_the_development_set_is_the_published_one():
    """dev_spk.list of Kaldi's TIMIT recipe, sorted."""
    lines = "".join(f"{name.lower()}\n" for name in sorted(speakers.DEVELOPMENT))

    assert (
        hashlib.sha256(lines.encode()).hexdigest() == "890d5b092d86561f9e79742b85f593ed818f389e984ae469c01e373e4c25ae53"
    )
    assert len(speakers.DEVELOPMENT) == 50


def test_nobody_is_in_two_splits():
    assert not speakers.DEVELOPMENT & speakers.CORE_TEST


def test_the_disc_has_eight_sentences_of_each_speaker_without_sa():
    assert speakers.DISC_UTTERANCES == {"train": 462 * 8, "validation": 50 * 8, "test": 24 * 8}
