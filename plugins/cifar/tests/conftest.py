"""Every test process has four virtual devices, and none touches the user's home folder."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MIMIC_KERAS_HOME"] = "/nonexistent/tests-give-their-own-home"

import pytest
from mimic_keras_cifar import Cifar10, Cifar100

from mimic_keras.training import distribution
from plugins.cifar.tests import fake

distribution.split_processor(4)  # a process can be split only before TensorFlow computes anything


@pytest.fixture
def cifar10(monkeypatch):
    """`Cifar10` reads files of a hundred training images, which this writes."""
    return fake.take_the_place_of(Cifar10, monkeypatch)


@pytest.fixture
def cifar100(monkeypatch):
    return fake.take_the_place_of(Cifar100, monkeypatch)
