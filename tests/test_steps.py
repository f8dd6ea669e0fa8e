"""The Keras model under training: how many steps a call takes, and a clear end where the loss is no number."""

import numpy as np
import pytest

from mimic_keras.training import trainer
from mimic_keras.training.batches import Examples, shuffled_ids
from mimic_keras.training.objective import Objective
from mimic_keras.training.steps import TrainingDiverged
from tests.small_training import LogitL2, data, hidden, linear, mirrored, noisy, settings, train


def test_how_many_steps_a_call_takes_changes_nothing(monkeypatch):
    many = train(noisy, data(), Objective(LogitL2()), settings())
    monkeypatch.setattr(trainer, "MAXIMUM_STEPS_PER_CALL", 1)
    one = train(noisy, data(), Objective(LogitL2()), settings())
    monkeypatch.setattr(trainer, "MAXIMUM_STEPS_PER_CALL", 3)
    three = train(noisy, data(), Objective(LogitL2()), settings())
    assert many.history == one.history == three.history
    for left, right in zip(many.model.get_weights(), one.model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("devices", [1, 2])
def test_an_infinite_loss_ends_training_with_its_step_and_rate(devices):
    examples = data(97)
    logits = examples._columns["teacher_logits"].numpy()
    logits[41, 2] = np.inf
    poisoned = Examples(examples.split, logits)
    order = list(shuffled_ids(poisoned, 16, 0).take(7).as_numpy_iterator())
    step = next(number for number, ids in enumerate(order, 1) if 41 in ids)
    with pytest.raises(TrainingDiverged, match=f"the loss became inf at step {step}, learning rate 0.02"):
        train(linear, poisoned, Objective(LogitL2()), settings(), validation=examples,
              strategy=mirrored(devices) if devices > 1 else None)  # fmt: skip


def test_an_infinite_validation_loss_ends_training():
    examples = data()
    logits = examples._columns["teacher_logits"].numpy()
    logits[41, 2] = np.inf
    with pytest.raises(TrainingDiverged, match=r"the validation loss became inf at step 7, learning rate 0\.02"):
        train(linear, examples, Objective(LogitL2()), settings(), validation=Examples(examples.split, logits))


def test_too_large_a_rate_ends_training():
    chosen = settings(epochs=50, optimizer={"name": "sgd", "learning_rate": 1e4})
    with pytest.raises(TrainingDiverged, match=r"the loss became (inf|nan) at step \d+, learning rate 10000$"):
        train(hidden, data(), Objective(LogitL2()), chosen)
