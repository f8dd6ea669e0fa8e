"""A client of a served student, over REST and gRPC, with typed errors, deadlines and retries.

    python examples/serving/client.py saved_models/quickstart/1 --rest http://localhost:8501 --grpc localhost:8500

sends the examples stored in the export, and prints how far the answers are from the student's.
"""

from __future__ import annotations

import abc
import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

Arrays = dict[str, np.ndarray]


class ServingError(Exception):
    """A request was not answered."""


class InvalidRequestError(ServingError):
    """The request does not fit the signature; another attempt will not help."""


class ModelNotFoundError(ServingError):
    """The server has no such model, version or signature."""


class UnavailableError(ServingError):
    """The server is unreachable or too busy, after all attempts."""


class DeadlineError(ServingError):
    """The answer did not arrive in time."""


class _Client(abc.ABC):
    """Attempts until a deadline, for both protocols.

    Args:
        address: http://host:8501 for REST, host:8500 for gRPC.
        model: name of the model on the server, which is the experiment's name.
        deadline: seconds for a call, including all attempts.
        attempts: how often to try while the server is unavailable; the waits grow from 0.1 s, with random jitter.
    """

    def __init__(self, address: str, model: str, deadline: float = 5.0, attempts: int = 4):
        self.address, self.model, self.deadline, self.attempts = address, model, deadline, attempts

    def predict(self, inputs: Mapping[str, np.ndarray], signature: str = "serving_default") -> Arrays:
        """The outputs of a signature, {name: array}.

        Raises:
            InvalidRequestError, ModelNotFoundError, UnavailableError, DeadlineError: subclasses of ServingError.
        """
        ends = time.monotonic() + self.deadline
        for attempt in range(self.attempts):
            left = ends - time.monotonic()
            if left <= 0:
                raise DeadlineError(f"{self.address}: no answer in {self.deadline:g} s")
            try:
                return self._send(inputs, signature, left)
            except UnavailableError:
                wait = 0.1 * 2**attempt * random.uniform(0.5, 1.5)
                if attempt + 1 == self.attempts or time.monotonic() + wait >= ends:
                    raise
                time.sleep(wait)
        raise AssertionError("unreachable")

    @abc.abstractmethod
    def _send(self, inputs: Mapping[str, np.ndarray], signature: str, seconds: float) -> Arrays:
        """One attempt of at most `seconds`."""


class RestClient(_Client):
    """https://www.tensorflow.org/tfx/serving/api_rest"""

    def _send(self, inputs: Mapping[str, np.ndarray], signature: str, seconds: float) -> Arrays:
        url = f"{self.address.rstrip('/')}/v1/models/{self.model}:predict"
        columns = {name: value.tolist() for name, value in inputs.items()}
        try:
            response = _post(url, {"signature_name": signature, "inputs": columns}, seconds)
        except TimeoutError as error:
            raise DeadlineError(f"{url}: no answer in {seconds:.3g} s") from error
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise UnavailableError(f"cannot reach {url}: {_find_reason(error)}") from error
        except requests.RequestException as error:  # an address that is none, for one
            raise ServingError(f"{url}: {_one_line(str(error))}") from error
        if response.status_code != 200:
            kinds: dict[int, Callable[[str], ServingError]] = {
                400: InvalidRequestError,
                404: ModelNotFoundError,
                429: UnavailableError,
                503: UnavailableError,
                504: DeadlineError,
            }
            kind = kinds.get(response.status_code, ServingError)
            raise kind(f"{url}: {response.status_code} {_one_line(response.text)}")
        try:
            return {name: np.array(value) for name, value in response.json()["outputs"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            text = _one_line(response.text) or "nothing"
            raise ServingError(f"{url}: expected JSON with named outputs, got {text}") from error


def _post(url: str, content: Mapping[str, Any], seconds: float) -> requests.Response:
    """The answer to a POST of JSON.

    The timeout of `requests` starts again with every byte that arrives, so a thread waits for the answer.

    Raises:
        TimeoutError: it is not there in `seconds`. The thread ends by itself: it receives nothing for as long, or all.
        requests.RequestException: as of `requests.post`.
    """
    answer: Future[requests.Response] = Future()

    def wait() -> None:
        try:
            answer.set_result(requests.post(url, json=content, timeout=seconds + 1))  # later than ours
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    return answer.result(seconds)


def _find_reason(error: BaseException) -> str:
    """The first of the errors that led to `error`, in the system's words if it has any."""
    while error.__context__:
        error = error.__context__
    return getattr(error, "strerror", None) or _one_line(str(error))


def _one_line(text: str) -> str:
    """The start of a text on one line."""
    return " ".join(text.split())[:300]


class GrpcClient(_Client):
    """https://www.tensorflow.org/tfx/serving/serving_advanced, PredictionService.Predict"""

    def __init__(self, address: str, model: str, deadline: float = 5.0, attempts: int = 4):
        super().__init__(address, model, deadline, attempts)
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address, options))

    def _send(self, inputs: Mapping[str, np.ndarray], signature: str, seconds: float) -> Arrays:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self.model, signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        try:
            response = self._stub.Predict(request, timeout=seconds)
        except grpc.RpcError as error:
            kinds: dict[Any, Callable[[str], ServingError]] = {
                grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
                grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
                grpc.StatusCode.UNAVAILABLE: UnavailableError,
                grpc.StatusCode.RESOURCE_EXHAUSTED: UnavailableError,
                grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
            }
            kind = kinds.get(error.code(), ServingError)
            raise kind(f"{self.address}: {error.code().name} {_one_line(error.details() or '')}") from error
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, help="folder of an exported version, whose examples are sent")
    parser.add_argument("--rest", metavar="URL", help="for example http://localhost:8501")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="for example localhost:8500")
    options = parser.parse_args()
    model = options.export.resolve().parent.name
    clients: list[_Client] = [RestClient(options.rest, model)] if options.rest else []
    clients += [GrpcClient(options.grpc, model)] if options.grpc else []
    examples = np.load(options.export / "assets.extra" / "examples.npz")
    for signature in sorted({name.split("/")[0] for name in examples}):
        prefix = f"{signature}/inputs/"
        inputs = {name.removeprefix(prefix): examples[name] for name in examples if name.startswith(prefix)}
        for client in clients:
            try:
                outputs = client.predict(inputs, signature)
            except ServingError as error:
                sys.exit(f"client.py: {type(error).__name__}: {error}")
            difference = np.abs(outputs["logits"] - examples[f"{signature}/logits"]).max()
            print(f"{type(client).__name__} {signature}: classes {outputs['class'].ravel()[:8].tolist()}...")
            print(f"  logits within {difference:.2g} of the student's")


if __name__ == "__main__":
    main()
