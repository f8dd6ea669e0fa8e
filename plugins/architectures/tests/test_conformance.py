"""The plugin keeps its contracts."""

from mimic_keras.testing import conformance

HIDDEN = {"hidden_units": [8]}
test_conformance = conformance(
    "mimic-keras-architectures",
    {
        "architecture/mlp": HIDDEN,
        "architecture/bottleneck": {**HIDDEN, "linear_units": 3, "batch_normalization": True},
        "architecture/conv_student": {**HIDDEN, "filters": [4], "linear_units": 3, "dropout": 0.5},
        "architecture/cnn": {**HIDDEN, "filters": [[4, 4]], "batch_normalization": True},
    },
)
