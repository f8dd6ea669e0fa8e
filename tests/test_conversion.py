"""A converter that dies takes down its own file alone."""

import json
from pathlib import Path

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
