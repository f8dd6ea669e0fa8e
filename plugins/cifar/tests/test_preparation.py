"""Both preparations against float64 NumPy, and the whitening that is kept on disk."""

import numpy as np
import pytest
import tensorflow as tf
from mimic_keras_cifar import Cifar10, preparation
from mimic_keras_cifar.preparation import Whitening, standardize

from plugins.cifar.tests import fake

SHAPE = (8, 8, 3)
EVERY = np.arange(200)


def smooth(count=200, seed=0):
    """Images of neighbouring pixels that resemble each other, so that eigenvalues differ by orders of magnitude."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(20, 230, [count, 4, 4, 3]).repeat(2, 1).repeat(2, 2)
    return (coarse + generator.integers(-8, 9, [count, *SHAPE])).astype(np.uint8)


def contrast_normalised(images):
    """float64 [N, values]: each image's deviations from its mean, scaled to a norm of 55."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    deviations = flat - flat.mean(1)[:, None]
    norms = np.sqrt((deviations**2).sum(1))
    return deviations / np.where(norms < 1, 1, norms)[:, None] * 55


def whitening_by_singular_values(normalised):
    """(mean, matrix, variances along the axes, axes) without ever forming the covariance."""
    mean = normalised.mean(0)
    _, singular, axes = np.linalg.svd(normalised - mean, full_matrices=True)
    variances = np.zeros(len(axes))
    variances[: len(singular)] = singular**2 / len(normalised)
    return mean, axes.T @ np.diag((variances + 0.1) ** -0.5) @ axes, variances, axes


@pytest.fixture(scope="module")
def fitted():
    return Whitening.fit(smooth(), EVERY)


@pytest.fixture(scope="module")
def expected():
    return whitening_by_singular_values(contrast_normalised(smooth()))


# Standardisation


@pytest.mark.parametrize("shape", [(32, 32, 3), SHAPE, (1, 2, 3)])
def test_standardisation_is_numpys(shape):
    images = np.random.default_rng(1).integers(0, 256, [50, *shape], np.uint8)

    found = standardize(tf.constant(images))

    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, fake.standardized(images), rtol=0, atol=1e-4)


def test_an_image_by_hand():
    # Values 0, 0, 0, 4: mean 1, variance 3.
    found = standardize(tf.constant([0, 0, 0, 4], tf.uint8, [1, 2, 2, 1]))

    np.testing.assert_allclose(np.ravel(found), np.array([-1, -1, -1, 3]) / 3**0.5, rtol=1e-6)


@pytest.mark.parametrize("value", [0, 17, 255])
def test_an_image_of_one_colour_becomes_0(value):
    images = np.full([3, 32, 32, 3], value, np.uint8)

    np.testing.assert_array_equal(standardize(tf.constant(images)), np.zeros([3, 32, 32, 3]))


def test_an_image_of_nearly_one_colour_is_not_blown_up():
    # One value of 3,072 differs by 1: the deviation, (1 / 3072 - 1 / 3072**2) ** 0.5, counts as 3072 ** -0.5.
    images = np.full([1, 32, 32, 3], 100, np.uint8)
    images[0, 3, 4, 1] += 1

    found = standardize(tf.constant(images)).numpy()

    expected = np.full(images.shape, -1 / 3072)
    expected[0, 3, 4, 1] += 1
    np.testing.assert_allclose(found, expected * 3072**0.5, rtol=0, atol=1e-3)


def test_the_largest_sums_are_exact():
    # The variance has 3,072 times the sum of squares, here 3,072 * 1,536 * 255**2, beyond 32 bits.
    images = np.full([1, 32, 32, 3], 255, np.uint8)
    images[0, ::2] = 0

    np.testing.assert_allclose(standardize(tf.constant(images)), fake.standardized(images), rtol=1e-6)


# Whitening


def test_the_whitening_is_that_of_the_singular_value_decomposition(fitted, expected):
    mean, matrix, *_ = expected

    assert (fitted.mean.dtype, fitted.matrix.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(fitted.mean, mean, rtol=0, atol=1e-4)
    np.testing.assert_allclose(fitted.matrix, matrix, rtol=0, atol=1e-4)


def test_whitened_images_are_numpys(fitted, expected):
    others = smooth(70, seed=3)
    mean, matrix, *_ = expected

    found = fitted(tf.constant(others))

    assert found.dtype == tf.float32
    assert found.shape == others.shape
    whitened = (contrast_normalised(others) - mean) @ matrix
    np.testing.assert_allclose(found, whitened.reshape(others.shape), rtol=0, atol=1e-4)


def test_images_of_one_colour_are_whitened_like_0(fitted, expected):
    images = np.full([2, *SHAPE], 99, np.uint8)
    mean, matrix, *_ = expected

    np.testing.assert_allclose(np.reshape(fitted(tf.constant(images)), [2, -1]), [-mean @ matrix] * 2, atol=1e-4)


def test_each_eigenvalue_d_of_the_training_images_becomes_d_over_d_plus_a_tenth(fitted, expected):
    *_, variances, axes = expected
    assert variances.max() > 50
    assert (variances < 0.1).sum() > 0

    whitened = fitted(tf.constant(smooth())).numpy().reshape(200, -1).astype(np.float64)

    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-4)
    covariance = axes.T @ np.diag(variances / (variances + 0.1)) @ axes
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), covariance, atol=1e-3)


def test_statistics_are_gathered_a_few_images_at_a_time(fitted, monkeypatch):
    monkeypatch.setattr(preparation, "IMAGES_AT_ONCE", 64)

    again = Whitening.fit(smooth(), EVERY)

    np.testing.assert_allclose(again.matrix, fitted.matrix, atol=1e-5)
    np.testing.assert_allclose(again.mean, fitted.mean, atol=1e-5)


# What is kept


def forbidden(*_):
    raise AssertionError("what is kept has to be used")


def kept(folder):
    (file,) = folder.iterdir()
    return file


def bits(whitening):
    return whitening.mean.tobytes(), whitening.matrix.tobytes()


def test_the_whitening_is_made_once(fitted, tmp_path, monkeypatch):
    first = Whitening.of(smooth(), EVERY, tmp_path)
    assert bits(first) == bits(fitted)
    monkeypatch.setattr(Whitening, "fit", forbidden)

    again = Whitening.of(smooth(), EVERY, tmp_path)

    assert bits(again) == bits(first)
    assert kept(tmp_path).suffix == ".npz", "and no .tmp beside it"


def test_other_constants_have_a_whitening_of_their_own(fitted, tmp_path, monkeypatch):
    Whitening.of(smooth(), EVERY, tmp_path)
    monkeypatch.setattr("mimic_keras_cifar.preparation.EIGENVALUE_BIAS", 10.0)

    assert bits(Whitening.of(smooth(), EVERY, tmp_path)) != bits(fitted)


@pytest.mark.parametrize("change", ["a pixel", "fewer rows", "the order"])
def test_other_training_images_have_a_whitening_of_their_own(change, tmp_path):
    Whitening.of(smooth(), EVERY, tmp_path)
    images, rows = smooth(), EVERY
    if change == "a pixel":
        images[7, 0, 0, 0] ^= 1
    elif change == "fewer rows":
        rows = EVERY[:-1]
    else:
        images[[0, 1]] = images[[1, 0]]

    Whitening.of(images, rows, tmp_path)

    assert len(list(tmp_path.iterdir())) == 2


DAMAGE = {
    "empty": lambda content: b"",
    "text": lambda content: b"no arrays here",
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut at the end": lambda content: content[:-1],
    "a changed byte": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_rebuilt(fitted, damage, tmp_path, caplog):
    Whitening.of(smooth(), EVERY, tmp_path)
    file = kept(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))

    again = Whitening.of(smooth(), EVERY, tmp_path)

    assert bits(again) == bits(fitted)
    assert kept(tmp_path) == file, "no .tmp beside it"
    assert file.read_bytes() == whole
    assert f"{file} is damaged (" in caplog.text
    assert "); it is rebuilt" in caplog.text


def test_no_changed_bit_gives_another_whitening(fitted, tmp_path, monkeypatch):
    # Small enough to try every byte: zip's own records say how to read what they frame.
    little = smooth(5)[:, :1, :2]
    expected = bits(Whitening.of(little, np.arange(5), tmp_path))
    file = kept(tmp_path)
    whole = file.read_bytes()
    remade = Whitening.fit(little, np.arange(5))
    monkeypatch.setattr(Whitening, "fit", lambda *_: remade)
    monkeypatch.setattr("os.fsync", lambda _: None)

    for position in range(len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
        assert bits(Whitening.of(little, np.arange(5), tmp_path)) == expected, position


# Through the data set


@pytest.fixture
def cheap(monkeypatch):
    """Whitening without the eigenvalues of a 3,072 x 3,072 matrix: the mean, and its products with itself."""
    calls = []

    def fit(images, rows):
        calls.append(rows)
        mean = contrast_normalised(images[rows]).mean(0).astype(np.float32)
        return Whitening(mean, np.eye(3072, dtype=np.float32) + np.outer(mean, mean))

    monkeypatch.setattr(Whitening, "fit", fit)
    return calls


def prepared(small, folder, **arguments):
    data = Cifar10(small.write(folder / "files"), validation=30, **arguments)
    (folder / "home").mkdir()
    return data, data.prepare(folder / "home")


def test_images_of_a_split_are_whitened_with_the_training_images_statistics(cifar10, cheap, tmp_path):
    data, _ = prepared(cifar10, tmp_path, preparation="zca", labelled=20)
    training = np.random.RandomState(0).permutation(100)[:70]

    split = data.split("test")

    np.testing.assert_array_equal(cheap, [training])
    mean = contrast_normalised(cifar10.images[training]).mean(0)
    expected = (contrast_normalised(cifar10.images[100:]) - mean) @ (np.eye(3072) + np.outer(mean, mean))
    found = split.batch(fake.every(split))
    np.testing.assert_allclose(found, expected.reshape(-1, 32, 32, 3), rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("place", "is_training"), [(0, True), (69, True), (70, False), (99, False), (100, False)])
def test_statistics_come_from_training_images_alone(cifar10, cheap, place, is_training, tmp_path):
    # Places 0 to 69 are training images, to 99 validation images, to 119 test images.
    row = np.append(np.random.RandomState(0).permutation(100), np.arange(100, 120))[place]
    images = cifar10.images.copy()
    images[row] = 255 - images[row]
    changed = fake.Fake(cifar10.layout, images, cifar10.labels)

    before, one = prepared(cifar10, tmp_path / "one", preparation="zca")
    after, two = prepared(changed, tmp_path / "two", preparation="zca")

    assert one != two, "the fingerprint is of all images"
    names = [{file.name for file in (tmp_path / folder / "home").iterdir()} for folder in ("one", "two")]
    assert (names[0] == names[1]) is not is_training
    unchanged = [data.split("validation").batch(tf.constant([5], tf.int64)).numpy() for data in (before, after)]
    assert (unchanged[0].tobytes() == unchanged[1].tobytes()) is not is_training


def test_unlabelled_images_take_no_part_in_the_statistics(cifar10, cheap, tmp_path):
    np.save(tmp_path / "own.npy", np.random.default_rng(3).integers(0, 256, [9, 32, 32, 3], np.uint8))
    _, plain = prepared(cifar10, tmp_path / "plain", preparation="zca")
    _, more = prepared(cifar10, tmp_path / "more", preparation="zca", unlabelled=tmp_path / "own.npy")

    assert plain != more
    np.testing.assert_array_equal(*cheap)
    assert kept(tmp_path / "plain" / "home").name == kept(tmp_path / "more" / "home").name


def test_the_fingerprint_says_how_it_is_whitened(cifar10, cheap, tmp_path):
    _, plain = prepared(cifar10, tmp_path / "plain")
    _, whitened = prepared(cifar10, tmp_path / "whitened", preparation="zca")

    assert plain != whitened
