"""A SavedModel loaded and run as TensorFlow Serving does it: by the C++ loader, through TensorFlow's C API.

Python's tf.saved_model is not involved, so that what works here works in the server.
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/c/c_api.h
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from mimic_keras.contracts import RunError

TAG = b"serve"
STRING_BYTES = 24  # sizeof(TF_TString)

_POINTER, _SIZE, _INT, _INT64, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int64, ctypes.c_char_p


class _Buffer(ctypes.Structure):
    _fields_ = (("data", _POINTER), ("length", _SIZE), ("deallocator", _POINTER))


class _Output(ctypes.Structure):
    _fields_ = (("operation", _POINTER), ("index", _INT))


_BUFFER, _OUTPUTS, _TENSORS = ctypes.POINTER(_Buffer), ctypes.POINTER(_Output), ctypes.POINTER(_POINTER)
# {name without TF_: (result, *arguments)}
_FUNCTIONS: dict[str, tuple] = {
    "NewStatus": (_POINTER,),
    "GetCode": (_INT, _POINTER),
    "Message": (_TEXT, _POINTER),
    "NewGraph": (_POINTER,),
    "NewSessionOptions": (_POINTER,),
    "NewBuffer": (_BUFFER,),
    "GraphOperationByName": (_POINTER, _POINTER, _TEXT),
    "LoadSessionFromSavedModel": (
        _POINTER,
        *(_POINTER, _POINTER, _TEXT, ctypes.POINTER(_TEXT), _INT, _POINTER, _BUFFER, _POINTER),
    ),
    "SessionRun": (
        None,
        *(_POINTER, _POINTER, _OUTPUTS, _TENSORS, _INT, _OUTPUTS, _TENSORS, _INT, _POINTER, _INT, _POINTER, _POINTER),
    ),
    "AllocateTensor": (_POINTER, _INT, ctypes.POINTER(_INT64), _INT, _SIZE),
    "DeleteTensor": (None, _POINTER),
    "TensorData": (_POINTER, _POINTER),
    "TensorByteSize": (_SIZE, _POINTER),
    "TensorType": (_INT, _POINTER),
    "NumDims": (_INT, _POINTER),
    "Dim": (_INT64, _POINTER, _INT),
    "StringInit": (None, _POINTER),
    "StringCopy": (None, _POINTER, _TEXT, _SIZE),
    "StringGetDataPointer": (_POINTER, _POINTER),
    "StringGetSize": (_SIZE, _POINTER),
}


class ServingError(RunError):
    """The export cannot be loaded, or refuses a request: TensorFlow's message and its error `code`."""

    def __init__(self, message: str, code: int = 0):
        super().__init__(message)
        self.code = code


class ServedModel:
    """A SavedModel in a session. As in the server, nothing is cast: a request has the signature's names and dtypes.

    Example:
        >>> served = ServedModel(Path("saved_models/quickstart/1"))
        >>> served.run("serving_default", {"inputs": np.zeros([2, 8, 8, 1], np.float32)})["class"].shape
        (2,)

    Raises:
        ServingError: the folder has no SavedModel that the C++ loader can read.
    """

    def __init__(self, folder: Path):
        self._tf = _library()
        self._status, self._graph, definition = self._tf.NewStatus(), self._tf.NewGraph(), self._tf.NewBuffer()
        tags = (_TEXT * 1)(TAG)
        options = self._tf.NewSessionOptions()
        place = os.fsencode(folder)
        self._session = self._tf.LoadSessionFromSavedModel(
            options, None, place, tags, 1, self._graph, definition, self._status
        )
        self._check()
        content = ctypes.string_at(definition.contents.data, definition.contents.length)
        found = meta_graph_pb2.MetaGraphDef.FromString(content).signature_def
        self.signatures = {name: found[name] for name in sorted(found) if not name.startswith("__")}

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of one request. Shapes are checked by the graph alone, as in the server.

        Raises:
            ServingError: there is no such signature, it has other inputs, or the graph refuses their content.
        """
        if signature not in self.signatures:
            raise ServingError(f"no signature '{signature}'; there are {', '.join(self.signatures)}")
        definition = self.signatures[signature]
        if set(inputs) != set(definition.inputs):
            raise ServingError(f"inputs {sorted(inputs)}; {signature} has {sorted(definition.inputs)}")
        feeds, fetches = sorted(definition.inputs.items()), sorted(definition.outputs.items())
        sent = (_POINTER * len(feeds))(*(self._tensor(inputs[name], name, info) for name, info in feeds))
        received = (_POINTER * len(fetches))()
        try:
            self._tf.SessionRun(
                self._session,
                None,
                *(self._outputs(feeds), sent, len(feeds)),
                *(self._outputs(fetches), received, len(fetches)),
                *(None, 0, None, self._status),
            )
            self._check()
            return {name: self._array(tensor) for (name, _), tensor in zip(fetches, received, strict=True)}
        finally:
            for tensor in (*sent, *received):
                if tensor:
                    self._tf.DeleteTensor(tensor)

    def _check(self) -> None:
        if code := self._tf.GetCode(self._status):
            raise ServingError(self._tf.Message(self._status).decode(errors="replace"), code)

    def _outputs(self, infos: Sequence[tuple[str, Any]]) -> Any:
        """The graph's tensors that a signature names, as in "serving_default_inputs:0"."""
        outputs = (_Output * len(infos))()
        for place, (_, info) in enumerate(infos):
            operation, _, index = info.name.partition(":")
            outputs[place] = _Output(self._tf.GraphOperationByName(self._graph, operation.encode()), int(index or 0))
        return outputs

    def _tensor(self, array: np.ndarray, name: str, info: Any) -> int:
        wanted = tf.dtypes.as_dtype(info.dtype)
        is_text = wanted == tf.string
        if (array.dtype.kind not in "SUO") if is_text else (array.dtype != wanted.as_numpy_dtype):
            raise ServingError(f"input '{name}' is {array.dtype}, the signature has {wanted.name}")
        shape = (_INT64 * max(array.ndim, 1))(*array.shape)
        size = STRING_BYTES * array.size if is_text else array.nbytes
        tensor = self._tf.AllocateTensor(info.dtype, shape, array.ndim, size)
        data = self._tf.TensorData(tensor)
        if is_text:
            for place, text in enumerate(array.ravel()):
                content = text.encode() if isinstance(text, str) else bytes(text)
                self._tf.StringInit(data + STRING_BYTES * place)
                self._tf.StringCopy(data + STRING_BYTES * place, content, len(content))
        else:
            ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
        return tensor

    def _array(self, tensor: int) -> np.ndarray:
        shape = [self._tf.Dim(tensor, axis) for axis in range(self._tf.NumDims(tensor))]
        kind, data = tf.dtypes.as_dtype(self._tf.TensorType(tensor)), self._tf.TensorData(tensor)
        if kind != tf.string:
            content = ctypes.string_at(data, self._tf.TensorByteSize(tensor))
            return np.frombuffer(content, kind.as_numpy_dtype).reshape(shape)
        places = range(data or 0, (data or 0) + STRING_BYTES * int(np.prod(shape)), STRING_BYTES)
        texts = [
            ctypes.string_at(self._tf.StringGetDataPointer(place), self._tf.StringGetSize(place)) for place in places
        ]
        return np.array([*texts, None], object)[:-1].reshape(shape)  # None keeps NumPy from making a text array of it


def _library() -> SimpleNamespace:
    """TensorFlow's C functions; which of its libraries has which varies with the release."""
    root = Path(tf.sysconfig.get_lib())
    libraries = [ctypes.CDLL(str(root / f"libtensorflow_{part}.so.2")) for part in ("framework", "cc")]
    found = SimpleNamespace()
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = next((getattr(each, f"TF_{name}") for each in libraries if hasattr(each, f"TF_{name}")), None)
        if function is None:
            raise ServingError(f"this TensorFlow has no TF_{name}")
        function.restype, function.argtypes = result, arguments
        setattr(found, name, function)
    return found
