"""What a data set promises."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mimic_keras.contracts import SPLITS, Confusion, Dataset
from mimic_keras.testing.rules import Case, Rule, require, require_same, without_network, writing_only_below

MAXIMUM_IDS = 2000  # examples of a split that are checked
BATCH = 256


def _prepared(case: Case, name: str = "data") -> tuple[Dataset, str]:
    """(a prepared data set, its fingerprint)."""
    folder = case.folder / name
    folder.mkdir(exist_ok=True)
    dataset = case.make()
    return dataset, dataset.prepare(folder)


def _ids(split: Any, virtual: bool = False) -> np.ndarray:
    count = split.num_examples * (split.repeats if virtual else 1)
    return np.unique(np.linspace(0, count - 1, min(count, MAXIMUM_IDS)).astype(np.int64))


def _batch(split: Any, ids: np.ndarray) -> np.ndarray:
    parts = [split.batch(tf.constant(ids[start : start + BATCH])).numpy() for start in range(0, len(ids), BATCH)]
    return np.concatenate(parts)


def _contents(split: Any) -> set[bytes]:
    return {hashlib.sha256(row.tobytes()).digest() for row in _batch(split, np.arange(split.num_examples))}


def is_as_its_info_says(case: Case) -> None:
    """`info` works before `prepare`; its shape, classes and number of virtual copies are those of the splits."""
    info = case.make().info
    require(len(info.class_names) == info.num_classes, f"{len(info.class_names)} names for {info.num_classes} classes")
    dataset, _ = _prepared(case)
    require(dataset.info == info, f"before prepare {info}, after it {dataset.info}")
    for name in SPLITS:
        split = dataset.split(name)
        rows = split.batch(tf.constant([0, split.num_examples - 1], tf.int64))
        require(rows.shape == (2, *info.input_shape), f"'{name}' gives {rows.shape[1:]}, info says {info.input_shape}")
        require(rows.dtype == tf.float32, f"'{name}' gives {rows.dtype.name}, expected float32")
        require(np.isfinite(_batch(split, _ids(split))).all(), f"'{name}' has values that are infinite or NaN")
    repeats = dataset.split("transfer").repeats
    require(info.repeats == repeats, f"info says {info.repeats} virtual copies, 'transfer' has {repeats}")


def labels_are_classes(case: Case) -> None:
    """`labels` is int32 [num_examples]: a class, or -1 where unknown; validation and test are fully labelled."""
    dataset, _ = _prepared(case)
    for name in SPLITS:
        split = dataset.split(name)
        labels = split.labels
        require(
            isinstance(labels, np.ndarray) and labels.dtype == np.int32,
            f"the labels of '{name}' are {getattr(labels, 'dtype', type(labels))}",
        )
        require(
            labels.shape == (split.num_examples,),
            f"the labels of '{name}' are {labels.shape} for {split.num_examples} examples",
        )
        lowest = 0 if name in ("validation", "test") else -1
        require(
            lowest <= labels.min() and labels.max() < dataset.info.num_classes,
            f"the labels of '{name}' go from {labels.min()} to {labels.max()}",
        )


def groups_are_of_the_training_examples(case: Case) -> None:
    """`groups` gives integers [num_examples] of "train" for each name of `info.groups`, always the same."""
    names = case.make().info.groups
    if not names:
        return
    (dataset, _), (again, _) = _prepared(case), _prepared(case, "again")
    count = dataset.split("train").num_examples
    for name in names:
        found = dataset.groups(name)
        require(
            found.shape == (count,) and np.issubdtype(found.dtype, np.integer),
            f"groups '{name}' are {found.dtype} {found.shape}, expected integers of {count} examples",
        )
        require(np.array_equal(found, again.groups(name)), f"groups '{name}' differ when they are made again")


def an_id_is_always_the_same_example(case: Case) -> None:
    """`batch` is a pure function of the ids, virtual copies included: the same bits in any order and any batch size."""
    dataset, _ = _prepared(case)
    for name in SPLITS:
        split = dataset.split(name)
        ids = _ids(split, virtual=True)[:97]
        whole = _batch(split, ids)
        order = np.random.default_rng(0).permutation(len(ids))
        require_same(_batch(split, ids[order]), whole[order], f"'{name}' in another order gives other bits")
        alone = np.concatenate([_batch(split, ids[place : place + 1]) for place in range(0, len(ids), 8)])
        require_same(alone, whole[::8], f"'{name}' one by one gives other bits")


def runs_in_a_graph(case: Case) -> None:
    """`batch` can be traced: inside tf.data it gives the same bits as outside."""
    dataset, _ = _prepared(case)
    for name in SPLITS:
        split = dataset.split(name)
        ids = _ids(split, virtual=True)[:64]
        batches = tf.data.Dataset.from_tensor_slices(ids).batch(16).map(split.batch, num_parallel_calls=2)
        found = np.concatenate([batch.numpy() for batch in batches])
        require_same(found, _batch(split, ids), f"'{name}' gives other bits inside tf.data")


def two_reads_are_identical(case: Case) -> None:
    """Prepared again, in the same folder or in an empty one, it has the same fingerprint, labels and examples."""
    first, fingerprint = _prepared(case)
    for folder in ("data", "another"):
        again, found = _prepared(case, folder)
        require(found == fingerprint, f"the fingerprint was {fingerprint}, then {found}")
        for name in SPLITS:
            one, other = first.split(name), again.split(name)
            require_same(one.labels, other.labels, f"the labels of '{name}' differ")
            require_same(_batch(one, _ids(one)), _batch(other, _ids(one)), f"the examples of '{name}' differ")


def the_seed_drives_augmentation_alone(case: Case) -> None:
    """Another `seed` of `split` changes no size, no label and no order, and nothing at all in validation and test."""
    dataset, _ = _prepared(case)
    for name in SPLITS:
        one, other = dataset.split(name, 0), dataset.split(name, 1)
        require((one.num_examples, one.repeats) == (other.num_examples, other.repeats), f"the size of '{name}' changes")
        require_same(one.labels, other.labels, f"the labels of '{name}' change")
        if name in ("validation", "test"):
            require(one.repeats == 1, f"'{name}' has virtual copies")
            require_same(_batch(one, _ids(one)), _batch(other, _ids(one)), f"the examples of '{name}' change")


def no_example_is_in_two_splits(case: Case) -> None:
    """No two of train, validation and test have an example in common, by content, nor has transfer with validation or
    test; transfer starts with train's examples, in order."""
    dataset, _ = _prepared(case)
    contents = {name: _contents(dataset.split(name)) for name in SPLITS}
    for one, other in (
        ("train", "validation"),
        ("train", "test"),
        ("validation", "test"),
        ("transfer", "validation"),
        ("transfer", "test"),
    ):
        shared = len(contents[one] & contents[other])
        require(not shared, f"{shared} examples of '{other}' are also in '{one}'")
    train, transfer = dataset.split("train"), dataset.split("transfer")
    require(transfer.num_examples >= train.num_examples, "'transfer' is smaller than 'train'")
    ids = _ids(train)
    require_same(_batch(transfer, ids), _batch(train, ids), "'transfer' does not start with train's examples")


def an_unknown_split_is_refused(case: Case) -> None:
    """`split("nonsense")` raises ValueError."""
    dataset, _ = _prepared(case)
    try:
        dataset.split("nonsense")
    except ValueError:
        return
    require(False, "it returned one")


def works_offline_and_writes_in_its_folder_alone(case: Case) -> None:
    """Once the data is there, `prepare` opens no connection and writes nothing outside its folder."""
    _prepared(case)  # fake files, if any, exist now, and what a first call loads is loaded
    folder = case.folder / "data"
    with without_network(), writing_only_below(folder):
        case.make().prepare(folder)


def choices_are_made_on_validation(case: Case) -> None:
    """`evaluate` makes its choices on validation: nothing in test changes the metrics of validation."""
    dataset, _ = _prepared(case)
    random = np.random.default_rng(0)
    logits = {
        name: random.normal(size=(dataset.split(name).num_examples, dataset.info.num_classes)).astype(np.float32)
        for name in ("validation", "test")
    }
    whole = dataset.evaluate(logits)
    require(set(whole) == set(logits), f"metrics of {sorted(whole)}, expected test and validation")
    found = {
        "test's logits are missing": dataset.evaluate({"validation": logits["validation"]}),
        "test's logits change": dataset.evaluate({**logits, "test": logits["test"][::-1] * 3}),
    }
    split = dataset.split

    def relabelled(name: str, *arguments: Any, **named: Any) -> Any:
        of = split(name, *arguments, **named)
        if name == "test":
            of.labels = (of.labels + 1) % dataset.info.num_classes
        return of

    dataset.split = relabelled  # type: ignore[method-assign]
    found["test's labels change"] = dataset.evaluate(logits)
    for when, metrics in found.items():
        same = _numbers(metrics["validation"]) == _numbers(whole["validation"])
        require(same, f"the metrics of validation change when {when}")


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if not isinstance(value, Confusion)}


def raw_signatures_prepare_as_the_splits_do(case: Case) -> None:
    """Each of `raw_signatures` turns its examples into the rows of validation that its ids name, to the bit."""
    dataset, _ = _prepared(case)
    split = dataset.split("validation")
    for name, signature in dataset.raw_signatures().items():
        require(
            signature.inputs.keys() == signature.examples.keys(),
            f"{name}: inputs {sorted(signature.inputs)}, examples {sorted(signature.examples)}",
        )
        examples = {key: tf.constant(value) for key, value in signature.examples.items()}
        expected = split.batch(tf.constant(signature.ids, tf.int64))
        require_same(_rows(signature.prepare(**examples)), expected, f"{name} gives other rows")
        # A compiled graph may divide by multiplying, which changes a last bit.
        found = _rows(tf.function(signature.prepare, autograph=False)(**examples))
        require(np.allclose(found, expected, rtol=1e-6, atol=1e-6), f"{name} gives other rows inside a graph")


def _rows(prepared: Any) -> Any:
    """The rows without the row splits, if there are any."""
    return prepared[0] if isinstance(prepared, tuple) else prepared


RULES: tuple[Rule, ...] = (
    is_as_its_info_says,
    groups_are_of_the_training_examples,
    labels_are_classes,
    an_id_is_always_the_same_example,
    runs_in_a_graph,
    two_reads_are_identical,
    the_seed_drives_augmentation_alone,
    no_example_is_in_two_splits,
    an_unknown_split_is_refused,
    works_offline_and_writes_in_its_folder_alone,
    choices_are_made_on_validation,
    raw_signatures_prepare_as_the_splits_do,
)
