"""Decoding against every path there is; bigram, priors and edit distances by hand and by definition."""

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_timit import decoding
from mimic_keras_timit.decoding import Bigram, Constants
from mimic_keras_timit.phones import CLASSES, NUM_STATES, PHONES, fold

INF = math.inf
transcripts = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6).map(np.array), min_size=1, max_size=5)


def phones(text):
    return np.array([PHONES.index(phone) for phone in text.split()], np.int64)


# Decoding


def random_bigram(random, count, impossible):
    def table(*shape):
        values = random.normal(size=shape) * 2 - 2
        values[random.random(shape) < impossible] = -INF
        return values

    return Bigram(table(count), table(count, count), table(count))


def weighted(logarithm, weight):
    return -INF if logarithm == -INF else weight * logarithm


def best_scores(scores, bigram, weight, penalty):
    """{phone sequence: the score of its best path}, of every sequence and every way to lay it over the frames."""
    frames, count = len(scores), len(bigram.first)
    found = {}
    for length in range(1, frames // 3 + 1):
        every_cut = list(itertools.combinations(range(1, frames), 3 * length - 1))
        for sequence in itertools.product(range(count), repeat=length):
            language = weighted(bigram.first[sequence[0]], weight) + weighted(bigram.last[sequence[-1]], weight)
            language += sum(weighted(bigram.next[pair], weight) for pair in itertools.pairwise(sequence))
            states = [3 * phone + state for phone in sequence for state in range(3)]
            acoustic = max(
                scores[np.arange(frames), np.repeat(states, np.diff([0, *cut, frames]))].astype(float).sum()
                for cut in every_cut
            )
            found[sequence] = acoustic + language + penalty * length
    return found


@settings(max_examples=120, derandomize=True)
@given(
    st.integers(2, 3),
    st.lists(st.integers(0, 7), max_size=5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from([-3.0, 0.0, 2.0]),
)
def test_decoded_phones_are_the_best_of_all(count, lengths, seed, impossible, weight, penalty):
    random = np.random.default_rng(seed)
    bigram = random_bigram(random, count, impossible)
    scores = [random.normal(size=[length, 3 * count]).astype(np.float32) for length in lengths]
    for rows in scores:
        rows[random.random(rows.shape) < impossible / 2] = -INF

    found = decoding.decode(scores, bigram, weight, penalty)

    assert len(found) == len(scores)
    for sequence, rows in zip(found, scores, strict=True):
        every = best_scores(rows, bigram, weight, penalty)
        best = max(every.values(), default=-INF)
        assert sequence.dtype == np.int64
        if best == -INF:
            assert sequence.tolist() == []
            continue
        assert every[tuple(sequence.tolist())] == pytest.approx(best, abs=1e-4)
        close = [other for other, value in every.items() if value > best - 1e-3]
        if len(close) == 1:
            assert tuple(sequence.tolist()) == close[0]


@settings(max_examples=15, derandomize=True)
@given(st.integers(9, 11), st.integers(0, 2**32 - 1), st.sampled_from([-1.0, 1.5]))
def test_three_phones_are_the_best_of_all(frames, seed, penalty):
    random = np.random.default_rng(seed)
    bigram, rows = random_bigram(random, 2, 0), random.normal(size=[frames, 6]).astype(np.float32)
    every = best_scores(rows, bigram, 1.0, penalty)

    (found,) = decoding.decode([rows], bigram, 1.0, penalty)

    assert every[tuple(found.tolist())] == pytest.approx(max(every.values()), abs=1e-4)


def peaked(states, count=NUM_STATES, height=50.0):
    """Scores [frames, count] of which each frame's state is far the best."""
    return np.eye(count, dtype=np.float32)[states] * height - height


def free(count):
    """A bigram that allows everything alike."""
    return Bigram(np.zeros(count), np.zeros([count, count]), np.zeros(count))


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([0, 1, 2], [0]),
        ([0, 0, 1, 2, 2, 3, 4, 5], [0, 1]),
        ([0, 1, 2, 0, 1, 2], [0, 0]),
        ([0, 1, 2, 2, 2, 2], [0]),
        ([6, 7, 8, 3, 4, 5, 6, 7, 7, 7, 8], [2, 1, 2]),
        ([0, 1], []),
        ([], []),
    ],
)
def test_clear_states_by_hand(states, expected):
    (found,) = decoding.decode([peaked(states, 9)], free(3), 1.0, 0.0)

    assert found.tolist() == expected


def test_no_utterances():
    assert decoding.decode([], free(2), 1.0, 0.0) == []


def test_each_utterance_is_decoded_as_if_it_were_alone():
    random = np.random.default_rng(0)
    scores = [random.normal(size=[length, 30]).astype(np.float32) for length in (3, 40, 0, 17, 40, 2, 25)]
    bigram = random_bigram(random, 10, 0.2)
    alone = [decoding.decode([rows], bigram, 1.5, -0.5)[0].tolist() for rows in scores]
    assert max(map(len, alone)) > 3

    found = decoding.decode(scores, bigram, 1.5, -0.5)

    assert [sequence.tolist() for sequence in found] == alone


def test_a_penalty_below_0_leaves_fewer_phones():
    scores = [np.random.default_rng(0).normal(size=[60, 9]).astype(np.float32)]

    lengths = [len(decoding.decode(scores, free(3), 1.0, penalty)[0]) for penalty in (500.0, 0.0, -5.0, -500.0)]

    assert lengths == sorted(lengths, reverse=True)
    assert (lengths[0], lengths[-1]) == (20, 1)


def test_the_language_model_decides_between_sounds_that_are_alike():
    rows = peaked([0, 1, 2, 3, 4, 5], 9)  # phone 1 is slightly better than
    rows[[3, 4, 5], [6, 7, 8]] = -0.2  # phone 2, which follows more often
    bigram = Bigram(np.zeros(3), np.log([[0.1, 0.1, 0.8]] * 3), np.zeros(3))

    assert [decoding.decode([rows], bigram, weight, 0.0)[0].tolist() for weight in (0.0, 1.0)] == [[0, 1], [0, 2]]


# The bigram


def test_a_bigram_by_hand():
    # Boundary 0 1 boundary, and boundary 0 0 boundary: alone, P(0) = 3/6, P(1) = 1/6, P(boundary) = 2/6.
    found = Bigram.of([np.array([0, 1]), np.array([0, 0])], 3)

    # Behind the boundary: two counts, of one kind. Behind 0: one count each of 0, 1 and the boundary. Behind 1: one.
    np.testing.assert_allclose(np.exp(found.first), [(2 + 1 / 2) / 3, (1 / 6) / 3, 0])
    np.testing.assert_allclose(np.exp(found.next[0]), [(1 + 3 / 2) / 6, (1 + 3 / 6) / 6, 0])
    np.testing.assert_allclose(np.exp(found.next[1]), [(1 / 2) / 2, (1 / 6) / 2, 0])
    np.testing.assert_allclose(np.exp(found.last), [(1 + 3 * 2 / 6) / 6, (1 + 2 / 6) / 2, 0])
    np.testing.assert_array_equal(found.next[2], [-INF] * 3)
    assert not any(np.isnan(table).any() for table in (found.first, found.next, found.last))


@settings(max_examples=100, derandomize=True)
@given(transcripts)
def test_probabilities_behind_a_phone_add_up_to_1(given_transcripts):
    found = Bigram.of(given_transcripts, 5)

    sums = np.exp(found.next).sum(1) + np.exp(found.last)
    seen = np.isin(np.arange(5), np.concatenate(given_transcripts))
    np.testing.assert_allclose(sums, seen.astype(float), atol=1e-12)
    # At the beginning an end is one more possibility: kinds * P(boundary) / (count + kinds).
    count, kinds = len(given_transcripts), len({sequence[0] for sequence in given_transcripts})
    ends = count / sum(len(sequence) + 1 for sequence in given_transcripts)
    np.testing.assert_allclose(np.exp(found.first).sum(), 1 - kinds * ends / (count + kinds), atol=1e-12)
    assert (np.isfinite(found.first) == seen).all()


# Priors


def test_priors_by_hand():
    found = decoding.log_priors(np.array([0, 2, 2, 2], np.int32), 4)

    np.testing.assert_allclose(found, [math.log(0.25), INF, math.log(0.75), INF])


def test_scaled_likelihoods_by_hand():
    priors = np.array([math.log(0.2), math.log(0.8), INF])
    logits = np.array([[math.log(3), 0, -INF], [5000, 5000 + math.log(4), -INF], [1, 1, 900]], np.float32)

    found = decoding.scaled_likelihoods(logits, priors)

    assert found.dtype == np.float32
    expected = [[math.log(0.75 / 0.2), math.log(0.25 / 0.8), -INF], [0, 0, -INF]]
    np.testing.assert_allclose(found[:2], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found[2], [-899 - math.log(0.2), -899 - math.log(0.8), -INF], rtol=1e-6)


@pytest.mark.parametrize("missing", [3, 4, 5])
def test_a_state_without_training_frames_is_never_decoded(missing):
    logits, every = np.eye(9, dtype=np.float32) * 1000, np.arange(9)
    priors = [decoding.log_priors(states, 9) for states in (every, every[every != missing])]

    scores = [decoding.scaled_likelihoods(logits, prior) for prior in priors]
    whole, lacking = decoding.decode(scores, free(3), 1.0, 0.0)

    assert whole.tolist() == [0, 1, 2]
    assert len(lacking) > 0
    assert 1 not in lacking


# Phone error rate


def distance(first, second):
    """Levenshtein 1966, by its definition."""

    @functools.cache
    def between(i, j):
        if not i or not j:
            return i + j
        same = first[i - 1] == second[j - 1]
        return min(between(i - 1, j) + 1, between(i, j - 1) + 1, between(i - 1, j - 1) + (not same))

    return between(len(first), len(second))


sequences = st.lists(st.lists(st.integers(0, len(PHONES) - 1), max_size=9).map(np.array), min_size=3, max_size=3)


@pytest.mark.parametrize(
    ("reference", "found", "expected"),
    [
        ("h# aa s h#", "h# aa s h#", 0),
        ("h# aa s h#", "", 1),
        ("h# aa s h#", "pau ao s epi", 0),  # one class each
        ("q aa q", "aa", 0),  # the glottal stop is in neither
        ("aa", "q aa q q", 0),
        ("tcl t ax m", "t ah", 2 / 4),
        ("aa", "s s s", 3),
        ("h# bcl b iy", "h# b iy q s", 2 / 4),
    ],
)
def test_phone_error_rates_by_hand(reference, found, expected):
    assert decoding.phone_error_rate([phones(reference)], [phones(found)]) == expected


def test_errors_of_all_utterances_are_divided_by_the_length_of_all():
    references, found = [phones("aa"), phones("s iy s")], [phones("s"), phones("s iy s")]

    assert decoding.phone_error_rate(references, found) == 1 / 4


def test_without_phones_there_is_no_error_rate():
    assert math.isnan(decoding.phone_error_rate([phones("q q")], [phones("aa")]))


@settings(max_examples=100, derandomize=True)
@given(sequences, sequences)
def test_the_error_rate_and_the_confusion_are_those_of_levenshteins_distance(references, found):
    folded = [
        (tuple(fold(one).tolist()), tuple(fold(two).tolist())) for one, two in zip(references, found, strict=True)
    ]
    errors, length = sum(distance(*pair) for pair in folded), sum(len(one) for one, _ in folded)

    names, counts = decoding.confusion(references, found)

    if length:
        assert decoding.phone_error_rate(references, found) == errors / length
    assert names == (*CLASSES, "(nothing)")
    assert counts.shape == (40, 40)
    assert counts.sum() - np.trace(counts) == errors
    for axis, side in ((1, 0), (0, 1)):
        spoken = np.bincount(np.array([phone for pair in folded for phone in pair[side]], int), minlength=40)
        np.testing.assert_array_equal(counts.sum(axis)[:39], spoken[:39])
    assert counts[39, 39] == 0


def test_a_confusion_by_hand():
    names, counts = decoding.confusion([phones("h# aa s h#"), phones("iy")], [phones("pau s h#"), phones("iy z")])

    found = {(names[row], names[column]): int(counts[row, column]) for row, column in np.argwhere(counts)}
    right = {("sil", "sil"): 2, ("s", "s"): 1, ("iy", "iy"): 1}
    assert found == right | {("aa", "(nothing)"): 1, ("(nothing)", "z"): 1}


def test_the_constants_with_the_lowest_error_rate_are_chosen_and_of_equal_ones_the_first():
    random = np.random.default_rng(2)
    references = [random.integers(0, 4, 6) for _ in range(4)]
    bigram = Bigram.of(references, 4)
    scores = [np.repeat(peaked((3 * path[:, None] + [0, 1, 2]).ravel(), 12, 1.5), 2, 0) for path in references]
    scores = [rows + random.normal(size=rows.shape).astype(np.float32) for rows in scores]
    grid = [Constants(*pair) for pair in itertools.product((0, 1, 2, 3, 4, 6, 8), (-12, -8, -4, -2, 0, 2, 4))]
    rates = []
    for one in grid:
        found = decoding.decode(scores, bigram, one.language_model_weight, one.insertion_penalty)
        rates.append(decoding.phone_error_rate(references, found))
    assert len(set(rates)) > 5

    assert decoding.choose(scores, references, bigram) == grid[rates.index(min(rates))]
    assert decoding.choose(scores, references, bigram) not in (grid[0], grid[-1])
