"""The plugin keeps its contracts, on synthetic sounds in the corpus' layout."""

from mimic_keras_timit import synthesis

from mimic_keras.testing import conformance

SYNTHETIC = {"training_speakers": 2, "test_speakers": 2, "utterances": 2}


def timit(folder):
    return {"root": str(synthesis.write_corpus(synthesis.Plan(2, 2, 2, 0), folder))}


test_conformance = conformance(
    "mimic-keras-timit",
    {
        "dataset/timit": timit,
        "dataset/timit_synthetic": SYNTHETIC,
        "architecture/timit_cnn": {"input_shape": (15, 123), "filters": [4], "kernel_size": 6, "hidden_units": [8]},
    },
)
