"""One process with four virtual devices, as many as any test wants; no test touches the user's home folder."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MIMIC_KERAS_HOME"] = "/nonexistent/tests-give-their-own-home"

import pytest

from mimic_keras import distribution


@pytest.fixture(scope="session")
def devices():
    """Names of four logical devices that share the processor."""
    return distribution.split_processor(4)
