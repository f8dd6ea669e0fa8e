"""One small corpus, written once for all tests."""

import shutil

import pytest
from mimic_keras_timit.synthesis import Plan, write_corpus


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A corpus that tests read and copy, and never change: two utterances of four speakers, and their SA1."""
    return write_corpus(Plan(2, 2, 2, 0), tmp_path_factory.mktemp("timit"))


@pytest.fixture
def copied(written, tmp_path):
    """The same corpus, for this test to change."""
    return shutil.copytree(written, tmp_path / "TIMIT")
