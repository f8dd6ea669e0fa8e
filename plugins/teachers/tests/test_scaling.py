"""The range of inputs that a model's first layers suggest, and that a member of a .keras file passes on."""

import keras
import numpy as np
import pytest
from mimic_keras_teachers import KerasFile
from mimic_keras_teachers.scaling import expected_inputs

from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, TeacherContext

layers = keras.layers


def normalization(**options):
    """Of two features with means 2 and 20 and deviations 1 and 10."""
    layer = layers.Normalization(**options)
    layer.adapt(np.array([[1.0, 10.0], [3.0, 30.0]]))
    return layer


def stack(*parts, shape=(2,)):
    return keras.Sequential([keras.Input(shape), *parts, layers.Dense(3)])


def divided():
    """Something that is no layer comes first."""
    inputs = keras.Input((2,))
    return keras.Model(inputs, layers.Dense(3)(layers.Rescaling(0.5)(inputs / 100.0)))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: stack(layers.Rescaling(1 / 255)), (0, 255)),
        (lambda: stack(layers.Rescaling(1 / 127.5, offset=-1)), (0, 255)),
        (lambda: stack(layers.Rescaling(2.0, offset=-1.0)), (0, 1)),
        (lambda: stack(layers.Rescaling([0.5, 0.25])), (0, 4)),
        (lambda: stack(layers.Rescaling(-1.0)), (-1, 0)),
        (lambda: stack(layers.Rescaling(0.0)), None),
        (lambda: stack(normalization()), (20 - 3 * 10, 20 + 3 * 10)),
        (lambda: stack(normalization(invert=True)), None),
        (lambda: stack(layers.Flatten(), layers.Reshape((4, 1)), layers.Rescaling(0.5), shape=(2, 2)), (0, 2)),
        (lambda: stack(stack(layers.Rescaling(0.1))), (0, 10)),
        (lambda: stack(layers.Dense(2), layers.Rescaling(0.1)), None),
        (stack, None),
        (divided, None),
    ],
)
def test_by_hand(build, expected, tmp_path):
    model = build()
    model.save(tmp_path / "net.keras")
    for each in (model, keras.models.load_model(tmp_path / "net.keras")):
        assert expected_inputs(each) == (expected and pytest.approx(expected))


class Pairs(Dataset):
    info = DatasetInfo("pairs", "1", (2,), 3, ("a", "b", "c"))

    def prepare(self, data_dir):
        return "pairs"

    def split(self, name, seed=0):
        return ArraySplit(np.zeros([4, 2], np.float32))


def test_a_member_of_a_file_passes_it_on(tmp_path):
    stack(layers.Rescaling(1 / 255)).save(tmp_path / "net.keras")
    member = KerasFile(tmp_path / "net.keras").member(TeacherContext(Pairs(), 0, tmp_path, lambda *_: None))
    assert member.expects == pytest.approx((0, 255))
