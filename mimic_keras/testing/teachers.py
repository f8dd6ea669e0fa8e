"""What a teacher promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, Member, TeacherContext
from mimic_keras.testing.rules import Case, Rule, are_probabilities, require, require_same, writing_only_below
from mimic_keras.training.models import float32_logits

EXAMPLES = 24


class _Random(Dataset):
    """A data set of random examples."""

    def __init__(self, case: Case):
        self.case = case

    @property
    def info(self) -> DatasetInfo:
        names = tuple(f"class {number}" for number in range(self.case.num_classes))
        return DatasetInfo("random", "1", self.case.input_shape, self.case.num_classes, names)

    def prepare(self, data_dir: Path) -> str:
        return "random"

    def split(self, name: str, seed: int = 0) -> ArraySplit:
        random = np.random.default_rng(len(name))
        inputs = random.random((EXAMPLES, *self.case.input_shape), np.float32)
        return ArraySplit(inputs, random.integers(0, self.case.num_classes, EXAMPLES))


def _train(seed: int) -> Callable[..., keras.Model]:
    """Stands in for the program's `train`: checks what the teacher passes, builds the net, and does not train it."""

    def train(build: Callable[[], keras.Model], ids: np.ndarray | None = None) -> keras.Model:
        keras.utils.set_random_seed(seed)
        net = build()
        require(isinstance(net, keras.Model), "context.train takes a function that returns a keras.Model")
        chosen = np.arange(EXAMPLES) if ids is None else np.asarray(ids)
        require(chosen.size and chosen.min() >= 0 and chosen.max() < EXAMPLES, "ids outside the training set")
        return net

    return train


def _member(case: Case, seed: int = 0) -> Member:
    folder = case.folder / "member"
    folder.mkdir(exist_ok=True)
    dataset = _Random(case)
    teacher = case.make()
    teacher.check(dataset.info)
    return teacher.member(TeacherContext(dataset, seed, folder, _train(seed)))


def _logits(case: Case, member: Member, rows: int = EXAMPLES) -> np.ndarray:
    ids = np.arange(rows)
    if member.predict:
        return member.predict("test", ids)
    assert member.call
    return float32_logits(member.call(_Random(case).split("test").batch(tf.constant(ids)))).numpy()


def gives_one_logit_per_class(case: Case) -> None:
    """`member(context).call` turns float32 [batch, *input_shape] into finite logits [batch, num_classes], for any
    batch size; `predict` returns float32 ones of any ids."""
    member = _member(case)
    for rows in (EXAMPLES, 1):
        found = _logits(case, member, rows)
        require(found.shape == (rows, case.num_classes), f"{found.shape} for {rows} examples")
        require(found.dtype == np.float32, f"{found.dtype}")
        require(np.isfinite(found).all(), "they are infinite or NaN")


def gives_logits_not_probabilities(case: Case) -> None:
    """The outputs are scores without a softmax."""
    require(not are_probabilities(_logits(case, _member(case))), "they are not negative and sum to 1")


def the_seed_makes_the_member(case: Case) -> None:
    """The same seed gives the same logits, whatever random numbers were drawn before."""
    first = _logits(case, _member(case, 3))
    np.random.default_rng()
    keras.utils.set_random_seed(99)
    require_same(first, _logits(case, _member(case, 3)), "it gives other logits")


def its_source_has_a_digest(case: Case) -> None:
    """A teacher that loads has a `source_digest` that never changes; one that trains has none and returns its model."""
    digest, member = case.make().source_digest(), _member(case)
    require(digest == case.make().source_digest(), "it changes")
    require(digest is not None or isinstance(member.model, keras.Model), "it has no digest, and its member no model")


def counts_its_parameters(case: Case) -> None:
    """`parameters` is the number of trainable weights, an int; None if it cannot be known."""
    found: Any = _member(case).parameters
    require(found is None or (isinstance(found, int) and found >= 0), f"it is {found!r}")


def writes_in_its_folder_alone(case: Case) -> None:
    """`member` writes nothing outside `context.directory`."""
    _member(case)  # what a first call loads is loaded now
    with writing_only_below(case.folder / "member"):
        _member(case)


RULES: tuple[Rule, ...] = (
    gives_one_logit_per_class,
    gives_logits_not_probabilities,
    the_seed_makes_the_member,
    its_source_has_a_digest,
    counts_its_parameters,
    writes_in_its_folder_alone,
)
