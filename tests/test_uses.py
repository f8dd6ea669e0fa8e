"""With a `transfer` section, nets learn the labels from other virtual copies than those that the teacher labels."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from mimic_keras import runner
from mimic_keras.training import trainer
from tests.tiny import command, counts, run, tiny, write

ORIGINALS = 1097
APART = tiny(dataset={"name": "digits", "copies": 2}, transfer={"copies": 3})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, metrics, {net: the split that it learnt from}) of a run."""
    seen, train = {}, trainer.train

    def watched(build, examples, validation, objective, settings, seed, name, **more):
        seen[name] = examples.split
        return train(build, examples, validation, objective, settings, seed, name, **more)

    folder = tmp_path_factory.mktemp("apart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.trainer, "train", watched)
        return folder, run(folder, APART), seen


@pytest.mark.long
def test_every_net_learns_from_copies_of_its_own(finished):
    _, _, seen = finished
    assert {name: split.repeats for name, split in seen.items()} == {
        "teacher/0": 2,
        "teacher/1": 2,
        "baseline": 2,
        "student": 3,
    }
    ids = tf.range(2 * ORIGINALS, dtype=tf.int64)
    learnt = {name: np.array(split.batch(ids)) for name, split in seen.items()}
    for one, other in itertools.combinations(learnt, 2):
        assert np.array_equal(learnt[one][:ORIGINALS], learnt[other][:ORIGINALS]), "copy 0 is the image itself"
        differ = (learnt[one][ORIGINALS:] != learnt[other][ORIGINALS:]).any((1, 2, 3)).mean()
        assert differ == pytest.approx(8 / 9, abs=0.05), f"{one}, {other}: one of nine shifts is the same"


@pytest.mark.long
def test_it_is_found_again(finished):
    folder, metrics, _ = finished
    assert counts(metrics) == {"teachers": (2, 0), "logits": (6, 0), "student": (2, 0), "export": (1, 0)}
    resolved = (folder / "runs" / "tiny" / "experiment.yaml").read_text()
    assert "transfer: {copies: 3}" in resolved
    assert counts(run(folder, resolved))["logits"] == (0, 6)


@pytest.mark.long
def test_another_transfer_set_trains_no_teacher_and_no_baseline(finished):
    changed = {**APART, "transfer": {"copies": 3, "shift": 2}}
    made = counts(run(finished[0], changed, "--set", "export.minimum_agreement=0"))
    assert made["teachers"] == (0, 2)
    assert made["student"] == (1, 1)


def test_what_nets_are_judged_by_may_not_change(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=np.zeros([8, 2], np.float32), y=np.arange(8) % 2)
    np.savez(tmp_path / "b.npz", x=np.ones([8, 2], np.float32), y=np.arange(8) % 2)
    one, other = str(tmp_path / "a.npz"), str(tmp_path / "b.npz")
    changed = tiny(dataset={"name": "arrays", "train": one, "validation": one, "test": one}, transfer={"test": other})
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs")
    assert command("run", write(tmp_path, changed), *places) == 2
    expected = "transfer: it changes the examples of 'test'; they must be those of `dataset`"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "home" / "teachers").exists()
