"""Of the core's and the plugins' tests alike: four virtual devices per process, and no use of the home folder."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MIMIC_KERAS_HOME"] = "/nonexistent/tests-give-their-own-home"

from mimic_keras.training import distribution

distribution.split_processor(4)  # the processor can be split only before TensorFlow computes anything
