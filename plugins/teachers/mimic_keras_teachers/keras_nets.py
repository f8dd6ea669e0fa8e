"""Teachers from Keras: a .keras file, and a net of keras.applications with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from mimic_keras_architectures.existing import build_application, load_keras_file, load_weights

from mimic_keras.contracts import DatasetInfo, InputError, count_parameters, file_digest
from mimic_keras_teachers.loaded import Loaded, LoadedModel
from mimic_keras_teachers.outputs import Outputs
from mimic_keras_teachers.scaling import expected_inputs


class KerasFile(Loaded):
    """A model saved as a .keras file; code in the file is not run (Keras' safe mode).

    Args:
        path: the file.
        outputs: what the model outputs; see `mimic_keras_teachers.outputs.to_logits`.
        output: name of the output; required if there are several and none is named "logits".

    Raises:
        InputError: the file is missing, is not a Keras model, has no such output, or does not fit the data set.
        RunError: this release of Keras would run code from the file.
    """

    def __init__(self, path: Path, outputs: Outputs = "logits", output: str | None = None):
        self.path, self.outputs, self.output = path, outputs, output

    def source_digest(self) -> str:
        return file_digest(self.path) + self.outputs + (self.output or "")

    def _load(self, info: DatasetInfo) -> LoadedModel:
        model = load_keras_file(self.path)

        def call(x: Any) -> Any:
            outputs = _name_outputs(model, model(x, training=False))
            (only, *others) = outputs
            name = self.output or ("logits" if others else only)
            if name not in outputs:
                raise InputError(f"output: expected one of {', '.join(sorted(outputs))}, got {self.output!r}")
            return outputs[name]

        parameters = count_parameters(model.trainable_weights)
        return LoadedModel(call, model.input_shape, parameters, expected_inputs(model))


class KerasApplication(Loaded):
    """A net of keras.applications with its top, and your own weights; nothing is downloaded.

    The scale of its inputs is the data set's affair: each net expects its own, see its page in Keras' documentation.

    Args:
        model: its name there.
        weights: a .weights.h5 file, `net.save_weights(...)` of the whole net, as in `keras.applications.ResNet50(
            input_shape=..., classes=..., weights=None)`.
        alpha: factor on the widths of a MobileNet; None: Keras' default.

    Raises:
        InputError: Keras has no such net, or the file is missing or does not fit.
        RunError: this release of Keras would read other files that this one names.
    """

    argument = "weights"

    def __init__(self, model: str, weights: Path, alpha: float | None = None):
        self.model, self.path, self.alpha = model, weights, alpha

    def source_digest(self) -> str:
        return file_digest(self.path)

    def _load(self, info: DatasetInfo) -> LoadedModel:
        options = {"classes": info.num_classes, "classifier_activation": None}
        try:
            net = build_application(self.model, info.input_shape, self.alpha, **options)
        except ValueError as error:
            raise InputError(f"model: {self.model}: {error}") from error
        load_weights(net, self.path, f"{self.model} with {info.num_classes} classes")

        def call(x: Any) -> Any:
            return net(x, training=False)

        return LoadedModel(call, net.input_shape, count_parameters(net.trainable_weights), expected_inputs(net))


def _name_outputs(model: keras.Model, outputs: Any) -> Mapping[str, Any]:
    """{name: output}; those of a functional model that are not named have the names of their layers."""
    if isinstance(outputs, Mapping):
        return outputs
    names = getattr(model, "output_names", None) or [model.layers[-1].name]  # a sequential model names none
    return dict(zip(names, outputs if isinstance(outputs, list | tuple) else [outputs], strict=True))
