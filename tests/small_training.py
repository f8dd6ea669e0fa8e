"""Examples, nets and trainings of a second or less, for the tests of the trainer's parts."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from mimic_keras.contracts import ArraySplit
from mimic_keras.experiment.training import TrainingSection
from mimic_keras.training import trainer
from mimic_keras.training.batches import Examples
from mimic_keras.training.distribution import split_processor

CLASSES, FEATURES = 5, 6
SGD = {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "nesterov": True}
ADAM = {"name": "adam", "learning_rate": 0.01}


class LogitL2(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        return 0.5 * keras.ops.sum(keras.ops.square(student_logits - teacher_logits), axis=-1)


def data(count=101, unlabelled=0, teacher=True):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=[count, FEATURES]).astype("f4")
    logits = (np.tanh(inputs @ rng.normal(size=[FEATURES, CLASSES])) * [1, 2, 3, 4, 5] + 7).astype("f4")
    labels = np.where(np.arange(count) < unlabelled, -1, logits.argmax(-1))
    return Examples(ArraySplit(inputs, labels), logits if teacher else None)


def linear():
    return keras.Sequential([keras.Input((FEATURES,)), layers.Dense(CLASSES)])


def hidden(decay=0.0):
    regularizer = keras.regularizers.L2(decay) if decay else None
    dense = layers.Dense(16, activation="relu", kernel_regularizer=regularizer)
    return keras.Sequential([keras.Input((FEATURES,)), dense, layers.Dense(CLASSES)])


def normalised():
    stack = [layers.Dense(16, use_bias=False), layers.BatchNormalization(synchronized=True), layers.ReLU()]
    return keras.Sequential([keras.Input((FEATURES,)), *stack, layers.Dense(CLASSES)])


def noisy():
    stack = [layers.Dense(16), layers.BatchNormalization(synchronized=True), layers.ReLU(), layers.Dropout(0.3)]
    return keras.Sequential([keras.Input((FEATURES,)), *stack, layers.Dense(CLASSES)])


def settings(epochs=3, batch_size=16, optimizer=SGD, **options):
    return TrainingSection(epochs=epochs, batch_size=batch_size, optimizer=optimizer, **options)


def train(build, examples, objective, chosen, seed=0, strategy=None, validation=None):
    strategy = strategy or tf.distribute.get_strategy()
    return trainer.train(build, examples, validation or examples, objective, chosen, seed, "net", strategy=strategy)


def mirrored(count):
    return tf.distribute.MirroredStrategy(
        split_processor(4)[:count], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
