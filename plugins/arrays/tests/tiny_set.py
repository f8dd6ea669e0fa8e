"""A set for TensorFlow Datasets, written to a folder without a download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SIZES = {"train": 30, "test": 10}


class TinyImages(tfds.core.GeneratorBasedBuilder):
    """Image i is filled with i + 10 times the number of its split, and has class i % 3."""

    VERSION = tfds.core.Version("1.2.0")
    shape: tuple[int | None, ...] = (6, 5, 3)

    def _info(self) -> Any:
        image, label = tfds.features.Image(shape=self.shape), tfds.features.ClassLabel(names=["cat", "dog", "owl"])
        features = tfds.features.FeaturesDict({"picture": image, "animal": label, "number": np.int64})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=self.keys)

    keys: tuple[str, str] | None = ("picture", "animal")

    def _split_generators(self, dl_manager: Any) -> Any:
        return {name: self._generate_examples(name) for name in SIZES}

    def _generate_examples(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(SIZES[name]):
            height, width, channels = (side or 4 + index % 3 for side in self.shape)
            value = index + 100 * list(SIZES).index(name)
            yield (
                index,
                {"picture": np.full([height, width, channels], value, np.uint8), "animal": index % 3, "number": 0},
            )


class SeveralSizes(TinyImages):
    """Images of 4 x 4 to 6 x 6 pixels."""

    shape = (None, None, 3)


class WithoutPairs(TinyImages):
    """A set that is not for classification."""

    keys = None


def write(builder: str, root: Path) -> Path:
    """Write the set to `root`, if it is not there."""
    tfds.builder(builder, data_dir=root).download_and_prepare()
    return root
