"""Components tried before anything is trained: what cannot work becomes a problem of its place."""

import errno

import keras
import numpy as np
import pytest
from keras import layers

from mimic_keras.contracts import Dataset, DatasetInfo, InputError, RunError, Teacher
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning import preflight
from mimic_keras.planning.components import Component
from mimic_keras.planning.plugins import Plugin
from mimic_keras.training.models import Cost

INFO = DatasetInfo("squares", "1", (3, 2), 4, ("a", "b", "c", "d"))
PLACE = Place("student", "architecture")


def component(kind, target, **arguments):
    plugin = Plugin(kind, "mine", None, "my-plugins", "2.0", "")
    plugin.__dict__["target"] = target  # as if it had been imported
    return Component(plugin, arguments)


@pytest.fixture
def problems():
    return Problems("x.yaml")


@pytest.mark.parametrize("error", [InputError("no such file"), RunError("broken")])
def test_errors_become_problems(problems, error):
    with preflight.errors_as_problems(PLACE, problems):
        raise error
    assert problems.found == {PLACE: str(error)}


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_other_errors_are_not_caught(problems, error):
    with pytest.raises(type(error)), preflight.errors_as_problems(PLACE, problems):
        raise error
    assert problems.found == {}


class Squares(Dataset):
    def __init__(self, error=None):
        self.error = error

    @property
    def info(self):
        if self.error:
            raise self.error
        return INFO

    def prepare(self, data_dir):
        pytest.fail("a plan prepares nothing")

    def split(self, name, seed=0):
        pytest.fail("a plan reads nothing")


def test_the_info_of_a_data_set(problems):
    assert preflight.read_dataset_info(component("dataset", Squares), Place("dataset"), problems) is INFO
    assert problems.found == {}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("no folder /x"), "no folder /x"),
        (ValueError("two\nlines"), "dataset 'mine' (my-plugins 2.0): two lines"),
    ],
)
def test_a_data_set_without_info(problems, error, message):
    made = component("dataset", Squares, error=error)
    assert preflight.read_dataset_info(made, Place("dataset"), problems) is None
    assert problems.found == {Place("dataset"): message}


class Loaded(Teacher):
    def member(self, context):
        pytest.fail("a plan makes no member")

    def check(self, info):
        if info.num_classes != 3:
            raise InputError(f"three classes, not {info.num_classes}")


def test_a_teacher_checks_that_it_fits(problems):
    preflight.check_teacher(component("teacher", Loaded), INFO, Place("teacher"), problems)
    assert problems.found == {Place("teacher"): "three classes, not 4"}


def net(input_shape, num_classes, *, more=()):
    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), *more, layers.Dense(num_classes)])


def test_the_cost_of_a_net(problems):
    made = component("architecture", net, more=(layers.Dense(5),))
    # 6 inputs, 5 units, 4 classes
    assert preflight.measure_net(made, INFO, PLACE, problems) == Cost(6 * 5 + 5 + 5 * 4 + 4, 6 * 5 + 5 * 4)
    assert problems.found == {}


def test_a_wide_net_is_measured_without_values(problems):
    made = component("architecture", net, more=(layers.Dense(10**6),))
    expected = Cost((6 + 1 + 4) * 10**6 + 4, (6 + 4) * 10**6)
    assert preflight.measure_net(made, INFO, PLACE, problems) == expected


def test_logits_may_be_one_of_several_outputs(problems):
    def named(input_shape, num_classes):
        inputs = keras.Input(input_shape)
        features = layers.Flatten()(inputs)
        return keras.Model(inputs, {"logits": layers.Dense(num_classes)(features), "features": features})

    found = preflight.measure_net(component("architecture", named), INFO, PLACE, problems)
    assert problems.found == {}
    assert found == Cost(6 * 4 + 4, 24)


class Unregistered(layers.Layer):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda shape, classes: net(shape, classes + 1),
            ": logits of shape (1, 5) for one example, expected [batch, 4]",
        ),
        (
            lambda shape, classes: keras.Sequential([keras.Input(shape), layers.Dense(classes)]),
            ": logits of shape (1, 3, 4) for one example, expected [batch, 4]",
        ),
        (lambda shape, classes: net(shape, classes, more=[Unregistered()]), "Could not locate class 'Unregistered'"),
        (lambda shape, classes: None, "raised TypeError: returned a NoneType, expected a keras.Model"),
        (lambda shape, classes: 1 // 0, "raised ZeroDivisionError: integer division or modulo by zero"),
    ],
)
def test_nets_that_break_the_contract(problems, build, message):
    assert preflight.measure_net(component("architecture", build), INFO, PLACE, problems) is None
    assert list(problems.found) == [PLACE]
    assert problems.found[PLACE].startswith("architecture 'mine' (my-plugins 2.0)")
    assert message in problems.found[PLACE]


class Squared(keras.losses.Loss):
    def __init__(self, rows=None):
        super().__init__()
        self.rows = rows

    def call(self, teacher_logits, student_logits, labels):
        expected = np.linspace(-1, 1, 8).reshape(2, 4)
        np.testing.assert_allclose(teacher_logits, expected, atol=1e-6)
        np.testing.assert_allclose(student_logits, expected[::-1], atol=1e-6)
        assert list(labels) == [0, 0]
        errors = keras.ops.mean((teacher_logits - student_logits) ** 2, -1)
        return errors if self.rows is None else self.rows(errors)


def test_a_loss_is_called_on_two_different_examples(problems):
    preflight.check_loss(component("loss", Squared), 4, Place("student", "loss"), problems)
    assert problems.found == {}


def test_a_loss_that_gives_one_value_for_all_is_a_problem(problems):
    preflight.check_loss(component("loss", Squared, rows=keras.ops.mean), 4, Place("student", "loss"), problems)
    message = "Squared.call must return one value per example, got ()"
    assert problems.found == {Place("student", "loss"): f"loss 'mine' (my-plugins 2.0) raised TypeError: {message}"}
