"""Mixup as virtual copies: teacher and student see the same mixed input, and its logits are cached like any other."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from mimic_keras.contracts import Split, host_variable


class MixedSplit:
    """A `Split` with further virtual copies, each a mixture share * x + (1 - share) * y of two examples.

    Zhang et al. 2018, "mixup"; as in Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and
    consistent", CVPR, arXiv:2106.05237, the teacher labels the mixture itself. The copies of `split` come first, as
    they are. Mixed copy k mixes every example, in copy k modulo `split.repeats`, with one in the same copy: partners
    are a permutation, and the shares are from Beta(alpha, alpha), both drawn from (seed, k).

    Args:
        split: the examples to mix.
        copies: mixed copies of each example.
        alpha: of the beta distribution; 1 is uniform, as in Beyer et al.
        seed: of partners and shares.

    `labels` is int32 [num_examples * repeats], by virtual id, unlike another split's: a mixture has none.

    Example:
        >>> split = MixedSplit(ArraySplit(np.zeros([10, 4])), copies=2, alpha=1.0, seed=0)
        >>> split.repeats, len(split.labels)
        (3, 30)
    """

    def __init__(self, split: Split, copies: int, alpha: float, seed: int):
        self._split, count = split, split.num_examples
        self.num_examples, self.repeats = count, split.repeats + copies
        self.labels = np.concatenate([np.tile(split.labels, split.repeats), np.full(copies * count, -1, np.int32)])
        # Not default_rng, whose numbers may change with NumPy's version, which is in no key.
        generators = [np.random.RandomState([seed, copy]) for copy in range(copies)]
        self._partners = host_variable(*(generator.permutation(count) for generator in generators))
        shares = (generator.beta(alpha, alpha, count).astype(np.float32) for generator in generators)
        self._shares = host_variable(*shares)

    def batch(self, ids: tf.Tensor) -> tf.Tensor:
        """The examples and mixtures with the virtual ids int64 [B], as float32 [B, *input_shape]."""
        own = self.num_examples * self._split.repeats
        is_mixed, place = ids >= own, tf.maximum(ids - own, 0)
        copy = tf.where(is_mixed, place // self.num_examples % self._split.repeats, 0)
        first = self._split.batch(tf.where(is_mixed, copy * self.num_examples + place % self.num_examples, ids))
        second = self._split.batch(copy * self.num_examples + tf.gather(self._partners, place))
        rows = [-1, *[1] * (first.shape.rank - 1)]
        share = tf.reshape(tf.gather(self._shares, place), rows)
        return tf.where(tf.reshape(is_mixed, rows), share * first + (1.0 - share) * second, first)
