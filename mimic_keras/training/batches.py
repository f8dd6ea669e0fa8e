"""(seed, step) -> example ids -> batch: the order of the data is arithmetic, so nothing of it ever has to be saved.

One pass is `num_examples` ids in an order drawn from (seed, pass); pass r takes virtual copy r modulo `repeats`.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from mimic_keras.contracts import Split, host_variable


class Examples:
    """A split joined by id with the teacher's logits for it.

    Args:
        split: the inputs and labels.
        teacher_logits: float32 [num_examples * repeats, num_classes], by virtual id, in an array or in host memory
            already; None if nothing is mimicked.
        ids: originals to use (int64), each once a pass; None for all.
    """

    def __init__(
        self, split: Split, teacher_logits: np.ndarray | tf.Variable | None = None, ids: np.ndarray | None = None
    ):
        self.split = split
        self.ids = np.arange(split.num_examples, dtype=np.int64) if ids is None else np.asarray(ids, np.int64)
        self.has_labels = bool((split.labels[self.ids] >= 0).any())
        self._columns = {"labels": host_variable(split.labels)}
        if teacher_logits is not None:
            is_array = isinstance(teacher_logits, np.ndarray)
            self._columns["teacher_logits"] = host_variable(teacher_logits) if is_array else teacher_logits

    def steps_per_pass(self, batch_size: int) -> int:
        return -(-len(self.ids) // batch_size)

    def batch(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """int64 [B] to {"inputs": float32 [B, ...], "labels": int32 [B], "teacher_logits": float32 [B, C] if any}."""
        originals = {"labels": ids % self.split.num_examples}
        columns = {name: tf.gather(column, originals.get(name, ids)) for name, column in self._columns.items()}
        return {"inputs": self.split.batch(ids), **columns}


def shuffled_ids(examples: Examples, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
    """The endless sequence of id batches (int64, at most `batch_size`) from step `start_step` on."""
    steps = examples.steps_per_pass(batch_size)
    ids, repeats, originals = tf.constant(examples.ids), examples.split.repeats, examples.split.num_examples

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(ids, seed=tf.stack([tf.cast(seed, tf.int64), number]))
        return tf.data.Dataset.from_tensor_slices(order + number % repeats * originals).batch(batch_size)

    passes = tf.data.Dataset.range(start_step // steps, np.iinfo(np.int64).max)
    return passes.flat_map(one_pass).skip(start_step % steps)


def training_batches(examples: Examples, batch_size: int, seed: int, start_step: int = 0) -> tf.data.Dataset:
    """The endless sequence of training batches from step `start_step` on."""
    return _gathered(shuffled_ids(examples, batch_size, seed, start_step), examples)


def ordered_batches(examples: Examples, batch_size: int) -> tf.data.Dataset:
    """Every example once (its first virtual copy), in order."""
    return _gathered(tf.data.Dataset.from_tensor_slices(examples.ids).batch(batch_size), examples)


def _gathered(ids: tf.data.Dataset, examples: Examples) -> tf.data.Dataset:
    return ids.map(examples.batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
