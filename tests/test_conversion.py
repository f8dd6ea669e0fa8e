"""A converter that dies takes down its own file alone."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mimic_keras.serving import conversion, isolation

TARGETS = [("litert", "serving_default"), ("litert", "serve_images"), ("onnx", "serving_default")]
PLACES = (Path("source"), Path("folder"), Path("rows.npy"))


@pytest.fixture
def calls(monkeypatch):
    """The targets of each process; one that converts litert of serve_images dies, and onnx cannot be converted."""
    made = []

    def call(module, source, folder, calibration, targets):
        made.append([tuple(target) for target in json.loads(targets)])
        if ("litert", "serve_images") in made[-1]:
            raise isolation.ProcessError("the process died (SIGABRT) at ...", "litert of serve_images")
        return [["onnx", "serving_default", "the converter says: no"]]

    monkeypatch.setattr(isolation, "call", call)
    return made


def test_the_others_are_converted_by_another_process(calls):
    found = conversion.convert(*PLACES, TARGETS)
    assert found == {
        ("litert", "serve_images"): "the process died (SIGABRT) at ...",
        ("onnx", "serving_default"): "the converter says: no",
    }
    assert calls == [TARGETS, [TARGETS[0], TARGETS[2]]]


def test_an_error_of_the_process_itself_is_not_the_converters(monkeypatch):
    def call(*_):
        raise isolation.ProcessError("no memory")

    monkeypatch.setattr(isolation, "call", call)
    with pytest.raises(isolation.ProcessError, match="no memory"):
        conversion.convert(*PLACES, TARGETS)


def _loop(names: list[str], constants: list[str]) -> onnx.ModelProto:
    """x + two constants, the second of them in a branch; `names` of what is computed, `constants` in their order."""
    value = onnx.helper.make_tensor_value_info
    shape = (onnx.TensorProto.FLOAT, [1])
    tensors = [onnx.helper.make_tensor(name, *shape, [float(ord(name[0]))]) for name in constants]
    added, chosen = names
    first, second = sorted(constants)
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", [added, second], [chosen], name="any")], "branch", [], [value(chosen, *shape)]
    )
    nodes = [
        onnx.helper.make_node("Add", ["x", first], [added], name=f"Add_{added}"),
        onnx.helper.make_node("If", ["flag"], ["y"], name="If", then_branch=branch, else_branch=branch),
    ]
    inputs = [value("x", *shape), value("flag", onnx.TensorProto.BOOL, [])]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", inputs, [value("y", *shape)], tensors))


def test_the_bytes_of_onnx_depend_on_no_name():
    models = [_loop(["added__17", "chosen"], ["a", "b"]), _loop(["b_18", "other"], ["b__3", "a__9"])]
    for model in models:
        conversion._number_names(model.graph, {"x": "x", "flag": "flag", "y": "y"})
        onnx.checker.check_model(model, full_check=True)
    assert models[0].SerializeToString() == models[1].SerializeToString()
    session = onnxruntime.InferenceSession(models[0].SerializeToString())
    answer = session.run(["y"], {"x": np.float32([1]), "flag": np.array(True)})[0]
    assert answer.tolist() == [1 + ord("a") + ord("b")]
