"""Teachers that other frameworks made: ONNX files, scikit-learn, keras.applications, stored predictions."""

import json
import re
import zipfile

import keras
import numpy as np
import pytest
import sklearn.linear_model
import sklearn.pipeline
import sklearn.preprocessing
import tensorflow as tf
from mimic_keras_teachers import KerasApplication, OnnxFile, Predictions, SklearnFile
from onnx import TensorProto
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer

from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, InputError, TeacherContext
from plugins.teachers.tests import makers

SHAPE, CLASSES = (4, 3, 2), 5
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.random((6, *SHAPE), np.float32)
KERNEL = RANDOM.normal(size=(24, CLASSES)).astype(np.float32)
ROWS = {"transfer": 14, "validation": 4, "test": 3}


class Fake(Dataset):
    """Seven training examples with two copies each, four for validation, three for the test."""

    def __init__(self, shape=SHAPE, classes=CLASSES):
        self._info = DatasetInfo("fake", "1", shape, classes, tuple("abcdefghij"[:classes]))

    @property
    def info(self):
        return self._info

    def prepare(self, data_dir):
        return ""

    def split(self, name, seed=0):
        count, repeats = {"validation": (4, 1), "test": (3, 1)}.get(name, (7, 2))
        return ArraySplit(np.zeros([count, *self._info.input_shape], np.float32), repeats=repeats)


def member_of(teacher, data=None, tmp_path=None):
    return teacher.member(TeacherContext(data or Fake(), 0, tmp_path, None))


def refusal(teacher, data=None):
    with pytest.raises(InputError) as caught:
        member_of(teacher, data)
    return str(caught.value)


# ONNX


@pytest.mark.parametrize(
    ("layout", "shape", "arrange"),
    [
        ("channels_last", SHAPE, lambda x: x),
        ("channels_first", (2, 4, 3), lambda x: x.transpose(0, 3, 1, 2)),
        ("flat", (24,), lambda x: x),
    ],
)
def test_an_onnx_net_gives_what_numpy_gives(layout, shape, arrange, tmp_path):
    teacher = OnnxFile(makers.save_onnx(tmp_path / "net.onnx", KERNEL, shape), layout=layout)
    member = member_of(teacher)

    found = tf.function(member.call, input_signature=[tf.TensorSpec([None, *SHAPE])])(INPUTS)

    assert found.dtype == tf.float32
    assert found.shape == (6, CLASSES)
    np.testing.assert_allclose(found, arrange(INPUTS).reshape(6, 24) @ KERNEL, rtol=1e-4, atol=1e-5)
    assert (member.parameters, member.model, member.predict) == (None, None, None)


@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_an_onnx_net_of_another_precision_is_given_its_own(dtype, tmp_path):
    found = member_of(OnnxFile(makers.save_onnx(tmp_path / "net.onnx", KERNEL, SHAPE, dtype=dtype))).call(INPUTS)

    assert found.dtype == tf.float32
    tolerance = 0.05 if dtype == TensorProto.FLOAT16 else 1e-4
    np.testing.assert_allclose(found, INPUTS.reshape(6, 24) @ KERNEL, atol=tolerance)


def test_one_of_several_onnx_outputs(tmp_path):
    file = makers.save_onnx(tmp_path / "net.onnx", KERNEL, SHAPE, outputs=("a", "b"), softmax=True)

    found = member_of(OnnxFile(file, output="b", outputs="probabilities")).call(INPUTS)

    expected = softmax(2 * INPUTS.reshape(6, 24).astype(np.float64) @ KERNEL, -1)
    np.testing.assert_allclose(softmax(found.numpy().astype(np.float64), -1), expected, rtol=1e-4, atol=1e-6)
    assert refusal(OnnxFile(file)) == "output: expected one of a, b, got None"
    assert refusal(OnnxFile(file, output="c")) == "output: expected one of a, b, got 'c'"


@pytest.mark.parametrize(
    ("options", "layout", "message"),
    [
        (
            {"first": 1},
            "channels_last",
            "takes exactly 1 examples at a time, expected any number: export it with a dyn",
        ),
        ({"inputs": ("x", "y")}, "channels_last", r"takes 2 inputs \(x, y\), expected 1$"),
        ({"dtype": TensorProto.INT32}, "channels_last", r"takes tensor\(int32\), expected one of tensor\(float\), "),
        ({}, "channels_first", r"with layout: channels_first takes inputs of shape \[4, 3, 2\], .* are \[2, 4, 3\]$"),
        ({}, "flat", r"with layout: flat takes inputs of shape \[4, 3, 2\], the data set's are \[24\]$"),
        ({"external": True}, "channels_last", "; its weights have to be in the same file: torch.onnx.export"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_refused(options, layout, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the runtime would look for weights in other files
    file = makers.save_onnx(tmp_path / "net.onnx", KERNEL, SHAPE, **options)

    assert re.match(f"path: {re.escape(str(file))} .*{message}", refusal(OnnxFile(file, layout=layout)))


def test_an_onnx_net_of_other_classes_or_outputs_is_refused(tmp_path):
    file = makers.save_onnx(tmp_path / "net.onnx", KERNEL, SHAPE, softmax=True)

    assert refusal(OnnxFile(file), Fake(classes=4)).endswith("gives outputs of shape [5], the data set has 4 classes")
    assert refusal(OnnxFile(file)).endswith("expected 'probabilities', got 'logits'")


def test_a_zipmap_is_answered_with_how_to_export(tmp_path):
    teacher = OnnxFile(makers.save_zipmap(tmp_path / "c.onnx", 5), "output_probability", "probabilities", "flat")

    assert refusal(teacher, Fake((5,))) == (
        "output: 'output_probability' is seq(map(int64,tensor(float))), expected one of tensor(float), "
        "tensor(double), tensor(float16); a classifier of scikit-learn gives a tensor if it is exported with "
        "options={'zipmap': False}"
    )


def test_garbage_is_no_onnx_file(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"garbage")

    assert " is not a model that ONNX Runtime can load: " in refusal(OnnxFile(tmp_path / "net.onnx"))


# scikit-learn


@pytest.mark.parametrize("jobs", [None, -1])
def test_a_forest_gives_the_logarithms_of_its_probabilities(jobs, tmp_path):
    forest = makers.make_forest(24, CLASSES, n_jobs=jobs)
    member = member_of(SklearnFile(makers.save_skops(tmp_path / "forest.skops", forest), [makers.TREE]))

    found = member.call(tf.constant(INPUTS)).numpy()

    expected = forest.predict_proba(INPUTS.reshape(6, 24))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.log(np.maximum(expected, 1e-7)), rtol=1e-5, atol=1e-6)
    assert member.parameters is None


def test_a_pipeline_needs_no_trust(tmp_path):
    inputs = RANDOM.random((40, 24))
    pipeline = sklearn.pipeline.make_pipeline(
        sklearn.preprocessing.StandardScaler(), sklearn.linear_model.LogisticRegression()
    ).fit(inputs, np.arange(40) % CLASSES)
    member = member_of(SklearnFile(makers.save_skops(tmp_path / "pipeline.skops", pipeline)))

    expected = pipeline.predict_log_proba(INPUTS.reshape(6, 24))
    np.testing.assert_allclose(member.call(INPUTS), expected, rtol=1e-4, atol=1e-4)


def test_a_type_that_is_not_trusted_is_listed_with_what_to_write(tmp_path):
    file = makers.save_skops(tmp_path / "forest.skops", makers.make_forest(24, CLASSES))

    assert refusal(SklearnFile(file)) == (
        f"path: {file} has types that skops does not trust: sklearn.tree._tree.Tree; if you trust the file: "
        "trusted: [sklearn.tree._tree.Tree]"
    )


def test_code_of_others_is_never_trusted(tmp_path):
    inputs = sklearn.preprocessing.FunctionTransformer(json.dumps)
    model = sklearn.pipeline.make_pipeline(inputs, sklearn.linear_model.LogisticRegression())
    file = makers.save_skops(tmp_path / "code.skops", model)

    assert "json.dumps; only scikit-learn's own are accepted" in refusal(SklearnFile(file))
    with pytest.raises(ValueError, match=r"^trusted: only types of scikit-learn are accepted, got json\.dumps$"):
        SklearnFile(file, ["json.dumps"])


def test_a_pipeline_with_an_encoder_and_trees_can_be_trusted(tmp_path):
    encoder = sklearn.preprocessing.OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    inputs = np.arange(240).reshape(10, 24) % 2
    labels = np.arange(10) % CLASSES
    model = sklearn.pipeline.make_pipeline(SimpleImputer(), encoder, RandomForestClassifier(3))
    model.fit(inputs, labels)
    file = makers.save_skops(tmp_path / "encoded.skops", model)

    (listed,) = re.findall(r"trusted: \[(.*)\]", refusal(SklearnFile(file)))
    assert listed == "numpy.dtype, sklearn.tree._tree.Tree"
    member = member_of(SklearnFile(file, listed.split(", ")))
    found = member.call(inputs[:2].reshape(2, *SHAPE).astype(np.float32))
    expected = np.log(np.maximum(model.predict_proba(inputs[:2]), 1e-7))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Fake((4, 3, 1)), "takes 24 features, the data set's inputs have 12"),
        (Fake(classes=4), "has the classes [0 1 2 3 4], expected the labels of the data set, 0 to 3"),
    ],
)
def test_a_forest_of_other_data_is_refused(data, message, tmp_path):
    file = makers.save_skops(tmp_path / "forest.skops", makers.make_forest(24, CLASSES))

    assert refusal(SklearnFile(file, [makers.TREE]), data) == f"path: {file} {message}"


def test_what_gives_no_probabilities_is_refused(tmp_path):
    model = sklearn.linear_model.RidgeClassifier().fit(RANDOM.random((10, 24)), np.arange(10) % CLASSES)
    file = makers.save_skops(tmp_path / "ridge.skops", model)

    assert refusal(SklearnFile(file)).endswith("is a RidgeClassifier, which gives no probabilities (predict_proba)")


@pytest.mark.parametrize("content", ["garbage", "a zip archive"])
def test_garbage_is_no_skops_file(content, tmp_path):
    file = tmp_path / "forest.skops"
    file.write_bytes(b"garbage")
    if content == "a zip archive":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("schema.json", "{}")

    assert refusal(SklearnFile(file)).startswith(f"path: {file} is not a file that skops can read: ")


# keras.applications


def test_an_application_gives_the_logits_behind_its_softmax(tmp_path):
    keras.utils.set_random_seed(0)
    net = keras.applications.MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=4)
    net.save_weights(tmp_path / "mobile.weights.h5")
    data = Fake((32, 32, 3), 4)
    image = RANDOM.random((2, 32, 32, 3), np.float32)
    member = member_of(KerasApplication("MobileNet", tmp_path / "mobile.weights.h5", 0.25), data)

    np.testing.assert_allclose(tf.nn.softmax(member.call(image)), net(image), rtol=1e-4, atol=1e-6)
    assert member.parameters == sum(int(np.prod(weight.shape)) for weight in net.trainable_weights)
    wrong = KerasApplication("MobileNet", tmp_path / "mobile.weights.h5", 0.5)
    assert "mobile.weights.h5 does not fit MobileNet with 4 classes: " in refusal(wrong, data)
    assert "model: MobileNet: Input size must be at least 32x32" in refusal(wrong, Fake((8, 8, 3), 4))


# Predictions


def stored(tmp_path, change=None, **options):
    """A teacher of random logits; `change` of them by split."""
    random, files = np.random.default_rng(1), {}
    for split, count in ROWS.items():
        files[split] = tmp_path / f"{split}.npy"
        rows = random.normal(size=(count, CLASSES))
        np.save(files[split], (change or {}).get(split, lambda values: values)(rows))
    return Predictions(**files, **options)


def test_predictions_are_found_by_split_and_virtual_id(tmp_path):
    member = member_of(stored(tmp_path))

    for split, count in ROWS.items():
        ids = np.array([count - 1, 0, 1], np.int64)
        found = member.predict(split, ids)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.load(tmp_path / f"{split}.npy")[ids].astype(np.float32))
    assert (member.call, member.parameters) == (None, None)


def test_stored_probabilities_become_logits(tmp_path):
    def soften(rows):
        return softmax(rows, -1).astype(np.float16)

    member = member_of(stored(tmp_path, dict.fromkeys(ROWS, soften), outputs="probabilities"))

    rows = np.load(tmp_path / "test.npy").astype(np.float64)
    np.testing.assert_allclose(member.predict("test", np.arange(3)), np.log(np.maximum(rows, 1e-7)), rtol=1e-5)


def infinite(rows):
    rows[2, 1] = np.inf
    return rows


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        (
            "transfer",
            lambda rows: rows[:7],
            "has 7 rows, expected 14: 7 examples x 2 virtual copies, each with predict",
        ),
        ("test", lambda rows: rows[:2], "has 2 rows, expected 3: 3 examples$"),
        ("test", infinite, "has infinite or NaN values, the first in row 2$"),
        ("test", lambda rows: rows * 1e300, "has infinite or NaN values, the first in row 0$"),
        ("validation", lambda rows: rows[:, :4], r"gives outputs of shape \[4\], the data set has 5 classes$"),
        ("validation", lambda rows: rows.argmax(-1), r"holds int64 \[4\], expected floating-point .* \[examples, 5\]$"),
        ("validation", lambda rows: rows[:0], r"holds float64 \[0, 5\], expected floating-point numbers"),
        ("test", lambda rows: rows.astype(object), "is not an .npy file of numbers: .*[Oo]bjects"),
        ("transfer", lambda rows: 100 * softmax(rows, -1), "are per cent, they sum to 100: divide them by 100$"),
        ("transfer", lambda rows: softmax(rows, -1), "sum to 1 and are not negative: expected 'probabilities', got"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(split, change, message, tmp_path):
    found = refusal(stored(tmp_path, {split: change}))

    assert re.match(rf"({split}: |outputs: the outputs of ).*{split}\.npy {message}", found)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x05\x06" + 18 * b"\0"], ids=["empty", "garbage", ".npz"])
def test_files_that_are_no_arrays_are_refused(content, tmp_path):
    teacher = stored(tmp_path)
    (tmp_path / "test.npy").write_bytes(content)

    assert refusal(teacher).startswith(f"test: {tmp_path / 'test.npy'} ")
    (tmp_path / "test.npy").unlink()
    assert refusal(teacher) == f"test: no such file: {tmp_path / 'test.npy'}"


class FromFiles(Fake):
    """Three splits of the ten rows of a file."""

    def split(self, name, seed=0):
        return ArraySplit(np.zeros([len(self.given_rows(name)), *SHAPE], np.float32))

    def given_rows(self, name):
        return np.array({"validation": [1, 9], "test": [4, 5, 6]}.get(name, [0, 2, 3, 7, 8]), np.int64)


def test_predictions_of_all_rows_are_found_by_the_row(tmp_path):
    rows = np.random.default_rng(1).normal(size=(10, CLASSES)).astype(np.float32)
    np.save(tmp_path / "all.npy", rows)
    member = member_of(Predictions(path=tmp_path / "all.npy"), FromFiles())

    np.testing.assert_array_equal(member.predict("transfer", np.array([4, 0, 3])), rows[[8, 0, 7]])
    np.testing.assert_array_equal(member.predict("validation", np.array([0, 1])), rows[[1, 9]])
    np.testing.assert_array_equal(member.predict("test", np.array([2])), rows[[6]])


def test_predictions_of_all_rows_that_do_not_fit_are_refused(tmp_path):
    file = tmp_path / "all.npy"
    np.save(file, np.random.default_rng(1).normal(size=(9, CLASSES)))
    expected = f"path: {file} has 9 rows, expected 10, one for each row of the data set's files"
    assert refusal(Predictions(path=file), FromFiles()) == expected
    assert refusal(Predictions(path=file)) == (
        "path: it has one row for all 2 virtual copies of an example; expected copies: 1, or transfer, validation and "
        "test, with a row for each copy"
    )


def test_a_file_for_a_split_that_was_drawn_is_told_of_path(tmp_path):
    teacher, file = stored(tmp_path, {"transfer": lambda rows: rows[:10]}), tmp_path / "transfer.npy"
    assert refusal(teacher, FromFiles()) == (
        f"transfer: {file} has 10 rows, expected 5: 5 examples, drawn by shares; give one file for all rows of the "
        "data set's files, as path"
    )


def test_a_file_for_a_split_that_was_drawn_is_warned_of_where_its_rows_are_as_many(tmp_path, caplog):
    member_of(stored(tmp_path, {"transfer": lambda rows: rows[:5], "validation": lambda rows: rows[:2]}), FromFiles())
    assert [record.getMessage() for record in caplog.records] == [
        f"{split}: {tmp_path / split}.npy: shares draw the examples of this split, and whether the rows are in their "
        "order cannot be known; path takes one file, with the rows of the data set's files"
        for split in ("transfer", "validation")
    ]


# What a member is made from


def test_a_changed_row_is_another_source(tmp_path):
    teacher = stored(tmp_path)
    before = teacher.source_digest()
    rows = np.load(tmp_path / "validation.npy")
    np.save(tmp_path / "validation.npy", rows)
    assert teacher.source_digest() == before
    rows[0, 0] += 1
    np.save(tmp_path / "validation.npy", rows)
    assert teacher.source_digest() != before
    swapped = Predictions(tmp_path / "transfer.npy", tmp_path / "test.npy", tmp_path / "validation.npy")
    assert swapped.source_digest() != teacher.source_digest()


def test_a_changed_weight_is_another_source(tmp_path):
    one = OnnxFile(makers.save_onnx(tmp_path / "one.onnx", KERNEL, SHAPE)).source_digest()
    same = OnnxFile(makers.save_onnx(tmp_path / "same.onnx", KERNEL, SHAPE)).source_digest()
    other = OnnxFile(makers.save_onnx(tmp_path / "other.onnx", KERNEL + 1, SHAPE)).source_digest()
    assert one == same != other
    seeds = [makers.save_skops(tmp_path / f"{seed}.skops", makers.make_forest(24, 2, seed)) for seed in (0, 1)]
    assert len({SklearnFile(file).source_digest() for file in seeds}) == 2
