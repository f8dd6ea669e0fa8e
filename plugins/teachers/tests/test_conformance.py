"""The plugin keeps its contracts."""

import keras
import numpy as np

from mimic_keras.testing import conformance
from mimic_keras.testing.teachers import EXAMPLES
from plugins.teachers.tests import makers


def net():
    return keras.Sequential([keras.Input((8, 8, 3), name="inputs"), keras.layers.Flatten(), keras.layers.Dense(5)])


def keras_file(folder):
    net().save(folder / "teacher.keras")
    return {"path": str(folder / "teacher.keras")}


def keras_application(folder):
    arguments = {"input_shape": (32, 32, 3), "alpha": 0.25}
    keras.applications.MobileNet(classes=5, weights=None, **arguments).save_weights(folder / "net.weights.h5")
    return {"model": "MobileNet", "weights": str(folder / "net.weights.h5"), **arguments}


def saved_model(folder):
    net().export(str(folder / "teacher"), verbose=False)
    return {"path": str(folder / "teacher")}


def onnx_file(folder):
    kernel = np.random.default_rng(0).normal(size=(8 * 8 * 3, 5))
    return {"path": str(makers.save_onnx(folder / "teacher.onnx", kernel, (3, 8, 8))), "layout": "channels_first"}


def sklearn(folder):
    file = makers.save_skops(folder / "teacher.skops", makers.make_forest(8 * 8 * 3, 5, n_jobs=-1))
    return {"path": str(file), "trusted": [makers.TREE]}


def predictions(folder):
    files = {split: str(folder / f"{split}.npy") for split in ("transfer", "validation", "test")}
    for file in files.values():
        np.save(file, np.random.default_rng(0).normal(size=(EXAMPLES, 5)))
    return files


test_conformance = conformance(
    "mimic-keras-teachers",
    {
        "teacher/trained": {"architecture": {"name": "mlp", "hidden_units": [4]}, "share": 0.5},
        "teacher/keras_file": keras_file,
        "teacher/keras_application": keras_application,
        "teacher/saved_model": saved_model,
        "teacher/onnx_file": onnx_file,
        "teacher/sklearn": sklearn,
        "teacher/predictions": predictions,
    },
)
