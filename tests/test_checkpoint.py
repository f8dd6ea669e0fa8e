"""A training that is stopped anywhere is resumed to the bits of one that is not."""

import errno
import functools
import json
import os
import signal
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mimic_keras.contracts import ArraySplit, MappedSplit
from mimic_keras.experiment.training import TrainingSection
from mimic_keras.training import checkpoint, steps, trainer
from mimic_keras.training.batches import Examples
from mimic_keras.training.checkpoint import Checkpoint
from mimic_keras.training.distribution import split_processor
from mimic_keras.training.objective import Objective

COUNT, FEATURES, CLASSES = 101, 6, 5
# A plateau of one epoch halves the rate and stops early, so that both are part of what has to be kept.
PLATEAU = {"name": "plateau_halving", "patience": 1, "cooldown": 1, "stop_after": 4, "smallest_fraction": 0.0}
SETTINGS = TrainingSection(
    epochs=8,
    batch_size=16,
    optimizer={"name": "adam", "learning_rate": 0.02},
    schedule=PLATEAU,
    restore="best",
    checkpoint_every=2,
)
SHORT = SETTINGS.model_copy(update={"epochs": 2})


class Killed(BaseException):
    pass


def examples(count=COUNT):
    random = np.random.default_rng(0)
    inputs = random.normal(size=[count, FEATURES]).astype("f4")
    return Examples(ArraySplit(inputs, (inputs @ random.normal(size=[FEATURES, CLASSES])).argmax(-1)))


def net():
    stack = [layers.Dense(16), layers.BatchNormalization(synchronized=True), layers.ReLU(), layers.Dropout(0.3)]
    return keras.Sequential([keras.Input((FEATURES,)), *stack, layers.Dense(CLASSES)])


def train(state=None, devices=1, settings=SETTINGS, examples=examples):
    strategy = tf.distribute.get_strategy()
    if devices > 1:
        parts = split_processor(4)[:devices]
        strategy = tf.distribute.MirroredStrategy(parts, cross_device_ops=tf.distribute.ReductionToOneDevice())
    return trainer.train(net, examples(), examples(40), Objective(), settings, 3, "net", strategy=strategy, state=state)


def read_state(file):
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("state.json"))


def same(one, other):
    for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.history == other.history


@pytest.fixture(scope="module")
def uninterrupted():
    """A function of the number of devices; each is trained once."""
    return functools.cache(lambda devices=1, settings=SETTINGS: train(devices=devices, settings=settings))


def killed_after(writes, monkeypatch, before_rename=False):
    """The process dies right after so many states were written, or while it writes the last of them."""
    left, write = [writes], Checkpoint._write

    def dying(self, *arguments):
        left[0] -= 1
        if left[0] == 0 and before_rename:
            self.file.with_name(f".{self.file.name}.1.tmp").write_bytes(b"half")
            raise Killed
        write(self, *arguments)
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(Checkpoint, "_write", dying)


# A pass is 7 steps and a state comes every 2, so that some lie within a pass and some at its end.
QUICK = [(1, 11, False), (2, 4, True)]
EVERY = [
    (devices, *kill) for devices in (1, 2) for kill in [(1, True), (2, False), (4, True), (11, False), (16, False)]
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("devices", "writes", "before_rename"),
    [each if each in QUICK else pytest.param(*each, marks=pytest.mark.slow) for each in EVERY],
)
def test_killed_and_continued(uninterrupted, devices, writes, before_rename, tmp_path, monkeypatch):
    killed_after(writes, monkeypatch, before_rename)
    with pytest.raises(Killed):
        train(tmp_path / "state.npz", devices)
    monkeypatch.undo()
    same(train(tmp_path / "state.npz", devices), uninterrupted(devices))


def test_killed_and_continued_with_examples_that_the_host_prepares(tmp_path, monkeypatch):
    def mapped(count=COUNT):
        split = examples(count).split
        return Examples(MappedSplit([split._inputs.numpy()], split.labels))

    killed_after(4, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "state.npz", settings=SHORT, examples=mapped)
    monkeypatch.undo()
    same(train(tmp_path / "state.npz", settings=SHORT, examples=mapped), train(settings=SHORT, examples=mapped))


@pytest.mark.long
def test_killed_after_every_state(uninterrupted, tmp_path, monkeypatch):
    for _ in range(3):
        killed_after(2, monkeypatch)
        with pytest.raises(Killed):
            train(tmp_path / "state.npz")
        monkeypatch.undo()
    same(train(tmp_path / "state.npz"), uninterrupted())


def test_a_training_that_had_ended_is_not_done_again(uninterrupted, tmp_path, monkeypatch):
    settings = SETTINGS.model_copy(update={"checkpoint_every": 1})
    train(tmp_path / "state.npz", settings=settings)
    expected = uninterrupted()  # before a step cannot be done: the first test that asks for it trains
    monkeypatch.setattr(steps.Trainer, "train_step", None)
    same(train(tmp_path / "state.npz", settings=settings), expected)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_has_the_state_written_first(uninterrupted, signal_number, tmp_path, monkeypatch):
    raised = []

    def handler(number, frame):
        raised.append(number)
        raise Killed

    before = signal.signal(signal_number, handler)
    rare = SETTINGS.model_copy(update={"checkpoint_every": 1000})
    end = Checkpoint.on_epoch_end

    def interrupted(self, epoch, logs=None):
        if epoch == 2:
            os.kill(os.getpid(), signal_number)
        end(self, epoch, logs)

    monkeypatch.setattr(Checkpoint, "on_epoch_end", interrupted)
    try:
        with pytest.raises(Killed):
            train(tmp_path / "state.npz", settings=rare)
        assert signal.getsignal(signal_number) is handler
    finally:
        signal.signal(signal_number, before)
    assert raised == [signal_number]
    monkeypatch.undo()
    state = read_state(tmp_path / "state.npz")
    assert (state["epoch"], state["step"]) == (3, 21)
    same(train(tmp_path / "state.npz", settings=rare), uninterrupted())


def damaged(content):
    return {
        "empty": b"",
        "cut off": content[: len(content) // 2],
        "a bit flipped": content[:3000] + bytes([content[3000] ^ 1]) + content[3001:],
        "no zip file": b"state" * 100,
    }


@pytest.mark.long
@pytest.mark.parametrize("damage", ["empty", "cut off", "a bit flipped", "no zip file"])
def test_a_damaged_state_is_not_used(uninterrupted, damage, tmp_path, monkeypatch, caplog):
    file = tmp_path / "state.npz"
    killed_after(4, monkeypatch)
    with pytest.raises(Killed):
        train(file, settings=SHORT)
    monkeypatch.undo()
    file.write_bytes(damaged(file.read_bytes())[damage])
    same(train(file, settings=SHORT), uninterrupted(settings=SHORT))
    assert "state.npz is damaged" in caplog.text
    assert "training starts from the beginning" in caplog.text


def write_state(file, *variables):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("state.json", json.dumps({"epoch": 1, "step": 2, "callbacks": []}))
        for place, array in enumerate(variables):
            with archive.open(f"variables_{place:05d}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array)


def test_a_state_that_cannot_be_opened_ends_the_training_and_stays(tmp_path):
    file = tmp_path / "state.npz"
    file.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        Checkpoint(file, [], None).restore(SimpleNamespace())
    assert caught.value.filename == str(file)
    assert file.exists()


@pytest.mark.parametrize("after", range(12))
def test_m11_a_state_that_cannot_be_read_ends_the_training_and_stays(after, tmp_path, monkeypatch):
    """Whichever read of the file fails: of its directory, of the check, or of what is taken from it."""
    file, weights, left = tmp_path / "state.npz", np.arange(20_000, dtype=np.float32), [after]
    write_state(file, weights, weights)
    content, real = file.read_bytes(), checkpoint._Source._noting

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def limited(self, read, *arguments):
        left[0] -= 1
        return real(self, read if left[0] >= 0 else fail, *arguments)

    monkeypatch.setattr(checkpoint._Source, "_noting", limited)
    trainer = SimpleNamespace(state_variables=[tf.Variable(0 * weights) for _ in range(2)])
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        Checkpoint(file, [], None).restore(trainer)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(file))
    assert file.read_bytes() == content


def test_whatever_bit_is_flipped_a_state_is_used_as_it_was_or_not_at_all(tmp_path):
    file, weights = tmp_path / "state.npz", np.array([1.0, 2.0], np.float32)
    write_state(file, weights)
    content, used = file.read_bytes(), 0
    for place in range(len(content)):
        for bit in (1, 8):
            file.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            variable = tf.Variable([0.0, 0.0])
            epoch = Checkpoint(file, [], None).restore(SimpleNamespace(state_variables=[variable]))
            assert file.exists() == (epoch == 1)
            np.testing.assert_array_equal(variable, weights * epoch)
            used += epoch
    assert 0 < used < len(content), "the time of an entry, for one, does not matter"


def test_a_state_of_another_net_is_not_used(tmp_path, monkeypatch, caplog):
    file = tmp_path / "state.npz"
    train(file, settings=SETTINGS.model_copy(update={"epochs": 1, "checkpoint_every": 1}))
    monkeypatch.setitem(globals(), "net", lambda: keras.Sequential([keras.Input((FEATURES,)), layers.Dense(CLASSES)]))
    train(file, settings=SETTINGS.model_copy(update={"epochs": 1}))
    assert "its variables do not fit the net" in caplog.text


def test_a_diverging_training_keeps_its_last_good_state(tmp_path):
    def diverge(rate, epochs):
        optimizer = {"name": "sgd", "learning_rate": rate}
        settings = TrainingSection(
            epochs=epochs, batch_size=16, optimizer=optimizer, checkpoint_every=1, schedule={"name": "constant"}
        )
        train(tmp_path / "state.npz", settings=settings)

    with pytest.raises(
        steps.TrainingDiverged, match=r"the (validation )?loss became (nan|inf) at step \d+, learning rate 1e\+30"
    ):
        diverge(1e30, 8)
    assert read_state(tmp_path / "state.npz")["step"] >= 1
    with zipfile.ZipFile(tmp_path / "state.npz") as archive:
        variables = checkpoint._read_arrays(archive, "variables")
    assert len(variables) > 6
    assert all(np.isfinite(array).all() for array in variables)


def test_how_often_a_state_is_written_is_no_part_of_a_key():
    assert "checkpoint_every" not in SETTINGS.key_inputs()
    assert SETTINGS.key_inputs() == SETTINGS.model_copy(update={"checkpoint_every": None}).key_inputs()


def test_another_number_of_devices_resumes_to_the_same_curve(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "net", lambda: keras.Sequential([keras.Input((FEATURES,)), layers.Dense(CLASSES)]))
    killed_after(2, monkeypatch)  # within a pass
    with pytest.raises(Killed):
        train(tmp_path / "state.npz", devices=2, settings=SHORT)
    monkeypatch.setattr(Checkpoint, "_write", lambda *_: None)
    resumed, whole = train(tmp_path / "state.npz", settings=SHORT), train(settings=SHORT)
    for metric, curve in whole.history.items():
        np.testing.assert_allclose(resumed.history[metric], curve, rtol=1e-5, err_msg=metric)
