"""`assets.extra/tf_serving_warmup_requests`: requests that TensorFlow Serving runs before it accepts others.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from mimic_keras.contracts import RunError

FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAXIMUM_RECORDS = 1000  # the server refuses to load a model that has more


@dataclass(frozen=True, eq=False)
class Request:
    """A request to a signature; `inputs` is {input: array}."""

    signature: str
    inputs: Mapping[str, np.ndarray]


def write(folder: Path, model_name: str, requests: Sequence[Request]) -> None:
    """Write the requests of an export.

    Raises:
        RunError: there are none, or more than the server accepts.

    Example:
        >>> write(folder, "digits", [Request("serving_default", {"inputs": np.zeros([1, 8, 8, 1], np.float32)})])
    """
    if not 1 <= len(requests) <= MAXIMUM_RECORDS:
        raise RunError(f"{len(requests):,} warm-up requests; TensorFlow Serving takes 1 to {MAXIMUM_RECORDS:,}")
    (folder / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog()
            predict = log.predict_log.request
            predict.model_spec.name, predict.model_spec.signature_name = model_name, request.signature
            for name, value in request.inputs.items():
                predict.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())


def read(folder: Path) -> Iterator[Request]:
    """The requests of an export, in order; none if it has no such file.

    Raises:
        RunError: the file is damaged.
    """
    if not (folder / FILE).exists():
        return
    try:
        for record in tf.data.TFRecordDataset(str(folder / FILE)):
            predict = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
            inputs = {name: tf.make_ndarray(value) for name, value in predict.inputs.items()}
            yield Request(predict.model_spec.signature_name, inputs)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise RunError(f"{folder / FILE} is damaged: {error}") from error
