"""The logits stage: members chosen greedily, their errors, and the weighted mean of the members."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimic_keras.contracts import ArraySplit, InputError, RunError
from mimic_keras.experiment.schema import SelectionSection
from mimic_keras.stages import labelling, plausibility
from mimic_keras.stages import logits as stage
from mimic_keras.stages.logits import select_greedily
from mimic_keras.stages.teachers import TeacherMember
from mimic_keras.storage.store import Store
from mimic_keras.training.models import Cost


def score(logits, labels, weights, members):
    """(errors, mean cross-entropy) of a weighted mean, example by example."""
    errors, entropies = 0, []
    for example, label in enumerate(labels):
        mean = sum(weights[member] * logits[member][example] for member in members) / sum(
            weights[member] for member in members
        )
        if label >= 0:
            errors += int(np.argmax(mean) != label)
            entropies.append(np.log(np.sum(np.exp(mean))) - mean[label])
    return errors, np.mean(entropies)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.booleans(), st.integers(1, 5))
def test_every_step_takes_the_best_member(seed, members, replacement, count):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(members, 12, 3))
    labels = generator.integers(-1, 3, 12)
    labels[0] = 1
    weights = generator.uniform(0.5, 2, members)
    count = min(count, members) if not replacement else count
    chosen = select_greedily(logits, labels, weights, count, replacement)
    assert len(chosen) == count
    assert replacement or len(set(chosen)) == count
    for step, member in enumerate(chosen):
        found = score(logits, labels, weights, [*chosen[:step], member])
        for other in range(members):
            if replacement or other not in chosen[:step]:
                errors, entropy = score(logits, labels, weights, [*chosen[:step], other])
                assert (found[0], found[1] - 1e-9) <= (errors, entropy)


def test_by_hand():
    """Member 1 errs once alone; with 0 it errs never, with 2 still once."""
    logits = np.array(
        [
            [[3.0, 0.0], [0.0, 1.0], [3.0, 0.0]],
            [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]],
            [[0.0, 0.5], [0.0, 9.0], [0.0, 3.0]],
        ]
    )
    labels, weights = np.array([0, 1, 0]), np.ones(3)
    assert select_greedily(logits, labels, weights, 1, False) == [0]
    assert select_greedily(logits[1:], labels, weights[1:], 2, False) == [0, 1]
    assert select_greedily(logits, labels, weights, 3, True) == [0, 0, 0]


def test_all_pairs_are_looked_at():
    """The helper of this file itself: the mean of two opposite members is undecided, in favour of the first class."""
    logits = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    found = {
        pair: score(logits, [1], [1.0, 1.0], pair)[0] for pair in itertools.combinations_with_replacement((0, 1), 2)
    }
    assert found == {(0, 0): 1, (0, 1): 1, (1, 1): 0}


class Data:
    """Six examples of two features; the training set has two virtual copies."""

    identity = "six"
    dataset = SimpleNamespace(info=SimpleNamespace(num_classes=2, class_names=("disc", "square")))

    def __init__(self, labels=(0, 1, 0, 1, -1, 1)):
        inputs = np.arange(2 * len(labels), dtype=np.float32).reshape(-1, 2)
        labels = np.array(labels)
        self.splits = {
            name: ArraySplit(inputs, labels, repeats=2 if name == "transfer" else 1)
            for name in ("transfer", "validation", "test")
        }

    def split(self, name):
        return self.splits[name]


def member(name, matrix, data, weight=1.0, seed=0):
    matrix = np.array(matrix, np.float32)

    def predict(split, ids):
        with np.errstate(invalid="ignore"):
            return data.split(split).batch(ids).numpy() @ matrix

    return TeacherMember(name, f"key of {name}", Cost(4, 4), None, {}, seed, weight, data, None, stored=predict)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, {})


def computed(members, data, store):
    return stage.compute_teacher_logits(members, data, store, stage.label_validation(members, data, store))


def messages(caplog):
    """[(level, message, whether it is hidden from the console of a sweep)]."""
    return [(each.levelname, each.message, hasattr(each, "is_reuse")) for each in caplog.records]


ONE, OTHER = [[1, 0], [0, 1]], [[0, 1], [2, 0]]


def test_the_teacher_is_the_weighted_mean_in_shards(store, monkeypatch):
    monkeypatch.setattr(labelling, "SHARD_EXAMPLES", 5)
    data = Data()
    members = [member("teacher/0", ONE, data, 3.0, seed=9), member("teacher/1", OTHER, data, 1.0, seed=4)]
    teacher = computed(members, data, store)
    inputs = np.arange(12, dtype=np.float32).reshape(6, 2)
    mean = 0.75 * inputs @ np.array(ONE) + 0.25 * inputs @ np.array(OTHER)
    np.testing.assert_allclose(teacher.mean["test"], mean, rtol=1e-6)
    np.testing.assert_allclose(teacher.mean["validation"], mean, rtol=1e-6)
    np.testing.assert_allclose(teacher.transfer.numpy(), np.concatenate([mean, mean]), rtol=1e-6)
    np.testing.assert_array_equal(teacher.members["teacher/1"]["test"], inputs @ np.array(OTHER))
    assert teacher.weights == {"teacher/1": 0.25, "teacher/0": 0.75}
    assert teacher.key == [["key of teacher/1", 0.25], ["key of teacher/0", 0.75]], "in the order of their seeds"
    assert [len(list(folder.glob("*.npy"))) for folder in teacher.folders["teacher/0"].values()] == [3, 2, 2]
    again = computed(members[::-1], data, store)
    assert store.counts == {"made": 6, "reused": 6}
    assert again.key == teacher.key
    np.testing.assert_array_equal(again.transfer.numpy(), teacher.transfer.numpy())
    assert computed([], data, store) is None


def test_infinite_logits_are_refused(store):
    data = Data()
    with pytest.raises(RunError) as caught:
        computed([member("teacher/0", [[1, np.inf], [0, 1]], data)], data, store)
    assert str(caught.value) == "teacher/0 gives infinite or NaN logits; a student cannot mimic them"


def test_members_are_chosen_on_validation_and_weigh_as_often_as_they_are_chosen(store):
    data = Data(labels=[1, 1, 1, 1, -1, 1])  # the second feature is the larger one in every example
    members = [member("teacher/0", OTHER, data, 2.0), member("teacher/1", ONE, data, 0.5)]
    validation = stage.label_validation(members, data, store)
    assert stage.select_members(members, None, data, validation) is members
    chosen = stage.select_members(members, SelectionSection(members=1), data, validation)
    assert [(each.name, each.weight) for each in chosen] == [("teacher/1", 0.5)]
    chosen = stage.select_members(members, SelectionSection(members=3, replacement=True), data, validation)
    assert [(each.name, each.weight) for each in chosen] == [("teacher/1", 1.5)]
    assert store.counts == {"made": 2, "reused": 0}, "one split of each member"


def test_every_members_error_is_said_before_it_labels_anything_else(store, caplog):
    """The second feature is the larger one in every example: ONE says class 1, OTHER class 0."""
    data = Data()
    members = [member("teacher/0", ONE, data), member("teacher/1", OTHER, data)]
    caplog.set_level("INFO")
    caplog.set_level("INFO", logger="absl")
    found = stage.label_validation(members, data, store)
    assert list(found) == ["teacher/0", "teacher/1"]
    assert store.counts == {"made": 2, "reused": 0}
    assert [each for each in messages(caplog) if "error" in each[1]] == [
        ("INFO", "teacher/0: error rate 0.4000 on validation", False),
        (
            "WARNING",
            "teacher/0: its error rate on validation is no better than always answering the most frequent class "
            f"(0.4000); {plausibility.CAUSES}",
            False,
        ),
        ("INFO", "teacher/1: error rate 0.6000 on validation", False),
        (
            "WARNING",
            "teacher/1: its error rate on validation is no better than always answering the most frequent class "
            f"(0.4000); {plausibility.CAUSES}",
            False,
        ),
    ]
    caplog.clear()
    stage.label_validation(members, data, store)
    assert all(is_reuse for _, _, is_reuse in messages(caplog)), "a sweep says it once"


def test_a_member_with_another_order_of_classes_is_told_which(store, caplog):
    """Its first output is larger in the last 20 examples, whose label is 1, and smaller before."""
    data = Data(labels=[0] * 20 + [1] * 20)
    caplog.set_level("WARNING", logger="absl")
    stage.label_validation([member("teacher/0", [[1, 0], [0, 39 / 40]], data)], data, store)
    assert [text for _, text, _ in messages(caplog)] == [
        "teacher/0: its error rate on validation is no better than always answering the most frequent class (0.5000); "
        f"{plausibility.CAUSES}. If its outputs are those of square, "
        "disc, in this order, it is 0.0000"
    ]


def test_without_labels_no_error_is_said(store, caplog):
    data = Data(labels=[-1] * 6)
    caplog.set_level("INFO")
    caplog.set_level("INFO", logger="absl")
    stage.label_validation([member("teacher/0", ONE, data)], data, store)
    assert not [text for _, text, _ in messages(caplog) if "error rate" in text]


def test_a_choice_needs_labels(store):
    data = Data(labels=[-1] * 6)
    members = [member("teacher/0", ONE, data)]
    validation = stage.label_validation(members, data, store)
    with pytest.raises(InputError) as caught:
        stage.select_members(members, SelectionSection(members=1), data, validation)
    assert str(caught.value) == "teacher.select: members are chosen on validation, which has no labels"
