"""What a training with SGD says of its own stability, and rates as a share of the limit."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mimic_keras.contracts import ArraySplit, InputError
from mimic_keras.experiment.file import read
from mimic_keras.experiment.places import substitute
from mimic_keras.interface.plan_table import estimate_resources
from mimic_keras.searching.space import read_space
from mimic_keras.training import stability
from mimic_keras.training.batches import Examples, shuffled_ids
from mimic_keras.training.curvature import largest_curvature, stability_limit
from mimic_keras.training.objective import Objective
from mimic_keras.training.optimizers import peak_rate
from mimic_keras.training.stability import Stability, find_stability, read_stability, write_stability
from mimic_keras.training.steps import TrainingDiverged
from tests.small_training import ADAM, LogitL2, data, hidden, mirrored, noisy, settings, train
from tests.test_optimizers import assert_same, fit_twice
from tests.tiny import plan_of, run, tiny, write

HALF = {"name": "sgd", "learning_rate": {"of_limit": 0.5}, "momentum": 0.9, "nesterov": True}


def assess(chosen, build=hidden, objective=Objective(LogitL2()), **options):  # noqa: B008
    keras.utils.set_random_seed(0)
    return find_stability(build(), objective, data(), chosen, 0, "student", **options)


@pytest.fixture
def said(caplog):
    with caplog.at_level("INFO", "absl"):
        yield lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def long_enough(monkeypatch):
    monkeypatch.setattr(stability, "FEWEST_STEPS", 1)


def test_a_share_of_the_limit_becomes_a_rate(said):
    found, chosen = assess(settings(optimizer=HALF))
    first = [data().batch(ids) for ids in shuffled_ids(data(), 8, seed=0).take(4)]  # half of 16
    keras.utils.set_random_seed(0)
    assert found.curvature == largest_curvature(hidden(), Objective(LogitL2()), first)
    assert found.limit == stability_limit(found.curvature, 0.9, nesterov=True)
    assert found.learning_rate == chosen.optimizer.learning_rate == 0.5 * found.limit
    ((level, message),) = said()
    assert level == "INFO"
    assert message == (
        f"student: largest curvature of the loss {found.curvature:.3g}, so that SGD with Nesterov momentum 0.9 is "
        f"stable up to a learning rate of {found.limit:.3g}; this training's largest is {found.learning_rate:.3g}, "
        "50 % of it"
    )


def test_a_rate_above_the_limit_is_a_warning(said, long_enough):
    found, chosen = assess(settings(optimizer={"name": "sgd", "learning_rate": 5.0}))
    assert chosen.optimizer.learning_rate == found.learning_rate == 5.0
    ((level, message),) = said()
    assert level == "WARNING"
    assert (
        f"SGD is stable up to a learning rate of {found.limit:.3g}; this training's largest is 5, which is above"
        in message
    )


def test_what_is_not_estimated(said):
    number = settings()
    assert assess(number) == (None, number)  # 21 steps
    adam = settings(epochs=10_000, optimizer=ADAM)
    assert assess(adam) == (None, adam)
    assert said() == []


@pytest.mark.parametrize(
    ("options", "peak"),
    [
        ({}, 0.02),
        ({"warmup": 2}, 0.02),
        ({"warmup": 2, "schedule": {"name": "step", "every": 1, "factor": 0.25}}, 0.01),
        ({"warmup": 2, "schedule": {"name": "cosine"}, "epochs": 4}, 0.02 * max(
            min(1, (s + 1) / 14) * (1 + np.cos(np.pi * s / 28)) / 2 for s in range(28))),
    ],
)  # fmt: skip
def test_the_peak_of_warm_up_and_schedule(options, peak):
    """The first pass of 7 steps ends at half of the warm-up; the step schedule's second has a quarter of the rate."""
    assert peak_rate(settings(**options), 7) == pytest.approx(peak, rel=1e-6)


@pytest.mark.parametrize("build", [hidden, noisy])
def test_the_estimate_changes_no_bit_of_a_training(build, long_enough, monkeypatch):
    found = train(build, data(), Objective(LogitL2()), settings())
    assert found.stability is not None
    monkeypatch.undo()
    without = train(build, data(), Objective(LogitL2()), settings())
    assert without.stability is None
    assert_same(found, without)


def test_a_resumed_training_keeps_the_rate(tmp_path, monkeypatch):
    """What was estimated is not estimated again; schedules that are functions of the step begin with the same rate."""
    chosen = settings(epochs=4, batch_size=64, optimizer=HALF, schedule={"name": "cosine"}, checkpoint_every=1)
    whole = fit_twice(chosen, tmp_path / "state.npz")
    assert json.loads((tmp_path / "state.json").read_text()) == {"curvature": whole.stability.curvature}
    monkeypatch.setattr(stability, "largest_curvature", lambda *_: pytest.fail("estimated again"))
    _, again = assess(chosen, kept=tmp_path / "state.json")
    assert again.optimizer.learning_rate == 0.5 * whole.stability.limit


def test_damage_to_what_is_kept_is_said(tmp_path, said):
    kept = tmp_path / "state.json"
    kept.write_text("{")
    found, _ = assess(settings(optimizer=HALF), kept=kept)
    assert "is damaged" in said()[0][1]
    assert json.loads(kept.read_text()) == {"curvature": found.curvature}


def test_one_device_of_several_estimates():
    optimizer = HALF | {"learning_rate": {"of_limit": 0.1}}
    one, two = (
        train(hidden, data(), Objective(LogitL2()), settings(optimizer=optimizer, batch_size=size), strategy=strategy)
        for size, strategy in ((16, None), (32, mirrored(2)))
    )
    # 32 on two devices are pieces of 8 each, as 16 on one.
    assert two.stability.curvature == pytest.approx(one.stability.curvature, rel=1e-6)


class Flat(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        return keras.ops.sum(student_logits, axis=-1)


@tf.custom_gradient
def _opaque(x):
    def gradient(slope):
        raise LookupError("no gradient")

    return tf.reduce_sum(x, -1), gradient


class Opaque(keras.losses.Loss):
    def call(self, teacher_logits, student_logits):
        return _opaque(student_logits)


@pytest.mark.parametrize(("loss", "why"), [(Flat(), "it is 0"), (Opaque(), "LookupError: no gradient")])
def test_a_loss_without_a_curvature(loss, why, said, long_enough):
    number = settings()
    assert assess(number, objective=Objective(loss)) == (None, number)
    assert said() == [("WARNING", f"student: the largest curvature of the loss is not known: {why}")]
    with pytest.raises(InputError, match=rf"^student: learning_rate: .* \({why}\).* expected a number$"):
        assess(settings(optimizer=HALF), objective=Objective(loss))


def test_what_an_artefact_keeps(tmp_path):
    assert read_stability(tmp_path) is None
    write_stability(tmp_path, None)
    assert read_stability(tmp_path) is None
    found = Stability(4.0, 0.5, 0.25)
    write_stability(tmp_path, found)
    assert read_stability(tmp_path) == dataclasses.asdict(found)


def test_a_search_and_a_plan_take_a_share_of_the_limit(tmp_path):
    experiment = tiny(search={"trials": 2})
    rate = {"of_limit": {"tune": {"min": 0.1, "max": 0.9}}}
    experiment["student"]["training"]["optimizer"] = HALF | {"learning_rate": rate}
    space, _ = read_space(read(write(tmp_path, experiment)).source())
    (place,) = space
    assert str(place) == "student.training.optimizer.learning_rate.of_limit"
    planned = plan_of(
        tmp_path, {key: each for key, each in substitute(experiment, {place: 0.5}).items() if key != "search"}
    )
    assert planned.student.training.key_inputs()["optimizer"] == HALF
    shown = {row["net"]: row.get("learning rate") for row in estimate_resources(planned)[1]}
    assert shown == {
        "teacher/0": None,
        "teacher/1": None,
        "student": "0.5 of the limit",
        "baseline": "0.5 of the limit",
    }


@pytest.mark.long
def test_a_run_reports_its_stability(tmp_path):
    experiment = tiny(export={"publish": False})
    experiment["student"]["training"]["optimizer"] = HALF
    found = run(tmp_path, experiment)["stability"]
    assert sorted(found) == ["baseline", "student"]  # the teacher is trained by Adam
    for each in found.values():
        assert (
            each["learning_rate"] == 0.5 * each["limit"] == 0.5 * stability_limit(each["curvature"], 0.9, nesterov=True)
        )
    assert found["baseline"] != found["student"]
    page = (tmp_path / "runs" / "tiny" / "report.html").read_text()
    assert (
        f"<td>student</td><td>{found['student']['curvature']:.3g}</td><td>{found['student']['limit']:.3g}</td>" in page
    )
    assert not list((tmp_path / "home").rglob("training_state*"))
    assert len(list((tmp_path / "home" / "students").glob("*/stability.json"))) == 2


SHAPES = {
    "shallow": [layers.Dense(400, "relu")],
    "bottleneck": [layers.Dense(10, use_bias=False), layers.Dense(600, "relu")],
    "deep": [layers.Dense(60, "relu"), layers.Dense(60, "relu"), layers.Dense(60, "relu")],
    "convolution": [layers.Reshape((8, 4, 1)), layers.Conv2D(16, 3, activation="relu"), layers.Flatten()],
    "pooled": [
        layers.Reshape((8, 4, 1)), layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPooling2D(2),
        layers.Flatten(), layers.Dense(60, "relu"),
    ],
}  # fmt: skip


def learns(layers_between, share):
    """Whether the loss is below that of a net whose outputs are all 0, half of ten, after three passes."""
    rng = np.random.default_rng(0)
    inputs = np.abs(rng.normal(size=[1024, 32])).astype("f4")
    logits = np.tanh(inputs @ rng.normal(size=[32, 10]))
    logits = ((logits - logits.mean(0)) / logits.std(0)).astype("f4")
    examples = Examples(ArraySplit(inputs, logits.argmax(-1)), logits)

    def build():
        fresh = [type(layer).from_config(layer.get_config()) for layer in layers_between]
        return keras.Sequential([keras.Input((32,)), *fresh, layers.Dense(10)])

    chosen = settings(batch_size=64, optimizer=HALF | {"learning_rate": {"of_limit": share}})
    try:
        return train(build, examples, Objective(LogitL2()), chosen).history["loss"][-1] < 5.0
    except TrainingDiverged:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_nets_diverge_above_the_limit_and_learn_below(name):
    """Far above it the loss becomes infinite, or all rectifiers die and the outputs stay at 0."""
    assert learns(SHAPES[name], 0.5)
    assert not learns(SHAPES[name], 5.0)
