"""Students from .keras files and keras.applications: the weights they start from, their precision, their identity."""

import keras
import numpy as np
import pytest
from mimic_keras_architectures.existing import keras_application, keras_file
from scipy.special import softmax

from mimic_keras.contracts import InputError

SHAPE, CLASSES = (4, 4, 1), 3
INPUTS = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float32)


def net(last="linear", classes=CLASSES):
    """With what needs care: statistics of two kinds, shared layers and a model inside the model."""
    keras.utils.set_random_seed(3)
    normalization = keras.layers.Normalization()
    normalization.adapt(INPUTS * 2 + 1)
    inside = keras.Sequential([keras.Input((16,)), keras.layers.Dense(5), keras.layers.BatchNormalization()])
    inputs = keras.Input(SHAPE)
    x = inside(keras.layers.Flatten()(normalization(inputs)))
    shared = keras.layers.Dense(5, activation="relu")
    x = keras.layers.Dropout(0.5)(shared(shared(x)))
    model = keras.Model(inputs, keras.layers.Dense(classes, activation=last)(x))
    model(INPUTS, training=True)
    return model


@pytest.fixture
def file(tmp_path):
    net().save(tmp_path / "net.keras")
    return tmp_path / "net.keras"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The weights of a MobileNet without its top, and what it gives for a picture."""
    keras.utils.set_random_seed(5)
    mobile = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, weights=None, include_top=False, pooling="avg"
    )
    file = tmp_path_factory.mktemp("base") / "base.weights.h5"
    mobile.save_weights(file)
    return file, mobile


def test_a_warm_start_gives_the_files_logits(file):
    np.testing.assert_allclose(keras_file(SHAPE, CLASSES, path=file)(INPUTS), net()(INPUTS), rtol=1e-6)


def test_fresh_weights_are_drawn_from_the_seed_and_what_was_adapted_is_kept(file):
    def fresh(seed):
        keras.utils.set_random_seed(seed)
        return keras_file(SHAPE, CLASSES, path=file, weights="fresh")

    one, same, other = fresh(1), fresh(1), fresh(2)
    np.testing.assert_array_equal(one(INPUTS), same(INPUTS))
    assert not np.allclose(one(INPUTS), other(INPUTS))
    np.testing.assert_allclose(one.layers[1](INPUTS), net().layers[1](INPUTS), rtol=1e-6)
    inside, saved = one.layers[3], net().layers[3]
    assert not np.allclose(inside.layers[0].kernel, saved.layers[0].kernel)
    assert np.ptp(inside.layers[1].moving_mean) == 0 != np.ptp(saved.layers[1].moving_mean)


def test_a_loaded_net_trains_in_the_precision_of_the_training(file):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = keras_file(SHAPE, CLASSES, path=file)
    finally:
        keras.config.set_dtype_policy(before)
    assert [layer.compute_dtype for layer in mixed.layers[-2:]] == ["bfloat16", "float32"]
    np.testing.assert_allclose(mixed(INPUTS), net()(INPUTS), atol=0.1)


@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
@pytest.mark.parametrize("weights", ["keep", "fresh"])
def test_a_net_that_gives_probabilities_is_no_student(last, weights, tmp_path):
    net(last).save(tmp_path / "net.keras")
    with pytest.raises(InputError) as caught:
        keras_file(SHAPE, CLASSES, path=tmp_path / "net.keras", weights=weights)
    assert str(caught.value) == (
        f"path: {tmp_path / 'net.keras'} gives outputs between 0 and 1; a student gives logits: save it without the "
        "softmax or sigmoid at its end (activation=None)"
    )


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((4, 5, 1), 3, "takes inputs of shape [4, 4, 1], the data set's are [4, 5, 1]"),
        ((16,), 3, "takes inputs of shape [4, 4, 1], the data set's are [16]"),
        (SHAPE, 4, "gives outputs of shape [3], the data set has 4 classes"),
    ],
)
def test_a_net_of_other_shapes_is_refused(shape, classes, message, file):
    with pytest.raises(InputError) as caught:
        keras_file(shape, classes, path=file)
    assert str(caught.value) == f"path: {file} {message}"


def test_the_source_is_the_content_of_the_file(file, tmp_path):
    before = keras_file.source_digest(path=file, weights="keep")
    file.rename(tmp_path / "moved.keras")
    assert keras_file.source_digest(path=tmp_path / "moved.keras", weights="keep") == before
    model = net()
    model.layers[-1].bias.assign([0, 0, 1])
    model.save(tmp_path / "changed.keras")
    assert keras_file.source_digest(path=tmp_path / "changed.keras", weights="keep") != before
    with pytest.raises(InputError, match=r"^path: no such file: .*net\.keras$"):
        keras_file.source_digest(path=file, weights="keep")


def test_an_application_starts_from_its_weights(base):
    file, mobile = base
    net = keras_application((32, 32, 3), 4, model="MobileNet", alpha=0.25, weights=file)
    image = np.random.default_rng(1).random((2, 32, 32, 3), np.float32)
    kernel, bias = net.layers[-1].get_weights()
    np.testing.assert_allclose(net(image), np.asarray(mobile(image)) @ kernel + bias, rtol=1e-4, atol=1e-5)
    assert keras_application.source_digest(weights=file, model="MobileNet", alpha=0.25, pooling="avg")
    assert keras_application.source_digest(weights=None, model="MobileNet", alpha=0.25, pooling="avg") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "MobileNt"}, r"^model: keras.applications has no 'MobileNt'. Did you mean 'MobileNet'\? Accepted: "),
        ({"model": "ResNet50", "alpha": 0.5}, "^alpha: ResNet50 takes none, got 0.5$"),
        ({"model": "MobileNet", "alpha": 0.5, "weights": "base"}, "^weights: .*base.weights.h5 does not fit MobileNet"),
        ({"model": "MobileNet", "weights": "none"}, "^weights: no such file: .*none.weights.h5$"),
        ({"model": "MobileNet", "weights": "other"}, r"^weights: expected a \.weights\.h5 file, .*, got .*other\.h5$"),
    ],
)
def test_an_application_that_cannot_be_is_refused(arguments, message, base):
    file, _ = base
    (file.parent / "other.h5").write_bytes(b"")
    places = {"base": file, "none": file.with_name("none.weights.h5"), "other": file.with_name("other.h5")}
    given = {key: places[value] if key == "weights" else value for key, value in arguments.items()}
    with pytest.raises(InputError, match=message):
        keras_application((32, 32, 3), 4, **given)


def test_softmax_of_a_warm_start_is_that_of_the_net_with_a_softmax(file):
    """The advice of the message: the same net saved with activation=None."""
    found = softmax(np.asarray(keras_file(SHAPE, CLASSES, path=file)(INPUTS), np.float64), -1)
    np.testing.assert_allclose(found, net("softmax")(INPUTS), rtol=1e-5, atol=1e-6)
