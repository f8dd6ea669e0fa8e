"""The splits and what they are made of, arguments, the same bits everywhere, and whole runs."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_cifar import Cifar10, Cifar100, records
from mimic_keras_cifar.preparation import Whitening

from mimic_keras.contracts import SPLITS, InputError
from mimic_keras.training.distribution import split_processor
from plugins.cifar.tests import fake
from tests.tiny import command, counts, run, tiny, write

ROOT = Path(__file__).parents[3]
VARIED = {"validation": 30, "copies": 4, "mirror": True, "shift": 3}
# np.random.RandomState(0).permutation(50000), its first and last five; frozen by NEP 19.
FIRST, LAST = [11841, 19602, 45519, 25747, 42642], [21243, 45891, 42613, 43567, 2732]


@pytest.fixture
def prepare(cifar10, tmp_path):
    """A function that prepares the data set with other arguments."""
    root = cifar10.write(tmp_path / "files")

    def made(**arguments):
        data = Cifar10(root, **{"validation": 30, **arguments})
        data.fingerprint = data.prepare(tmp_path)
        return data

    return made


def own_images(folder, count=9, seed=3):
    """An `unlabelled` file."""
    np.save(folder / "own.npy", np.random.default_rng(seed).integers(0, 256, [count, 32, 32, 3], np.uint8))
    return folder / "own.npy"


def contents(split):
    """The bytes of every example, copies left out."""
    return [image.tobytes() for image in split.batch(np.arange(split.num_examples)).numpy()]


# Splits


def published(monkeypatch, **arguments):
    """The published sizes, with images of one pixel; each label is the image's place."""
    images, labels = np.zeros([60_000, 1, 1, 3], np.uint8), np.arange(60_000, dtype=np.int32)
    monkeypatch.setattr(records, "read", lambda *_: (images, labels))
    data = Cifar10(Path("nowhere"), **arguments)
    data.prepare(Path("nowhere"))
    return {name: data.split(name).labels for name in SPLITS}


def test_the_partition_is_drawn_once_and_for_all(monkeypatch):
    drawn = np.random.RandomState(0).permutation(50_000)
    assert (drawn[:5].tolist(), drawn[-5:].tolist()) == (FIRST, LAST)

    found = published(monkeypatch)

    np.testing.assert_array_equal(found["train"], drawn[:40_000])
    np.testing.assert_array_equal(found["transfer"], drawn[:40_000])
    np.testing.assert_array_equal(found["validation"], drawn[40_000:])
    np.testing.assert_array_equal(found["test"], np.arange(50_000, 60_000))


def test_another_split_seed_gives_another_partition(monkeypatch):
    found = published(monkeypatch, split_seed=2**32 - 1, validation=5_000)

    drawn = np.random.RandomState(2**32 - 1).permutation(50_000)
    np.testing.assert_array_equal(found["train"], drawn[:45_000])
    np.testing.assert_array_equal(found["validation"], drawn[45_000:])
    assert found["train"][:5].tolist() != FIRST


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ({}, (70, 30, 20, 70)),
        ({"validation": 1}, (99, 1, 20, 99)),
        ({"validation": 99}, (1, 99, 20, 1)),
        ({"labelled": 70}, (70, 30, 20, 70)),
        ({"labelled": 1}, (1, 30, 20, 70)),
        ({"labelled": 25, "unlabelled": True}, (25, 30, 20, 79)),
        ({"unlabelled": True, "copies": 3, "mirror": True}, (70, 30, 20, 79)),
    ],
)
def test_sizes(prepare, cifar10, arguments, sizes, tmp_path):
    if "unlabelled" in arguments:
        arguments = arguments | {"unlabelled": own_images(tmp_path)}

    data = prepare(**arguments)

    splits = {name: data.split(name) for name in SPLITS}
    assert tuple(split.num_examples for split in splits.values()) == sizes
    assert tuple(len(split.labels) for split in splits.values()) == sizes
    # What `info` says of the sizes, it says before anything is read.
    info = Cifar10(Path("nowhere"), **{"validation": 30, **arguments}).info
    assert info.num_examples == {name: split.num_examples * split.repeats for name, split in splits.items()}
    assert [splits[name].repeats for name in SPLITS] == [data.copies, 1, 1, data.copies]
    assert splits["train"].batch(np.arange(1)).shape[1:] == info.input_shape == (32, 32, 3)


@pytest.mark.parametrize("arguments", [{}, {"labelled": 25}, {"labelled": 25, "split_seed": 3}])
def test_splits_have_the_images_and_labels_of_the_files(prepare, cifar10, arguments):
    data = prepare(**arguments)
    rows = np.random.RandomState(arguments.get("split_seed", 0)).permutation(100)
    labelled = arguments.get("labelled", 70)
    places = {
        "train": rows[:labelled],
        "validation": rows[70:],
        "test": np.arange(100, 120),
        "transfer": rows[:70],
    }

    for name, expected in places.items():
        split = data.split(name)
        images = split.batch(fake.every(split))
        np.testing.assert_allclose(images, fake.standardized(cifar10.images[expected]), atol=1e-4, err_msg=name)
        labels = cifar10.learnt[expected].astype(np.int32)
        if name == "transfer":
            labels[labelled:] = -1
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.labels, labels, err_msg=name)


def test_training_images_come_first_in_the_transfer_set_in_the_same_order(prepare, tmp_path):
    data = prepare(labelled=25, unlabelled=own_images(tmp_path))
    train, transfer = data.split("train"), data.split("transfer")

    assert contents(transfer)[:25] == contents(train)
    np.testing.assert_array_equal(transfer.labels[:25], train.labels)
    np.testing.assert_array_equal(transfer.labels[25:], np.full(54, -1))


def test_the_seed_of_a_split_moves_no_image(prepare):
    data = prepare(copies=2, mirror=True)

    for name in SPLITS:
        one, two = (data.split(name, seed=seed) for seed in (0, 12345))
        assert contents(one) == contents(two)
        np.testing.assert_array_equal(one.labels, two.labels)


def test_less_validation_leaves_the_order_of_the_training_images(prepare):
    assert contents(prepare(validation=10).split("train"))[:70] == contents(prepare().split("train"))


def test_the_fingerprint_follows_the_partition(prepare, tmp_path):
    chosen = {"split_seed": 1}, {"unlabelled": own_images(tmp_path)}
    plain, varied, *others = (prepare(**one).fingerprint for one in ({}, {"copies": 2, "mirror": True}, *chosen))

    assert plain == varied
    assert len({plain, *others}) == 3


# Images of the user's own


@pytest.mark.parametrize("kind", ["npy", "npy in Fortran's order", "bin"])
def test_images_of_the_users_own_end_the_transfer_set(prepare, kind, tmp_path):
    other = fake.make(records.CIFAR10, seed=8)
    images = other.images[fake.TRAINING :]
    file = tmp_path / f"own.{kind[:3]}"
    if kind == "bin":
        file.write_bytes(other.files()["test_batch.bin"])
    else:
        np.save(file, images if kind == "npy" else np.asfortranarray(images))

    data = prepare(unlabelled=file)

    transfer = data.split("transfer")
    assert transfer.num_examples == data.info.num_examples["transfer"] == 90
    found = transfer.batch(np.arange(70, 90))
    np.testing.assert_allclose(found, fake.standardized(images), atol=1e-4)
    assert data.split("train").num_examples == 70


@pytest.mark.parametrize(("place", "shared"), [([99], 1), ([70, 110, 119], 3), ([0, 1], 0)])
def test_validation_and_test_images_are_refused_in_the_transfer_set(prepare, cifar10, place, shared, tmp_path):
    # Places 0 to 69 are training images, to 99 validation images, to 119 test images.
    rows = np.append(np.random.RandomState(0).permutation(100), np.arange(100, 120))[place]
    mine = np.concatenate([np.load(own_images(tmp_path)), cifar10.images[rows]])
    np.save(tmp_path / "mine.npy", mine)

    if not shared:
        assert prepare(unlabelled=tmp_path / "mine.npy").split("transfer").num_examples == 70 + len(mine)
        return
    with pytest.raises(InputError) as caught:
        prepare(unlabelled=tmp_path / "mine.npy")

    assert str(caught.value) == (
        f"unlabelled: {shared} of the {len(mine)} images of {tmp_path / 'mine.npy'} are validation or test images, "
        "which must not be trained on"
    )


# Information and arguments


def test_info_of_the_published_data_sets_needs_no_data():
    ten, hundred = Cifar10(Path("nowhere")).info, Cifar100().info

    for info, name, classes in ((ten, "cifar10", 10), (hundred, "cifar100", 100)):
        assert (info.name, info.version, info.input_shape, info.num_classes) == (name, "1", (32, 32, 3), classes)
    assert ten.class_names[3] == "cat"
    assert hundred.class_names[3] == "bear"
    sizes = {"train": 40_000, "validation": 10_000, "test": 10_000, "transfer": 40_000}
    assert ten.num_examples == hundred.num_examples == sizes
    some = Cifar10(validation=5_000, labelled=10_000, copies=8, shift=2).info
    assert some.num_examples == {"train": 80_000, "validation": 5_000, "test": 10_000, "transfer": 360_000}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 0}, "validation must be from 1 to 49999 images, got 0"),
        ({"validation": -1}, "validation must be from 1 to 49999 images, got -1"),
        ({"validation": 50_000}, "validation must be from 1 to 49999 images, got 50000"),
        ({"split_seed": -1}, "split_seed must be from 0 to 4294967295, got -1"),
        ({"split_seed": 2**32}, "split_seed must be from 0 to 4294967295, got 4294967296"),
        ({"labelled": 0}, "labelled must be from 1 to the 40000 training images, got 0"),
        ({"labelled": 40_001}, "labelled must be from 1 to the 40000 training images, got 40001"),
        ({"labelled": 11, "validation": 49_990}, "labelled must be from 1 to the 10 training images, got 11"),
        ({"shift": -1}, "shift must be from 0 to 31 pixels, got -1"),
        ({"shift": 32, "copies": 2}, "shift must be from 0 to 31 pixels, got 32"),
        ({"copies": 0}, "copies must be at least 1, got 0"),
        ({"copies": -3, "mirror": True}, "copies must be at least 1, got -3"),
        *(
            (
                {"copies": copies, "mirror": mirror, "shift": shift},
                f"copies: {copies} with mirror: {str(mirror).lower()} and shift: {shift}; the first copy is the image "
                "itself, so augmentation needs copies above 1, and copies above 1 need one of mirror, shift, "
                "smallest_crop, hue_shift, saturation_shift, value_shift, saturation_factor, value_factor",
            )
            for copies, mirror, shift in ((2, False, 0), (1, True, 0), (1, False, 3), (1, True, 1))
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=r"\d") as caught:
        Cifar10(**arguments)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    "arguments",
    [
        *({"validation": 1}, {"validation": 49_999}, {"split_seed": 2**32 - 1}, {"labelled": 1}, {"labelled": 40_000}),
        *({"copies": 2, "shift": 31}, {"copies": 2, "mirror": True}, {"copies": 9, "mirror": True, "shift": 1}),
    ],
)
def test_arguments_at_the_ends_of_their_ranges_are_accepted(arguments):
    data = Cifar10(**arguments)

    assert {name: getattr(data, name) for name in arguments} == arguments


def test_an_unknown_split_is_refused_and_the_known_ones_are_listed(prepare):
    with pytest.raises(ValueError, match=r"^no split 'dev'; accepted: train, validation, test, transfer$"):
        prepare().split("dev")


# The same bits in any batch, order, process and on any number of devices


class Bits:
    """A data set with a random whitening, and the bytes of each example as they came in one batch of all."""

    def __init__(self, root, home, preparation):
        self.root, self.home, self.preparation = root, home, preparation
        self.split = self.made()
        self.expected = [image.tobytes() for image in self.split.batch(fake.every(self.split)).numpy()]

    def made(self):
        with pytest.MonkeyPatch.context() as patch:
            fake.take_the_place_of(Cifar10, patch)
            # No bit depends on how the matrix came about, and eigenvalues take ten seconds.
            matrix = np.random.default_rng(0).normal(scale=0.05, size=[3072, 3072]).astype(np.float32)
            patch.setattr(Whitening, "fit", lambda *_: Whitening(matrix[0], matrix))
            data = Cifar10(self.root, self.preparation, **VARIED)
            data.prepare(self.home)
            return data.split("train", seed=6)

    def check(self, ids, images):
        assert [image.tobytes() for image in np.asarray(images)] == [self.expected[place] for place in ids]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """{preparation: Bits}"""
    folder = tmp_path_factory.mktemp("bits")
    root, home = fake.make(records.CIFAR10).write(folder), fake.write(folder / "home", {})
    return {preparation: Bits(root, home, preparation) for preparation in ("standardize", "zca")}


@pytest.fixture(scope="module", params=["standardize", "zca"])
def bits(request, both):
    return both[request.param]


def some_ids(count, seed=1):
    return np.random.default_rng(seed).permutation(280)[:count].astype(np.int64)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 65, 280])
def test_an_id_gives_the_same_bits_in_batches_of_any_size(bits, size):
    ids = some_ids(min(5 * size, 100 + size))
    in_graph = tf.function(bits.split.batch, input_signature=[tf.TensorSpec([None], tf.int64)])

    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        bits.check(part, bits.split.batch(tf.constant(part)))
        bits.check(part, in_graph(tf.constant(part)))


@pytest.mark.long
@settings(max_examples=12, derandomize=True)
@given(ids=st.permutations(range(280)), sizes=st.lists(st.integers(1, 100), min_size=1, max_size=3))
def test_an_id_gives_the_same_bits_in_any_order(bits, ids, sizes):
    start = 0
    for size in sizes:
        part = ids[start : start + size]
        bits.check(part, bits.split.batch(tf.constant(part, tf.int64)))
        start = (start + size) % 180


def test_an_id_may_come_twice_and_none_gives_none(bits):
    ids = np.repeat(some_ids(3), 40)

    bits.check(ids, bits.split.batch(tf.constant(ids)))
    assert bits.split.batch(tf.zeros([0], tf.int64)).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("size", [7, 64])
def test_a_pipeline_gives_the_same_bits(bits, size):
    ids = some_ids(100)
    pipeline = tf.data.Dataset.from_tensor_slices(ids).batch(size).map(bits.split.batch, num_parallel_calls=2)

    bits.check(ids, np.concatenate(list(pipeline.as_numpy_iterator())))


@pytest.mark.parametrize("devices", [2, 4])
def test_mirrored_devices_are_given_the_same_bits(bits, devices):
    # 100 = 33 + 33 + 33 + 1: batches that no number of devices divides, and a last one that leaves devices empty.
    ids = some_ids(100)
    strategy = tf.distribute.MirroredStrategy(
        split_processor(4)[:devices], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    pipeline = tf.data.Dataset.from_tensor_slices(ids).batch(33)
    pipeline = pipeline.map(lambda part: (part, bits.split.batch(part)), num_parallel_calls=2)

    seen = []
    for part, images in strategy.experimental_distribute_dataset(pipeline):
        places, values = (strategy.experimental_local_results(value) for value in (part, images))
        assert len(places) == devices
        for place, value in zip(places, values, strict=True):
            bits.check(place.numpy(), value)
            seen += place.numpy().tolist()
    assert seen == ids.tolist()


SECOND_PROCESS = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(1)
from mimic_keras_cifar import Cifar10
from plugins.cifar.tests import fake

root, home, arguments = sys.argv[1:]
Cifar10.layout = fake.small(Cifar10.layout)
for preparation in ("standardize", "zca"):
    data = Cifar10(Path(root), preparation, **json.loads(arguments))
    data.prepare(Path(home))
    split = data.split("train", seed=6)
    parts = [split.batch(tf.constant(ids)).numpy() for ids in np.array_split(fake.every(split), 9)]
    print(hashlib.sha256(np.concatenate(parts).tobytes()).hexdigest())
"""


@pytest.mark.long
def test_another_process_gives_the_same_bits(both):
    one = both["zca"]

    found = subprocess.run(
        [sys.executable, "-c", SECOND_PROCESS, one.root, one.home, json.dumps(VARIED)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [hashlib.sha256(b"".join(bits.expected)).hexdigest() for bits in both.values()]


# Whole runs

PLAIN_KERAS = """
import sys
from pathlib import Path

import keras

folder = Path(sys.argv[1])
keras.utils.set_random_seed(0)


def net(shape, classes, activation):
    layers = [keras.layers.Conv2D(2, 3, 4, activation="relu"), keras.layers.Flatten()]
    return keras.Sequential([keras.Input(shape), *layers, keras.layers.Dense(classes, activation=activation)])


net((32, 32, 3), 10, None).save(folder / "logits.keras")
net((32, 32, 3), 10, "softmax").export(folder / "probabilities", verbose=False)
net((28, 28, 1), 10, None).save(folder / "grey.keras")
net((32, 32, 3), 100, None).save(folder / "hundred.keras")
assert not [name for name in sys.modules if name.startswith("mimic_keras")]
"""
CNN = {"name": "cnn", "filters": [2], "hidden_units": [8]}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder of models that a script which knows nothing of this program has written."""
    folder = tmp_path_factory.mktemp("plain")
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, "-c", PLAIN_KERAS, folder], cwd=folder, env=environment, check=True)
    return folder


def experiment(root, *members, **dataset):
    """A tiny experiment with one trained member, and other ones; few images teach no student more than chance."""
    changed = tiny(dataset={"name": "cifar10", "root": str(root), "validation": 30, **dataset}, baseline=None)
    changed["export"] = {"minimum_agreement": 0}
    changed["teacher"]["members"] = [
        {"teacher": {"name": "trained", "architecture": CNN}},
        *({"teacher": member} for member in members),
    ]
    for section in (changed["teacher"], changed["student"]):
        section["training"] |= {"batch_size": 32, "optimizer": {"name": "adam", "learning_rate": 0.001}}
    return changed


def loaded(plain):
    return [
        {"name": "keras_file", "path": str(plain / "logits.keras")},
        {"name": "saved_model", "path": str(plain / "probabilities"), "outputs": "probabilities"},
    ]


@pytest.mark.long
def test_a_trained_and_two_loaded_members_teach_a_student(cifar10, plain, tmp_path):
    chosen = {"labelled": 50, "unlabelled": str(own_images(tmp_path)), "copies": 3, "mirror": True, "shift": 2}

    metrics = run(tmp_path, experiment(cifar10.pack(tmp_path / "archive"), *loaded(plain), **chosen))

    assert counts(metrics) == {"teachers": (1, 0), "logits": (9, 0), "student": (1, 0), "export": (1, 0)}
    assert metrics["models"]["teacher"]["members"] == 3
    assert list(metrics["models"]) == ["teacher", "teacher/0", "teacher/1", "teacher/2", "student"]
    # By hand: 3 x 3 x 3 x 2 + 2 in every fourth place, 8 x 8 of them; 8 x 8 x 2 x 10 + 10.
    sizes = [metrics["models"][f"teacher/{index}"]["parameters"] for index in (1, 2)]
    assert sizes == [56 + 1280 + 10] * 2
    # The error rates are shares of 20 test images.
    wrong = [model["test"]["error_rate"] * 20 for model in metrics["models"].values()]
    np.testing.assert_allclose(wrong, np.round(wrong), atol=1e-6)

    again = run(tmp_path, experiment(cifar10.write(tmp_path / "files"), *loaded(plain), **chosen))

    # The folder holds what the archive held, so that nothing is rebuilt.
    assert [made for made, _ in counts(again).values()] == [0, 0, 0, 0]


@pytest.mark.long
def test_the_student_of_cifar_100_learns_the_labels(cifar100, tmp_path):
    changed = experiment(cifar100.write(tmp_path / "files"), copies=2, shift=1)
    changed["dataset"]["name"], changed["teacher"] = "cifar100", None
    changed["student"] = {key: changed["student"][key] for key in ("architecture", "training")}

    metrics = run(tmp_path, changed)

    assert metrics["export"]["signatures"]["serving_default"] == {
        "inputs": {"inputs": [-1, 32, 32, 3]},
        "outputs": {"logits": [-1, 100], "probabilities": [-1, 100], "class": [-1], "label": [-1]},
    }


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("grey", "takes inputs of shape [28, 28, 1], the data set's are [32, 32, 3]"),
        ("hundred", "gives outputs of shape [100], the data set has 10 classes"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_anything_is_trained(
    cifar10, plain, file, message, tmp_path, capsys
):
    member = {"name": "keras_file", "path": str(plain / f"{file}.keras")}
    written = write(tmp_path, experiment(cifar10.write(tmp_path / "files"), *loaded(plain), member))
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports")

    assert command("run", written, *places) == 2

    assert f"teacher.members[3].teacher: path: {plain / file}.keras {message}" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 0}, "validation must be from 1 to 99 images, got 0"),
        ({"copies": 2}, "copies: 2 with mirror: false and shift: 0; "),
        ({"preparation": "whiten"}, "standardize"),
        ({"unlabelled": "nowhere.npy"}, "nowhere.npy cannot be read "),
    ],
)
def test_wrong_arguments_are_said_before_anything_is_read(cifar10, arguments, message, tmp_path, capsys):
    written = write(tmp_path, experiment(tmp_path / "nowhere", **arguments))

    code = command("run", written, "--home", tmp_path / "home", "--runs_dir", tmp_path / "runs")

    assert (code, message in capsys.readouterr().err) == (2, True)
    assert not (tmp_path / "home").exists()


def test_validate_reads_no_images(cifar10, tmp_path, capsys):
    assert command("validate", write(tmp_path, experiment(tmp_path / "nowhere", copies=2, mirror=True))) == 0

    output = capsys.readouterr().out
    assert "cifar10 1: inputs [32, 32, 3], 10 classes; 140 train, 30 validation, 20 test, 140 transfer" in output
