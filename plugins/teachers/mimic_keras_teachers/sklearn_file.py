"""A teacher from a classifier of scikit-learn in a skops file, which holds no code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import DatasetInfo, InputError, file_digest
from mimic_keras_teachers.loaded import Loaded, LoadedModel, in_python


class SklearnFile(Loaded):
    """A classifier or pipeline of scikit-learn, saved by `skops.io.dump`. It takes each example as one vector.

    Needs the extra `sklearn`. Its parameters and multiply-adds are not counted. It predicts on one core, since the
    threads of a forest add their probabilities in any order.

    Args:
        path: the file.
        trusted: types of scikit-learn, and numpy.dtype, that skops does not know to be safe, and that you accept in
            this file; trees are among them, since false ones can crash the process or read its memory.

    Raises:
        InputError: skops or the file is missing, it has types that are not trusted, or does not fit the data set.
        ValueError: `trusted` has a type that is not scikit-learn's.

    Example:
        >>> SklearnFile(Path("forest.skops"), trusted=["sklearn.tree._tree.Tree"])
    """

    outputs = "probabilities"

    def __init__(self, path: Path, trusted: list[str] | None = None):
        self.path, self.trusted = path, trusted or []
        if foreign := [name for name in self.trusted if not _is_acceptable(name)]:
            raise ValueError(f"trusted: only types of scikit-learn are accepted, got {', '.join(foreign)}")

    def source_digest(self) -> str:
        return file_digest(self.path)

    def _load(self, info: DatasetInfo) -> LoadedModel:
        model = self._read()
        if not hasattr(model, "predict_proba"):
            raise InputError(f"{self._place} is a {type(model).__name__}, which gives no probabilities (predict_proba)")
        classes = np.asarray(getattr(model, "classes_", None))
        if not np.array_equal(classes, np.arange(info.num_classes)):
            raise InputError(
                f"{self._place} has the classes {np.array2string(classes, threshold=10)}, expected the "
                f"labels of the data set, 0 to {info.num_classes - 1}"
            )
        taken, given = getattr(model, "n_features_in_", None), math.prod(info.input_shape)
        if taken not in (None, given):
            raise InputError(f"{self._place} takes {taken} features, the data set's inputs have {given}")

        def function(rows: np.ndarray) -> np.ndarray:
            return model.predict_proba(rows.reshape(len(rows), given))

        return LoadedModel(in_python(self._place, function, info.input_shape), (None, *info.input_shape), None)

    def _read(self) -> Any:
        try:
            import skops.io
        except ImportError as error:
            raise InputError(f"sklearn needs skops: pip install 'mimic-keras[sklearn]' ({error})") from error
        content = self.path.read_bytes()
        try:
            unknown = [name for name in skops.io.get_untrusted_types(data=content) if name not in self.trusted]
        except Exception as error:  # skops raises anything here, depending on the file's content
            raise InputError(f"{self._place} is not a file that skops can read: {error}") from error
        if unknown:
            own = [name for name in unknown if _is_acceptable(name)]
            advice = f"if you trust the file: trusted: [{', '.join(own)}]"
            if own != unknown:
                advice = "only scikit-learn's own are accepted; give it as an onnx_file, or its predictions"
            raise InputError(f"{self._place} has types that skops does not trust: {', '.join(unknown)}; {advice}")
        try:
            model = skops.io.loads(content, trusted=self.trusted)
            model.set_params(**{name: 1 for name in model.get_params() if name.split("__")[-1] == "n_jobs"})
            return model
        except Exception as error:  # as above
            raise InputError(f"{self._place} cannot be loaded by this scikit-learn: {error}") from error


def _is_acceptable(name: str) -> bool:
    """Encoders hold a numpy.dtype, which is data: it is read from an empty array."""
    return name.startswith("sklearn.") or name == "numpy.dtype"
