"""The data sets keep their contract, on small files."""

import numpy as np

from mimic_keras.testing import conformance
from plugins.arrays.tests import drawing, tables, tiny_set


def arrays(folder):
    random = np.random.default_rng(0)
    np.save(folder / "x.npy", random.integers(0, 256, [60, 6, 5, 3], np.uint8))
    np.save(folder / "y.npy", np.arange(60) % 4 - 1)
    np.savez(folder / "more.npz", x=random.integers(0, 256, [7, 6, 5, 3], np.uint8))
    return {
        "train": {"x": str(folder / "x.npy"), "y": str(folder / "y.npy")},
        "unlabelled": str(folder / "more.npz"),
        "shares": {"validation": 0.2, "test": 0.2},
        "standardize": True,
        "copies": 3,
        "mirror": True,
        "shift": 2,
        "smallest_crop": 0.5,
    }


def image_folder(folder):
    drawing.draw(folder / "images")
    drawing.draw(folder / "images", 4, ["unlabelled"], seed=1)
    shares = {"validation": 0.25, "test": 0.25}
    variation = {"copies": 3, "mirror": True, "shift": 1, "smallest_crop": 0.8}
    return {"path": str(folder / "images"), "image_size": [6, 5], "shares": shares, "resize": "crop", **variation}


def table(folder):
    file = tables.write(folder / "people.csv", 60, unlabelled=5)
    return {"train": str(file), "target": "income", "shares": {"validation": 0.25, "test": 0.25}}


def tfds(folder):
    return {
        "root": str(tiny_set.write("tiny_images", folder)),
        "builder": "tiny_images",
        "test": "test",
        "shares": {"validation": 0.2},
        "inputs": {"scale": 0.01},
    }


test_conformance = conformance(
    "mimic-keras-arrays",
    {"dataset/arrays": arrays, "dataset/image_folder": image_folder, "dataset/table": table, "dataset/tfds": tfds},
)
