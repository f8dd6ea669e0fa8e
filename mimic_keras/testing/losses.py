"""What a loss promises."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.testing.rules import Case, Rule, require, require_same

ROWS = 6
LARGE = 1e4


def _batch(case: Case, scale: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(teacher's logits, student's logits, labels) of ROWS examples; the last has no label."""
    random = np.random.default_rng(seed)
    teacher, student = random.normal(0, scale, (2, ROWS, case.num_classes)).astype(np.float32)
    labels = random.integers(0, case.num_classes, ROWS).astype(np.int32)
    labels[-1] = -1
    return teacher, student, labels


def _values(loss: Any, teacher: Any, student: Any, labels: np.ndarray) -> tf.Tensor:
    extra = {"labels": tf.constant(labels)} if "labels" in inspect.signature(loss.call).parameters else {}
    values = tf.convert_to_tensor(loss.call(tf.convert_to_tensor(teacher), tf.convert_to_tensor(student), **extra))
    require(values.shape == teacher.shape[:1], f"shape {tuple(values.shape)} for {teacher.shape[0]} examples")
    return values


def is_a_keras_loss(case: Case) -> None:
    """A loss is a subclass of keras.losses.Loss."""
    loss = case.make()
    require(isinstance(loss, keras.losses.Loss), f"it is a {type(loss).__name__}")


def gives_one_value_per_example(case: Case) -> None:
    """`call(teacher_logits, student_logits)` returns float32 [batch]; the trainer computes the mean."""
    values = _values(case.make(), *_batch(case))
    require(values.dtype == tf.float32, f"{values.dtype.name}")


def no_other_row_changes_a_row(case: Case) -> None:
    """An example's value does not depend on the order or the size of the batch, or on other examples."""
    loss, (teacher, student, labels) = case.make(), _batch(case)
    whole = _values(loss, teacher, student, labels).numpy()
    backwards = _values(loss, teacher[::-1], student[::-1], labels[::-1]).numpy()[::-1]
    alone = np.concatenate(
        [_values(loss, *(part[row : row + 1] for part in (teacher, student, labels))) for row in range(ROWS)]
    )
    for found, what in ((backwards, "in the opposite order"), (alone, "one by one")):
        require(np.allclose(found, whole, rtol=1e-5, atol=1e-6), f"the batch gives {whole}, {what} {found}")


def two_calls_agree(case: Case) -> None:
    """The same logits give the same bits: nothing is random, and nothing is remembered between calls."""
    loss, batch = case.make(), _batch(case)
    first = _values(loss, *batch)
    _values(loss, *_batch(case, seed=1))
    require_same(first, _values(loss, *batch), "the second call gives other values")
    require_same(first, _values(case.make(), *batch), "another instance gives other values")


def large_logits_stay_finite(case: Case) -> None:
    """Values and gradients are finite for logits from -1e4 to 1e4, and where teacher and student agree."""
    loss = case.make()
    teacher, student, labels = _batch(case)
    signs = np.where(student > 0, LARGE, -LARGE).astype(np.float32)
    pairs = {
        "opposite": (-signs, signs),
        "equal": (signs, signs),
        "against small ones": (teacher, signs),
        "zero": (0 * signs, 0 * signs),
    }
    for name, (one, other) in pairs.items():
        variable = tf.Variable(other)
        with tf.GradientTape() as tape:
            values = _values(loss, one, variable, labels)
        gradient = tape.gradient(values, variable)
        require(gradient is not None, "the student gets no gradient")
        require(np.isfinite(values).all(), f"{name} logits of {LARGE:g} give {values.numpy()}")
        require(np.isfinite(gradient).all(), f"{name} logits of {LARGE:g} give gradients {gradient.numpy()[0]}")


def the_student_gets_a_gradient(case: Case) -> None:
    """Where teacher and student differ, the gradient is not 0."""
    teacher, student, labels = _batch(case)
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        values = _values(case.make(), teacher, variable, labels)
    gradient = tape.gradient(values, variable)
    require(gradient is not None and np.any(gradient.numpy() != 0), "there is none")


def runs_in_a_graph(case: Case) -> None:
    """Inside tf.function it gives the same values as outside."""
    loss, batch = case.make(), _batch(case)
    run = tf.function(lambda one, other: _values(loss, one, other, batch[2]), autograph=False)
    found, expected = run(tf.constant(batch[0]), tf.constant(batch[1])).numpy(), _values(loss, *batch).numpy()
    require(np.allclose(found, expected, rtol=1e-5, atol=1e-6), f"{found} inside, {expected} outside")


def comes_back_from_its_configuration(case: Case) -> None:
    """`from_config(get_config())` is the same loss, and every argument is in the configuration."""
    loss, batch = case.make(), _batch(case)
    again = type(loss).from_config(loss.get_config())
    require_same(_values(loss, *batch), _values(again, *batch), "the copy gives other values")
    missing = [name for name in case.component.arguments if name not in loss.get_config()]
    require(not missing, f"get_config has no {', '.join(missing)}")


def works_in_keras_compile(case: Case) -> None:
    """Unless its `call` has `labels`, it trains in a plain `model.compile(loss=...)` with teacher logits as targets."""
    loss, (teacher, _, _) = case.make(), _batch(case)
    if "labels" in inspect.signature(loss.call).parameters:
        return
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(case.num_classes)])
    model.compile(keras.optimizers.SGD(1e-4), loss)
    history = model.fit(np.ones([ROWS, 3], np.float32), teacher, epochs=1, verbose=0).history["loss"]
    require(np.isfinite(history).all(), f"the loss became {history}")


RULES: tuple[Rule, ...] = (
    is_a_keras_loss,
    gives_one_value_per_example,
    no_other_row_changes_a_row,
    two_calls_agree,
    large_logits_stay_finite,
    the_student_gets_a_gradient,
    runs_in_a_graph,
    comes_back_from_its_configuration,
    works_in_keras_compile,
)
