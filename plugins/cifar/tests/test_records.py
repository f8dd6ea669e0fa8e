"""Small files in the official layout: as a folder, its parent and an archive; downloads; images of the user's own."""

import dataclasses
import hashlib
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mimic_keras_cifar import Cifar10, Cifar100, records
from mimic_keras_cifar.records import CIFAR10, CIFAR100

from mimic_keras.contracts import InputError
from plugins.cifar.tests import fake

PLACES = ("folder", "parent", "archive", "renamed archive")


@pytest.fixture(params=[Cifar10, Cifar100], ids=lambda kind: kind.__name__)
def of(request, monkeypatch):
    """(data set class, its small files)"""
    return request.param, fake.take_the_place_of(request.param, monkeypatch)


def placed(small, folder, place):
    """The root for one of `PLACES`."""
    if place == "folder":
        return small.write(folder)
    if place == "parent":
        return small.write(folder).parent
    return small.pack(folder / (small.layout.archive if place == "archive" else "data"))


# The published data sets


@pytest.mark.parametrize(
    ("layout", "record", "files", "md5"),
    [
        (
            CIFAR10,
            3073,
            {
                "data_batch_1.bin": 10_000,
                "data_batch_2.bin": 10_000,
                "data_batch_3.bin": 10_000,
                "data_batch_4.bin": 10_000,
                "data_batch_5.bin": 10_000,
                "test_batch.bin": 10_000,
            },
            "c32a1d4ab5d03f1284b67883e8d87530",
        ),
        (CIFAR100, 3074, {"train.bin": 50_000, "test.bin": 10_000}, "03b5dce01913d631647c71ecec9e9cb8"),
    ],
    ids=["CIFAR-10", "CIFAR-100"],
)
def test_layouts_are_those_of_the_data_sets_page(layout, record, files, md5):
    assert (layout.record, layout.training_images, layout.test_images) == (record, 50_000, 10_000)
    assert layout.files == files
    assert list(layout.files) == list(files), "the order is that of the images"
    assert layout.md5 == md5
    names = {"CIFAR-10": ("cifar-10-binary.tar.gz", "cifar-10-batches-bin")}
    assert (layout.archive, layout.folder) == names.get(layout.title, ("cifar-100-binary.tar.gz", "cifar-100-binary"))
    assert records.SITE == "https://www.cs.toronto.edu/~kriz/"


def test_classes_are_those_of_the_archives():
    assert CIFAR10.class_names == (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    names = CIFAR100.class_names
    assert len(set(names)) == len(names) == 100
    assert list(names) == sorted(names)
    # Lines 1, 2, 34, 53, 60, 99 and 100 of fine_label_names.txt.
    assert [names[index] for index in (0, 1, 33, 52, 59, 98, 99)] == [
        *("apple", "aquarium_fish", "forest", "oak_tree", "pine_tree", "woman", "worm"),
    ]
    assert (CIFAR10.labels, CIFAR100.labels) == ({"label": 10}, {"coarse label": 20, "fine label": 100})


@pytest.mark.parametrize(("kind", "layout"), [(Cifar10, CIFAR10), (Cifar100, CIFAR100)])
def test_each_data_set_has_its_layout(kind, layout):
    assert kind.layout is layout
    info = kind().info
    assert (info.name, info.num_classes) == (kind.__name__.lower(), len(layout.class_names))


# Reading


@pytest.mark.parametrize("place", PLACES)
def test_images_are_read_in_order_with_channels_last(of, place, tmp_path):
    _, small = of

    images, labels = records.read(small.layout, placed(small, tmp_path, place))

    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(images, small.images)
    np.testing.assert_array_equal(labels, small.learnt)


def test_a_pixel_by_hand(cifar10, tmp_path):
    # Byte 0 is the label, 1 to 1024 red, 1025 to 2048 green, 2049 to 3072 blue; rows of 32 pixels.
    content = bytearray(cifar10.files()["data_batch_3.bin"])
    second = 3073
    content[second], content[second + 1 + 1024 + 32 * 5 + 7] = 9, 201

    root = cifar10.write(tmp_path, **{"data_batch_3.bin": bytes(content)})
    images, labels = records.read(cifar10.layout, root)

    assert (labels[2 * 20 + 1], images[2 * 20 + 1, 5, 7, 1]) == (9, 201)


def test_cifar_100_learns_the_fine_label(cifar100, tmp_path):
    assert not np.array_equal(cifar100.labels["coarse label"], cifar100.labels["fine label"])

    data = Cifar100(cifar100.write(tmp_path / "files"), validation=30)
    data.prepare(tmp_path)

    np.testing.assert_array_equal(data.split("test").labels, cifar100.labels["fine label"][fake.TRAINING :])


def test_every_place_has_the_same_fingerprint(of, tmp_path):
    kind, small = of
    roots = [placed(small, tmp_path / str(index), place) for index, place in enumerate(PLACES[:2])]
    roots += [placed(small, tmp_path, place) for place in PLACES[2:]]

    fingerprints = {kind(root, validation=30).prepare(tmp_path) for root in roots}

    assert len(fingerprints) == 1
    assert re.fullmatch(r"[0-9a-f]{64}", fingerprints.pop())


@pytest.mark.parametrize("change", ["a pixel", "a label", "two images"])
def test_the_fingerprint_is_of_the_content(cifar10, change, tmp_path):
    before = Cifar10(cifar10.write(tmp_path / "before"), validation=30).prepare(tmp_path)
    content = bytearray(cifar10.files()["test_batch.bin"])
    if change == "a pixel":
        content[-1] ^= 1
    elif change == "a label":
        content[0] = (content[0] + 1) % 10
    else:
        content[:3073], content[3073 : 2 * 3073] = content[3073 : 2 * 3073], content[:3073]

    root = cifar10.write(tmp_path / "after", **{"test_batch.bin": bytes(content)})

    assert Cifar10(root, validation=30).prepare(tmp_path) != before


def test_a_folder_or_an_archive_may_hold_more(cifar10, tmp_path):
    more = {"readme.html": b"read me", "batches.meta.txt": b"airplane\n"}

    for root in (cifar10.write(tmp_path, **more), cifar10.pack(tmp_path / "archive", **more)):
        np.testing.assert_array_equal(records.read(cifar10.layout, root)[0], cifar10.images)


def test_reading_writes_nothing(of, tmp_path):
    kind, small = of
    for place in PLACES[1:3]:
        root = placed(small, tmp_path / "files", place)
        before = sorted(tmp_path.rglob("*"))
        kind(root, validation=30).prepare(tmp_path)
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif("MIMIC_KERAS_TEST_CIFAR10" not in os.environ, reason="MIMIC_KERAS_TEST_CIFAR10 is not set")
def test_the_published_images_are_read():
    images, labels = records.read(CIFAR10, Path(os.environ["MIMIC_KERAS_TEST_CIFAR10"]))

    assert images.shape == (60_000, 32, 32, 3)
    assert np.bincount(labels[:50_000]).tolist() == [5_000] * 10
    assert np.bincount(labels[50_000:]).tolist() == [1_000] * 10


# Downloads


@pytest.fixture
def site(cifar10, tmp_path, monkeypatch):
    """A folder in place of the site, with the archive; the data set expects the archive's MD5."""
    folder = tmp_path / "site"
    folder.mkdir()
    archive = cifar10.pack(folder / cifar10.layout.archive)
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(records, "SITE", f"file://{folder}/")
    monkeypatch.setattr(Cifar10, "layout", dataclasses.replace(cifar10.layout, md5=md5))
    return folder


def refusal(data_dir):
    with pytest.raises(InputError) as caught:
        Cifar10(validation=30).prepare(data_dir)
    return str(caught.value)


def test_without_root_the_archive_is_downloaded_once(cifar10, site, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    first = Cifar10(validation=30)
    fingerprint = first.prepare(data_dir)
    assert [file.name for file in data_dir.iterdir()] == ["cifar-10-binary.tar.gz"]

    shutil.rmtree(site)
    second = Cifar10(validation=30)

    assert second.prepare(data_dir) == fingerprint
    assert fingerprint == Cifar10(cifar10.write(tmp_path / "given"), validation=30).prepare(data_dir)
    np.testing.assert_array_equal(second.split("test").labels, cifar10.learnt[fake.TRAINING :])


def test_another_archive_than_the_published_one_is_refused_and_replaced(cifar10, site, tmp_path):
    published = (site / cifar10.layout.archive).read_bytes()
    other = fake.make(CIFAR10, seed=1).pack(site / cifar10.layout.archive).read_bytes()
    assert other != published

    message = refusal(tmp_path)

    assert message.startswith("CIFAR-10 cannot be downloaded: ")
    assert "hash" in message
    archive = f"the binary version, cifar-10-binary.tar.gz from file://{site}/cifar.html"
    assert message.endswith(f". Get {archive}, and set dataset.root to its location")

    (site / cifar10.layout.archive).write_bytes(published)
    data = Cifar10(validation=30)
    data.prepare(tmp_path)
    np.testing.assert_array_equal(data.split("test").labels, cifar10.learnt[fake.TRAINING :])


def test_a_damaged_download_is_downloaded_again(cifar10, site, tmp_path):
    fingerprint = Cifar10(validation=30).prepare(tmp_path)
    archive = tmp_path / cifar10.layout.archive
    archive.write_bytes(archive.read_bytes()[:-100])

    assert Cifar10(validation=30).prepare(tmp_path) == fingerprint


def test_an_origin_that_can_not_be_reached_is_named(site, tmp_path):
    shutil.rmtree(site)

    message = refusal(tmp_path)

    assert message.startswith(f"CIFAR-10 cannot be downloaded: URL fetch failure on file://{site}/cifar-10-binary")
    assert message.endswith(", and set dataset.root to its location")


# Images of the user's own


def own(count=7, seed=5):
    return np.random.default_rng(seed).integers(0, 256, [count, 32, 32, 3], np.uint8)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_npy_file_of_images_is_read(order, tmp_path):
    np.save(tmp_path / "own.npy", np.asarray(own(), order=order))

    np.testing.assert_array_equal(records.read_unlabelled(CIFAR10, tmp_path / "own.npy"), own())


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=lambda layout: layout.title)
def test_a_bin_file_of_records_is_read_whatever_its_labels(layout, tmp_path):
    small = fake.make(layout)
    labels = {kind: np.full(len(small.images), 255, np.uint8) for kind in layout.labels}
    files = dataclasses.replace(small, labels=labels).files()
    (tmp_path / "own.bin").write_bytes(files[layout.test_file])

    found = records.read_unlabelled(layout, tmp_path / "own.bin")

    np.testing.assert_array_equal(found, small.images[fake.TRAINING :])


def saved(array):
    return lambda file: np.save(file, array)


def holding(content):
    return lambda file: file.write_bytes(content)


def renamed_npz(file):
    with file.open("wb") as stream:
        np.savez(stream, own())


def cut(file):
    np.save(file, own())
    file.write_bytes(file.read_bytes()[:-1])


class Trap:
    """An object whose unpickling leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return self.trace.mkdir, ()


def a_folder(file):
    file.mkdir()


# {what it is: (file name, how it is made, what the message says of it)}
WRONG = {
    "missing .npy": ("own.npy", lambda _: None, r"cannot be read \(.*No such file or directory.*\)"),
    "missing .bin": ("own.bin", lambda _: None, r"cannot be read \(.*No such file or directory.*\)"),
    "folder": ("own.npy", a_folder, r"cannot be read \(.*Is a directory.*\)"),
    "empty .npy": ("own.npy", holding(b""), r"cannot be read \(.*\)"),
    "no images": ("own.npy", saved(own()[:0]), r"is uint8 \[0, 32, 32, 3\]"),
    "floats": ("own.npy", saved(own().astype(np.float32)), r"is float32 \[7, 32, 32, 3\]"),
    "channels first": ("own.npy", saved(own().transpose(0, 3, 1, 2)), r"is uint8 \[7, 3, 32, 32\]"),
    "half the height": ("own.npy", saved(own()[:, :16]), r"is uint8 \[7, 16, 32, 3\]"),
    "one image": ("own.npy", saved(own()[0]), r"is uint8 \[32, 32, 3\]"),
    "a number": ("own.npy", saved(np.uint8(7)), r"is uint8 \[\]"),
    "objects": ("own.npy", saved(np.array([{}, []], object)), r"cannot be read \(.*Python objects.*\)"),
    "a pickle": ("own.npy", holding(pickle.dumps(own())), r"cannot be read \(.*magic string.*\)"),
    "a broken header": ("own.npy", holding(b"\x93NUMPY\x01\x00\x10\x00{{{{{{{{{{{{{{{{"), r"cannot be read \(.*\)"),
    "a .npz": ("own.npy", renamed_npz, r"cannot be read \(.*magic string.*\)"),
    "cut .npy": ("own.npy", cut, r"cannot be read \(.*\)"),
    "empty .bin": ("own.bin", holding(b""), r"cannot be read \(.*\)"),
    "cut .bin": ("own.bin", holding(bytes(3073 * 2 - 1)), "has 6,145 bytes"),
    "a picture": ("own.png", holding(b"\x89PNG"), "is neither"),
    "no suffix": ("own", holding(bytes(3073)), "is neither"),
}


@pytest.mark.parametrize(("name", "create", "message"), WRONG.values(), ids=WRONG)
def test_wrong_images_of_the_users_own_are_refused(cifar10, name, create, message, tmp_path):
    file = tmp_path / name
    create(file)
    accepted = "expected a .npy file, uint8 [N, 32, 32, 3], or a .bin file of records of 3,073 bytes"

    data = Cifar10(cifar10.write(tmp_path / "files"), validation=30, unlabelled=file)

    for call in (lambda: data.info, lambda: data.prepare(tmp_path)):
        with pytest.raises(InputError) as caught:
            call()
        expected = f"unlabelled: {re.escape(str(file))} {message}; {re.escape(accepted)}"
        assert re.fullmatch(expected, str(caught.value)), str(caught.value)


def test_objects_in_a_npy_file_are_not_unpickled(tmp_path):
    np.save(tmp_path / "own.npy", np.array([Trap(tmp_path / "trace")], object), allow_pickle=True)

    with pytest.raises(InputError, match="cannot be read"):
        records.read_unlabelled(CIFAR10, tmp_path / "own.npy")

    assert not (tmp_path / "trace").exists()
    np.load(tmp_path / "own.npy", allow_pickle=True)
    assert (tmp_path / "trace").exists(), "the trap would have sprung"
