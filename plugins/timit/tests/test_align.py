"""`python -m mimic_keras_timit.align` on a run written here, whose teacher is sure of a path that is known."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mimic_keras_timit import SyntheticTimit, Timit, align, targets
from mimic_keras_timit.features import num_frames
from ruamel.yaml import YAML

from plugins.timit.tests import fake

LENGTH = 1600  # samples of a phone: ten frames, so that every state has training frames
SHORT = "MDAB0/SX2"
SPOKEN = {
    "TRAIN/DR1/FAAA0/SX1": "h# aa s h#",
    "TRAIN/DR2/MBBB0/SX1": "h# s aa aa s h#",
    "TEST/DR1/FAKS0/SX1": "h# aa aa h#",
    "TEST/DR1/MDAB0/SX1": "h# s h#",
    "TEST/DR1/MDAB0/SX2": "h# aa h#",  # of 8 frames: one too few for nine states
}
SPLITS = {"transfer": "train", "validation": "validation", "test": "test"}


def write_corpus(root):
    for number, (place, sentence) in enumerate(SPOKEN.items()):
        length = 520 if place.endswith(SHORT) else LENGTH
        phones = sentence.split()
        sound = np.random.default_rng(number).integers(-999, 999, length * len(phones))
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{place}.WAV").write_bytes(fake.sphere(sound.tolist()))
        rows = [f"{at * length} {at * length + length} {phone}\n" for at, phone in enumerate(phones)]
        (root / f"{place}.PHN").write_text("".join(rows))
    return root


@pytest.fixture(scope="module")
def timit(tmp_path_factory):
    data = Timit(write_corpus(tmp_path_factory.mktemp("corpus") / "TIMIT"))
    data.home = tmp_path_factory.mktemp("home")
    data.prepare(data.home)
    return data


def test_training_frames_are_grouped_by_speaker(timit):
    assert timit.info.groups == ("speaker",)
    frames = [num_frames(LENGTH * len(SPOKEN[place].split())) for place in list(SPOKEN)[:2]]
    assert timit.groups("speaker").tolist() == np.repeat([0, 1], frames).tolist()
    with pytest.raises(ValueError, match="no groups 'age'"):
        timit.groups("age")


def paths(data, seed):
    """{utterance: a random way through its states}, thirds where there are too few frames."""
    found, random = {}, np.random.default_rng(seed)
    for utterance in (utterance for utterances in data.corpus.values() for utterance in utterances):
        states, frames = targets.list_states(utterance.transcript), num_frames(utterance.samples)
        if frames < len(states):
            found[utterance.name] = targets.cut_in_thirds(utterance.transcript, frames)
        else:
            cuts = np.sort(random.choice(np.arange(1, frames), len(states) - 1, replace=False))
            found[utterance.name] = np.repeat(states, np.diff([0, *cuts, frames]))
    return found


def labels(data, found, split):
    return np.concatenate([found[utterance.name] for utterance in data.corpus[SPLITS[split]]])


def sure(data, found, strength):
    """{split: logits} of a net that is sure of `found`."""
    return {split: np.eye(183, dtype=np.float32)[labels(data, found, split)] * strength for split in SPLITS}


def write_run(folder, dataset, home, *members):
    """The folder of a run whose teacher's members are (weight, {split: logits}); three shards each."""
    run = folder / "runs" / "mine"
    run.mkdir(parents=True)
    with (run / "experiment.yaml").open("w") as stream:
        YAML(typ="safe", pure=True).dump({"name": "mine", "dataset": dataset}, stream)
    artifacts = {"dataset": {"folder": str(home)}, "student": {"model": "nowhere"}}
    for number, (weight, logits) in enumerate(members):
        artifacts[f"teacher/{number}"] = {"weight": weight, "logits": {}}
        for split, values in logits.items():
            place = folder / f"{number}-{split}"
            place.mkdir()
            for shard, part in enumerate(np.array_split(values, 3)):
                np.save(place / f"{shard:05d}.{hashlib.sha256(part.data).hexdigest()[:16]}.npy", part)
            artifacts[f"teacher/{number}"]["logits"][split] = str(place)
    (run / "artifacts.json").write_text(json.dumps(artifacts))
    return run


@pytest.fixture
def run(timit, tmp_path):
    """A function that writes a run on the corpus with such members."""

    def written(*members, **arguments):
        return write_run(tmp_path, {"name": "timit", "root": str(timit.root), **arguments}, timit.home, *members)

    return written


def aligned(timit, run, folder):
    """What the command writes, read as the data set reads it: {split: labels}."""
    file = folder / "new.npz"
    assert align.main([str(run), "--out", str(file)]) == 0
    data = Timit(timit.root, alignment={"file": file})
    data.prepare(timit.home)
    return {split: data.split(split).labels for split in SPLITS}


def assert_same(timit, found, expected):
    for split, values in found.items():
        np.testing.assert_array_equal(values, labels(timit, expected, split), err_msg=split)


def test_every_frame_gets_the_state_that_the_teacher_is_sure_of(timit, run, tmp_path, capsys):
    expected = paths(timit, 1)
    assert (labels(timit, expected, "transfer") != timit.split("train").labels).any()

    found = aligned(timit, run((1.0, sure(timit, expected, 60))), tmp_path)

    assert_same(timit, found, expected)
    frames = sum(len(path) for path in expected.values())
    assert capsys.readouterr().out == (
        f"{tmp_path / 'new.npz'}: 5 utterances, {frames} frames aligned\n"
        f"with fewer frames than states, still cut into thirds: {SHORT}\n"
    )


@pytest.mark.parametrize(("weights", "winner"), [((3, 1), 0), ((1, 3), 1), ((0.2, 0.8), 1)])
def test_members_count_by_their_weights(timit, run, weights, winner, tmp_path):
    both = paths(timit, 1), paths(timit, 2)
    members = [(weight, sure(timit, found, 60)) for weight, found in zip(weights, both, strict=True)]

    assert_same(timit, aligned(timit, run(*members), tmp_path), both[winner])


def test_logits_are_averaged_and_not_votes(timit, run, tmp_path):
    # 0.9 * 100 beats 0.1 * 600, which wins where both count alike.
    both = paths(timit, 1), paths(timit, 2)

    found = aligned(timit, run((9, sure(timit, both[0], 100)), (1, sure(timit, both[1], 600))), tmp_path)

    assert_same(timit, found, both[0])


def test_likelihoods_are_scaled_by_the_priors_of_the_runs_targets(timit, run, tmp_path):
    # Where the logits say nothing, rare states are likely: one frame each for all but the rarest state of the path.
    first = paths(timit, 1)
    targets.write(tmp_path / "first.npz", timit.corpus_digest, first)
    nothing = {split: values * 0 for split, values in sure(timit, first, 1).items()}

    found = aligned(timit, run((1, nothing), alignment={"file": str(tmp_path / "first.npz")}), tmp_path)

    counts = np.bincount(labels(timit, first, "transfer"), minlength=183)
    (utterance,) = timit.corpus["validation"]
    states = targets.list_states(utterance.transcript)
    rarest = counts[states].min()
    spent = np.bincount(found["validation"], minlength=183)
    chained = np.bincount(states, minlength=183)
    common = chained * (counts > rarest)
    np.testing.assert_array_equal(spent[common > 0], common[common > 0])


def test_a_run_on_synthetic_sounds_is_aligned_too(tmp_path):
    # Few speakers: some states of the test sentences have no training frame.
    data = SyntheticTimit(2, 2, 2, seed=1)
    data.prepare(tmp_path)
    missing = np.bincount(data.split("train").labels, minlength=183) == 0
    references = [targets.list_states(item.transcript) for item in data.corpus["validation"] + data.corpus["test"]]
    assert missing[np.concatenate(references)].any()
    random = np.random.default_rng(0)
    logits = {split: random.normal(size=[data.split(split).num_examples, 183]).astype(np.float32) for split in SPLITS}
    section = {"name": "timit_synthetic", "training_speakers": 2, "test_speakers": 2, "utterances": 2, "seed": 1}
    run = write_run(tmp_path, section, tmp_path, (1.0, logits))

    assert align.main([str(run), "--out", str(tmp_path / "a.npz")]) == 0

    assert len(targets.read(tmp_path / "a.npz", data.corpus, data.corpus_digest)) == 8


# Repeated until little changes


@pytest.fixture
def repetitions(timit, tmp_path, monkeypatch):
    """The commands that repeat the run; the teacher of the one that is number n is sure of the n-th of `found`."""

    def repeat_with(*found):
        commands = []

        def run(command, check):
            commands.append(command)
            settings = dict(part.split("=", 1) for part in command if "=" in part)
            runs = Path(command[command.index("--runs_dir") + 1])
            folder = tmp_path / settings["name"]
            folder.mkdir()
            section = {
                "name": "timit",
                "root": str(timit.root),
                "alignment": YAML(typ="safe").load(settings["dataset.alignment"]),
            }
            logits = sure(timit, found[len(commands) - 1], 60)
            made = write_run(folder, section, timit.home, (1.0, logits))
            shutil.move(made, runs / settings["name"])
            return subprocess.CompletedProcess(command, 0)

        monkeypatch.setattr(align.subprocess, "run", run)
        return commands

    return repeat_with


def test_it_is_repeated_until_few_frames_change(timit, run, repetitions, tmp_path, capsys):
    one, two = paths(timit, 1), paths(timit, 2)
    made, commands = run((1, sure(timit, one, 60))), repetitions(two, two)
    out = tmp_path / "new.npz"

    assert align.main([str(made), "--out", str(out), "--until", "0.01"]) == 0

    frames = sum(map(len, one.values()))
    changed = sum(int((one[name] != two[name]).sum()) for name in one)
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"round 1: {changed} of {frames} frames changed ({changed / frames:.2%})",
        f"round 2: 0 of {frames} frames changed (0.00%)",
        f"{out}: 5 utterances, {frames} frames aligned",
    ]
    assert [command[command.index("run") + 1] for command in commands] == [str(made / "experiment.yaml")] * 2
    assert f'dataset.alignment={{file: "{tmp_path}/new.2.npz"}}' in commands[1]
    assert commands[1][-4:] == ["--home", str(timit.home.parents[1]), "--runs_dir", str(made.parent)]
    for file, expected in (("new.1.npz", one), ("new.2.npz", two), ("new.npz", two)):
        found = targets.read(tmp_path / file, timit.corpus, timit.corpus_digest)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_what_does_not_converge_is_said(timit, run, repetitions, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(align, "MOST_ROUNDS", 2)
    one, two = paths(timit, 1), paths(timit, 2)
    made = run((1, sure(timit, one, 60)))
    repetitions(two, one)

    assert align.main([str(made), "--out", str(tmp_path / "new.npz"), "--until", "0"]) == 2

    assert "--until 0: not reached in 2 rounds; the last targets are in" in capsys.readouterr().err
    assert not (tmp_path / "new.npz").exists()


def test_a_run_that_cannot_be_repeated_is_said(timit, run, tmp_path, monkeypatch, capsys):
    made = run((1, sure(timit, paths(timit, 1), 60)))
    monkeypatch.setattr(align.subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 1))

    assert align.main([str(made), "--out", str(tmp_path / "new.npz"), "--until", "0.1"]) == 2

    assert f"{made}: it cannot be repeated on {tmp_path}/new.1.npz, for the reason above" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["-0.1", "1", "nan"])
def test_until_is_a_share(share, tmp_path, capsys):
    assert align.main(["runs/mine", "--out", str(tmp_path / "new.npz"), "--until", share]) == 2
    assert f"--until: expected a share from 0 to 1, as 0.01, got {float(share):g}" in capsys.readouterr().err


# What goes wrong


def without(name):
    return lambda run: (run / name).unlink()


def replaced(name, old, new):
    def change(run):
        content = (run / name).read_text()
        assert old in content
        (run / name).write_text(content.replace(old, new))

    return change


def logits_of_another_corpus(run):
    for file in (run.parents[1] / "0-validation").glob("00002.*"):
        np.save(file, np.load(file)[:-1])


WRONG = {
    "no such folder": (shutil.rmtree, "no such file: {run}/artifacts.json; RUN is the folder of a finished run, runs/"),
    "not finished": (without("artifacts.json"), "no such file: {run}/artifacts.json; RUN is the folder of a finished"),
    "no experiment": (without("experiment.yaml"), "{run}/experiment.yaml"),
    "damaged": (lambda run: (run / "artifacts.json").write_text('{"data'), "{run}/artifacts.json"),
    "another data set": (
        replaced("experiment.yaml", "name: timit", "name: cifar10"),
        "{run}: its data set is 'cifar10', expected timit or timit_synthetic",
    ),
    "no teacher": (
        replaced("artifacts.json", "teacher/0", "baseline"),
        "{run}: the experiment has no teacher, whose logits are needed",
    ),
    "no corpus": (replaced("experiment.yaml", "TIMIT", "NOWHERE"), "dataset.root: no such folder: "),
    "no home": (replaced("artifacts.json", '"folder": "', '"folder": "/nowhere'), "nowhere"),
    "no logits": (lambda run: shutil.rmtree(run.parents[1] / "0-test"), "{run.parents[1]}/0-test"),
    "logits of other frames": (logits_of_another_corpus, "{run.parents[1]}/0-validation"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(timit, run, change, message, tmp_path, capsys):
    made = run((1, sure(timit, paths(timit, 1), 60)))
    change(made)

    code = align.main([str(made), "--out", str(tmp_path / "new.npz")])

    error = capsys.readouterr().err
    assert code == 2
    assert "error: " in error
    assert message.format(run=made) in error
    assert not (tmp_path / "new.npz").exists()


def test_a_folder_that_is_not_there_is_no_place_for_the_alignment(timit, run, tmp_path, capsys):
    made = run((1, sure(timit, paths(timit, 1), 60)))

    assert align.main([str(made), "--out", str(tmp_path / "nowhere" / "new.npz")]) == 2

    assert "nowhere" in capsys.readouterr().err


def test_out_has_to_be_given(capsys):
    with pytest.raises(SystemExit) as caught:
        align.main(["runs/mine"])

    assert caught.value.code == 2
    assert "--out" in capsys.readouterr().err


def test_the_command_ends_with_the_code_and_says_why(tmp_path):
    command = [sys.executable, "-m", "mimic_keras_timit.align", "nowhere", "--out", str(tmp_path / "new.npz")]

    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)

    assert ended.returncode == 2
    assert "error: no such file: nowhere/artifacts.json; RUN is the folder of a finished run" in ended.stderr
