"""Teachers: nets trained here on the labels, models from files of several frameworks, and stored predictions."""

from mimic_keras_teachers.keras_nets import KerasApplication, KerasFile
from mimic_keras_teachers.onnx_file import OnnxFile
from mimic_keras_teachers.predictions import Predictions
from mimic_keras_teachers.saved_model import SavedModel
from mimic_keras_teachers.sklearn_file import SklearnFile
from mimic_keras_teachers.trained import Trained

__all__ = ["KerasApplication", "KerasFile", "OnnxFile", "Predictions", "SavedModel", "SklearnFile", "Trained"]
