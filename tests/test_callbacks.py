"""What happens between epochs, each callback on its own."""

import types

import keras
import numpy as np

from mimic_keras.experiment.schema import PlateauHalving
from mimic_keras.training import callbacks


def plateau_rates(errors, **options):
    callback = callbacks.Plateau(PlateauHalving(name="plateau_halving", **options), "val_error_rate")
    callback.set_model(types.SimpleNamespace(optimizer=keras.optimizers.SGD(1.0), stop_training=False))
    callback.on_train_begin()
    rates = []
    for epoch, error in enumerate(errors):
        callback.on_epoch_end(epoch, {"val_error_rate": error})
        rates.append(float(callback.model.optimizer.learning_rate.numpy()))
        if callback.model.stop_training:
            break
    return rates


def test_plateau_halves_after_ten_epochs_without_a_drop_and_not_within_eight_of_a_halving():
    # The best is epoch 0. Ten epochs without a drop: halved at epoch 10; then epochs 11 to 18 are barred: 19; then 28.
    rates = plateau_rates([0.5] * 40)
    assert rates[:10] == [1.0] * 10
    assert rates[10:19] == [0.5] * 9
    assert rates[19:28] == [0.25] * 9
    assert rates[28:] == [0.125] * 3
    assert len(rates) == 31, "stops when 30 epochs have brought no drop"


def test_plateau_starts_counting_again_at_a_drop():
    rates = plateau_rates([0.5] * 9 + [0.4] * 12)
    assert rates == [1.0] * 19 + [0.5] * 2


def test_plateau_stops_below_the_smallest_fraction():
    rates = plateau_rates([0.5] * 20, patience=1, cooldown=0, smallest_fraction=0.1)
    assert rates == [1.0, 0.5, 0.25, 0.125, 0.0625]


def test_plateau_measures_the_fraction_against_the_first_rate_of_all():
    """A resumed training has its first rate from the checkpoint, not from the optimizer."""
    callback = callbacks.Plateau(PlateauHalving(name="plateau_halving", smallest_fraction=0.5), "val_loss")
    callback.set_model(types.SimpleNamespace(optimizer=keras.optimizers.SGD(0.25), stop_training=False))
    callback.first_rate = 1.0
    callback.on_train_begin()
    callback.on_epoch_end(0, {"val_loss": 1.0})
    assert callback.first_rate == 1.0
    assert callback.model.stop_training


def test_best_weights_are_those_of_the_first_best_epoch():
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    callback = callbacks.BestWeights("val_loss")
    callback.set_model(types.SimpleNamespace(net=net))
    for epoch, loss in enumerate([3.0, 1.0, 1.0, 2.0]):
        net.set_weights([np.full([1, 1], epoch, np.float32)])
        callback.on_epoch_end(epoch, {"val_loss": loss})
    callback.on_train_end()
    assert net.get_weights()[0].item() == 1.0


def test_without_an_epoch_the_weights_stay():
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    before = net.get_weights()[0]
    callback = callbacks.BestWeights("val_loss")
    callback.set_model(types.SimpleNamespace(net=net))
    callback.on_train_end()
    np.testing.assert_array_equal(net.get_weights()[0], before)


def test_a_curve_has_the_metrics_of_every_second_epoch():
    values = iter([{"error": 0.5}, {"error": 0.25, "other": 1.0}])
    callback = callbacks.Curve(2, lambda: next(values))
    for epoch in range(5):
        callback.on_epoch_end(epoch)
    assert callback.curve == {
        "judged_error": [0.5, 0.25],
        "judged_error_epoch": [2, 4],
        "judged_other": [1.0],
        "judged_other_epoch": [4],
    }


def test_a_curve_of_no_epochs_asks_nobody():
    callback = callbacks.Curve(None, lambda: 1 / 0)
    callback.on_epoch_end(0)
    assert callback.curve == {}


def test_progress_counts_steps_and_notes_the_rate():
    advances, logs = [], {"val_loss": 0.123456}
    callback = callbacks.Progress(lambda steps, **named: advances.append((steps, named)), "val_loss")
    iterations = keras.Variable(0, dtype="int64")
    optimizer = types.SimpleNamespace(iterations=iterations)
    callback.set_model(types.SimpleNamespace(optimizer=optimizer, last_learning_rate=lambda: 0.02))
    for done in (10, 17):
        iterations.assign(done)
        callback.on_train_batch_end(0)
    callback.on_epoch_end(0, logs)
    assert advances == [(10, {}), (7, {}), (0, {"note": "epoch 1, val_loss 0.1235"})]
    assert logs["learning_rate"] == 0.02
