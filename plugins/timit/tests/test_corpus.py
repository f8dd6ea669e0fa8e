"""Finding the corpus, who is in which split, the disc's counts, and digests."""

import re
from pathlib import Path

import pytest
from mimic_keras_timit import Timit, corpus
from mimic_keras_timit.speakers import CORE_TEST, DEVELOPMENT, DISC_UTTERANCES

from mimic_keras.contracts import InputError
from plugins.timit.tests import fake

VARIABLE = "MIMIC_KERAS_TIMIT"
WHAT = f"""
TIMIT is a licensed corpus of read American English (630 speakers, phones marked by hand): get it from the Linguistic
Data Consortium as LDC93S1, and set dataset.root or the environment variable {VARIABLE} to its folder, the one that
holds TRAIN and TEST or one above it. `mimic-keras run experiments/timit_demo.yaml` runs without it, on synthetic
sounds."""


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


# Where it is


@pytest.mark.parametrize("above", [0, 1, 2])
@pytest.mark.parametrize("names", ["TRAIN TEST", "train test", "Train test"])
def test_the_folder_is_found_at_and_above_it(above, names, tmp_path):
    place = tmp_path.joinpath("a", *["timit"] * above)
    for name in (*names.split(), "DOC"):
        (place / name).mkdir(parents=True)
    (tmp_path / "a" / "another").mkdir(exist_ok=True)
    (tmp_path / "a" / "readme.doc").write_text("")

    assert corpus.find(tmp_path / "a") == place


def test_the_root_comes_before_the_variable(written, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert corpus.find(written) == written

    monkeypatch.setenv(VARIABLE, str(written))
    assert corpus.find(None) == corpus.find(written.parent) == written


@pytest.mark.parametrize("given_by", ["root", "variable"])
@pytest.mark.parametrize("text", ["~/corpora", "relative"])
def test_the_users_home_and_relative_paths_are_found(given_by, text, tmp_path, monkeypatch):
    for folder in ("corpora", "relative"):
        for part in ("TRAIN", "TEST"):
            (tmp_path / folder / part).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, text if given_by == "variable" else "")

    found = corpus.find(Path(text) if given_by == "root" else None)

    assert found.resolve() == tmp_path / Path(text).name


def nothing(tmp_path):
    return None


def missing(tmp_path):
    return tmp_path / "nowhere"


def a_file(tmp_path):
    (tmp_path / "timit.tgz").write_bytes(b"")
    return tmp_path / "timit.tgz"


def another_folder(tmp_path):
    (tmp_path / "music" / "TRAIN").mkdir(parents=True)
    (tmp_path / "music" / "TEST").write_text("")
    return tmp_path / "music"


def three_levels_above(tmp_path):
    for part in ("TRAIN", "TEST"):
        (tmp_path / "1" / "2" / "3" / part).mkdir(parents=True)
    return tmp_path


NO_FOLDERS = " holds no folders TRAIN and TEST, nor do the two levels below it."


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (nothing, f"dataset.root is not set, and neither is {VARIABLE}."),
        (missing, "{given}: no such folder: {place}"),
        (a_file, "{given}: no such folder: {place}"),
        (another_folder, "{given}: {place}" + NO_FOLDERS),
        (three_levels_above, "{given}: {place}" + NO_FOLDERS),
    ],
)
@pytest.mark.parametrize("given_by", ["dataset.root", VARIABLE])
def test_without_a_corpus_it_is_said_what_it_is_and_what_runs_without_it(build, said, given_by, tmp_path, monkeypatch):
    place = build(tmp_path)
    monkeypatch.setenv(VARIABLE, str(place or "") if given_by == VARIABLE else "")
    (tmp_path / "data").mkdir()

    with pytest.raises(InputError) as caught:
        Timit(place if given_by == "dataset.root" else None).prepare(tmp_path / "data")

    assert str(caught.value) == said.format(given=given_by, place=place) + WHAT
    assert not list((tmp_path / "data").iterdir())


def test_the_experiment_that_runs_without_it_is_there():
    (named,) = re.findall(r"`mimic-keras run (\S+)`", corpus.NO_CORPUS)
    experiment = Path(__file__).parents[3] / named

    assert experiment.is_file(), f"the message names {named}"
    assert "timit_synthetic" in experiment.read_text()


def test_a_folder_without_permission_hides_nothing(written, tmp_path, monkeypatch):
    """A disc's lost+found, for one."""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "timit").symlink_to(written)
    real = Path.iterdir

    def iterdir(folder):
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)

    assert corpus.find(tmp_path) == tmp_path / "timit"


# Who is in which split


@pytest.fixture(scope="session")
def disc(tmp_path_factory):
    """As many speakers and sentences as on the disc; all say the same short ones."""
    root = tmp_path_factory.mktemp("disc")
    speaker = root / "SPEAKER"
    speaker.mkdir()
    for sentence in ("SA1", "SA2", "SI100", "SI200", "SI300", "SX1", "SX11", "SX21", "SX31", "SX401"):
        (speaker / f"{sentence}.WAV").write_bytes(fake.sphere([0, 1] * 200))
        (speaker / f"{sentence}.PHN").write_text("0 100 h#\n100 300 iy\n300 400 h#\n")
    others = [f"M{number:03d}0" for number in range(630 - 50 - 24)]
    halves = {"TRAIN": others[:462], "TEST": [*others[462:], *DEVELOPMENT, *CORE_TEST]}
    for half, names in halves.items():
        for number, name in enumerate(names):
            region = root / half / f"DR{number % 8 + 1}"
            region.mkdir(parents=True, exist_ok=True)
            (region / name).symlink_to(speaker)
    return root


def test_the_discs_counts_are_those_of_its_speakers_without_sa(disc, caplog):
    found = corpus.read(corpus.find(disc), DISC_UTTERANCES)

    assert {split: len(utterances) for split, utterances in found.items()} == {
        **{"train": 3_696, "validation": 400, "test": 192}
    }
    assert caplog.messages == []
    speakers = {split: {item.name.split("/")[0] for item in utterances} for split, utterances in found.items()}
    assert (speakers["validation"], speakers["test"]) == (DEVELOPMENT, CORE_TEST)
    assert len(speakers["train"]) == 462
    assert not [item.name for utterances in found.values() for item in utterances if "/SA" in item.name]
    for utterances in found.values():
        assert [item.name for item in utterances] == sorted(item.name for item in utterances)


def test_other_counts_are_a_warning_that_names_them(written, caplog):
    corpus.read(written, {"train": 4, "validation": 400, "test": 1})

    assert caplog.messages == [
        f"{written}: 2 utterances in 'validation'; the whole corpus has 400",
        f"{written}: 2 utterances in 'test'; the whole corpus has 1",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


# Digests

SPEAKER = "TRAIN/DR1/FSY000"


def flipped(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def relabelled(file):
    file.write_text(file.read_text().replace(" h#", " pau"))


def digest(root):
    return corpus.digest(corpus.read(root, {}))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / SPEAKER / "SX1.TXT").write_text("other words"),
        lambda root: (root / SPEAKER / "SA1.PHN").write_text("not read"),
        lambda root: (root / "TRAIN/DR1").rename(root / "TRAIN/DR5"),
        lambda root: (root / SPEAKER / "SX1.WAV").rename(root / SPEAKER / "sx1.Wav"),
        lambda root: root.rename(root.parent / "elsewhere").rename(root),
    ],
    ids=["words", "SA", "region", "case", "place"],
)
def test_the_digest_is_not_of_what_is_not_learnt(change, written, copied):
    change(copied)

    assert digest(copied) == digest(written)
    assert re.fullmatch(r"[0-9a-f]{64}", digest(copied))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / SPEAKER).rename(root / "TRAIN/DR1/FSY999"),
        lambda root: [(root / SPEAKER / name).unlink() for name in ("SX1.WAV", "SX1.PHN")],
        lambda root: flipped(root / "TEST/DR4/MBPM0/SX2.WAV", -1),
        lambda root: relabelled(root / "TEST/DR3/FADG0/SX1.PHN"),
    ],
    ids=["speaker", "fewer", "a bit of a sound", "a phone"],
)
def test_the_digest_is_of_names_sounds_and_transcripts(change, written, copied):
    change(copied)

    assert digest(copied) != digest(written)
