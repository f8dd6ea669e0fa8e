"""A teacher that is trained on the labels."""

from __future__ import annotations

import numpy as np

from mimic_keras.contracts import Architecture, Member, Teacher, TeacherContext


class Trained(Teacher):
    """A net of any architecture, trained on the labels.

    Args:
        architecture: the net.
        share: part of the training set to train on, above 0 and at most 1; each member draws its own from its seed
            (Ba & Caruana 2014, section 3.2, trains members on subsets).

    Raises:
        ValueError: `share` is outside (0, 1].
    """

    def __init__(self, architecture: Architecture, share: float = 1.0):
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {share}")
        self.architecture, self.share = architecture, share

    def member(self, context: TeacherContext) -> Member:
        info, split = context.dataset.info, context.dataset.split("train")
        ids = None
        if self.share < 1:
            count = max(1, round(self.share * split.num_examples))
            ids = np.sort(np.random.default_rng(context.seed).permutation(split.num_examples)[:count])
        model = context.train(lambda: self.architecture(info.input_shape, info.num_classes), ids)
        return Member(model, model=model)
