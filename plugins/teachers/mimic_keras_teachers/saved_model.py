"""A teacher from a TensorFlow SavedModel."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import tensorflow as tf

from mimic_keras.contracts import DatasetInfo, InputError, count_parameters, files_below
from mimic_keras_teachers.loaded import Loaded, LoadedModel
from mimic_keras_teachers.outputs import Outputs


class SavedModel(Loaded):
    """A signature of a SavedModel folder.

    Args:
        path: the folder.
        signature: name of the signature, which must have one input.
        output: name of the output; required if there are several.
        outputs: what the signature outputs; see `mimic_keras_teachers.outputs.to_logits`.

    Raises:
        InputError: the folder is missing, has no such signature or output, or does not fit the data set.
    """

    def __init__(
        self,
        path: Path,
        signature: str = "serving_default",
        output: str | None = None,
        outputs: Outputs = "logits",
    ):
        self.path, self.signature, self.output, self.outputs = path, signature, output, outputs

    def source_digest(self) -> str:
        digest = hashlib.sha256(f"{self.signature} {self.output} {self.outputs}".encode())
        for file in files_below(self.path):
            digest.update(file.relative_to(self.path).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.hexdigest()

    def _load(self, info: DatasetInfo) -> LoadedModel:
        if self.path.is_file():
            hint = "; the teacher keras_file reads a .keras file" if self.path.suffix == ".keras" else ""
            raise InputError(f"path: {self.path} is a file, expected the folder of a SavedModel{hint}")
        try:
            loaded = tf.saved_model.load(str(self.path))
        except Exception as error:  # the loader raises anything here, depending on the folder's content
            raise InputError(f"path: {self.path} is not a SavedModel that TensorFlow can load: {error}") from error
        signatures = dict(loaded.signatures)
        if self.signature not in signatures:
            raise InputError(
                f"signature: {self.path} has no '{self.signature}'; it has {', '.join(sorted(signatures))}"
            )
        function = signatures[self.signature]
        inputs, outputs = function.structured_input_signature[1], function.structured_outputs
        if len(inputs) != 1:
            raise InputError(
                f"signature: '{self.signature}' takes {len(inputs)} inputs ({', '.join(inputs)}), expected 1"
            )
        output = self.output or (next(iter(outputs)) if len(outputs) == 1 else None)
        if output not in outputs:
            raise InputError(f"output: expected one of {', '.join(sorted(outputs))}, got {output!r}")
        ((name, specification),) = inputs.items()
        taken, given = specification.shape, outputs[output].shape
        if not taken.rank or not given.rank or taken[0] is not None:
            raise InputError(
                f"signature: '{self.signature}' takes {taken} and gives {given}, expected [any number of examples, ...]"
            )

        def call(x: Any) -> Any:
            return function(**{name: tf.cast(x, specification.dtype)})[output]

        weights = [variable for variable in function.variables if variable.trainable]
        # The loaded object owns the weights that the function reads: it must live as long as the call.
        call.owner = loaded  # type: ignore[attr-defined]
        return LoadedModel(call, tuple(taken), count_parameters(weights))
