"""The data sets keep their contract, on small files."""

from mimic_keras.testing import conformance
from plugins.arrays.tests import drawing, tables


def image_folder(folder):
    drawing.draw(folder / "images")
    drawing.draw(folder / "images", 4, ["unlabelled"], seed=1)
    shares = {"validation": 0.25, "test": 0.25}
    variation = {"copies": 3, "mirror": True, "shift": 1, "smallest_crop": 0.8}
    return {"path": str(folder / "images"), "image_size": [6, 5], "shares": shares, "resize": "crop", **variation}


def table(folder):
    file = tables.write(folder / "people.csv", 60, unlabelled=5)
    return {"path": str(file), "target": "income", "shares": {"validation": 0.25, "test": 0.25}}


test_conformance = conformance("mimic-keras-arrays", {"dataset/image_folder": image_folder, "dataset/table": table})
