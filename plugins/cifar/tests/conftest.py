"""Data sets that read fake files."""

import pytest
from mimic_keras_cifar import Cifar10, Cifar100

from plugins.cifar.tests import fake


@pytest.fixture
def cifar10(monkeypatch):
    """Make `Cifar10` read small files, which the test writes."""
    return fake.take_the_place_of(Cifar10, monkeypatch)


@pytest.fixture
def cifar100(monkeypatch):
    return fake.take_the_place_of(Cifar100, monkeypatch)
