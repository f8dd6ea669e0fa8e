"""(seed, step) -> example ids -> batch: the order of the examples is computed, so it never has to be saved.

A pass has every original once, in an order drawn from (seed, number of the pass); pass r takes virtual copy r modulo
`repeats`.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from mimic_keras.contracts import Split, host_variable
from mimic_keras.training.private_api import parallel_map_calls

# {"inputs": float32 [B, *input_shape], "labels": int32 [B], -1 where unknown}, and "teacher_logits": float32
# [B, num_classes] where there is a teacher.
Batch = dict[str, tf.Tensor]


class Examples:
    """A split joined by id with the teacher's logits.

    Args:
        split: the inputs and labels; labels by original or, as those of a `MixedSplit`, by virtual id.
        teacher_logits: float32 [num_examples * repeats, num_classes], by virtual id, as an array or a variable in host
            memory; None if there is no teacher.
        ids: originals to use (int64), each once a pass; None for all.

    Example:
        >>> examples = Examples(ArraySplit(np.zeros([10, 4]), np.zeros([10])), np.zeros([10, 3], np.float32))
        >>> sorted(examples.batch(tf.constant([1, 1], tf.int64)))
        ['inputs', 'labels', 'teacher_logits']
    """

    def __init__(
        self, split: Split, teacher_logits: np.ndarray | tf.Variable | None = None, ids: np.ndarray | None = None
    ):
        self.split = split
        self.ids = np.arange(split.num_examples, dtype=np.int64) if ids is None else np.asarray(ids, np.int64)
        self.has_labels = bool((split.labels[self.ids] >= 0).any())
        # int64: a GPU gathers no int32.
        self._columns = {"labels": host_variable(split.labels.astype(np.int64))}
        if teacher_logits is not None:
            is_array = isinstance(teacher_logits, np.ndarray)
            self._columns["teacher_logits"] = host_variable(teacher_logits) if is_array else teacher_logits

    def steps_per_pass(self, batch_size: int) -> int:
        """How many batches a pass has; the last may be smaller."""
        return -(-len(self.ids) // batch_size)

    def batch(self, ids: tf.Tensor) -> Batch:
        """The batch of virtual ids, int64 [B]."""
        labels = tf.gather(self._columns["labels"], ids % len(self.split.labels))
        batch = {"inputs": self.split.batch(ids), "labels": tf.cast(labels, tf.int32)}
        if "teacher_logits" in self._columns:
            batch["teacher_logits"] = tf.gather(self._columns["teacher_logits"], ids)
        return batch


def ids_of_pass(examples: Examples, seed: int, number: tf.Tensor) -> tf.Tensor:
    """The virtual ids of a pass in their order, int64 [len(examples.ids)]; `number` is int64 [], from 0."""
    order = tf.random.experimental.stateless_shuffle(
        tf.constant(examples.ids), seed=tf.stack([tf.cast(seed, tf.int64), number])
    )
    return order + number % examples.split.repeats * examples.split.num_examples


def shuffled_ids(examples: Examples, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
    """The endless sequence of batches of virtual ids (int64 [at most batch_size]) from step `start_step` on."""
    steps = examples.steps_per_pass(batch_size)

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(ids_of_pass(examples, seed, number)).batch(batch_size)

    passes = tf.data.Dataset.range(start_step // steps, np.iinfo(np.int64).max)
    return passes.flat_map(one_pass).skip(start_step % steps)


def training_batches(examples: Examples, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
    """The endless sequence of training batches from step `start_step` on."""
    return _gather(shuffled_ids(examples, batch_size, seed, start_step), examples)


def ordered_batches(examples: Examples, batch_size: int) -> tf.data.Dataset:
    """Every example once (its first virtual copy), in order."""
    return _gather(tf.data.Dataset.from_tensor_slices(examples.ids).batch(batch_size), examples)


def _gather(ids: tf.data.Dataset, examples: Examples) -> tf.data.Dataset:
    return ids.map(examples.batch, num_parallel_calls=parallel_map_calls()).prefetch(tf.data.AUTOTUNE)
