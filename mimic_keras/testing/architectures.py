"""What an architecture promises."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mimic_keras.contracts import logits_of
from mimic_keras.testing.rules import Case, Rule, are_probabilities, require, require_same
from mimic_keras.training.models import float32_logits

ROWS = 4


def _net(case: Case, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return case.make(case.input_shape, case.num_classes)


def _inputs(case: Case, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, *case.input_shape)).astype(np.float32)


def _logits(net: Any, inputs: Any) -> np.ndarray:
    return np.asarray(logits_of(net(inputs, training=False)))


def is_an_uncompiled_keras_model(case: Case) -> None:
    """It returns a keras.Model that is not compiled and has trainable weights."""
    net = _net(case)
    require(isinstance(net, keras.Model), f"it returned a {type(net).__name__}")
    require(not net.compiled, "it is compiled")
    require(net.trainable_weights, "it has no trainable weights")


def gives_one_logit_per_class(case: Case) -> None:
    """float32 [batch, *input_shape] gives float32 [batch, num_classes], for any batch size."""
    net = _net(case)
    for rows in (1, ROWS):
        found = _logits(net, _inputs(case, rows))
        require(
            found.shape == (rows, case.num_classes), f"{found.shape} for {rows} examples of {case.num_classes} classes"
        )
        require(found.dtype == np.float32, f"{found.dtype}")


def gives_logits_not_probabilities(case: Case) -> None:
    """The outputs are scores without a softmax: mimicking probabilities loses what the teacher knows."""
    inputs = 10 * _inputs(case, 32)
    require(not are_probabilities(_logits(_net(case), inputs)), "they are not negative and sum to 1 for every example")


def logits_stay_float32_in_mixed_precision(case: Case) -> None:
    """Under mixed_bfloat16 the logits are still float32: eight bits of mantissa are too few to mimic."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = _logits(_net(case), _inputs(case))
    finally:
        keras.config.set_dtype_policy(before)
    require(found.dtype == np.float32, f"they are {found.dtype}")


def no_other_example_changes_one(case: Case) -> None:
    """At inference an example's logits do not depend on the rest of the batch, and nothing is random."""
    net, inputs = _net(case), _inputs(case)
    whole = _logits(net, inputs)
    alone = np.concatenate([_logits(net, inputs[row : row + 1]) for row in range(ROWS)])
    require(np.allclose(alone, whole, rtol=1e-4, atol=1e-5), "one by one they differ")
    require_same(whole, _logits(net, inputs), "a second call gives other logits")


def the_seed_makes_the_weights(case: Case) -> None:
    """`keras.utils.set_random_seed` determines the weights: the same seed gives the same, another gives others."""
    one, same, other = (_net(case, seed).get_weights() for seed in (0, 0, 1))
    for weight, again in zip(one, same, strict=True):
        require_same(weight, again, "the same seed gives other weights")
    require(
        any(not np.array_equal(*pair) for pair in zip(one, other, strict=True)), "another seed gives the same weights"
    )


def comes_back_from_its_file(case: Case) -> None:
    """Saved as .keras and loaded in safe mode, it gives the same logits, to the bit."""
    net, inputs, file = _net(case), _inputs(case), case.folder / "net.keras"
    net.save(file)
    again = keras.models.load_model(file, compile=False, safe_mode=True)
    require_same(_logits(net, inputs), _logits(again, inputs), "the loaded net gives other logits")


def comes_back_from_a_saved_model(case: Case) -> None:
    """Exported as a SavedModel, it gives the same logits to 1e-5 of their spread."""
    net, inputs = _net(case), _inputs(case)
    specification = tf.TensorSpec((None, *case.input_shape), tf.float32, name="inputs")
    archive = keras.export.ExportArchive()
    archive.add_endpoint(
        "serve", lambda inputs: float32_logits(net(inputs, training=False)), input_signature=[specification]
    )
    archive.write_out(str(case.folder / "export"), verbose=False)
    loaded = tf.saved_model.load(str(case.folder / "export"))  # owns the weights that its function reads
    found = loaded.serve(inputs).numpy()
    expected = _logits(net, inputs)
    require(np.abs(found - expected).max() <= 1e-5 * max(expected.std(), 1e-30), "it gives other logits")


def learns(case: Case) -> None:
    """Every trainable weight gets a finite gradient."""
    net = _net(case)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tf.square(float32_logits(net(_inputs(case), training=True)) - 1.0))
    for weight, gradient in zip(
        net.trainable_weights, tape.gradient(value, [w.value for w in net.trainable_weights]), strict=True
    ):
        require(gradient is not None, f"{weight.path} gets no gradient")
        require(np.isfinite(tf.convert_to_tensor(gradient)).all(), f"the gradient of {weight.path} is not finite")


RULES: tuple[Rule, ...] = (
    is_an_uncompiled_keras_model,
    gives_one_logit_per_class,
    gives_logits_not_probabilities,
    logits_stay_float32_in_mixed_precision,
    no_other_example_changes_one,
    the_seed_makes_the_weights,
    comes_back_from_its_file,
    comes_back_from_a_saved_model,
    learns,
)
