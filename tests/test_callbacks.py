"""What happens between epochs, each callback on its own."""

import types

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.experiment.training import PlateauHalving
from mimic_keras.training import callbacks

ERROR_RATE, LOSS = callbacks.Monitor("error_rate"), callbacks.Monitor("loss")


def plateau_rates(errors, monitor=ERROR_RATE, **options):
    callback = callbacks.Plateau(PlateauHalving(name="plateau_halving", **options), monitor)
    callback.set_model(types.SimpleNamespace(rate=keras.Variable(1.0), stop_training=False))
    callback.on_train_begin()
    rates = []
    for epoch, error in enumerate(errors):
        callback.on_epoch_end(epoch, {monitor.key: error})
        rates.append(float(callback.model.rate.numpy()))
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
    """A resumed training has its first rate from the checkpoint, not from the variable."""
    callback = callbacks.Plateau(PlateauHalving(name="plateau_halving", smallest_fraction=0.5), LOSS)
    callback.set_model(types.SimpleNamespace(rate=keras.Variable(0.25), stop_training=False))
    callback.first_rate = 1.0
    callback.on_train_begin()
    callback.on_epoch_end(0, {"val_loss": 1.0})
    assert callback.first_rate == 1.0
    assert callback.model.stop_training


def test_plateau_of_what_is_to_grow():
    rates = plateau_rates([0.1, 0.2, 0.2, 0.2, 0.3], callbacks.Monitor("accuracy", -1.0), patience=2, cooldown=0)
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5]


def test_best_weights_are_those_of_the_first_best_epoch():
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    callback = callbacks.BestWeights(LOSS)
    callback.set_model(types.SimpleNamespace(net=net))
    for epoch, loss in enumerate([3.0, 1.0, 1.0, 2.0]):
        net.set_weights([np.full([1, 1], epoch, np.float32)])
        callback.on_epoch_end(epoch, {"val_loss": loss})
    callback.on_train_end()
    assert net.get_weights()[0].item() == 1.0


def test_without_an_epoch_the_weights_stay():
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    before = net.get_weights()[0]
    callback = callbacks.BestWeights(LOSS)
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


def test_what_is_monitored_is_judged_after_every_epoch_and_infinite_values_are_never_the_best():
    values = iter([{"error": 0.5}, {}, {"error": 0.25, "other": 1.0}])
    callback, found = callbacks.Curve(2, lambda: next(values), "error"), []
    for epoch in range(3):
        logs = {"val_loss": 1.0}
        callback.on_epoch_end(epoch, logs)
        found.append(logs)
    np.testing.assert_equal([each["val_error"] for each in found], [0.5, np.nan, 0.25])
    assert callback.curve == {}
    assert not found[1]["val_error"] < 1.0


def test_a_curve_of_no_epochs_asks_nobody():
    callback = callbacks.Curve(None, lambda: 1 / 0)
    callback.on_epoch_end(0)
    assert callback.curve == {}


def test_progress_counts_steps_and_notes_the_rate():
    advances, logs = [], {"val_loss": 0.123456}
    callback = callbacks.Progress(lambda steps, **named: advances.append((steps, named)), LOSS)
    iterations = keras.Variable(0, dtype="int64")
    optimizer = types.SimpleNamespace(iterations=iterations)
    callback.set_model(types.SimpleNamespace(optimizer=optimizer, last_learning_rate=lambda: 0.02))
    for done in (10, 17):
        iterations.assign(done)
        callback.on_train_batch_end(0)
    callback.on_epoch_end(0, logs)
    assert advances == [(10, {}), (7, {}), (0, {"note": "epoch 1, val_loss 0.1235"})]
    assert logs["learning_rate"] == 0.02


def test_moving_averages_are_in_place_from_validation_to_the_end_of_the_epoch():
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.75)
    optimizer.build(net.trainable_variables)
    net.set_weights([np.full([1, 1], 8.0, np.float32)])
    for _ in range(2):  # 8 -> 7 -> 6; the average starts at 7: 0.75 * 7 + 0.25 * 6
        optimizer.apply([tf.ones([1, 1])], net.trainable_variables)
    callback = callbacks.Averages()
    callback.set_model(types.SimpleNamespace(net=net, optimizer=optimizer))
    callback.on_test_begin()
    assert net.get_weights()[0].item() == 6.75
    callback.on_epoch_end(0)
    assert net.get_weights()[0].item() == 6.0
