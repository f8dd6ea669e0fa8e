"""The plugin keeps its contracts."""

import keras

from mimic_keras.testing import conformance


def net():
    return keras.Sequential([keras.Input((8, 8, 3), name="inputs"), keras.layers.Flatten(), keras.layers.Dense(5)])


def keras_file(folder):
    net().save(folder / "teacher.keras")
    return {"path": str(folder / "teacher.keras")}


def saved_model(folder):
    net().export(str(folder / "teacher"), verbose=False)
    return {"path": str(folder / "teacher")}


test_conformance = conformance(
    "mimic-keras-teachers",
    {
        "teacher/trained": {"architecture": {"name": "mlp", "hidden_units": [4]}, "share": 0.5},
        "teacher/keras_file": keras_file,
        "teacher/saved_model": saved_model,
    },
)
