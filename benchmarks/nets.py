"""The nets that are measured, and their layers as plain data, for PyTorch's twin and the bare products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# {"kind": "convolution", "inputs": [rows, columns, channels], "kernel": [3, 3], "outputs": filters, "bias": True},
# {"kind": "dense", "inputs": size, "outputs": size, "bias": True}, {"kind": "pooling", "size": 2},
# {"kind": "flatten"} or {"kind": "relu"}
Layer = dict[str, Any]


@dataclass(frozen=True)
class Net:
    """A net of mimic_keras_architectures, and how it is trained; `steps` make an epoch."""

    title: str
    architecture: str
    arguments: dict[str, Any]
    input_shape: tuple[int, ...]
    num_classes: int
    batch_size: int
    steps: int
    learning_rate: float = 0.001
    contenders: tuple[str, ...] = field(default=())

    def build(self) -> keras.Model:
        import mimic_keras_architectures

        return getattr(mimic_keras_architectures, self.architecture)(
            self.input_shape, self.num_classes, **self.arguments
        )

    def layers(self) -> list[Layer]:
        """The layers of the net, which is built without values."""
        from mimic_keras.training.models import build_without_values

        net = build_without_values(self.build, lambda build: build())
        return [found for layer in net.layers for found in _describe(layer)]


def _describe(layer: Any) -> list[Layer]:
    kind = type(layer).__name__
    if kind == "Dense":
        return [{"kind": "dense", "inputs": layer.input.shape[-1], "outputs": layer.units, "bias": layer.use_bias}]
    if kind == "Conv2D" and (layer.padding, layer.strides) == ("same", (1, 1)):
        sizes = {"inputs": list(layer.input.shape[1:]), "kernel": list(layer.kernel_size), "outputs": layer.filters}
        return [{"kind": "convolution", **sizes, "bias": layer.use_bias}]
    if kind == "MaxPooling2D" and layer.pool_size == layer.strides:
        return [{"kind": "pooling", "size": layer.pool_size[0]}]
    if kind == "Flatten":
        return [{"kind": "flatten"}]
    if kind == "Activation" and layer.activation.__name__ == "relu":
        return [{"kind": "relu"}]
    if kind == "InputLayer":
        return []
    raise SystemExit(f"{kind} has no twin in PyTorch here")


def multiply_adds(layers: Sequence[Layer]) -> list[int]:
    """Of every dense layer and convolution, for one example."""
    return [_count(layer) for layer in layers if "outputs" in layer]


def _count(layer: Layer) -> int:
    if layer["kind"] == "dense":
        return layer["inputs"] * layer["outputs"]
    return math.prod(layer["inputs"]) * math.prod(layer["kernel"]) * layer["outputs"]


def training_operations(layers: Sequence[Layer]) -> int:
    """Floating-point operations of the products of a training step, for one example.

    Each layer takes three products, the first two, since its inputs need no gradient; a multiply-add is two operations.
    """
    counts = multiply_adds(layers)
    return 2 * (3 * sum(counts) - counts[0])


CNN_TEACHER = {"filters": [[32, 32], [64, 64], [128, 128]], "hidden_units": [256]}
CONV_STUDENT = {"filters": [32, 64], "linear_units": 64, "hidden_units": [1000], "kernel_size": 3}
KERAS = ("ours", "ours, not deterministic", "model.fit", "products")
HALF = ("ours, bfloat16", "products, bfloat16")
PYTORCH = ("PyTorch", "PyTorch, compiled")


def _timit(hidden_units: int, batch_size: int, steps: int, learning_rate: float) -> Net:
    return Net(
        f"TIMIT, 1845-250L-{hidden_units}-183",
        "bottleneck",
        {"linear_units": 250, "hidden_units": [hidden_units]},
        (15, 123),
        183,
        batch_size,
        steps,
        learning_rate,
        (*KERAS, *HALF, *PYTORCH),
    )


IMAGES = ((32, 32, 3), 10, 128, 32)
CHANNELS_LAST = ("PyTorch, channels_last", "PyTorch, channels_last, compiled")
CONVOLUTIONAL = (*KERAS, "ours, bfloat16", *PYTORCH, *CHANNELS_LAST)
NETS = {
    "small": Net("64-64-10", "mlp", {"hidden_units": [64]}, (8, 8, 1), 10, 128, 1600, contenders=(*KERAS, *PYTORCH)),
    "cnn": Net("CNN teacher, 32-32-64-64-128-128-256", "cnn", CNN_TEACHER, *IMAGES, contenders=CONVOLUTIONAL),
    "conv_student": Net(
        "convolutional student, 32-64-64L-1000", "conv_student", CONV_STUDENT, *IMAGES, contenders=CONVOLUTIONAL
    ),
    "shallow_student": Net(
        "student without convolutions, 300L-2000",
        "bottleneck",
        {"linear_units": 300, "hidden_units": [2000]},
        *IMAGES,
        contenders=(*KERAS, *PYTORCH),
    ),
    "timit_8k": _timit(8_000, 512, 20, 0.001),
    "timit_160k": _timit(160_000, 256, 5, 1e-6),  # the wide nets diverge at the others' rate
    "timit_400k": _timit(400_000, 256, 3, 1e-6),
}
