"""Teachers: trained on a share of the data, and loaded from files that plain Keras and TensorFlow wrote."""

import dataclasses
import gc
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_keras_teachers import KerasFile, SavedModel, Trained
from scipy.special import logit, softmax

from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, InputError, TeacherContext

SHAPE, CLASSES, EXAMPLES = (4, 3), 5, 40
INPUTS = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float32)
# Of `net`: Dense(7) with a bias, the scale and offset of the normalisation, Dense(5) with a bias.
PARAMETERS = 12 * 7 + 7 + 2 * 7 + 7 * 5 + 5


class Fake(Dataset):
    def __init__(self, input_shape=SHAPE, num_classes=CLASSES, examples=EXAMPLES):
        names = tuple(f"c{i}" for i in range(num_classes))
        self._info = DatasetInfo("fake", "1", input_shape, num_classes, names)
        self._examples = examples

    @property
    def info(self):
        return self._info

    def prepare(self, data_dir):
        return ""

    def split(self, name, seed=0):
        # Only "train" has this many examples: drawing ids of another split would be seen.
        return ArraySplit(np.zeros([self._examples if name == "train" else 3, *self._info.input_shape], np.float32))


class Grouped(Fake):
    """Forty examples of five speakers."""

    speakers = np.repeat([3, 1, 4, 0, 2], [2, 20, 5, 12, 1])

    @property
    def info(self):
        return dataclasses.replace(super().info, groups=("speaker",))

    def groups(self, name):
        assert name == "speaker"
        return self.speakers


class Recorder:
    """In place of the program's `train`: keeps what it was given, and returns the model that `build` makes."""

    def __init__(self):
        self.calls = []

    def __call__(self, build, ids=None):
        self.calls.append(ids)
        self.model = build()
        return self.model


def context(data=None, seed=0, train=None):
    def refuse(*_):
        raise AssertionError("a loaded teacher trains nothing")

    return TeacherContext(data or Fake(), seed, Path("nowhere"), train or refuse)


def linear(input_shape, num_classes, /):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(num_classes)])


def ids_of(share, seed, examples=EXAMPLES):
    recorder = Recorder()
    Trained(linear, share).member(context(Fake(examples=examples), seed, recorder))
    (ids,) = recorder.calls
    return ids


def net(last="linear", output=lambda outputs: outputs):
    """A net with weights that training moves and some that it does not, in the state of some training."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE, name="examples")
    x = keras.layers.Dense(7)(keras.layers.Flatten()(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    model = keras.Model(inputs, output(keras.layers.Dense(CLASSES, activation=last)(x)))
    model(INPUTS * 3 + 1, training=True)
    return model


def identity():
    """A model that gives its inputs [batch, CLASSES] back."""
    inputs = keras.Input((CLASSES,))
    return keras.Model(inputs, keras.layers.Activation("linear")(inputs))


def keras_file(model, tmp_path, **options):
    model.save(tmp_path / "net.keras")
    return KerasFile(tmp_path / "net.keras", **options)


def saved_model(model, tmp_path, **options):
    model.export(tmp_path / "net", verbose=False)
    return SavedModel(tmp_path / "net", **options)


def endpoints(folder, model):
    """A SavedModel with a signature of several outputs, another of one, and one of two inputs."""

    def several(x):
        logits = model(x, training=False)
        return {"logits": logits, "probabilities": keras.ops.softmax(logits), "class": keras.ops.argmax(logits, -1)}

    specification = keras.InputSpec(shape=(None, *SHAPE), dtype="float32")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("several", several, input_signature=[specification])
    archive.add_endpoint("negative", lambda x: -model(x, training=False), input_signature=[specification])
    archive.add_endpoint("two", lambda x, y: model(x + y, training=False), input_signature=[specification] * 2)
    archive.write_out(folder, verbose=False)


class Module(tf.Module):
    """A SavedModel that Keras had no part in."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.arange(60, dtype=np.float32).reshape(12, CLASSES))
        self.offset = tf.Variable(np.ones([CLASSES], np.float32), trainable=False)
        self.unused = tf.Variable(np.ones([1000], np.float32))

    def logits(self, x):
        return {"logits": tf.reshape(x, [-1, 12]) @ self.kernel + self.offset}

    def anything(self, x):
        return {"logits": tf.ensure_shape(tf.numpy_function(np.array, [self.logits(x)["logits"]], tf.float32), None)}

    def write(self, folder):
        def signature(function, shape, dtype=tf.float32):
            return tf.function(function).get_concrete_function(tf.TensorSpec(shape, dtype, name="x"))

        signatures = {
            "serving_default": signature(self.logits, [None, *SHAPE]),
            "any_size": signature(self.logits, [None, None, 3]),
            "double": signature(lambda x: self.logits(tf.cast(x, tf.float32)), [None, *SHAPE], tf.float64),
            "of_two": signature(self.logits, [2, *SHAPE]),
            "unranked_input": signature(self.logits, None),
            "unranked_output": signature(self.anything, [None, *SHAPE]),
        }
        tf.saved_model.save(self, str(folder), signatures=signatures)


loaders = pytest.mark.parametrize("load", [keras_file, saved_model], ids=["KerasFile", "SavedModel"])


# Trained


@settings(max_examples=30, derandomize=True)
@given(share=st.floats(0.01, 0.99), examples=st.integers(1, 60), seed=st.integers(0, 2**63 - 1))
def test_a_share_draws_that_many_distinct_sorted_ids(share, examples, seed):
    ids = ids_of(share, seed, examples)

    assert ids.dtype == np.int64
    assert len(ids) == max(1, round(share * examples))
    assert (np.diff(ids) > 0).all()
    assert 0 <= ids[0] <= ids[-1] < examples


def test_half_the_data_by_hand():
    assert len(ids_of(0.5, seed=1)) == 20
    assert len(ids_of(0.26, seed=1)) == 10
    assert len(ids_of(0.001, seed=1)) == 1


def test_the_seed_decides_which_ids():
    np.testing.assert_array_equal(ids_of(0.5, seed=1), ids_of(0.5, seed=1))
    assert len({tuple(ids_of(0.5, seed=seed)) for seed in range(10)}) == 10


def test_every_example_is_drawn_by_some_seed():
    drawn = np.concatenate([ids_of(0.5, seed=seed) for seed in range(30)])

    assert set(drawn.tolist()) == set(range(EXAMPLES))


def test_the_global_numpy_seed_changes_nothing():
    np.random.seed(0)
    one = ids_of(0.5, seed=1)
    np.random.seed(1)

    np.testing.assert_array_equal(ids_of(0.5, seed=1), one)


@pytest.mark.parametrize("arguments", [(), (1.0,), (1,)])
def test_the_whole_share_trains_on_everything(arguments):
    recorder = Recorder()

    Trained(linear, *arguments).member(context(train=recorder))

    assert recorder.calls == [None]


def test_a_trained_member_is_the_architecture_built_by_train_for_the_data_set():
    shapes, recorder = [], Recorder()

    def architecture(input_shape, num_classes, /):
        shapes.append((input_shape, num_classes))
        return linear(input_shape, num_classes)

    teacher = Trained(architecture)
    assert shapes == []
    member = teacher.member(context(train=recorder))

    assert shapes == [(SHAPE, CLASSES)]
    assert member.model is recorder.model
    np.testing.assert_array_equal(member.call(INPUTS), recorder.model(INPUTS))
    assert member.parameters == 12 * 5 + 5


def test_a_trained_member_counts_trainable_weights_alone():
    assert Trained(lambda *_: net()).member(context(train=Recorder())).parameters == PARAMETERS


def test_a_trained_teacher_has_no_source():
    assert Trained(linear).source_digest() is None
    assert Trained(linear).check(Fake().info) is None


@pytest.mark.parametrize(("share", "count"), [(0.6, 3), (0.8, 4), (0.01, 1), (0.99, 5)])
def test_a_share_of_the_speakers_has_all_of_their_examples_and_no_other(share, count):
    drawn = set()
    for seed in range(20):
        recorder = Recorder()
        Trained(linear, share, "speaker").member(context(Grouped(), seed, recorder))
        (ids,) = recorder.calls
        chosen = np.unique(Grouped.speakers[ids])
        assert len(chosen) == count
        assert ids.tolist() == [place for place, speaker in enumerate(Grouped.speakers) if speaker in chosen]
        drawn.add(tuple(chosen))
    assert (len(drawn) > 1) == (count < 5)


def test_groups_that_the_data_set_has_not_are_refused():
    Trained(linear, 0.5, "speaker").check(Grouped().info)
    with pytest.raises(InputError, match=r"^share_by: the data set 'fake' has no groups 'age'; it has: speaker$"):
        Trained(linear, 0.5, "age").check(Grouped().info)
    with pytest.raises(InputError, match=r"^share_by: the data set 'fake' has no groups 'speaker'; it has: none$"):
        Trained(linear, 0.5, "speaker").check(Fake().info)
    with pytest.raises(ValueError, match=r"^share_by: speaker with share: 1.0; it needs a share below 1$"):
        Trained(linear, share_by="speaker")


@pytest.mark.parametrize("share", [0, 0.0, -0.5, 1.01, 2, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=f"^share must be above 0 and at most 1, got {share}$"):
        Trained(linear, share)


# KerasFile and SavedModel


@loaders
def test_logits_of_a_loaded_member_are_the_models(load, tmp_path):
    model = net()

    member = load(model, tmp_path).member(context())

    found = member.call(tf.constant(INPUTS))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, model(INPUTS, training=False), rtol=1e-5, atol=1e-6)
    assert member.model is None


@loaders
def test_probabilities_become_logits_with_the_same_softmax(load, tmp_path):
    model = net("softmax")
    probabilities = np.asarray(model(INPUTS, training=False), np.float64)

    found = load(model, tmp_path, outputs="probabilities").member(context()).call(tf.constant(INPUTS)).numpy()

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.log(probabilities), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(softmax(found.astype(np.float64), axis=-1), probabilities, rtol=1e-5, atol=1e-6)


@loaders
def test_probabilities_below_1e_7_are_taken_for_1e_7(load, tmp_path):
    rows = tf.constant([[1.0, 0.0, 1e-9, 1e-7, 1e-6]])
    inputs = keras.Input((CLASSES,))
    shares = keras.Model(inputs, inputs / keras.ops.sum(inputs, axis=-1, keepdims=True))
    teacher = load(shares, tmp_path, outputs="probabilities")

    found = teacher.member(context(Fake((CLASSES,)))).call(rows)

    np.testing.assert_allclose(found, np.log([[1.0, 1e-7, 1e-7, 1e-7, 1e-6]]), atol=2e-6)


@loaders
@pytest.mark.parametrize(("last", "outputs"), [("softmax", "logits"), ("linear", "probabilities")])
def test_outputs_of_the_other_kind_are_refused(load, last, outputs, tmp_path):
    teacher = load(net(last), tmp_path, outputs=outputs)
    other = {"logits": "probabilities", "probabilities": "logits"}[outputs]

    with pytest.raises(InputError, match=f"^outputs: the outputs of .*: expected '{other}', got '{outputs}'$"):
        teacher.check(Fake().info)


@loaders
def test_logits_are_passed_on_untouched(load, tmp_path):
    rows = tf.constant([[1e4, -1e4, 0.0, -0.0, 1e-9]])

    found = load(identity(), tmp_path).member(context(Fake((CLASSES,)))).call(rows)

    np.testing.assert_array_equal(found, rows)


@loaders
def test_a_loaded_member_counts_trainable_weights_alone(load, tmp_path):
    assert load(net(), tmp_path).member(context()).parameters == PARAMETERS


@loaders
def test_a_loaded_member_works_in_the_graph_at_any_batch_size_and_without_dropout(load, tmp_path):
    model = net()
    call = load(model, tmp_path).member(context()).call
    gc.collect()

    @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE])])
    def run(x):
        return call(x)

    for count in (1, 2, 6):
        expected = model(INPUTS[:count], training=False)
        np.testing.assert_allclose(run(tf.constant(INPUTS[:count])), expected, rtol=1e-5, atol=1e-6)


@loaders
def test_check_accepts_a_model_that_fits(load, tmp_path):
    assert load(net(), tmp_path).check(Fake().info) is None


@loaders
@pytest.mark.parametrize("method", ["check", "member"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Fake((4, 4)), "takes inputs of shape [4, 3], the data set's are [4, 4]"),
        (Fake((12,)), "takes inputs of shape [4, 3], the data set's are [12]"),
        (Fake((4, 3, 1)), "takes inputs of shape [4, 3], the data set's are [4, 3, 1]"),
        (Fake(num_classes=6), "gives outputs of shape [5], the data set has 6 classes"),
    ],
)
def test_a_model_of_another_shape_is_refused(load, method, data, message, tmp_path):
    teacher = load(net(), tmp_path)

    with pytest.raises(InputError) as caught:
        teacher.check(data.info) if method == "check" else teacher.member(context(data))

    assert str(caught.value) == f"path: {teacher.path} {message}"


@pytest.mark.parametrize("kind", [KerasFile, SavedModel])
def test_a_missing_path_is_refused(kind, tmp_path):
    with pytest.raises(InputError) as caught:
        kind(tmp_path / "none.keras").check(Fake().info)

    assert str(caught.value) == f"path: no such file or folder: {tmp_path / 'none.keras'}"


def test_garbage_is_no_keras_file(tmp_path):
    file = tmp_path / "net.keras"
    file.write_bytes(b"garbage")

    with pytest.raises(InputError, match=f"^path: {re.escape(str(file))} is not a model that Keras can load: "):
        KerasFile(file).check(Fake().info)


def test_a_truncated_keras_file_is_refused(tmp_path):
    teacher = keras_file(net(), tmp_path)
    teacher.path.write_bytes(teacher.path.read_bytes()[:-200])

    with pytest.raises(InputError, match="is not a model that Keras can load: "):
        teacher.check(Fake().info)


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_a_keras_model_that_was_never_built_is_refused(tmp_path):
    teacher = keras_file(keras.Sequential([keras.layers.Dense(CLASSES)]), tmp_path)

    with pytest.raises(InputError, match="is not a model that Keras can load: "):
        teacher.check(Fake().info)


def test_a_keras_file_of_a_layer_is_refused(tmp_path):
    layer = keras.layers.Dense(CLASSES)
    layer(INPUTS)
    keras.saving.save_model(layer, tmp_path / "net.keras")

    with pytest.raises(InputError, match="is not a model that Keras can load: "):
        KerasFile(tmp_path / "net.keras").check(Fake().info)


def test_code_in_a_keras_file_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Lambda(lambda x: x[:, 0])])

    with pytest.raises(InputError, match=r"is not a model that Keras can load: .*Lambda"):
        keras_file(model, tmp_path).check(DatasetInfo("fake", "1", SHAPE, 3, ("a", "b", "c")))


@pytest.mark.parametrize("others", [False, True])
def test_a_keras_model_with_named_outputs_gives_its_logits(others, tmp_path):
    plain = net()
    model = net(output=lambda x: {"logits": x, "class": keras.ops.argmax(x, -1)} if others else {"logits": x})

    member = keras_file(model, tmp_path).member(context())

    np.testing.assert_allclose(member.call(INPUTS), plain(INPUTS), rtol=1e-5, atol=1e-6)
    assert member.parameters == PARAMETERS


def test_a_keras_model_whose_named_outputs_are_others_is_refused(tmp_path):
    teacher = keras_file(net(output=lambda x: {"scores": x, "class": keras.ops.argmax(x, -1)}), tmp_path)

    with pytest.raises(InputError, match=r"^output: expected one of class, scores, got None$"):
        teacher.check(Fake().info)


@pytest.mark.parametrize("named", [True, False])
def test_output_chooses_one_of_several(named, tmp_path):
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Flatten()(inputs)
    one, other = keras.layers.Dense(CLASSES, name="one")(x), keras.layers.Dense(CLASSES, name="other")(x)
    model = keras.Model(inputs, {"one": one, "other": other} if named else [one, other])

    found = keras_file(model, tmp_path, output="other").member(context()).call(INPUTS)

    np.testing.assert_allclose(found, keras.Model(inputs, other)(INPUTS), rtol=1e-5, atol=1e-6)
    assert (
        KerasFile(tmp_path / "net.keras", output="one").source_digest() != keras_file(model, tmp_path).source_digest()
    )


@loaders
def test_sigmoids_become_their_own_logits(load, tmp_path):
    model = net("sigmoid")
    chances = np.asarray(model(INPUTS, training=False), np.float64)

    found = load(model, tmp_path, outputs="sigmoid").member(context()).call(tf.constant(INPUTS))

    np.testing.assert_allclose(found, logit(chances), rtol=1e-4, atol=1e-4)


@loaders
def test_one_sigmoid_is_the_chance_of_the_second_of_two_classes(load, tmp_path):
    inputs = keras.Input((1,))
    single = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    rows = tf.constant([[0.25], [0.0], [1.0]])

    found = load(single, tmp_path, outputs="sigmoid").member(context(Fake((1,), 2))).call(rows)

    np.testing.assert_allclose(found, [[0, np.log(1 / 3)], [0, np.log(1e-7)], [0, -np.log(1e-7)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("last", "classes", "outputs", "message"),
    [
        ("linear", CLASSES, "sigmoid", "are not all between 0 and 1: expected 'logits', got 'sigmoid'"),
        ("softmax", CLASSES, "sigmoid", "sum to 1 and are not negative: expected 'probabilities', got 'sigmoid'"),
        ("sigmoid", CLASSES, "probabilities", "do not sum to 1: expected 'sigmoid', got 'probabilities'"),
        ("sigmoid", 1, "logits", "gives one output for two classes: expected 'sigmoid', got 'logits'"),
        ("sigmoid", 1, "probabilities", "gives one output for two classes: expected 'sigmoid', got 'probabilities'"),
    ],
)
def test_outputs_that_are_or_are_no_sigmoids_are_told_apart(last, classes, outputs, message, tmp_path):
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, keras.layers.Dense(classes, last)(keras.layers.Flatten()(inputs)))

    with pytest.raises(InputError, match=rf"^outputs: .*{message}$"):
        keras_file(model, tmp_path, outputs=outputs).check(Fake(num_classes=max(2, classes)).info)


@pytest.mark.parametrize("model", ["two inputs", "two outputs"])
def test_a_keras_model_with_several_inputs_or_outputs_is_refused(model, tmp_path):
    one, other = keras.Input(SHAPE), keras.Input(SHAPE)
    logits = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(one + other if model == "two inputs" else one))
    parts = ([one, other], logits) if model == "two inputs" else (one, [logits, logits * 2])

    message = "inputs of shape" if model == "two inputs" else "^output: expected one of dense.*, multiply.*, got None$"
    with pytest.raises(InputError, match=message):
        keras_file(keras.Model(*parts), tmp_path).check(Fake().info)


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_a_keras_model_with_lists_of_one_input_and_output_is_accepted(tmp_path):
    inputs = keras.Input(SHAPE)
    model = keras.Model([inputs], [keras.layers.Dense(CLASSES)(keras.layers.Flatten()(inputs))])
    model.save(tmp_path / "net.keras")

    member = KerasFile(tmp_path / "net.keras").member(context())

    kernel, bias = model.get_weights()
    np.testing.assert_allclose(member.call(INPUTS), INPUTS.reshape(6, 12) @ kernel + bias, rtol=1e-5, atol=1e-5)


def test_a_file_and_a_folder_name_the_teacher_that_reads_them(tmp_path):
    file, folder = tmp_path / "net.keras", tmp_path / "net"
    net().save(file)
    endpoints(folder, net())

    for teacher, message in [
        (
            SavedModel(file),
            f"{file} is a file, expected the folder of a SavedModel; the teacher keras_file reads a .keras",
        ),
        (KerasFile(folder), f"{folder} is a folder, expected a file; the teacher saved_model reads a SavedModel"),
    ]:
        with pytest.raises(InputError, match=f"^path: {re.escape(message)}"):
            teacher.check(Fake().info)


@pytest.mark.parametrize("content", ["garbage", "empty"])
def test_garbage_is_no_saved_model(content, tmp_path):
    path = tmp_path / "net"
    path.mkdir()
    if content == "garbage":
        (path / "saved_model.pb").write_bytes(b"garbage")

    with pytest.raises(
        InputError, match=f"^path: {re.escape(str(path))} is not a SavedModel that TensorFlow can load: "
    ):
        SavedModel(path).check(Fake().info)


def test_an_unknown_signature_is_refused_and_those_there_are_listed(tmp_path):
    endpoints(tmp_path / "net", net())

    with pytest.raises(InputError) as caught:
        SavedModel(tmp_path / "net", signature="serve").check(Fake().info)

    listed = "negative, serving_default, several, two"  # Keras makes the first endpoint the default too
    assert str(caught.value) == f"signature: {tmp_path / 'net'} has no 'serve'; it has {listed}"


@pytest.mark.parametrize(("output", "shown"), [(None, "None"), ("scores", "'scores'")])
def test_an_ambiguous_or_unknown_output_is_refused_and_those_there_are_listed(output, shown, tmp_path):
    endpoints(tmp_path / "net", net())

    with pytest.raises(InputError) as caught:
        SavedModel(tmp_path / "net", signature="several", output=output).check(Fake().info)

    assert str(caught.value) == f"output: expected one of class, logits, probabilities, got {shown}"


def test_a_signature_with_two_inputs_is_refused(tmp_path):
    endpoints(tmp_path / "net", net())

    with pytest.raises(InputError, match=r"^signature: 'two' takes 2 inputs \(.*\), expected 1$"):
        SavedModel(tmp_path / "net", signature="two").check(Fake().info)


def test_signature_and_output_choose_what_a_saved_model_gives(tmp_path):
    model = net()
    endpoints(tmp_path / "net", model)
    logits = np.asarray(model(INPUTS, training=False), np.float64)

    def found(**options):
        return SavedModel(tmp_path / "net", **options).member(context()).call(tf.constant(INPUTS)).numpy()

    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(found(signature="several", output="logits"), logits, **tolerance)
    np.testing.assert_allclose(found(signature="negative"), -logits, **tolerance)
    chosen = found(signature="several", output="probabilities", outputs="probabilities")
    np.testing.assert_allclose(chosen, np.log(softmax(logits, axis=-1)), **tolerance)


@pytest.mark.parametrize("signature", ["serving_default", "any_size", "double"])
def test_a_saved_model_that_keras_did_not_write_works(signature, tmp_path):
    Module().write(tmp_path / "net")

    member = SavedModel(tmp_path / "net", signature=signature).member(context())
    gc.collect()

    expected = INPUTS.reshape(6, 12) @ np.arange(60).reshape(12, CLASSES) + 1
    np.testing.assert_allclose(member.call(tf.constant(INPUTS)), expected, rtol=1e-5, atol=1e-4)
    # The signature reads `kernel` and `offset`, and only the former is trained; `unused` is no part of the net.
    assert member.parameters == 60


@pytest.mark.parametrize(
    ("signature", "shapes"),
    [
        ("of_two", "takes (2, 4, 3) and gives (2, 5)"),
        ("unranked_input", "takes <unknown> and gives (None, 5)"),
        ("unranked_output", "takes (None, 4, 3) and gives <unknown>"),
    ],
)
def test_a_signature_that_does_not_take_any_number_of_examples_of_known_shape_is_refused(signature, shapes, tmp_path):
    Module().write(tmp_path / "net")

    with pytest.raises(InputError) as caught:
        SavedModel(tmp_path / "net", signature=signature).check(Fake().info)

    assert str(caught.value) == f"signature: '{signature}' {shapes}, expected [any number of examples, ...]"


@loaders
def test_the_digest_is_of_the_content_not_the_place(load, tmp_path):
    teacher = load(net(), tmp_path)
    before = teacher.source_digest()

    teacher.path.rename(tmp_path / "elsewhere.keras")

    assert type(teacher)(tmp_path / "elsewhere.keras").source_digest() == before


def test_the_digest_of_a_keras_file_changes_with_the_file_and_with_outputs(tmp_path):
    teacher = keras_file(net(), tmp_path)
    before = teacher.source_digest()
    assert KerasFile(teacher.path).source_digest() == before
    assert KerasFile(teacher.path, "probabilities").source_digest() != before

    teacher.path.write_bytes(teacher.path.read_bytes() + b"\0")

    assert teacher.source_digest() != before


def test_the_digest_of_a_saved_model_changes_with_every_argument(tmp_path):
    endpoints(tmp_path / "net", net())
    chosen = [
        {},
        {"signature": "several"},
        {"signature": "several", "output": "logits"},
        {"signature": "several", "output": "probabilities"},
        {"signature": "several", "output": "probabilities", "outputs": "probabilities"},
        {"outputs": "probabilities"},
    ]
    digests = [SavedModel(tmp_path / "net", **options).source_digest() for options in chosen]

    assert len(set(digests)) == len(chosen)
    assert SavedModel(tmp_path / "net").source_digest() == digests[0]


@pytest.mark.parametrize("change", ["weights", "a file more", "a file renamed"])
def test_the_digest_of_a_saved_model_changes_with_any_file(change, tmp_path):
    teacher = saved_model(net(), tmp_path)
    (teacher.path / "assets" / "names.txt").write_text("a b c")
    before = teacher.source_digest()

    if change == "weights":
        (file,) = (teacher.path / "variables").glob("*.data-*")
        content = bytearray(file.read_bytes())
        content[0] ^= 1
        file.write_bytes(content)
    elif change == "a file more":
        (teacher.path / "assets" / "more.txt").write_text("")
    else:
        (teacher.path / "assets" / "names.txt").rename(teacher.path / "assets" / "other.txt")

    assert teacher.source_digest() != before
