"""The client of examples/serving against a loopback server of TensorFlow Serving's own interfaces, on a real export."""

import contextlib
import http.server
import importlib.util
import json
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from mimic_keras.serving import verification
from mimic_keras.serving.session_loader import ServedModel, ServingError
from tests.tiny import run, tiny

SOURCE = Path(__file__).parent.parent / "examples" / "serving" / "client.py"
specification = importlib.util.spec_from_file_location("client", SOURCE)
client = importlib.util.module_from_spec(specification)
sys.modules["client"] = client
specification.loader.exec_module(client)
CLIENTS = [client.RestClient, client.GrpcClient]


class Faults:
    """What the next requests meet: a list of "unavailable", "busy" and "slow"; none are answered."""

    def __init__(self):
        self.coming, self.requests = [], 0

    def next(self):
        self.requests += 1
        fault = self.coming.pop(0) if self.coming else None
        if fault == "slow":
            time.sleep(1.5)
        return fault


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, served, faults):
        self.served, self.faults = served, faults

    def Predict(self, request, context):  # noqa: N802 - the interface's name
        fault = self.faults.next()
        if fault in ("unavailable", "busy"):
            code = {"unavailable": grpc.StatusCode.UNAVAILABLE, "busy": grpc.StatusCode.RESOURCE_EXHAUSTED}[fault]
            context.abort(code, fault)
        if request.model_spec.name != "tiny" or request.model_spec.signature_name not in self.served.signatures:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        try:
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            outputs = self.served.run(request.model_spec.signature_name, inputs)
        except ServingError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:300])
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


def rest_handler(served, faults):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fault = faults.next()
            if fault in ("unavailable", "busy"):
                return self.answer({"unavailable": 503, "busy": 429}[fault], {"error": fault})
            definition = served.signatures.get(body["signature_name"])
            if self.path != "/v1/models/tiny:predict" or definition is None:
                return self.answer(404, {"error": "Servable not found"})
            kinds = {name: tf.dtypes.as_dtype(info.dtype).as_numpy_dtype for name, info in definition.inputs.items()}
            try:
                inputs = {name: np.array(value, kinds.get(name)) for name, value in body["inputs"].items()}
                outputs = served.run(body["signature_name"], inputs)
            except (ServingError, ValueError) as error:
                return self.answer(400, {"error": str(error)[:300]})
            texts = {
                name: np.char.decode(value.astype("S")) if value.dtype == object else value
                for name, value in outputs.items()
            }
            return self.answer(200, {"outputs": {name: value.tolist() for name, value in texts.items()}})

        def answer(self, status, content):
            self.send_response(status)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(the export's folder, {client class: address}, the faults to come)"""
    folder = tmp_path_factory.mktemp("served")
    run(folder, tiny())
    export = folder / "saved_models" / "tiny" / "1"
    served, faults = ServedModel(export), Faults()
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", 0), rest_handler(served, faults))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(served, faults), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    addresses = {
        client.RestClient: f"http://127.0.0.1:{rest.server_port}",
        client.GrpcClient: f"127.0.0.1:{port}",
    }
    yield export, addresses, faults
    rest.shutdown()
    server.stop(None)


@pytest.fixture(params=CLIENTS, ids=lambda kind: kind.__name__)
def connected(request, server):
    """(a function that makes a client, the export's folder, the faults)"""
    export, addresses, faults = server
    faults.coming, faults.requests = [], 0
    return lambda **options: request.param(addresses[request.param], "tiny", **options), export, faults


@pytest.mark.parametrize("signature", ["serving_default", "serve_images"])
def test_the_answers_are_the_students(connected, signature):
    connect, export, _ = connected
    inputs, logits = verification.read_examples(export)[signature]
    outputs = connect().predict(inputs, signature)
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5 * logits.std())
    np.testing.assert_array_equal(outputs["class"], logits.argmax(-1))
    labels = [each.decode() if isinstance(each, bytes) else each for each in outputs["label"]]
    assert labels == [str(each) for each in logits.argmax(-1)]


def test_a_request_that_does_not_fit_is_not_tried_again(connected):
    connect, _, faults = connected
    with pytest.raises(client.InvalidRequestError, match="not compatible with expected shape"):
        connect().predict({"inputs": np.zeros([8, 8, 1], np.float32)})
    assert faults.requests == 1


def test_an_unknown_signature_or_model_is_named_so(connected):
    connect, export, _ = connected
    inputs, _ = verification.read_examples(export)["serving_default"]
    with pytest.raises(client.ModelNotFoundError):
        connect().predict(inputs, "serve_sound")
    other = connect()
    other.model = "other"
    with pytest.raises(client.ModelNotFoundError):
        other.predict(inputs)


@pytest.mark.parametrize("fault", ["unavailable", "busy"])
def test_a_busy_server_is_tried_again(connected, fault):
    connect, export, faults = connected
    inputs, logits = verification.read_examples(export)["serving_default"]
    faults.coming = [fault, fault]
    assert connect().predict(inputs)["class"].tolist() == logits.argmax(-1).tolist()
    assert faults.requests == 3


def test_attempts_end(connected):
    connect, export, faults = connected
    inputs, _ = verification.read_examples(export)["serving_default"]
    faults.coming = ["unavailable"] * 9
    with pytest.raises(client.UnavailableError):
        connect(attempts=3).predict(inputs)
    assert faults.requests == 3


def test_an_answer_that_does_not_come_ends_at_the_deadline(connected):
    connect, export, faults = connected
    inputs, _ = verification.read_examples(export)["serving_default"]
    faults.coming = ["slow"]
    with pytest.raises(client.DeadlineError):
        connect(deadline=0.5).predict(inputs)


@contextlib.contextmanager
def answering(status, pieces, pause=0.0):
    """The address of a server that answers every POST with the pieces, with a pause before each."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            with contextlib.suppress(OSError):  # the client has gone
                self.wfile.write(f"HTTP/1.0 {status} Status\r\n".encode())
                for piece in pieces:
                    time.sleep(pause)
                    self.wfile.write(piece)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


INPUTS = {"inputs": np.zeros([1, 8, 8, 1], np.float32)}


@pytest.mark.parametrize("start", [[b"X-Slow: "], [b"\r\n"]])
def test_low_an_answer_that_drips_ends_at_the_deadline(start):
    """In its headers, and in its body. Each byte comes within the deadline."""
    sent = []
    pieces = (sent.append(piece) or piece for piece in [*start, *[b" "] * 1000])
    with answering(200, pieces, pause=0.1) as address:
        with pytest.raises(client.DeadlineError, match=r"^http://127.0.0.1:\d+/v1/models/tiny:predict: no answer in "):
            client.RestClient(address, "tiny", deadline=0.5).predict(INPUTS)
        assert len(sent) < 1000, "the client did not wait for the end"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>\n  <p>Log in</p></html>", "<html> <p>Log in</p></html>"),
        (b"", "nothing"),
        (b'{"predictions": [1]}', '{"predictions": [1]}'),
        (b'{"outputs": [1, 2]}', '{"outputs": [1, 2]}'),
        (b"[1]", "[1]"),
        (b'{"outputs": {"logits": [[1], [2, 3]]}}', '{"outputs": {"logits": [[1], [2, 3]]}}'),
    ],
)
def test_low_an_answer_that_is_none_is_a_typed_error_of_one_line(body, said):
    with answering(200, [b"\r\n", body]) as address, pytest.raises(client.ServingError) as caught:
        client.RestClient(address, "tiny").predict(INPUTS)
    assert type(caught.value) is client.ServingError
    assert str(caught.value) == (f"{address}/v1/models/tiny:predict: expected JSON with named outputs, got {said}")


def test_low_a_page_of_an_error_is_one_line():
    with answering(502, [b"\r\n", b"<html>\nBad\ngateway"]) as address, pytest.raises(client.ServingError) as caught:
        client.RestClient(address, "tiny").predict(INPUTS)
    assert str(caught.value).endswith(":predict: 502 <html> Bad gateway")


def test_low_a_server_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    message = "cannot reach http://127.0.0.1:9/v1/models/tiny:predict: Connection refused"
    with pytest.raises(client.UnavailableError) as caught:
        client.RestClient("http://127.0.0.1:9", "tiny", attempts=1).predict(INPUTS)
    assert str(caught.value) == message
    with pytest.raises(client.ServingError, match="No connection adapters were found"):
        client.RestClient("file:///x", "tiny").predict(INPUTS)
    export = tmp_path / "tiny" / "1"
    (export / "assets.extra").mkdir(parents=True)
    name = "serving_default/inputs/inputs"
    np.savez(export / "assets.extra" / "examples.npz", **{name: INPUTS["inputs"], "serving_default/logits": [[0.0]]})
    monkeypatch.setattr(sys, "argv", ["client.py", str(export), "--rest", "http://127.0.0.1:9"])
    with pytest.raises(SystemExit) as stopped:
        client.main()
    assert stopped.value.code == f"client.py: UnavailableError: {message}"


@pytest.mark.parametrize(
    ("kind", "address"), [(client.RestClient, "http://127.0.0.1:9"), (client.GrpcClient, "127.0.0.1:9")]
)
def test_a_server_that_is_not_there(kind, address):
    with pytest.raises((client.UnavailableError, client.DeadlineError)):
        kind(address, "tiny", deadline=2.0, attempts=2).predict({"inputs": np.zeros([1, 8, 8, 1], np.float32)})


def test_the_program_compares_with_the_student(server, monkeypatch, capsys):
    export, addresses, _ = server
    rest, channel = addresses[client.RestClient], addresses[client.GrpcClient]
    monkeypatch.setattr(sys, "argv", ["client.py", str(export), "--rest", rest, "--grpc", channel])
    client.main()
    said = capsys.readouterr().out
    for line in ("RestClient serve_images: classes", "GrpcClient serving_default: classes"):
        assert line in said
    assert said.count("of the student's") == 4
