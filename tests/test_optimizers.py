"""Every optimizer of Keras, with Keras' own arguments and defaults; rates, clipping and averages; exact resumption."""

import inspect
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mimic_keras.contracts import InputError
from mimic_keras.experiment import optimizers as sections
from mimic_keras.training import optimizers, trainer
from mimic_keras.training.batches import shuffled_ids
from mimic_keras.training.checkpoint import Checkpoint
from mimic_keras.training.objective import Objective
from mimic_keras.training.optimizers import Warmup, make_optimizer
from tests.small_training import FEATURES, SGD, LogitL2, data, hidden, linear, mirrored, settings, train

KINDS = {
    kind.model_fields["name"].annotation.__args__[0]: kind
    for kind in typing.get_args(typing.get_args(sections.AnyOptimizer)[0])
}
OPTIONS_OF_THE_TRAINING = {
    "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum", "ema_overwrite_frequency",
    "loss_scale_factor", "gradient_accumulation_steps",
}  # fmt: skip
NO_OPTIMIZERS_OF_THEIR_OWN = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}


def in_this_keras(name):
    """Whether the installed Keras has the optimizer with the arguments of the newest one."""
    try:
        make_optimizer(settings(optimizer={"name": name, "learning_rate": 0.1}), 0.1)
    except InputError:
        return False
    return True


NAMES = [name for name in KINDS if in_this_keras(name)]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_defaults_are_those_of_keras(name):
    kind = KINDS[name]
    ours = {key: field.default for key, field in kind.model_fields.items() if key not in ("name", "learning_rate")}
    parameters = inspect.signature(getattr(keras.optimizers, kind.__name__)).parameters
    left_out = {"learning_rate", "name", "kwargs"} | OPTIONS_OF_THE_TRAINING
    assert ours == {key: each.default for key, each in parameters.items() if key not in left_out}


def test_every_optimizer_of_keras_is_there_by_its_name():
    classes = {
        name
        for name, found in vars(keras.optimizers).items()
        if inspect.isclass(found) and issubclass(found, keras.optimizers.Optimizer)
    } - NO_OPTIMIZERS_OF_THEIR_OWN
    assert classes <= {kind.__name__ for kind in KINDS.values()}
    assert all(kind.__name__.lower() == name for name, kind in KINDS.items())
    assert {"sgd", "adam", "adamw", "lion", "rmsprop", "adafactor", "lamb"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_kept_for_each_weight(name):
    more = {"momentum": 0.9} if name == "sgd" else {}
    optimizer = make_optimizer(settings(optimizer={"name": name, "learning_rate": 0.1, **more}), 0.1)
    matrix = keras.Variable(np.zeros([100, 100]))
    optimizer.build([matrix])
    kept = sum(int(np.prod(each.shape)) for each in optimizer.variables) / 10_000
    assert kept == pytest.approx(KINDS[name].slots, abs=0.1)


def test_arguments_reach_keras():
    chosen = {"name": "adamw", "learning_rate": 0.5, "weight_decay": 0.01, "beta_1": 0.8, "amsgrad": True}
    configuration = make_optimizer(settings(optimizer=chosen), 0.25).get_config()
    assert {key: configuration[key] for key in chosen if key not in ("name", "learning_rate")} == {
        "weight_decay": 0.01,
        "beta_1": 0.8,
        "amsgrad": True,
    }
    assert configuration["learning_rate"] == 0.25
    assert not configuration["use_ema"]


def test_what_the_installed_keras_lacks_is_named(monkeypatch):
    chosen = settings(optimizer={"name": "muon", "learning_rate": 0.1})
    monkeypatch.setattr(keras.optimizers, "Muon", keras.optimizers.Lion)
    monkeypatch.setattr(keras, "__version__", "3.12.1")
    with pytest.raises(InputError, match=r"^Keras 3\.12\.1 has no 'muon' with adam_beta_1, .*; a newer Keras has$"):
        make_optimizer(chosen, 0.1)
    monkeypatch.delattr(keras.optimizers, "Muon")
    with pytest.raises(InputError, match=r"^Keras 3\.12\.1 has no 'muon'; a newer Keras has$"):
        make_optimizer(chosen, 0.1)


class Killed(BaseException):
    pass


def net():
    return keras.Sequential([keras.Input((FEATURES,)), layers.Dense(4), layers.Dropout(0.2), layers.Dense(5)])


def fit(chosen, state=None, devices=1):
    strategy = mirrored(devices) if devices > 1 else tf.distribute.get_strategy()
    examples = data()
    return trainer.train(net, examples, examples, Objective(), chosen, 3, "net", strategy=strategy, state=state)


def fit_twice(chosen, state, kill_at=7):
    """Killed after so many states, and continued."""
    writes, write = [], Checkpoint._write

    def dying(self, *arguments):
        write(self, *arguments)
        writes.append(1)
        if len(writes) == kill_at:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "_write", dying)
        with pytest.raises(Killed):
            fit(chosen, state)
    return fit(chosen, state)


def assert_same(one, other):
    for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.history == other.history


@pytest.fixture(params=[0, optimizers.COMPILED_FROM], ids=["compiled", "not compiled"])
def compiled(request, monkeypatch):
    """Whether the updates of weights as small as those here are compiled."""
    monkeypatch.setattr(optimizers, "COMPILED_FROM", request.param)


# 101 examples are two steps of 64 a pass; the state is written after each step and at the end of a pass.
# Each keeps its state in a way of its own; all fourteen were tried once.
@pytest.mark.long
@pytest.mark.parametrize("name", sorted({"sgd", "adamw", "lion", "muon", "adafactor", "nadam"} & set(NAMES)))
def test_a_training_is_resumed_exactly(name, tmp_path, compiled):
    optimizer = {"name": name, "learning_rate": 0.01}
    chosen = settings(epochs=4, batch_size=64, optimizer=optimizer, checkpoint_every=1)
    assert_same(fit_twice(chosen, tmp_path / "state.npz"), fit(chosen))


EVERYTHING = settings(
    epochs=5,
    batch_size=64,
    optimizer={"name": "adamw", "learning_rate": 0.05},
    schedule={"name": "plateau_halving", "patience": 1, "cooldown": 0},
    warmup=2.5,
    clip_norm=0.1,
    exponential_moving_average=0.9,
    monitor="loss",
    restore="best",
    checkpoint_every=1,
)


@pytest.mark.long
def test_rates_of_a_warm_up_and_averages_are_resumed_exactly(tmp_path):
    """States are written after steps 1 and 2 of an epoch and at its end: the 3rd and 6th after a validation."""
    whole = fit(EVERYTHING)
    for kill_at in (6, 8):
        state = tmp_path / f"{kill_at}.npz"
        assert_same(fit_twice(EVERYTHING, state, kill_at), whole)


@pytest.mark.parametrize("name", sorted(set(NAMES) - optimizers.NOT_FASTER))
def test_compiled_updates_are_those_of_keras(name, monkeypatch):
    chosen = settings(epochs=2, batch_size=64, optimizer={"name": name, "learning_rate": 0.01})
    keras_own = fit(chosen)
    monkeypatch.setattr(optimizers, "COMPILED_FROM", 0)
    for found, wanted in zip(fit(chosen).model.get_weights(), keras_own.model.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "expected"), [("adam", 1), ("sgd", 0), ("lamb", 0)])
def test_which_updates_are_compiled(name, expected):
    rows, columns = 2**9, 2**8
    assert rows * columns == optimizers.COMPILED_FROM
    weights = [keras.Variable(np.ones([count, columns])) for count in (rows, rows, rows - 1)]
    optimizer = make_optimizer(settings(optimizer={"name": name, "learning_rate": 0.1}), 0.1)
    optimizer.build(weights)
    of_few_rows = tf.IndexedSlices(tf.ones([1, columns]), tf.constant([3]), tf.constant([rows, columns]))
    gradients = [tf.ones([rows, columns]), of_few_rows, tf.ones([rows - 1, columns])]
    update = tf.function(lambda: optimizer.apply(gradients, weights), autograph=False)
    functions = update.get_concrete_function().graph.as_graph_def().library.function
    assert sum(function.attr["_XlaMustCompile"].b for function in functions) == expected


@pytest.mark.long
@pytest.mark.parametrize("name", sorted({"adam", "muon", "adafactor", "nadam"} & set(NAMES)))
def test_two_devices_give_the_curve_of_one(name, compiled):
    optimizer = {"name": name, "learning_rate": 0.01, "weight_decay": 0.01}
    chosen = settings(epochs=2, batch_size=64, optimizer=optimizer)
    one, two = (
        train(hidden, data(), Objective(LogitL2()), chosen, strategy=strategy) for strategy in (None, mirrored(2))
    )
    np.testing.assert_allclose(two.history["loss"], one.history["loss"], rtol=1e-4)
    np.testing.assert_allclose(two.history["val_loss"], one.history["val_loss"], rtol=1e-4)


def test_clipping_and_averages_on_two_devices():
    chosen = settings(clip_norm=0.5, exponential_moving_average=0.9, warmup=1)
    one, two = (
        train(hidden, data(97), Objective(LogitL2()), chosen, strategy=strategy) for strategy in (None, mirrored(2))
    )
    for name, curve in one.history.items():
        np.testing.assert_allclose(two.history[name], curve, rtol=1e-5, atol=1e-7, err_msg=name)


def reference(examples, chosen, seed, weights):
    """SGD on logit_l2 with a linear net in float64; the weights after each step."""
    kernel, bias = (np.asarray(weight, np.float64) for weight in weights)
    logits = examples._columns["teacher_logits"].numpy().astype(np.float64)
    inputs = examples.split.batch(np.arange(examples.split.num_examples)).numpy().astype(np.float64)
    steps = chosen.epochs * examples.steps_per_pass(chosen.batch_size)
    until = round(chosen.warmup * examples.steps_per_pass(chosen.batch_size))
    for step, ids in enumerate(shuffled_ids(examples, chosen.batch_size, seed).take(steps).as_numpy_iterator()):
        delta = (inputs[ids] @ kernel + bias - logits[ids]) / len(ids)
        slopes = [inputs[ids].T @ delta, delta.sum(0)]
        norm = np.sqrt(sum((slope**2).sum() for slope in slopes))
        rate = chosen.optimizer.learning_rate * min(1, (step + 1) / until if until else 1)
        rate *= min(1, (chosen.clip_norm or np.inf) / norm)
        kernel, bias = kernel - rate * slopes[0], bias - rate * slopes[1]
        yield kernel, bias


@pytest.mark.parametrize("options", [{"clip_norm": 3.0}, {"warmup": 1.5}, {"exponential_moving_average": 0.8}])
def test_an_option_equals_an_independent_implementation(options):
    examples = data()
    chosen = settings(optimizer={**SGD, "momentum": 0.0, "nesterov": False}, **options)
    keras.utils.set_random_seed(4)
    steps = list(reference(examples, chosen, 4, linear().get_weights()))
    expected = steps[0]
    for weights in steps[1:]:
        keep = chosen.exponential_moving_average or 0.0
        expected = [keep * mean + (1 - keep) * new for mean, new in zip(expected, weights, strict=True)]
    trained = train(linear, examples, Objective(LogitL2()), chosen, seed=4)
    for found, wanted in zip(trained.model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    outputs = examples.split.batch(np.arange(101)).numpy() @ expected[0] + expected[1]
    loss = 0.5 * ((outputs - examples._columns["teacher_logits"].numpy()) ** 2).sum(-1).mean()
    assert trained.history["val_loss"][-1] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"name": "constant"}, [0.01, 0.02, 0.02, 0.02]),
        ({"name": "step", "every": 3, "factor": 0.5}, [0.01, 0.02, 0.02, 0.01]),
        ({"name": "plateau_halving", "patience": 1, "cooldown": 0}, [0.01, 0.01, 0.005, 0.0025]),
    ],
)
def test_a_warm_up_of_two_epochs(schedule, rates):
    """The plateau is of a metric that never falls: the first epoch is the best, and each later one halves the rate."""
    examples = data()
    chosen = settings(epochs=4, schedule=schedule, warmup=2, monitor="constant")
    history = trainer.train(
        linear, examples, examples, Objective(LogitL2()), chosen, 0, "net",
        strategy=tf.distribute.get_strategy(), judge=lambda logits: {"constant": 1.0},
    ).history  # fmt: skip
    # Epoch 2 of the plateau still has the rate of epoch 1, since it is halved at its end, and the whole factor.
    expected = rates if schedule["name"] != "plateau_halving" else [0.01, 0.02, 0.01, 0.005]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)
    assert history["val_constant"] == [1.0] * 4


def test_the_factor_of_a_warm_up():
    warmup = Warmup(keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5), steps=4)
    assert [float(warmup(step)) for step in range(6)] == [0.25, 0.25, 0.1875, 0.125, 0.0625, 0.03125]
    assert warmup.variables == []
