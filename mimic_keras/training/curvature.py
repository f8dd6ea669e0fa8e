"""The largest curvature of a training's loss, and the learning rate above which SGD is unstable on such a curvature.

The curvature is the largest eigenvalue of the Gauss-Newton matrix, the mean over examples of J' H J: J is the Jacobian
of the net's outputs by its weights, H the Hessian of the example's loss by these outputs (Schraudolph 2002, "Fast
curvature matrix-vector products"; Martens 2010). It leaves out the curvature of the outputs by the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import keras
import tensorflow as tf

from mimic_keras.training.batches import Batch
from mimic_keras.training.models import float32_logits
from mimic_keras.training.objective import Objective

Tensors: TypeAlias = list[tf.Tensor]  # one for each trainable weight

ITERATIONS = 20
TOLERANCE = 1e-3  # relative change between iterations at which they end


def stability_limit(curvature: float, momentum: float, nesterov: bool) -> float:
    """The learning rate above which SGD leaves the minimum of a parabola of this curvature.

    On c w² / 2, with a = rate * c, Keras' steps v <- m v - rate * c * w, w <- w + v are
    w[t+1] = (1 + m - a) w[t] - m w[t-1]; with Nesterov's, w <- w + m v - rate * c * w, they are
    w[t+1] = (1 + m)(1 - a) w[t] - m (1 - a) w[t-1]. w[t+1] = p w[t] - q w[t-1] shrinks if and only if |q| < 1 and
    |p| < 1 + q (Jury's conditions for z² - p z + q). The second gives a < 2 (1 + m) (Polyak 1964), and with Nesterov's
    a < 2 (1 + m) / (1 + 2 m); the first holds below these.

    Example:
        >>> round(stability_limit(100.0, momentum=0.9, nesterov=True), 5)
        0.01357
    """
    return 2 * (1 + momentum) / (curvature * (1 + 2 * momentum if nesterov else 1))


def largest_curvature(net: keras.Model, objective: Objective, batches: Sequence[Batch]) -> float:
    """The largest eigenvalue of the Gauss-Newton matrix of the mean loss over all examples of `batches`.

    By power iteration from a fixed random direction: at most ITERATIONS products of the matrix and a direction, each of
    a forward pass with its derivative and a backward pass over all batches. The net is called as in training, with
    batch normalisation's statistics of each batch, and with the masks of dropout that its seeds give next, the same in
    every product. Nothing changes: neither weights, nor seeds, nor moving statistics. Penalties are not in it.

    Not positive, or NaN: no direction from here has a curvature that limits a rate.

    Example:
        >>> inputs, logits = np.eye(2, dtype=np.float32), np.zeros([2, 1], np.float32)
        >>> batch = {"inputs": inputs, "labels": np.zeros(2, np.int32), "teacher_logits": logits}
        >>> largest_curvature(linear_net, Objective(LogitL2()), [batch])  # the mean of x x' over both is half of eye(2)
        0.5
    """
    variables = (net.trainable_variables, net.non_trainable_variables)
    weights, others = ([tf.convert_to_tensor(each.value) for each in group] for group in variables)
    partial_product = _make_product(net, objective, weights, others)

    def multiply(direction: Tensors) -> Tensors:
        parts, counts = zip(*(partial_product(direction, batch) for batch in batches), strict=True)
        return [tf.add_n(same) / tf.maximum(tf.add_n(counts), 1.0) for same in zip(*parts, strict=True)]

    start = [tf.random.stateless_normal(each.shape, [0, place]) for place, each in enumerate(weights)]
    found = _iterate(multiply, start)
    if found >= 0 or math.isnan(found):
        return found
    # The largest in size is negative, since the loss is not convex in the outputs: shift all by as much.
    return found + _iterate(lambda direction: _add(multiply(direction), direction, -found), start)


def _make_product(
    net: keras.Model, objective: Objective, weights: Tensors, others: Tensors
) -> Callable[[Tensors, Batch], tuple[Tensors, tf.Tensor]]:
    """A function of (direction, batch) to (sum over the batch's examples of J' H J times direction, their weight)."""

    @tf.function(autograph=False, reduce_retracing=True)
    def product(weights: Tensors, direction: Tensors, batch: Batch) -> tuple[Tensors, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            with tf.autodiff.ForwardAccumulator(weights, direction) as forward:
                outputs = float32_logits(net.stateless_call(weights, others, batch["inputs"], training=True)[0])
        change = forward.jvp(outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        slope, count = _multiply_by_hessian(objective, outputs, batch, change)
        back = tape.gradient(outputs, weights, slope, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(each) for each in back], count

    return lambda direction, batch: product(weights, direction, batch)


def _multiply_by_hessian(
    objective: Objective, outputs: tf.Tensor, batch: Batch, change: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """(each example's Hessian of the loss by the outputs, times `change`; the sum of the examples' weights)."""
    with tf.GradientTape() as outer:
        outer.watch(outputs)
        with tf.GradientTape() as inner:
            inner.watch(outputs)
            per_example, weight = objective(outputs, batch)
            loss = tf.reduce_sum(per_example * weight)
        along = tf.reduce_sum(inner.gradient(loss, outputs) * tf.stop_gradient(change))
    return outer.gradient(along, outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO), tf.reduce_sum(weight)


def _iterate(multiply: Callable[[Tensors], Tensors], direction: Tensors) -> float:
    """The eigenvalue of largest size of a symmetric matrix: the Rayleigh quotient at the end of a power iteration."""
    found, image = math.inf, direction
    for _ in range(ITERATIONS):
        norm = tf.linalg.global_norm(image)
        if not 0 < float(norm) < math.inf:
            return 0.0 if float(norm) == 0 else math.nan
        direction = [each / norm for each in image]
        image, before = multiply(direction), found
        found = float(tf.add_n([tf.reduce_sum(a * b) for a, b in zip(direction, image, strict=True)]))
        if abs(found - before) <= TOLERANCE * abs(found):
            break
    return found


def _add(one: Tensors, other: Tensors, factor: float) -> Tensors:
    return [a + factor * b for a, b in zip(one, other, strict=True)]
