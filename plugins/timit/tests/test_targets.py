"""Every frame's state: thirds by hand and by fractions, forced paths by trying all of them, and alignment files."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mimic_keras_timit import Timit, targets
from mimic_keras_timit.corpus import Transcript, Utterance
from mimic_keras_timit.features import num_frames

from mimic_keras.contracts import SPLITS, InputError

STATES = [0, 1, 2]


def spoken(*rows):
    """A transcript of (phone, start, end)."""
    return Transcript(*np.array(rows, np.int64).T)


def of_phones(*phones):
    """A transcript whose boundaries do not matter."""
    return spoken(*((phone, 400 * place, 400 * place + 400) for place, phone in enumerate(phones)))


# Thirds


def by_fractions(transcript, frames):
    found = []
    for middle in range(200, 200 + 160 * frames, 160):
        begun = [place for place, start in enumerate(transcript.starts.tolist()) if start <= middle]
        place = begun[-1] if begun else 0
        start, end = int(transcript.starts[place]), int(transcript.ends[place])
        third = Fraction(middle - start, end - start) * 3
        found.append(3 * int(transcript.phones[place]) + (0 if third < 1 else 1 if third < 2 else 2))
    return found


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Frames' middles: 200, 360, 520, 680, 840, 1000.
        ([(0, 0, 1200)], [0, 0, 1, 1, 2, 2]),
        ([(5, 0, 600), (60, 600, 1080), (2, 1080, 1200)], [16, 16, 17, 180, 181, 182]),
        ([(0, 0, 360), (1, 360, 600), (2, 600, 1200)], [1, 3, 5, 6, 7, 8]),
        # The middle 360 is where a second third begins; so is 680 of a last third.
        ([(0, 200, 680), (1, 680, 1200)], [0, 1, 2, 3, 3, 4]),
        ([(7, 360, 361), (8, 361, 2000)], [21, 21, 24, 24, 24, 25]),
        # Before the first phone and behind the last: theirs. Between two: the earlier one's last state.
        ([(3, 500, 600), (4, 800, 830)], [9, 9, 9, 11, 14, 14]),
    ],
)
def test_thirds_by_hand(rows, expected):
    found = targets.cut_in_thirds(spoken(*rows), 6)

    assert found.dtype == np.int32
    assert found.tolist() == expected == by_fractions(spoken(*rows), 6)


@settings(max_examples=200, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 90), st.integers(1, 700)), min_size=1, max_size=8),
    st.integers(0, 40),  # frames, which may be none
)
def test_thirds_of_any_transcript(parts, frames):
    rows, at = [], 0
    for phone, gap, length in parts:
        rows.append((phone, at + gap, at + gap + length))
        at += gap + length

    assert targets.cut_in_thirds(spoken(*rows), frames).tolist() == by_fractions(spoken(*rows), frames)


# Forced paths


def all_paths(states, frames):
    """Every way through all of `states`, each for a frame or more."""
    for cuts in itertools.combinations(range(1, frames), len(states) - 1):
        lengths = np.diff([0, *cuts, frames])
        yield np.repeat(states, lengths)


def score(path, scores):
    return sum(scores[frame, state] for frame, state in enumerate(path))


def test_the_chain_of_states():
    found = targets.list_states(of_phones(2, 0, 60, 60))

    assert found.dtype == np.int32
    assert found.tolist() == [6, 7, 8, 0, 1, 2, 180, 181, 182, 180, 181, 182]


def test_a_forced_path_by_hand():
    scores = np.full([6, 183], -9.0)
    for frame, state in enumerate([4, 3, 3, 4, 5, 3]):  # what each frame is most like; frames 0 and 5 cannot be
        scores[frame, state] = 0

    found = targets.force_align(of_phones(1), scores)

    assert found.dtype == np.int32
    assert found.tolist() == [3, 3, 3, 4, 5, 5]


@settings(max_examples=200, derandomize=True)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=3),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.05, 0.2]),
)
def test_a_forced_path_is_the_best_of_all(phones, more, seed, impossible):
    frames = 3 * len(phones) + more
    random = np.random.default_rng(seed)
    scores = random.integers(-3, 4, [frames, 183]).astype(np.float32)  # whole numbers: sums are exact, ties many
    scores[random.random(scores.shape) < impossible] = -np.inf
    possible = all_paths([3 * phone + state for phone in phones for state in STATES], frames)
    values = {tuple(path.tolist()): score(path, scores) for path in possible}
    best = max(values.values())
    assume(best > -np.inf)

    found = targets.force_align(of_phones(*phones), scores)

    assert values[tuple(found.tolist())] == best
    if list(values.values()).count(best) == 1:
        assert found.tolist() == list(max(values, key=values.get))


@pytest.mark.parametrize("impossible", [[0], [4], [5], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("frames", [6, 9])
def test_the_transcript_is_followed_where_no_path_is_possible(impossible, frames):
    # As where a state has no training frames: its likelihood is 0 wherever it stands.
    scores = np.random.default_rng(0).normal(size=[frames, 183])
    scores[:, impossible] = -np.inf

    found = targets.force_align(of_phones(0, 1), scores)

    assert found.tolist() in [path.tolist() for path in all_paths(range(6), frames)]


@pytest.mark.parametrize(("phones", "frames", "enough"), [(1, 2, False), (1, 3, True), (4, 11, False), (4, 12, True)])
def test_fewer_frames_than_states_have_no_path(phones, frames, enough):
    found = targets.force_align(of_phones(*range(phones)), np.zeros([frames, 183]))

    assert (found is not None) is enough
    if enough:
        assert found.tolist() == list(range(frames))


# Alignment files

CORPUS = {
    "train": [("A/1", (1, 2), 1360), ("A/2", (5, 5), 4000)],
    "validation": [("B/1", (0, 1, 60), 1000), ("B/2", (1,), 399)],  # of 4 frames and none: fewer than states
    "test": [("C/1", (7,), 880)],
}


@pytest.fixture
def small():
    return {
        split: [Utterance(name, None, samples, of_phones(*phones), name) for name, phones, samples in rows]
        for split, rows in CORPUS.items()
    }


def paths(corpus, seed=0):
    """A random path through each transcript; thirds where there are fewer frames than states."""
    found, random = {}, np.random.default_rng(seed)
    for utterance in itertools.chain(*corpus.values()):
        frames = num_frames(utterance.samples)
        path = targets.force_align(utterance.transcript, random.normal(size=[frames, 183]))
        found[utterance.name] = targets.cut_in_thirds(utterance.transcript, frames) if path is None else path
    return found


def test_an_alignment_is_read_as_it_was_written(small, tmp_path):
    aligned = paths(small)
    assert [len(path) for path in aligned.values()] == [7, 23, 4, 0, 4]
    targets.write(tmp_path / "a.npz", "corpus", aligned)

    found = targets.read(tmp_path / "a.npz", small, "corpus")

    assert list(found) == list(aligned)
    for name, path in aligned.items():
        assert found[name].dtype == np.int32
        assert found[name].tolist() == path.tolist()


WRONG = {
    "a state too many": ("A/1", [3, 4, 5, 6, 7, 8, 8, 8]),
    "a state missing": ("A/1", [3, 4, 4, 6, 7, 8, 8]),
    "another phone": ("A/1", [3, 4, 5, 9, 10, 11, 11]),
    "an end too early": ("A/1", [3, 4, 5, 6, 6, 7, 7]),
    "a way back": ("A/1", [3, 4, 3, 5, 6, 7, 8]),
    "other thirds": ("B/1", [0, 0, 1, 1]),
    "frames of an utterance that has none": ("B/2", [3]),
    "one of two equal phones": ("A/2", [15, 16, *[17] * 21]),
}


@pytest.mark.parametrize(("name", "path"), WRONG.values(), ids=WRONG)
def test_a_path_that_leaves_the_transcript_is_refused(small, name, path, tmp_path):
    file = tmp_path / "a.npz"
    targets.write(file, "corpus", paths(small) | {name: np.array(path)})

    with pytest.raises(InputError) as caught:
        targets.read(file, small, "corpus")

    assert str(caught.value) == (f"dataset.alignment.file: {file} does not follow the transcript of {name}; rebuild it")


def saved(**arrays):
    """A writer of a file that lacks something, or has something else."""

    def write(file, corpus):
        targets.write(file, "corpus", paths(corpus))
        with np.load(file) as stored:
            content = {**stored, **arrays}
        np.savez(file, **{name: values for name, values in content.items() if values is not None})

    return write


FILES = {
    "missing": (lambda file, _: None, "no such file; `python -m mimic_keras_timit.align RUN --out FILE` makes one"),
    "a folder": (lambda file, _: file.mkdir(), ": no such file; "),
    "empty": (lambda file, _: file.write_bytes(b""), " is not an alignment: "),
    "text": (lambda file, _: file.write_bytes(b"garbage"), " is not an alignment: "),
    "an archive's first bytes": (lambda file, _: file.write_bytes(b"PK\3\4 garbage"), " is not an alignment: "),
    "one array": (lambda file, _: np.save(file.open("wb"), np.zeros(3)), " is not an alignment: "),
    "objects": (lambda file, _: np.save(file.open("wb"), np.array([{}]), allow_pickle=True), " is not an alignment: "),
    "no digest": (saved(corpus=None), " is not an alignment: "),
    "no states": (saved(states=None), " is not an alignment: "),
    "more utterances than lengths": (saved(frames=np.array([7, 23])), " is not an alignment: "),
    "lengths that are no numbers": (saved(frames=np.array(["a"] * 5)), " is not an alignment: "),
    "another corpus": (
        lambda file, corpus: targets.write(file, "another", paths(corpus)),
        " was made from another corpus; rebuild it from a run on this one",
    ),
    "an utterance missing": (
        lambda file, corpus: targets.write(file, "corpus", {k: v for k, v in paths(corpus).items() if k != "C/1"}),
        " does not follow the transcript of C/1; rebuild it",
    ),
}


@pytest.mark.parametrize(("write", "message"), FILES.values(), ids=FILES)
def test_other_files_are_refused(small, write, message, tmp_path):
    file = tmp_path / "a.npz"
    write(file, small)

    with pytest.raises(InputError) as caught:
        targets.read(file, small, "corpus")

    assert str(caught.value).startswith(f"dataset.alignment.file: {file}")
    assert message in str(caught.value)


# In the data set


@pytest.fixture(scope="module")
def uniform(written, tmp_path_factory):
    data = Timit(written)
    data.fingerprint = data.prepare(tmp_path_factory.mktemp("uniform"))
    return data


def test_labels_are_the_alignments(uniform, written, tmp_path):
    file = tmp_path / "a.npz"
    aligned = paths(uniform.corpus)
    targets.write(file, uniform.corpus_digest, aligned)
    data = Timit(written, alignment={"file": file})

    fingerprint = data.prepare(tmp_path)

    assert fingerprint != uniform.fingerprint
    for name in SPLITS:
        utterances = data.corpus["train" if name == "transfer" else name]
        expected = np.concatenate([aligned[utterance.name] for utterance in utterances])
        assert data.split(name).labels.dtype == np.int32
        np.testing.assert_array_equal(data.split(name).labels, expected)
        assert (expected != uniform.split(name).labels).any()


def test_an_alignment_of_another_corpus_is_refused(uniform, written, tmp_path):
    file = tmp_path / "a.npz"
    targets.write(file, "0" * 64, paths(uniform.corpus))

    with pytest.raises(InputError, match=r"^dataset\.alignment\.file: .*a\.npz was made from another corpus; "):
        Timit(written, alignment={"file": file}).prepare(tmp_path)
