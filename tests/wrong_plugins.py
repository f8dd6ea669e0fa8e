"""Plugins that break one rule each, as their authors might well write them; the conformance kit has to find out."""

import dataclasses
import os
import time
import urllib.request
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from mimic_keras.contracts import SPLITS, ArraySplit, Dataset, DatasetInfo, Member, RawSignature, Teacher, error_rate

RULE = {}  # {component: the rule that it breaks}


def breaks(rule):
    def register(component):
        RULE[component] = rule
        return component

    return register


# Losses


@breaks("is_a_keras_loss")
class NoLoss:
    def call(self, teacher_logits, student_logits):
        return ops.mean(ops.square(teacher_logits - student_logits), -1)


@breaks("gives_one_value_per_example")
class Scalar(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        return ops.mean(ops.square(teacher_logits - student_logits))


@breaks("gives_one_value_per_example")
class PerClass(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        return ops.square(teacher_logits - student_logits)


@breaks("no_other_row_changes_a_row")
class ScaledByTheBatch(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        return ops.mean(ops.square(teacher_logits - student_logits), -1) / (1 + ops.std(teacher_logits))


@breaks("no_other_row_changes_a_row")
class WeightedByPlace(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        errors = ops.mean(ops.square(teacher_logits - student_logits), -1)
        return errors * ops.cast(ops.arange(1, ops.shape(errors)[0] + 1), "float32")


@breaks("two_calls_agree")
class Noisy(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        errors = ops.mean(ops.square(teacher_logits - student_logits), -1)
        return errors + 1e-3 * keras.random.normal(ops.shape(errors))


@breaks("two_calls_agree")
class Remembers(keras.losses.Loss):
    calls = 0

    def call(self, teacher_logits, student_logits):
        self.calls += 1
        return ops.mean(ops.square(teacher_logits - student_logits), -1) * (1 + 1e-3 * self.calls)


@breaks("large_logits_stay_finite")
class Overflows(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        one, other = (ops.exp(z) / ops.sum(ops.exp(z), -1, keepdims=True) for z in (teacher_logits, student_logits))
        return ops.sum(ops.square(one - other), -1)


@breaks("large_logits_stay_finite")
class NoGradientAtZero(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        return ops.sqrt(ops.sum(ops.square(teacher_logits - student_logits), -1))


@breaks("the_student_gets_a_gradient")
class Detached(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        return ops.mean(ops.square(teacher_logits - ops.stop_gradient(student_logits)), -1) + 0 * student_logits[:, 0]


@breaks("runs_in_a_graph")
class OutsideOfTheGraph(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        weights = tf.constant(np.array(teacher_logits).std(-1))
        return ops.mean(ops.square(teacher_logits - student_logits), -1) * weights


@breaks("comes_back_from_its_configuration")
class Forgets(keras.losses.Loss):
    def __init__(self, power: float = 3.0):
        super().__init__()
        self.power = power

    def call(self, teacher_logits, student_logits):
        return ops.mean(ops.abs(teacher_logits - student_logits) ** 1.5, -1) * self.power


# Architectures


def stack(input_shape, *more):
    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), *more])


@breaks("is_an_uncompiled_keras_model")
def compiled(input_shape, num_classes):
    net = stack(input_shape, layers.Dense(num_classes))
    net.compile("sgd", "mse")
    return net


@breaks("is_an_uncompiled_keras_model")
def a_function(input_shape, num_classes):
    return lambda inputs, training=False: tf.zeros([len(inputs), num_classes])


@breaks("gives_one_logit_per_class")
def one_class_more(input_shape, num_classes):
    return stack(input_shape, layers.Dense(num_classes + 1))


@breaks("gives_logits_not_probabilities")
def softmaxed(input_shape, num_classes):
    return stack(input_shape, layers.Dense(num_classes, activation="softmax"))


@breaks("logits_stay_float32_in_mixed_precision")
def half_precise(input_shape, num_classes):
    return stack(input_shape, layers.Dense(num_classes))


@keras.saving.register_keras_serializable("tests")
class Centred(layers.Layer):
    def call(self, inputs):
        return inputs - ops.mean(inputs, 0, keepdims=True)


@breaks("no_other_example_changes_one")
def centred_on_the_batch(input_shape, num_classes):
    return stack(input_shape, Centred(), layers.Dense(num_classes, dtype="float32"))


@breaks("the_seed_makes_the_weights")
def seeded_by_the_clock(input_shape, num_classes):
    initializer = keras.initializers.RandomNormal(seed=time.perf_counter_ns() % 2**31)
    return stack(input_shape, layers.Dense(num_classes, kernel_initializer=initializer, dtype="float32"))


@breaks("the_seed_makes_the_weights")
def always_the_same(input_shape, num_classes):
    initializer = keras.initializers.RandomNormal(seed=1)
    return stack(input_shape, layers.Dense(num_classes, kernel_initializer=initializer, dtype="float32"))


@breaks("comes_back_from_its_file")
def with_a_lambda(input_shape, num_classes):
    return stack(input_shape, layers.Lambda(lambda x: x * 2), layers.Dense(num_classes, dtype="float32"))


@keras.saving.register_keras_serializable("tests")
class Cut(layers.Layer):
    def call(self, inputs):
        return ops.stop_gradient(inputs)


@breaks("learns")
def cut_in_two(input_shape, num_classes):
    return stack(input_shape, layers.Dense(4), Cut(), layers.Dense(num_classes, dtype="float32"))


# Data sets


class Right(Dataset):
    """Sixty random images of three classes; those below break a rule of it each."""

    names = ("a", "b", "c")

    @property
    def info(self):
        return DatasetInfo("right", "1", (4,), 3, self.names, {"test": 10})

    def prepare(self, data_dir):
        random = np.random.default_rng(0)
        self.inputs, self.labels = random.random([60, 4], np.float32), random.integers(0, 3, 60).astype(np.int32)
        return "sixty"

    def rows(self, name, seed):
        bounds = {"train": (0, 40), "transfer": (0, 40), "validation": (40, 50), "test": (50, 60)}
        return np.arange(*bounds[name])

    def split(self, name, seed=0):
        if name not in SPLITS:
            raise ValueError(f"no split '{name}'")
        rows = self.rows(name, seed)
        return ArraySplit(self.inputs[rows], self.labels[rows])


def changed(split, batch):
    split.batch = batch
    return split


@breaks("is_as_its_info_says")
class NamesOneClassLess(Right):
    names = ("a", "b")


@breaks("is_as_its_info_says")
class OtherShape(Right):
    def split(self, name, seed=0):
        split = super().split(name, seed)
        return changed(split, lambda ids, of=split.batch: of(ids)[:, :3])


@breaks("is_as_its_info_says")
class CopiesUnsaid(Right):
    def split(self, name, seed=0):
        split = super().split(name, seed)
        split.repeats = 2 if name in ("train", "transfer") else 1
        return split


@breaks("groups_are_of_the_training_examples")
class GroupsOfOneExampleLess(Right):
    @property
    def info(self):
        return dataclasses.replace(super().info, groups=("speaker",))

    def groups(self, name):
        return np.zeros(self.split("train").num_examples - 1, np.int64)


@breaks("labels_are_classes")
class LabelsFromOne(Right):
    def prepare(self, data_dir):
        fingerprint = super().prepare(data_dir)
        self.labels = self.labels + 1
        return fingerprint


@breaks("labels_are_classes")
class UnlabelledTest(Right):
    def split(self, name, seed=0):
        split = super().split(name, seed)
        if name == "test":
            split.labels = np.full_like(split.labels, -1)
        return split


@breaks("an_id_is_always_the_same_example")
class AugmentsAtRandom(Right):
    def split(self, name, seed=0):
        split = super().split(name, seed)
        return changed(split, lambda ids, of=split.batch: of(ids) + tf.random.normal([4]))


@breaks("an_id_is_always_the_same_example")
class NormalisesTheBatch(Right):
    def split(self, name, seed=0):
        split = super().split(name, seed)
        return changed(split, lambda ids, of=split.batch: of(ids) - tf.reduce_mean(of(ids), 0))


@breaks("runs_in_a_graph")
class InNumPy(Right):
    def split(self, name, seed=0):
        split, rows = super().split(name, seed), self.rows(name, seed)
        return changed(split, lambda ids: tf.constant(self.inputs[rows][ids.numpy()]))


@breaks("two_reads_are_identical")
class FingerprintOfTheClock(Right):
    def prepare(self, data_dir):
        return super().prepare(data_dir) + str(time.perf_counter_ns())


@breaks("the_seed_drives_augmentation_alone")
class AnotherSplitForAnotherSeed(Right):
    def rows(self, name, seed):
        return np.random.default_rng(seed).permutation(60)[super().rows(name, seed)]


@breaks("no_example_is_in_two_splits")
class TrainsOnTest(Right):
    def rows(self, name, seed):
        return np.arange(60) if name in ("train", "transfer") else super().rows(name, seed)


@breaks("no_example_is_in_two_splits")
class TransferInAnotherOrder(Right):
    def rows(self, name, seed):
        return super().rows(name, seed)[::-1] if name == "transfer" else super().rows(name, seed)


@breaks("an_unknown_split_is_refused")
class TakesAnySplit(Right):
    def split(self, name, seed=0):
        return super().split(name if name in SPLITS else "train", seed)


@breaks("works_offline_and_writes_in_its_folder_alone")
class DownloadsEveryTime(Right):
    def prepare(self, data_dir):
        try:
            urllib.request.urlopen("http://127.0.0.1:9/data", timeout=1)
        except ConnectionRefusedError:
            pass
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
        return super().prepare(data_dir)


@breaks("works_offline_and_writes_in_its_folder_alone")
class WritesBesideItsFolder(Right):
    def prepare(self, data_dir):
        (data_dir.parent / "beside").write_text("mine")
        return super().prepare(data_dir)


@breaks("choices_are_made_on_validation")
class TunesOnTest(Right):
    def evaluate(self, logits):
        def errors(name, values, place):
            return error_rate(self.split(name).labels, values + np.eye(3)[place] * 9)

        best = min(range(3), key=lambda place: errors("test", logits.get("test", logits["validation"]), place))
        return {name: {"error_rate": errors(name, values, best)} for name, values in logits.items()}


@breaks("raw_signatures_prepare_as_the_splits_do")
class ServesOtherwise(Right):
    def raw_signatures(self):
        inputs = {"values": tf.TensorSpec((None, 4), tf.float32)}
        values = {"values": self.inputs[40:44]}
        return {"serve": RawSignature(inputs, lambda values: values * 1.001, values, np.arange(4))}


# Teachers


class RightTeacher(Teacher):
    """A random net; those below break a rule of it each."""

    def net(self, context):
        info = context.dataset.info
        return context.train(lambda: stack(info.input_shape, layers.Dense(info.num_classes)))

    def member(self, context):
        net = self.net(context)
        return Member(net, 5, net)


@breaks("gives_one_logit_per_class")
class GivesNaN(RightTeacher):
    def member(self, context):
        net = self.net(context)
        return Member(lambda inputs: net(inputs) * np.nan, 5, net)


@breaks("gives_logits_not_probabilities")
class GivesProbabilities(RightTeacher):
    def member(self, context):
        net = self.net(context)
        return Member(lambda inputs: tf.nn.softmax(net(inputs)), 5, net)


@breaks("the_seed_makes_the_member")
class DrawsItsOwnWeights(RightTeacher):
    def member(self, context):
        net = self.net(context)
        random = np.random.default_rng(list(os.urandom(8)))
        net.set_weights([random.random(weight.shape) for weight in net.get_weights()])
        return Member(net, 5, net)


@breaks("its_source_has_a_digest")
class LoadsWithoutADigest(RightTeacher):
    def member(self, context):
        return Member(self.net(context), 5)


@breaks("counts_its_parameters")
class CountsInWords(RightTeacher):
    def member(self, context):
        net = self.net(context)
        return Member(net, "many", net)


@breaks("writes_in_its_folder_alone")
class WritesIntoTheWorkingFolder(RightTeacher):
    def member(self, context):
        place = Path(context.directory).parent / "teacher.log"
        place.write_text("trained")
        return super().member(context)
