"""The plugin keeps its contracts."""

import keras

from mimic_keras.testing import conformance


def keras_file(folder):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    keras.Model(inputs, keras.layers.Dense(5)(x)).save(folder / "student.keras")
    return {"path": str(folder / "student.keras"), "weights": "fresh"}


HIDDEN = {"hidden_units": [8]}
test_conformance = conformance(
    "mimic-keras-architectures",
    {
        "architecture/mlp": HIDDEN,
        "architecture/bottleneck": {**HIDDEN, "linear_units": 3, "batch_normalization": True},
        "architecture/conv_student": {**HIDDEN, "filters": [4], "linear_units": 3, "dropout": 0.5},
        "architecture/cnn": {**HIDDEN, "filters": [[4, 4]], "batch_normalization": True, "separable": True},
        "architecture/keras_file": keras_file,
        "architecture/keras_application": {"model": "MobileNet", "alpha": 0.25, "input_shape": (32, 32, 3)},
    },
)
