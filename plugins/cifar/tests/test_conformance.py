"""The plugin keeps its contracts, on fake files of a hundred training images."""

import pytest
from mimic_keras_cifar import Cifar10, Cifar100

from mimic_keras.testing import conformance
from plugins.cifar.tests import fake


@pytest.fixture(autouse=True)
def small_layouts(monkeypatch):
    for kind in (Cifar10, Cifar100):
        monkeypatch.setattr(kind, "layout", fake.small(kind.layout))


def cifar10(folder):
    root = fake.make(Cifar10.layout).write(folder)
    return {"root": str(root), "validation": 20, "labelled": 60, "copies": 3, "mirror": True, "shift": 2}


def cifar100(folder):
    return {
        "root": str(fake.make(Cifar100.layout).pack(folder / "cifar.tar.gz")),
        "validation": 20,
        "copies": 2,
        "smallest_crop": 24,
        "hue_shift": 0.1,
    }


test_conformance = conformance("mimic-keras-cifar", {"dataset/cifar10": cifar10, "dataset/cifar100": cifar100})
