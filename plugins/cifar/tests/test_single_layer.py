"""Single-layer features against NumPy and SciPy, patch by patch, and through the data set."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from mimic_keras_cifar import Cifar10, single_layer
from mimic_keras_cifar.single_layer import SingleLayer
from scipy.spatial.distance import cdist

from plugins.cifar.tests import fake

IMAGES = np.random.default_rng(0).integers(0, 256, [12, 9, 8, 3], np.uint8)
ROWS = np.array([7, 0, 3, 4, 9, 11, 2, 5])


@pytest.fixture(scope="module")
def fitted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_layer, "PATCHES", 600)
        return SingleLayer.fit(IMAGES, ROWS, 5)


def patches_of(image):
    """float64 [places, 108], as NumPy cuts them out."""
    down, right = image.shape[0] - 5, image.shape[1] - 5
    return np.array([image[y : y + 6, x : x + 6].ravel() for y in range(down) for x in range(right)], np.float64)


def features_of(image, layer):
    """One image's sums, float64 [20], by loops and SciPy's distances."""
    patches = patches_of(image)
    patches = (patches - patches.mean(1)[:, None]) / np.sqrt(patches.var(1)[:, None] + 10)
    distances = cdist((patches - layer.mean) @ layer.whitening.astype(np.float64), layer.filters)
    down, right = image.shape[0] - 5, image.shape[1] - 5
    sums = np.zeros([2, 2, len(layer.filters)])
    for place, row in enumerate(distances):
        y, x = divmod(place, right)
        sums[int(y >= (down + 1) // 2), int(x >= (right + 1) // 2)] += np.maximum(0, row.mean() - row)
    return sums.ravel()


def test_features_are_those_of_loops(fitted):
    sums = np.array([features_of(image, fitted) for image in IMAGES])
    expected = (sums - fitted.feature_mean) / fitted.feature_deviation
    np.testing.assert_allclose(fitted(tf.constant(IMAGES)), expected, rtol=0, atol=1e-3)


def test_features_are_standardised_over_the_training_images(fitted):
    sums = np.array([features_of(image, fitted) for image in IMAGES[ROWS]])
    # Of 600 patches some are a filter by themselves. Their distance is 0, and in float32 the root of what is left of
    # a difference of squares near 200: up to sqrt(200 * 2^-24) = 0.0035, another on each processor.
    np.testing.assert_allclose(fitted.feature_mean, sums.mean(0), rtol=0, atol=1e-3)
    np.testing.assert_allclose(fitted.feature_deviation, np.sqrt(sums.var(0) + 0.01), rtol=1e-3)


def test_patches_come_from_anywhere_in_the_images_and_are_whole():
    found = single_layer.draw_patches(IMAGES, ROWS, 2000)
    known = {patch.tobytes() for row in ROWS for patch in patches_of(IMAGES[row])}
    assert {patch.tobytes() for patch in found} == known


def test_whitening_is_the_inverse_root_of_the_covariance():
    patches = single_layer.normalise(single_layer.draw_patches(IMAGES, ROWS, 400))
    mean, matrix = single_layer.fit_whitening(patches)
    covariance = (patches - patches.mean(0)).T @ (patches - patches.mean(0)) / (len(patches) - 1)
    expected = scipy.linalg.inv(scipy.linalg.sqrtm(covariance + 0.1 * np.eye(108)))
    np.testing.assert_allclose(mean, patches.mean(0), atol=1e-12)
    np.testing.assert_allclose(matrix, expected.real, atol=1e-8)


def test_filters_are_the_means_of_their_patches(monkeypatch):
    """Of four kinds of patches k-means finds each; scikit-learn does the rest."""
    monkeypatch.setattr(single_layer, "PATCHES", 400)
    images = np.zeros([4, 6, 6, 3], np.uint8)
    for place in range(4):
        images[place, :, :, :] = np.random.default_rng(place).integers(0, 256, [6, 6, 3])
    found = SingleLayer.fit(images, np.arange(4), 4)
    patches = single_layer.normalise(images.reshape(4, -1).astype(np.float64))
    nearest = cdist((patches - found.mean) @ found.whitening, found.filters)
    assert sorted(nearest.argmin(1)) == [0, 1, 2, 3]
    assert nearest.min(1).max() < 1e-3


def test_an_image_has_the_same_bits_in_every_batch(fitted):
    whole = fitted(tf.constant(IMAGES)).numpy()
    for rows in ([3], [11, 0], list(range(12))[::-1]):
        assert fitted(tf.constant(IMAGES[rows])).numpy().tobytes() == whole[rows].tobytes()


def prepared(small, folder, monkeypatch, **arguments):
    monkeypatch.setattr(single_layer, "PATCHES", 500)
    files = folder / "files"
    data = Cifar10(
        files if files.exists() else small.write(files), validation=30, preparation="single_layer", **arguments
    )
    (folder / "home").mkdir(exist_ok=True)
    return data, data.prepare(folder / "home")


def test_the_data_set_gives_features_and_keeps_the_filters(cifar10, tmp_path, monkeypatch):
    data, digest = prepared(cifar10, tmp_path, monkeypatch, filters=3)
    assert data.info.input_shape == (12,)
    split = data.split("train")
    rows = split.batch(fake.every(split)).numpy()
    assert rows.shape == (70, 12)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-3)
    (kept,) = (tmp_path / "home").glob("single-layer-*.npz")
    content = kept.read_bytes()
    monkeypatch.setattr(SingleLayer, "fit", lambda *_: pytest.fail("found again"))
    assert prepared(cifar10, tmp_path, monkeypatch, filters=3)[1] == digest
    assert kept.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 5}, "filters: 5 with preparation: standardize; only single_layer has any, at least 1"),
        ({"filters": 0, "preparation": "single_layer"}, "filters: 0 with preparation: single_layer; only single_layer"),
        (
            {"preparation": "single_layer", "copies": 2, "shift": 1},
            "preparation: single_layer with shift: 1; it gives no images that can be moved",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Cifar10(**arguments)
