"""What the program expects of private names of Keras, TensorFlow and keras-tuner; a release without one fails here."""

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mimic_keras.training import private_api
from mimic_keras.training.distribution import split_processor


class Plain(keras.Model):
    """A linear model with a step of its own, as the trainer has."""

    def __init__(self):
        super().__init__()
        self.net = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
        self.built = True

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(self.net(batch)))
        self.optimizer.apply(tape.gradient(loss, self.net.trainable_variables), self.net.trainable_variables)
        return {"loss": loss}


class Mixed(private_api.AlreadyBuilt, Plain):
    pass


def fit_on_uneven_parts(kind):
    """Five examples give two devices three and two."""
    strategy = tf.distribute.MirroredStrategy(
        split_processor(4)[:2], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = kind()
        model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
        model.optimizer.build(model.net.trainable_variables)
    model.fit(tf.data.Dataset.from_tensors(np.ones([5, 2], np.float32)), epochs=1, verbose=0)
    return int(model.optimizer.iterations.numpy())


def test_a_built_model_takes_a_first_batch_of_uneven_parts():
    assert fit_on_uneven_parts(Mixed) == 1


def test_keras_itself_does_not():
    """If this passes one day, AlreadyBuilt is no longer needed."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have the same size and shape"):
        fit_on_uneven_parts(Plain)


def test_layers_know_what_they_read():
    inputs = keras.Input((4,), name="inputs")
    shared = layers.Dense(4, name="shared")
    first, second = shared(inputs), layers.Dense(4, name="other")(inputs)
    joined = layers.Concatenate(name="joined")([first, second])
    shared(second)
    keras.Model(inputs, joined)
    assert private_api.layers_read_by(joined_layer := private_api.layer_that_made(joined)) == [["shared", "other"]]
    assert private_api.layers_read_by(shared) == [["inputs"], ["other"]], "one list for each call"
    assert (joined_layer.name, private_api.layer_that_made(first)) == ("joined", shared)


@pytest.mark.parametrize("nothing", [None, np.zeros(3), tf.zeros(3)])
def test_what_no_layer_made(nothing):
    assert private_api.layer_that_made(nothing) is None


def test_a_called_functions_graph_has_its_operations():
    inner = tf.function(lambda x: tf.matmul(x, x))
    outer = tf.function(lambda x: inner(x) + 1.0).get_concrete_function(tf.TensorSpec([3, 3], tf.float32))
    (call,) = [each for each in outer.graph.get_operations() if "PartitionedCall" in each.type]
    assert "MatMul" in {each.type for each in private_api.called_graph(call).get_operations()}


def test_an_oracle_takes_completed_trials_for_its_own():
    space = keras_tuner.HyperParameters()
    space.Float("rate", 0.0, 1.0)
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        keras_tuner.Objective("score", "min"), max_trials=5, num_initial_points=1, seed=0, hyperparameters=space
    )
    for number, score in enumerate([0.5, 0.1, 0.9]):
        point = space.copy()
        point.values["rate"] = score
        oracle.trials[str(number)] = private_api.completed_trial(point, str(number), score)
    assert [(trial.trial_id, trial.score) for trial in oracle.get_best_trials(2)] == [("1", 0.1), ("0", 0.5)]
    assert 0.0 <= oracle.populate_space("3")["values"]["rate"] <= 1.0


def test_variables_without_values_never_get_any():
    """Keras gives values to all that it noted when a later scope ends: 4 MB each here, gigabytes in a wide net."""
    with private_api.variables_without_values():
        net = keras.Sequential([keras.Input((10,)), keras.layers.Dense(100_000)])
    kernel = net.layers[0].kernel
    assert kernel.shape == (10, 100_000)
    with keras.StatelessScope():
        pass  # as every symbolic call of a layer ends
    assert kernel._value is None
    kept = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    assert kept.layers[0].kernel._value is not None


def test_the_memory_of_every_gpu_is_known():
    memory = private_api.gpu_memory()
    assert len(memory) == len(tf.config.list_physical_devices("GPU"))
    assert all(size > 1 << 28 for size in memory)


def test_a_deterministic_map_is_not_asked_to_be_parallel():
    """What TensorFlow logs otherwise comes from native code; it makes a map serial that reads a variable."""
    with private_api.separate_state():
        assert private_api.parallel_map_calls() == tf.data.AUTOTUNE
        tf.config.experimental.enable_op_determinism()
        assert private_api.parallel_map_calls() is None


def test_a_function_for_every_net_is_no_needless_tracing(caplog):
    for number in range(12):
        compiled = tf.function(lambda inputs, number=number: inputs + number, autograph=False)
        private_api.without_tracing_warning(compiled)(tf.constant(1.0))
    assert "retracing" not in caplog.text
    for number in range(12):
        tf.function(lambda inputs, number=number: inputs + number, autograph=False)(tf.constant(1.0))
    assert "triggered tf.function retracing" in caplog.text, "TensorFlow itself warns"
