"""Objects of a program as components: their identity, and `distill` with arrays and models."""

import logging as standard_logging
import textwrap

import keras
import numpy as np
import pytest
from absl import logging
from sklearn.datasets import load_digits

import mimic_keras
from mimic_keras import InputError
from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo, Member, Teacher
from mimic_keras.interface.arrays import InMemory
from mimic_keras.interface.identity import NoIdentityError, identify
from mimic_keras.interface.objects import Objects
from mimic_keras.planning import plugins
from mimic_keras.testing import RULES
from mimic_keras.testing.rules import Subject
from tests.tiny import counts

DIGITS = load_digits()
X, Y = (DIGITS.images / 16).astype(np.float32)[..., None], DIGITS.target
DATA = {"train": (X[:200], Y[:200]), "validation": (X[200:300], Y[200:300]), "test": (X[300:400], Y[300:400])}


def dense(seed=0, units=10, activation=None):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(units, activation)]
    return keras.Sequential(layers)


def small(input_shape, num_classes, *, units: int = 6):
    layers = [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(units, "relu")]
    return keras.Sequential([*layers, keras.layers.Dense(num_classes, dtype="float32")])


class Half(keras.losses.Loss):
    def __init__(self, factor: float = 0.5):
        super().__init__()
        self.factor = factor

    def call(self, teacher_logits, student_logits):
        return self.factor * keras.ops.mean(keras.ops.square(teacher_logits - student_logits), -1)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Rows(Dataset):
    def __init__(self, count: int = 100):
        self.count = count

    @property
    def info(self):
        return DatasetInfo("rows", "1", (8, 8, 1), 10, tuple("0123456789"))

    def prepare(self, data_dir):
        self.inputs = X[: self.count]
        return "rows"

    def split(self, name, seed=0):
        return ArraySplit(self.inputs, Y[: self.count])


class Loaded(Teacher):
    def source_digest(self):
        return "one"

    def member(self, context):
        model = dense()
        return Member(model, model.count_params())


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    return {"home": folder / "home", "runs_dir": folder / "runs", "saved_models_dir": folder / "saved_models"}


def made(text, name="f"):
    """The object that code defines."""
    variables = {"__name__": "__main__", "keras": keras, "np": np}
    exec(textwrap.dedent(text), variables)
    return variables[name]


# identity


def test_the_identity_of_a_model_is_its_configuration_and_weights_not_its_names():
    model = dense()
    again = dense()
    assert again.layers[-1].name != model.layers[-1].name
    assert identify(again) == identify(model)
    assert identify(dense(activation="relu")) != identify(model)
    kernel, bias = again.get_weights()
    kernel[0, 0] += 1e-6
    again.set_weights([kernel, bias])
    assert identify(again) != identify(model)
    before = identify(model)
    model.compile("adam", "mse")
    assert identify(model) == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(x): return x + 1", "def f(x): return x + 2"),
        ("def f(x): return x.sum()", "def f(x): return x.mean()"),
        ("def f(x, y=1): return x", "def f(x, y=2): return x"),
        ("a = 1\ndef f(): return a", "a = 2\ndef f(): return a"),
        ("def g(): return 1\ndef f(): return g()", "def g(): return 2\ndef f(): return g()"),
        ("def make(a): return lambda: a\nf = make(1)", "def make(a): return lambda: a\nf = make(2)"),
        ("class f:\n  def g(self): return 1", "class f:\n  def g(self): return 2"),
        ("class f:\n  a = 1", "class f:\n  a = 2"),
        ("class f(dict): pass", "class f(list): pass"),
        ("class A:\n  def __init__(s, a): s.a = a\nf = A(1)", "class A:\n  def __init__(s, a): s.a = a\nf = A(2)"),
        ("f = np.array([1, 2])", "f = np.array([1, 3])"),
        ("f = keras.losses.Huber(1.0)", "f = keras.losses.Huber(2.0)"),
        ("f = [1, (2, {'a': {3}})]", "f = [1, (2, {'a': {4}})]"),
        ("f = [1, 2]", "f = [[1], 2]"),
        ("f = ['a', 'b']", "f = ['ab', '']"),
    ],
)
def test_a_change_is_another_identity_and_nothing_else_is(one, other):
    assert identify(made(one)) == identify(made(f"# a comment\n\n{one}"))
    assert identify(made(one)) != identify(made(other))


def test_the_name_that_keras_counts_up_is_no_part_of_a_loss():
    assert identify(Half()) == identify(Half()) != identify(Half(0.25))


def test_recursion_ends():
    assert identify(made("def f(n): return f(n - 1)")) == identify(made("def f(n): return f(n - 1)"))
    items = [1]
    items.append(items)
    assert len(identify(items)) == 64


@pytest.mark.parametrize("value", [iter([1]), np.array([object()]), made("f = lambda: g\ng = iter([1])")])
def test_what_has_no_identity(value):
    with pytest.raises(NoIdentityError):
        identify(value)


# names and components


def test_objects_become_names_that_say_where_they_come_from():
    objects = Objects()
    model, loss = dense(), Half()
    content = {
        "dataset": Rows(),
        "teacher": {
            "members": [{"teacher": model}, {"teacher": dense(1)}, {"teacher": Loaded(), "copies": np.int64(1)}]
        },
        "student": {"architecture": {"name": small, "units": 3}, "loss": loss},
        "baseline": {"architecture": small},
    }
    named = objects.name_all(content)
    assert named == {
        "dataset": {"name": "Python:Rows"},
        "teacher": {
            "members": [
                {"teacher": {"name": f"Python:Sequential_{identify(model)[:8]}"}},
                {"teacher": {"name": f"Python:Sequential_{identify(dense(1))[:8]}"}},
                {"teacher": {"name": "Python:Loaded"}, "copies": 1},
            ]
        },
        "student": {"architecture": {"name": "Python:small", "units": 3}, "loss": {"name": "Python:Half"}},
        "baseline": {"architecture": {"name": "Python:small"}},
    }
    assert len(objects.plugins) == 6


def test_an_object_without_identity_is_said_and_keyed_for_this_process(caplog):
    class Reader(Rows):
        def __init__(self):
            super().__init__()
            self.stream = iter([1])

    dataset, first, again, other = Reader(), Objects(), Objects(), Objects()
    logger = logging.get_absl_logger()
    logger.addHandler(caplog.handler)
    with caplog.at_level(standard_logging.WARNING):
        first.name_all({"dataset": dataset})
    logger.removeHandler(caplog.handler)
    again.name_all({"dataset": dataset})
    other.name_all({"dataset": Reader()})
    assert "dataset: <" in caplog.text
    assert "has no identity (<list_iterator object" in caplog.text
    assert "what is made with it is not reused after this process" in caplog.text
    assert first.plugins[0].identity == again.plugins[0].identity != other.plugins[0].identity


@pytest.mark.long
def test_objects_of_every_kind_run_and_are_reused_until_they_change(places):
    training = {"epochs": 1, "batch_size": 50, "optimizer": {"name": "sgd", "learning_rate": 0.1}}
    student = {"architecture": {"name": small, "units": 3}, "loss": Half(), "training": training}
    teacher = {"members": [{"teacher": Loaded()}, {"teacher": dense(5)}]}
    experiment = {"name": "kinds", "dataset": Rows(), "teacher": teacher, "student": student}
    options = {**places, "export": False}
    first = mimic_keras.run(experiment, **options)
    assert (counts_of(first)["logits"], counts_of(first)["student"]) == ((6, 0), (1, 0))
    again = {**experiment, "dataset": Rows(), "student": {**student, "loss": Half()}}
    assert counts_of(mimic_keras.run(again, **options))["student"] == (0, 1)
    changed = mimic_keras.run({**experiment, "student": {**student, "loss": Half(0.25)}}, **options)
    assert (counts_of(changed)["logits"], counts_of(changed)["student"]) == ((0, 6), (1, 0))
    rows = mimic_keras.run({**experiment, "dataset": Rows(99)}, **options)
    assert (counts_of(rows)["logits"], counts_of(rows)["student"]) == ((6, 0), (1, 0))


def counts_of(result):
    stages = {"export": {"made": 0, "reused": 0}, **result.metrics["stages"]}
    return counts({"stages": stages})


def test_objects_keep_their_contracts(tmp_path):
    objects = Objects()
    data = InMemory(DATA, X[400:405])
    objects.name_all({"dataset": data, "teacher": dense(3)})
    with plugins.knowing(objects.plugins):
        for plugin in objects.plugins:
            arguments = {"input_shape": (8, 8, 1), "num_classes": 10} if plugin.kind == "teacher" else {}
            for rule in RULES[plugin.kind]:
                folder = tmp_path / plugin.kind / rule.__name__
                folder.mkdir(parents=True)
                Subject(plugin, arguments).check(rule, folder)


# distill


@pytest.fixture(scope="module")
def distilled(places):
    settings = {"export.minimum_agreement": 0}  # two epochs on 200 examples teach nothing
    return mimic_keras.distill(dense(3, activation="softmax"), small, **DATA, epochs=2, set=settings, **places)


def test_distill_makes_the_logits_of_a_model_with_probabilities_and_writes_the_experiment(distilled):
    teacher = dense(3, activation="softmax")
    np.testing.assert_allclose(
        distilled.logits("test")["teacher"], np.log(teacher.predict(X[300:400], verbose=0)), atol=1e-4
    )
    assert distilled.metrics["models"]["teacher"]["parameters"] == 650
    written = (distilled.folder / "experiment.yaml").read_text()
    digest = identify(teacher)[:16]
    assert (
        f"# teacher Sequential_{digest[:8]}: an object of the program that ran this, with the digest {digest}; "
        "only it can run this again\n"
    ) in written
    assert "loss: {name: temperature" in written
    assert distilled.export.exists()
    with pytest.raises(InputError, match="no architecture 'Python:small': it was an object of a program"):
        mimic_keras.validate(distilled.folder / "experiment.yaml")


@pytest.mark.long
def test_distill_reuses_what_has_not_changed(distilled, places):
    def run(teacher=None, **changes):
        result = mimic_keras.distill(
            teacher or dense(3, activation="softmax"), small, **{**DATA, **changes}, epochs=2, export=False, **places
        )
        return counts_of(result)["logits"], counts_of(result)["student"]

    assert run() == ((0, 3), (0, 1))
    assert run(dense(4, activation="softmax")) == ((3, 0), (1, 0))
    other = X[:200].copy()
    other[7, 3, 3] += 0.5
    assert run(train=(other, Y[:200])) == ((3, 0), (1, 0))
    assert run(unlabelled=X[400:410]) == ((3, 0), (1, 0))


def test_a_student_model_starts_from_its_weights_and_is_left_alone(places):
    model = dense(9)
    before = model.get_weights()
    rate = {"name": "sgd", "learning_rate": 1e-30}
    result = mimic_keras.distill(
        dense(3), model, **DATA, epochs=1, optimizer=rate, export=False, baseline=True, name="warm", **places
    )
    for weight, kept, trained in zip(before, model.get_weights(), result.student_model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, kept)
        np.testing.assert_allclose(weight, trained, atol=1e-25)
    assert "baseline" in result.metrics["models"]


def test_an_unknown_argument_of_distill():
    with pytest.raises(InputError, match=r"^distill has no argument 'epoch'\. Did you mean 'epochs'\? Other values of"):
        mimic_keras.distill("a.keras", "mlp", epoch=3)


def test_all_splits_are_files_or_none():
    with pytest.raises(
        InputError, match=r"^validation, test: arrays, but other splits are files; give all as files, or"
    ):
        mimic_keras.distill("a.keras", "mlp", **{**DATA, "train": ("x.npy", "y.npy")})


@pytest.mark.parametrize("loss", [keras.losses.KLDivergence(), keras.losses.CategoricalCrossentropy])
def test_losses_of_probabilities_are_refused(loss):
    name = getattr(loss, "__name__", type(loss).__name__)
    with pytest.raises(InputError, match=rf"^student.loss: keras.losses.{name} compares with probabilities or classes"):
        mimic_keras.distill(dense(), dense(3), **DATA, loss=loss)


@pytest.mark.parametrize("name", ["train", "unlabelled"])
def test_numbers_that_are_none_are_named(name):
    broken = np.array(X[:9], np.float32)
    broken[7, 1, 2] = np.nan
    given = {"train": (broken, Y[:9])} if name == "train" else {"unlabelled": broken}
    with pytest.raises(
        InputError, match=rf"^{name}: 1 of 9 rows have values that are NaN or infinite; the first is row 7"
    ):
        mimic_keras.distill(dense(), dense(3), **{**DATA, **given})


def test_files_become_the_components_that_read_them(tmp_path, monkeypatch):
    from mimic_keras.interface import api

    taken = []
    monkeypatch.setattr(api, "run", lambda experiment, **options: taken.append((experiment, options)))
    (tmp_path / "saved").mkdir()
    teachers = ["b.keras", tmp_path / "saved", {"name": "keras_file", "path": "c", "outputs": "probabilities"}]
    mimic_keras.distill(
        teachers, "mlp", train=("x.npy", "y.npy"), validation="v.npz", test="t.npz", class_names=["a", "b"], name="n"
    )
    experiment, options = taken[0]
    assert experiment["dataset"] == {
        "name": "arrays",
        "train": {"x": "x.npy", "y": "y.npy"},
        "validation": "v.npz",
        "test": "t.npz",
        "classes": ["a", "b"],
    }
    assert [member["teacher"] for member in experiment["teacher"]["members"]] == [
        {"name": "keras_file", "path": "b.keras"},
        {"name": "saved_model", "path": str(tmp_path / "saved")},
        teachers[2],
    ]
    assert (experiment["student"]["architecture"], experiment["student"]["loss"]) == (
        {"name": "mlp"},
        {"name": "temperature"},
    )
    assert options == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": X}, "train: expected (inputs, labels), got ndarray"),
        ({"train": (X[:, 0, 0, 0], Y)}, "train: expected inputs [examples, ...] of numbers, got float32 [1797]"),
        ({"train": (np.array([["a"]]), [0])}, "train: expected inputs [examples, ...] of numbers, got <U1 [1, 1]"),
        ({"train": (X[:5], Y[:4])}, "train: expected labels [5] of integers, one for each input, got int64 [4]"),
        ({"train": (X[:5], Y[:5].astype(float))}, "got float64 [5]; whole numbers of another type become integers by"),
        ({"test": (X[:5], np.eye(10)[Y[:5]])}, "got float64 [5, 10]; one-hot labels become integers by .argmax(-1)"),
        ({"test": (X[:2], [0, -1])}, "test: expected labels from 0, got -1; `unlabelled` takes examples without one"),
        ({"validation": (X[:5, :4], Y[:5])}, "validation: inputs of shape (4, 8, 1), those of train have (8, 8, 1)"),
        ({"unlabelled": X[:5, :4]}, "unlabelled: inputs of shape (4, 8, 1), those of train have (8, 8, 1)"),
        ({"class_names": ["a", "b"]}, "class_names: expected at least 10 names, got 2"),
        ({"test": None}, "test: required, (inputs, labels); or give a dataset"),
        ({"dataset": "digits"}, "dataset: it has all examples; train, validation, test cannot be given too"),
        ({"teachers": dense(units=7)}, "the model gives outputs of shape (7,), the data set has 10 classes"),
        ({"student": dense(activation="softmax")}, "it ends in a softmax and gives probabilities, expected logits"),
        ({"student": len}, "student.architecture: expected a keras.Model or a function that builds one; its first"),
        ({"loss": "temprature"}, "student.loss.name: no loss 'temprature'. Did you mean 'temperature'?"),
        ({"optimizer": "adam"}, """as {"name": "adam", "learning_rate": 0.001}, got 'adam'"""),
        ({"optimizer": keras.optimizers.Adam()}, '"learning_rate": 0.001}, got Adam'),
        ({"epochs": 0}, "student.training.epochs: expected a value greater than or equal to 1, got 0"),
        ({"teachers": []}, "teacher.members: expected at least 1 item, got []"),
    ],
)  # fmt: skip
def test_what_distill_refuses(changes, message, places):
    arguments = {"teachers": dense(), "student": small, **DATA, **changes}
    with pytest.raises(InputError) as caught:
        mimic_keras.distill(**arguments, **places)
    assert message in str(caught.value)


def test_unlabelled_examples_follow_those_of_train_in_transfer():
    data = InMemory(DATA, X[400:405])
    assert data.info.num_examples == {"train": 200, "validation": 100, "test": 100, "transfer": 205}
    transfer = data.split("transfer")
    assert transfer.labels.tolist() == [*Y[:200], -1, -1, -1, -1, -1]
    np.testing.assert_array_equal(transfer.batch(np.array([199, 200])), X[[199, 400]])
    assert data.digest() == InMemory(DATA, X[400:405]).digest() != InMemory(DATA).digest()
