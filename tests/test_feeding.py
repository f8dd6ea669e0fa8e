"""Where batches come from changes neither their order nor what is learnt."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from mimic_keras.contracts import ArraySplit, MappedSplit, host_variable
from mimic_keras.training import residence
from mimic_keras.training.batches import Examples, ids_of_pass, shuffled_ids
from mimic_keras.training.feeding import Gathered, Passes, Streamed, make_feeds
from mimic_keras.training.objective import Objective
from tests.small_training import LogitL2, data, hidden, mirrored, settings, train

SEED = 3
ONE = tf.distribute.get_strategy()


def numbered(count, repeats=1, mapped=False):
    """The input of an example is its virtual id."""
    rows, of_id = np.zeros([count, 1], np.float32), lambda rows, ids: tf.cast(ids[:, None], tf.float32)
    split = MappedSplit([rows], prepare=of_id, repeats=repeats) if mapped else None
    return Examples(split or ArraySplit(rows, prepare=of_id, repeats=repeats))


def fed(feed, strategy, first, steps):
    """The ids of each replica's share in `steps` steps of a call: [step][replica] -> list of ids."""

    @tf.function(autograph=False)
    def step(given, done):
        return strategy.run(lambda part: feed.batch(part)["inputs"][:, 0], args=(feed.part(given, done),))

    given = feed.start(first)
    found = [strategy.experimental_local_results(step(given, tf.constant(done))) for done in range(steps)]
    return [[share.numpy().astype(int).tolist() for share in shares] for shares in found]


def expected(examples, batch_size, first, steps):
    batches = shuffled_ids(examples, batch_size, SEED, first).take(steps)
    return [ids.tolist() for ids in batches.as_numpy_iterator()]


def test_the_order_of_a_seed_never_changes():
    """No version is part of a key, so the order must not depend on TensorFlow's."""
    examples = numbered(8, repeats=2)
    orders = [ids_of_pass(examples, SEED, tf.constant(number, tf.int64)).numpy().tolist() for number in range(3)]
    assert orders == ORDERS


ORDERS = [[4, 3, 6, 5, 7, 2, 0, 1], [15, 11, 14, 8, 13, 12, 10, 9], [5, 7, 2, 6, 0, 1, 3, 4]]


@pytest.mark.parametrize("mapped", [False, True], ids=["gathered", "streamed"])
@pytest.mark.parametrize("first", [0, 5])
def test_a_feed_continues_the_sequence_from_any_step(mapped, first):
    """A pass is 3 steps, the last of 2 ids; a call never crosses its end."""
    examples = numbered(10, repeats=2, mapped=mapped)
    (feed,) = make_feeds([Passes(examples, 4, SEED)], ONE)
    assert isinstance(feed, Streamed if mapped else Gathered)
    steps = 3 - first % 3
    assert [shares[0] for shares in fed(feed, ONE, first, steps)] == expected(examples, 4, first, steps)
    following = fed(feed, ONE, first + steps, 2)
    assert [shares[0] for shares in following] == expected(examples, 4, first + steps, 2)


@pytest.mark.parametrize("mapped", [False, True], ids=["gathered", "streamed"])
def test_without_a_seed_every_pass_is_in_order(mapped):
    (feed,) = make_feeds([Passes(numbered(5, repeats=2, mapped=mapped), 3)], ONE)
    for _ in range(2):
        assert fed(feed, ONE, 0, 2) == [[[0, 1, 2]], [[3, 4]]]


@pytest.mark.parametrize("mapped", [False, True], ids=["gathered", "streamed"])
def test_replicas_share_every_batch_without_reading_a_row_twice(mapped):
    """21 = 16 + 5: the last batch gives four replicas 2, 2, 1 and 0."""
    examples, strategy = numbered(21, mapped=mapped), mirrored(4)
    (feed,) = make_feeds([Passes(examples, 16, SEED)], strategy)
    found = fed(feed, strategy, 0, 2)
    assert [[len(share) for share in shares] for shares in found] == [[4, 4, 4, 4], [2, 2, 1, 0]]
    assert [list(itertools.chain(*shares)) for shares in found] == expected(examples, 16, 0, 2)


def mapped_data(count=101):
    examples = data(count)
    inputs, logits = (variable.numpy() for variable in (examples.split._inputs, examples._columns["teacher_logits"]))
    return Examples(MappedSplit([inputs], examples.split.labels), logits)


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 4])
def test_streamed_and_gathered_examples_give_the_same_curve(devices):
    strategy = mirrored(devices) if devices > 1 else None
    gathered = train(hidden, data(), Objective(LogitL2()), settings(), strategy=strategy)
    streamed = train(hidden, mapped_data(), Objective(LogitL2()), settings(), strategy=strategy)
    assert set(gathered.history) == set(streamed.history)
    for metric, curve in gathered.history.items():
        np.testing.assert_allclose(streamed.history[metric], curve, rtol=1e-5, err_msg=metric)


@pytest.mark.long
def test_copies_on_devices_give_the_same_curve(monkeypatch):
    plain = train(hidden, data(), Objective(LogitL2()), settings(), strategy=mirrored(2))
    monkeypatch.setattr(residence, "gpu_memory", lambda: [1 << 30, 1 << 30])
    copied = train(hidden, data(), Objective(LogitL2()), settings(), strategy=mirrored(2))
    for metric, curve in plain.history.items():
        np.testing.assert_allclose(copied.history[metric], curve, rtol=1e-6, err_msg=metric)


ROWS = host_variable(np.arange(30, dtype=np.float32).reshape(10, 3))
BOUNDS = host_variable(np.arange(10, dtype=np.int32))


def reading_functions():
    """Two functions that read the same 10 * 3 * 4 bytes of float32, and int32, which stays."""

    def gather(ids):
        return {"inputs": tf.gather(ROWS, ids) + tf.cast(tf.gather(BOUNDS, ids), tf.float32)[:, None]}

    ids = tf.TensorSpec([None], tf.int64)
    return [tf.function(gather, autograph=False).get_concrete_function(ids) for _ in range(2)]


def test_every_device_reads_its_own_copy(monkeypatch):
    monkeypatch.setattr(residence, "gpu_memory", lambda: [1 << 30])
    strategy, given, reading = mirrored(2), [], residence._reading
    monkeypatch.setattr(residence, "_reading", lambda of, copies: given.append(copies) or reading(of, copies))
    gathers = residence.copy_to_gpus(reading_functions(), strategy)
    ((copy,), other) = (list(given[0].values()), given[1])
    assert other is given[0], "the variable of both is copied once"
    parts = strategy.experimental_local_results(copy)
    assert [part.device[-5:] for part in parts] == ["CPU:0", "CPU:1"]
    parts[1].assign(parts[1] * 100)

    @tf.function(autograph=False)
    def run(ids):
        return strategy.run(lambda ids: gathers[1](ids)["inputs"], args=(ids,))

    first, second = strategy.experimental_local_results(run(tf.constant([2, 0], tf.int64)))
    assert first.numpy().tolist() == [[8, 9, 10], [0, 1, 2]]
    assert second.numpy().tolist() == [[602, 702, 802], [0, 100, 200]]


@pytest.mark.parametrize(("memory", "fits"), [(240, True), (239, False)])
def test_half_of_the_smallest_gpu_is_the_limit(memory, fits, monkeypatch, caplog):
    caplog.set_level("INFO", "absl")
    monkeypatch.setattr(residence, "gpu_memory", lambda: [1 << 30, memory])
    assert len(residence.copy_to_gpus(reading_functions(), ONE)) == 2 * fits
    assert ("are in GPU memory" if fits else "stay in host memory") in caplog.text


def test_what_workers_cannot_send_each_other_stays_in_host_memory(monkeypatch, caplog):
    caplog.set_level("INFO", "absl")
    rows = host_variable(np.zeros([10, 3], np.uint8))
    function = tf.function(lambda ids: {"inputs": tf.gather(rows, ids)}, autograph=False)
    functions = [function.get_concrete_function(tf.TensorSpec([None], tf.int64))]
    monkeypatch.setattr(residence, "gpu_memory", lambda: [1 << 30])
    given, reading = [], residence._reading
    monkeypatch.setattr(residence, "_reading", lambda of, copies: given.append(len(copies)) or reading(of, copies))
    residence.copy_to_gpus(functions, ONE)
    monkeypatch.setattr(residence, "are_several", lambda strategy: True)
    residence.copy_to_gpus(functions, ONE)
    assert given == [1, 0]


def test_what_does_not_fit_is_streamed(monkeypatch):
    monkeypatch.setattr(residence, "gpu_memory", lambda: [8])
    assert all(isinstance(feed, Streamed) for feed in make_feeds([Passes(data(), 16, SEED), Passes(data(), 16)], ONE))
