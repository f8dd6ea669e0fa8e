"""Where the batch of a step comes from: gathered in the step, on its device, or prepared ahead of it by the host.

Gathering in the step is faster, and no example is read by two devices. The host prepares what Python reads from the
disk, and what is too large for the memory of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from mimic_keras.training import residence
from mimic_keras.training.batches import Batch, Examples, ids_of_pass, ordered_batches, training_batches
from mimic_keras.training.models import OPAQUE_OPERATIONS


@dataclass(frozen=True, eq=False)
class Passes:
    """Passes over examples in batches of `batch_size`, divided among the devices, in an order drawn from `seed`; None:
    every pass has the first virtual copies, in order."""

    examples: Examples
    batch_size: int
    seed: int | None = None

    @property
    def steps(self) -> int:
        """How many batches a pass has; the last may be smaller."""
        return self.examples.steps_per_pass(self.batch_size)


class Feed(Protocol):
    """The batches of steps 0, 1, 2, ...; `steps_per_pass` of them have every example once."""

    steps_per_pass: int

    def start(self, step: int) -> Any:
        """What a graph call whose first step is `step` is given."""

    def part(self, given: Any, done: tf.Tensor) -> Any:
        """In the graph, outside the replicas: what these are given in the step after `done` steps of the call."""

    def batch(self, part: Any) -> Batch:
        """In the graph, in a replica: its share of the step's batch."""


class Gathered:
    """A feed that gathers in the step: each replica takes its share of the ids, and `gather` makes a batch of them."""

    def __init__(self, passes: Passes, gather: Callable[[tf.Tensor], Batch], strategy: tf.distribute.Strategy):
        self._passes, self._gather = passes, gather
        self.steps_per_pass, self._number = passes.steps, -1
        with strategy.scope():
            self._order = tf.Variable(passes.examples.ids, trainable=False)

    def start(self, step: int) -> tf.Tensor:
        number, place = divmod(step, self.steps_per_pass)
        if self._passes.seed is not None and number != self._number:
            with tf.device("CPU:0"):
                order = ids_of_pass(self._passes.examples, self._passes.seed, tf.constant(number, tf.int64))
            self._order.assign(order)
            self._number = number
        return tf.constant(place)

    def part(self, given: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
        return given + done

    def batch(self, part: tf.Tensor) -> Batch:
        start = part * self._passes.batch_size
        return self._gather(_own_share(self._order[start : start + self._passes.batch_size]))


def _own_share(ids: tf.Tensor) -> tf.Tensor:
    """The ids of this replica: equal shares, but the last ones may have fewer, or none."""
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return ids
    size = -(-tf.shape(ids)[0] // replica.num_replicas_in_sync)
    start = replica.replica_id_in_sync_group * size
    return ids[start : start + size]


class Streamed:
    """A feed whose batches the host prepares while earlier steps run."""

    def __init__(self, passes: Passes, strategy: tf.distribute.Strategy):
        self._passes, self._strategy, self.steps_per_pass = passes, strategy, passes.steps
        self._iterator: Iterator[Batch] | None = None

    def start(self, step: int) -> Iterator[Batch]:
        """The same iterator for all calls, since they follow each other; the first decides where it begins."""
        if self._iterator is None:
            examples, batch_size, seed = self._passes.examples, self._passes.batch_size, self._passes.seed
            if seed is None:
                batches = ordered_batches(examples, batch_size).repeat()
            else:
                batches = training_batches(examples, batch_size, seed, step)
            self._iterator = iter(self._strategy.experimental_distribute_dataset(batches))
        return self._iterator

    def part(self, given: Iterator[Batch], done: tf.Tensor) -> Batch:
        return next(given)

    def batch(self, part: Batch) -> Batch:
        return part


def make_feeds(every: Sequence[Passes], strategy: tf.distribute.Strategy) -> list[Feed]:
    """A feed for each of `every`.

    What reads in Python is streamed. The others gather in the step: on a processor from the variables in its memory, on
    GPUs from copies in theirs; if those do not fit, all are streamed.
    """
    functions = {passes: _trace(passes.examples) for passes in every}
    in_graph = [passes for passes in every if not _reads_in_python(functions[passes])]
    gathers: dict[Passes, residence.Gather] = {passes: passes.examples.batch for passes in in_graph}
    if residence.gpu_memory():
        moved = residence.copy_to_gpus([functions[passes] for passes in in_graph], strategy)
        gathers = dict(zip(in_graph, moved, strict=False))  # without any where the copies do not fit
    return [
        Gathered(passes, gathers[passes], strategy) if passes in gathers else Streamed(passes, strategy)
        for passes in every
    ]


def _trace(examples: Examples) -> Any:
    ids = tf.TensorSpec([None], tf.int64)
    return tf.function(examples.batch, autograph=False).get_concrete_function(ids)


def _reads_in_python(function: Any) -> bool:
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    return any(node.op in OPAQUE_OPERATIONS for node in nodes)
