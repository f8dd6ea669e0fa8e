"""A teacher from an ONNX file, as PyTorch, scikit-learn, XGBoost and others export it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mimic_keras_architectures.existing import check_inputs

from mimic_keras.contracts import DatasetInfo, InputError, file_digest
from mimic_keras_teachers.loaded import Loaded, LoadedModel, in_python
from mimic_keras_teachers.outputs import Outputs

Layout = Literal["channels_last", "channels_first", "flat"]
DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxFile(Loaded):
    """A model in one ONNX file, run by ONNX Runtime on the CPU with deterministic kernels.

    Needs the extra `onnx`. Its parameters and multiply-adds are not counted.

    Args:
        path: the file, of at most 2 GB, with the weights inside; it has one input, of any number of examples.
        output: name of the output; required if there are several.
        outputs: what the model outputs; see `mimic_keras_teachers.outputs.to_logits`.
        layout: how the model takes an example: as the data set has it (`channels_last`), with its last dimension first
            (`channels_first`, as PyTorch's image nets), or as one vector (`flat`, as scikit-learn's models).

    Raises:
        InputError: onnxruntime or the file is missing, it is no such model, or does not fit the data set.
    """

    def __init__(
        self, path: Path, output: str | None = None, outputs: Outputs = "logits", layout: Layout = "channels_last"
    ):
        self.path, self.output, self.outputs, self.layout = path, output, outputs, layout

    def source_digest(self) -> str:
        return file_digest(self.path)

    def _load(self, info: DatasetInfo) -> LoadedModel:
        session = self._open()
        name, dtype = self._check_input(session, info)
        output = self._choose_output(session)

        def function(rows: np.ndarray) -> np.ndarray:
            return session.run([output], {name: self._arrange(rows).astype(dtype)})[0]

        return LoadedModel(in_python(self._place, function, info.input_shape), (None, *info.input_shape), None)

    def _open(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(f"onnx_file needs onnxruntime: pip install 'mimic-keras[onnx]' ({error})") from error
        options = onnxruntime.SessionOptions()
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # errors are raised anyway
        # A file in place of a folder: weights in other files, which no digest covers, are not found.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.path))
        try:
            return onnxruntime.InferenceSession(self.path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises anything here, depending on the file's content
            hint = ""
            if "external" in str(error).lower():
                hint = "; its weights have to be in the same file: torch.onnx.export(..., external_data=False)"
            raise InputError(f"{self._place} is not a model that ONNX Runtime can load{hint}: {error}") from error

    def _check_input(self, session: Any, info: DatasetInfo) -> tuple[str, type]:
        inputs = session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(each.name for each in inputs)
            raise InputError(f"{self._place} takes {len(inputs)} inputs ({names}), expected 1")
        (given,) = inputs
        if given.type not in DTYPES:
            raise InputError(f"{self._place} takes {given.type}, expected one of {', '.join(DTYPES)}")
        shape = tuple(size if isinstance(size, int) else None for size in given.shape)
        if shape and shape[0] is not None:
            raise InputError(
                f"{self._place} takes exactly {shape[0]} examples at a time, expected any number: export it with a "
                "dynamic first dimension (PyTorch: dynamic_shapes or dynamic_axes; scikit-learn: [None, ...])"
            )
        expected = self._arrange(np.empty((1, *info.input_shape))).shape[1:]
        check_inputs(f"{self._place} with layout: {self.layout}", shape, expected)
        return given.name, DTYPES[given.type]

    def _choose_output(self, session: Any) -> str:
        outputs = {each.name: each.type for each in session.get_outputs()}
        name = self.output or (next(iter(outputs)) if len(outputs) == 1 else "")
        if name not in outputs:
            raise InputError(f"output: expected one of {', '.join(outputs)}, got {self.output!r}")
        if outputs[name] not in DTYPES:
            raise InputError(
                f"output: '{name}' is {outputs[name]}, expected one of {', '.join(DTYPES)}; a classifier of "
                "scikit-learn gives a tensor if it is exported with options={'zipmap': False}"
            )
        return name

    def _arrange(self, rows: np.ndarray) -> np.ndarray:
        """The examples [B, *input_shape] as the model takes them."""
        if self.layout == "flat":
            return rows.reshape(len(rows), math.prod(rows.shape[1:]))
        return np.moveaxis(rows, -1, 1) if self.layout == "channels_first" and rows.ndim > 2 else rows
