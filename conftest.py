"""Of the core's and the plugins' tests alike: four virtual devices per process, no use of the home folder, exports that
are verified in the process of the test, and properties that may take their time."""

import os
import types

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MIMIC_KERAS_HOME"] = "/nonexistent/tests-give-their-own-home"

from mimic_keras.training import distribution

distribution.split_processor(4)  # the processor can be split only before TensorFlow computes anything

hypothesis.settings.register_profile(  # no test is about time
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def exports_are_verified_in_this_process():
    """Otherwise each of the many exports would start a process that imports TensorFlow.

    `verification.verify` itself stays as it is, for the tests of it, and so does every run in a process of its own.
    """
    from mimic_keras.serving import verification
    from mimic_keras.stages import export

    def verify(folder):
        return verification._verify(folder, lambda what: None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verification", types.SimpleNamespace(**{**vars(verification), "verify": verify}))
        yield
