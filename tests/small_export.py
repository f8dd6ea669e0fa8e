"""An export of an untrained net of digits, written in a second without a run, for the tests of serving's parts."""

from pathlib import Path

import keras
import numpy as np
from mimic_keras_digits import Digits

from mimic_keras.experiment.formats import DEFAULT
from mimic_keras.serving import saved_model, verification, warmup
from mimic_keras.storage.files import write_json

NAMES = tuple(str(digit) for digit in range(10))
COUNT = 8  # examples of each signature


def small_net() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])


def write_export(folder: Path) -> keras.Model:
    """Write everything that verification reads into `folder`; returns the net."""
    net, dataset = small_net(), Digits()
    raw = dataset.raw_signatures()
    saved_model.write(folder, net, dataset.info, raw)
    pixels = raw["serve_images"].examples["images"][:COUNT]
    inputs = (pixels / 16).astype(np.float32)
    logits = net(inputs).numpy()
    requests = {DEFAULT: {saved_model.INPUTS: inputs}, "serve_images": {"images": pixels}}
    verification.write_examples(folder, {name: (request, logits) for name, request in requests.items()})
    warmup.write(folder, "digits", [warmup.Request(name, request) for name, request in requests.items()])
    write_json(folder / "export.json", {"class_names": NAMES})
    return net
