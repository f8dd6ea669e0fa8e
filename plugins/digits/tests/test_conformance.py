"""The plugin keeps its contracts."""

from mimic_keras.testing import conformance

test_conformance = conformance("mimic-keras-digits", {"dataset/digits": {"copies": 3}})
