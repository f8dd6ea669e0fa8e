"""Where the batch of a step comes from: gathered in the step, on its device, or prepared ahead of it by the host.

Gathering in the step is faster, and no example is read by two devices. The host prepares what Python reads from the
disk, and what is too large for the memory of a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import tensorflow as tf

from mimic_keras.training.batches import Batch, Examples, ids_of_pass, ordered_batches, training_batches
from mimic_keras.training.models import OPAQUE_OPERATIONS


class Feed(Protocol):
    """The batches of steps 0, 1, 2, ...; `steps_per_pass` of them have every example once."""

    steps_per_pass: int

    def start(self, step: int) -> Any:
        """What a graph call whose first step is `step` is given."""

    def part(self, given: Any, done: tf.Tensor) -> Any:
        """In the graph, outside the replicas: what the replicas are given in the step after `done` steps of the call."""

    def batch(self, part: Any) -> Batch:
        """In the graph, in a replica: its share of the step's batch."""


class Gathered:
    """A feed that gathers in the step. Each replica takes its share of the step's ids, then the rows of these.

    Args:
        examples: what is gathered.
        batch_size: over all replicas.
        seed: of the order; None: every pass has the first virtual copies, in order.
        strategy: the devices.
    """

    def __init__(self, examples: Examples, batch_size: int, seed: int | None, strategy: tf.distribute.Strategy):
        self._examples, self._batch_size, self._seed = examples, batch_size, seed
        self.steps_per_pass, self._pass = examples.steps_per_pass(batch_size), -1
        with strategy.scope():
            self._order = tf.Variable(examples.ids, trainable=False)

    def start(self, step: int) -> tf.Tensor:
        number, place = divmod(step, self.steps_per_pass)
        if self._seed is not None and number != self._pass:
            with tf.device("CPU:0"):
                self._order.assign(ids_of_pass(self._examples, self._seed, tf.constant(number, tf.int64)))
            self._pass = number
        return tf.constant(place)

    def part(self, given: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
        return given + done

    def batch(self, part: tf.Tensor) -> Batch:
        start = part * self._batch_size
        return self._examples.batch(_own_share(self._order[start : start + self._batch_size]))


def _own_share(ids: tf.Tensor) -> tf.Tensor:
    """The ids of this replica: equal shares, but the last ones may have fewer, or none."""
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return ids
    size = -(-tf.shape(ids)[0] // replica.num_replicas_in_sync)
    start = replica.replica_id_in_sync_group * size
    return ids[start : start + size]


class Streamed:
    """A feed whose batches the host prepares while earlier steps run; arguments as for `Gathered`."""

    def __init__(self, examples: Examples, batch_size: int, seed: int | None, strategy: tf.distribute.Strategy):
        self._examples, self._batch_size, self._seed, self._strategy = examples, batch_size, seed, strategy
        self.steps_per_pass = examples.steps_per_pass(batch_size)
        self._iterator: Iterator[Batch] | None = None

    def start(self, step: int) -> Iterator[Batch]:
        """The same iterator for all calls: they follow each other."""
        if self._iterator is None:
            if self._seed is None:
                batches = ordered_batches(self._examples, self._batch_size).repeat()
            else:
                batches = training_batches(self._examples, self._batch_size, self._seed, step)
            self._iterator = iter(self._strategy.experimental_distribute_dataset(batches))
        return self._iterator

    def part(self, given: Iterator[Batch], done: tf.Tensor) -> Batch:
        return next(given)

    def batch(self, part: Batch) -> Batch:
        return part


def make_feed(examples: Examples, batch_size: int, seed: int | None, strategy: tf.distribute.Strategy) -> Feed:
    kind = Streamed if _reads_in_python(examples) else Gathered
    return kind(examples, batch_size, seed, strategy)


def _reads_in_python(examples: Examples) -> bool:
    function = tf.function(examples.batch, autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec([None], tf.int64)).graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    return any(node.op in OPAQUE_OPERATIONS for node in nodes)
