"""A teacher that is trained on the labels."""

from __future__ import annotations

import numpy as np

from mimic_keras.contracts import Architecture, DatasetInfo, InputError, Member, Teacher, TeacherContext


class Trained(Teacher):
    """A net of any architecture, trained on the labels.

    Args:
        architecture: the net.
        share: part of the training set to train on, above 0 and at most 1; each member draws its own from its seed
            (Ba & Caruana 2014, section 3.2, trains members on subsets).
        share_by: what the share is of, one of the data set's groups: with "speaker", all examples of the drawn speakers
            and none of the others. None: of the examples.

    Raises:
        ValueError: `share` is outside (0, 1], or `share_by` is given without a share below 1.
        InputError: the data set has no such groups.
    """

    def __init__(self, architecture: Architecture, share: float = 1.0, share_by: str | None = None):
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {share}")
        if share_by is not None and share == 1:
            raise ValueError(f"share_by: {share_by} with share: {share}; it needs a share below 1")
        self.architecture, self.share, self.share_by = architecture, share, share_by

    def check(self, info: DatasetInfo) -> None:
        if self.share_by is not None and self.share_by not in info.groups:
            accepted = ", ".join(info.groups) or "none"
            raise InputError(
                f"share_by: the data set '{info.name}' has no groups {self.share_by!r}; it has: {accepted}"
            )

    def member(self, context: TeacherContext) -> Member:
        info, dataset = context.dataset.info, context.dataset
        ids = None
        if self.share_by is not None:
            groups = dataset.groups(self.share_by)
            known = np.unique(groups)
            ids = np.flatnonzero(np.isin(groups, known[self._draw(len(known), context.seed)]))
        elif self.share < 1:
            ids = self._draw(dataset.split("train").num_examples, context.seed)
        model = context.train(lambda: self.architecture(info.input_shape, info.num_classes), ids)
        return Member(model, model=model)

    def _draw(self, number: int, seed: int) -> np.ndarray:
        """The share of `number` things, at least one, sorted: int64."""
        count = max(1, round(self.share * number))
        return np.sort(np.random.default_rng(seed).permutation(number)[:count])
