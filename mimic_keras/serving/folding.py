"""Layers that a finished net does not need, folded into a neighbour: fewer multiply-adds, the same function.

Weights are computed in float64 and rounded once; a large product is computed in blocks of rows, so that it takes little
more memory than its float32 result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from mimic_keras.contracts import logits_of
from mimic_keras.training.models import AFFINE_HEAD, float32_logits
from mimic_keras.training.private_api import layer_that_made, layers_read_by

Absorb = Literal["auto", "always", "never"]
TOLERANCE = 1e-5  # largest change of the logits, as a share of their spread; `rounding_tolerance` may be larger
PROBES = 8
BLOCK_BYTES = 1 << 28  # of a product in float64
KERNELS: tuple[type, ...] = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
# These return their inputs at inference.
TRANSPARENT: tuple[type, ...] = (keras.layers.Dropout, keras.layers.GaussianNoise, keras.layers.GaussianDropout)


class _Identity(keras.layers.Layer):
    """Stands in for a folded layer; it takes the arguments that Keras passes to any layer."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return inputs

    def compute_output_shape(self, input_shape: Any, **_: Any) -> Any:
        return input_shape


@dataclass(frozen=True)
class Change:
    """One folding: the layer `removed`, if any, and kernel and bias of the layer `kept`; `note` says it in words."""

    removed: str | None
    kept: str
    weights: list[np.ndarray]
    note: str


def fold(model: keras.Model, absorb_bottleneck: Absorb = "auto") -> tuple[keras.Model, list[str]]:
    """A model of the same function, and what was done, in words.

    In this order: the affine head of a standardised student into the layer that makes the logits; a factor into the
    Dense layer after it; batch normalisation into the Dense layer or convolution before it; a linear Dense layer into
    the Dense layer after it (Ba & Caruana 2014, section 2.3: it "can always be absorbed"). A layer that does not fit is
    kept, and so is one whose folding would change the logits of random inputs by more than `rounding_tolerance`.

    Args:
        model: a model of one input; it stays as it is.
        absorb_bottleneck: whether to fold linear Dense layers. auto: where that takes no more multiply-adds, D H
            against D k + k H.

    Example:
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
        >>> fold(net)[1]
        ['the linear layer dense is absorbed by dense_1']
    """
    notes: list[str] = []
    probe = np.random.default_rng(0).normal(size=(PROBES, *model.input_shape[1:])).astype(np.float32)
    expected = float32_logits(model(probe, training=False)).numpy()
    tolerance = rounding_tolerance(weight.shape for weight in model.weights)

    def accept(candidate: keras.Model, before: keras.Model, what: str) -> keras.Model:
        found = float32_logits(candidate(probe, training=False)).numpy()
        difference = float(np.abs(found - expected).max() / max(expected.std(), 1e-30))
        refused = f"not done, since the logits would change by {difference:.1g} of their spread: "
        notes.append(what if difference <= tolerance else refused + what)
        return candidate if difference <= tolerance else before

    if model.layers and model.layers[-1].name == AFFINE_HEAD:
        net, head = model.layers[-2], model.layers[-1]
        folded = _fold_affine_head(net, head)
        if isinstance(folded, str):
            notes.append(f"standardisation kept as a layer: {folded}")
        else:
            model = accept(_apply(folded, net), model, folded.note)
    for find in (_find_factors, _find_normalizations, lambda net: _find_bottlenecks(net, absorb_bottleneck)):
        kept: set[str] = set()
        while change := next((each for each in find(_Graph.of(model)) if each.note not in kept), None):
            kept.add(change.note)
            model = accept(_apply(change, model), model, change.note)
    return model, notes


def rounding_tolerance(shapes: Iterable[Sequence[int]]) -> float:
    """The largest change of a net's logits that may be float32's rounding alone, as a share of their spread.

    TOLERANCE, or 2**-24 sqrt(n) where a kernel sums more terms n than 28,000: rounding errors of a sum grow as its root
    (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis").

    Args:
        shapes: of the net's weights; a kernel's last axis has its outputs.

    Example:
        >>> rounding_tolerance([(1845, 8000), (8000, 183)])
        1e-05
    """
    terms = max((math.prod(shape[:-1]) for shape in shapes), default=1)
    return max(TOLERANCE, 2**-24 * math.sqrt(terms))


@dataclass(frozen=True)
class _Graph:
    """Which layers read which; unknown for a subclassed net, whose layers get no parents."""

    layers: dict[str, Any]
    parents: dict[str, list[str]]

    @classmethod
    def of(cls, net: keras.Model) -> _Graph:
        layers = {layer.name: layer for layer in net.layers}
        parents: dict[str, list[str]] = {name: [] for name in layers}
        for name, layer in layers.items():
            for found in layers_read_by(layer):
                if all(parent in layers for parent in found):
                    parents[name] += found
        return cls(layers, parents)

    def readers(self, name: str) -> list[str]:
        return [reader for reader, parents in self.parents.items() for parent in parents if parent == name]

    def only_reader(self, name: str, skipping: tuple[type, ...] = ()) -> Any:
        """The only layer that reads `name`, if it reads nothing else; layers of `skipping` are passed over."""
        readers = self.readers(name)
        if len(readers) != 1 or len(self.parents[readers[0]]) != 1:
            return None
        layer = self.layers[readers[0]]
        return self.only_reader(readers[0], skipping) if isinstance(layer, skipping) else layer


def _is_linear(layer: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(layer, kinds) and getattr(layer, "activation", None) is keras.activations.linear


def _kernel_and_bias(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Float64 [..., outputs] and [outputs]."""
    kernel, *bias = (weight.astype(np.float64) for weight in layer.get_weights())
    return kernel, bias[0] if bias else np.zeros(kernel.shape[-1])


def _fold_affine_head(net: Any, head: Any) -> Change | str:
    """The change that moves the head into `net`, or why it is impossible."""
    output = net.outputs[0] if isinstance(net, keras.Sequential) else getattr(net, "output", None)
    layer = layer_that_made(logits_of(output))
    if not _is_linear(layer, (keras.layers.Dense,)):
        return "the logits are not a linear Dense layer's"
    if _Graph.of(net).readers(layer.name) or len(layers_read_by(layer)) > 1:
        return "the last Dense layer serves something else too"
    kernel, bias = _kernel_and_bias(layer)
    scale, offset = np.asarray(head.scale, np.float64), np.asarray(head.offset, np.float64)
    weights = [kernel * scale, bias * scale + offset]
    return Change(None, layer.name, weights, "standardisation folded into the last layer")


def _find_factors(graph: _Graph) -> Iterator[Change]:
    for name, layer in graph.layers.items():
        after = graph.only_reader(name, TRANSPARENT) if isinstance(layer, keras.layers.Rescaling) else None
        if isinstance(after, keras.layers.Dense) and np.ndim(layer.scale) == 0 and not np.any(layer.offset):
            kernel, bias = _kernel_and_bias(after)
            yield Change(name, after.name, [kernel * layer.scale, bias], f"the factor {name} folded into {after.name}")


def _find_normalizations(graph: _Graph) -> Iterator[Change]:
    for name, layer in graph.layers.items():
        after = graph.only_reader(name)
        if not _is_linear(layer, KERNELS) or not isinstance(after, keras.layers.BatchNormalization):
            continue
        kernel, bias = _kernel_and_bias(layer)
        channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
        if not channels_last or after.axis not in (-1, len(layer.output.shape) - 1):
            continue
        values = iter(weight.astype(np.float64) for weight in after.get_weights())
        gamma = next(values) if after.scale else 1.0
        beta = next(values) if after.center else 0.0
        mean, variance = values
        scale = gamma / np.sqrt(variance + after.epsilon)
        weights = [kernel * scale, (bias - mean) * scale + beta]
        yield Change(after.name, name, weights, f"{after.name} folded into {name}")


def _find_bottlenecks(graph: _Graph, absorb: Absorb) -> Iterator[Change]:
    for name, layer in graph.layers.items():
        after = graph.only_reader(name, TRANSPARENT) if _is_linear(layer, (keras.layers.Dense,)) else None
        if absorb == "never" or not isinstance(after, keras.layers.Dense) or len(layers_read_by(after)) != 1:
            continue
        (inputs, units), outputs = layer.kernel.shape, after.kernel.shape[1]
        if absorb == "auto" and inputs * outputs > inputs * units + units * outputs:
            continue
        (first, offset), (second, bias) = _kernel_and_bias(layer), _kernel_and_bias(after)
        weights = [_multiply(first, second), offset @ second + bias]
        yield Change(name, after.name, weights, f"the linear layer {name} is absorbed by {after.name}")


def _multiply(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The product of two float64 matrices, in float32."""
    product = np.empty((len(first), second.shape[1]), np.float32)
    rows = max(1, BLOCK_BYTES // (8 * second.shape[1]))
    for start in range(0, len(first), rows):
        product[start : start + rows] = first[start : start + rows] @ second
    return product


def _apply(change: Change, net: keras.Model) -> keras.Model:
    """A copy of the net with the change made."""

    def replaced(layer: Any) -> Any:
        if layer.name == change.removed:
            return _Identity(name=layer.name)
        config = layer.get_config()
        if layer.name == change.kept:
            # Random values that are replaced at once would take several times the memory of the kernel.
            config |= {"use_bias": True, "kernel_initializer": "zeros"}
        return layer.__class__.from_config(config)

    changed = keras.models.clone_model(net, clone_function=replaced)
    for layer in changed.layers:
        if layer.name == change.kept:
            layer.set_weights([weight.astype(np.float32, copy=False) for weight in change.weights])
        elif layer.name != change.removed and layer.weights:
            layer.set_weights(net.get_layer(layer.name).get_weights())
    return changed
