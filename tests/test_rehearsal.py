"""Thirty steps of every net of the papers' files, at the file's own rate, batch and width: `make rehearsal`.

MIMIC_KERAS_TEST_CIFAR10 and MIMIC_KERAS_TEST_TIMIT say where the data is. Nets that differ in seed, epochs or schedule
alone are one. Of a search, the lowest, middle and highest values of all ranges are tried; of a teacher's members, the
first MEMBERS. A net whose steps would take more than MOST_OPERATIONS has a tenth of the batch, and its own if it fails.
MIMIC_KERAS_REHEARSAL names a file to which a line of JSON is added for every net; what works is not repeated.
"""

import functools
import gc
import json
import os
from copy import deepcopy
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.file import make_source
from mimic_keras.experiment.places import substitute
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning.plan import MemberPlan, make_plan
from mimic_keras.searching.space import read_space
from mimic_keras.stages.workspace import Workspace
from mimic_keras.storage.files import hash_json
from mimic_keras.sweeping.cells import make_cells
from mimic_keras.training.batches import Examples
from mimic_keras.training.models import make_predictor
from mimic_keras.training.objective import Objective
from mimic_keras.training.trainer import train

ROOT = Path(__file__).parent.parent
OURS = ("quickstart", "timit_demo", "timit_small", "timit_small_dnn", "cifar10_small")
FILES = [
    file
    for file in sorted((ROOT / "experiments").glob("*.yaml"))
    if file.stem not in OURS and not file.stem.endswith(("_small", "_speech"))
]
PLACES = {name: os.environ.get(f"MIMIC_KERAS_TEST_{name.upper()}") for name in ("cifar10", "timit")}
STEPS, PASSES, MEMBERS, VALIDATION = 30, 3, 9, 100
SHARES = (0.0, 0.5, 1 - 1e-9)  # of every range of a search
MOST_OPERATIONS = 3e12  # floating-point, of a net's steps
COSTS = {}  # of nets that several cells have
DEVIATION = 3.0  # of the stand-in teacher's logits over examples and classes


def sources_of(file):
    """(what it is, its source) of the experiment, or of every cell, at every point that is tried."""
    document = experiment_file.read(file)
    cells = [(str(cell), cell.source) for cell in make_cells(document)[1]] if document.kind == "sweep" else None
    for label, source in cells or [("", document.source())]:
        if not experiment_file.has_ranges(source.given):
            yield label, source
            continue
        space, leaders = read_space(source)
        for share in SHARES:
            values = {place: item.at(share) for place, item in space.items()}
            given = substitute(source.given, {place: values[leader] for place, leader in leaders.items()})
            content = {key: item for key, item in given.items() if key != "search"}
            yield f"{label}, {share:.0%} of every range", make_source(content, Problems(str(file)))


def nets_of(plan):
    """The first members, and the student and its baseline."""
    return [*plan.members[:MEMBERS], *plan.nets]


def with_root(given, root):
    """The experiment with every data set at `root`."""
    document = deepcopy(given)
    for place in (document, *((document.get("teacher") or {}).get("members") or [])):
        if "dataset" in place:
            place["dataset"]["root"] = root
    return document


@functools.cache
def workspace():
    return Workspace(Path(os.environ.get("MIMIC_KERAS_HOME", "~/.cache/mimic_keras")).expanduser())


@functools.cache
def stand_in(data):
    """A small net, trained on the labels: what it says of an input, as logits of DEVIATION."""
    info, split = data.dataset.info, data.split("train")
    x = [keras.Input(info.input_shape)]
    for width in (32, 64) if len(info.input_shape) == 3 else ():
        x.append(keras.layers.MaxPooling2D()(keras.layers.Conv2D(width, 3, activation="relu")(x[-1])))
    hidden = keras.layers.Dense(256, activation="relu")(keras.layers.Flatten()(x[-1]))
    net = keras.Model(x[0], keras.layers.Dense(info.num_classes)(hidden))
    labelled = np.flatnonzero(split.labels >= 0)[:20_000]
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = tf.data.Dataset.from_tensor_slices((labelled, split.labels[labelled])).batch(128)
    net.fit(batches.map(lambda ids, labels: (split.batch(ids), labels)), epochs=2, verbose=0)
    return make_predictor(net)


def batch_sizes(plan, net):
    """The file's own, after a tenth of it where the steps take long: three times the multiply-adds of an inference."""
    cost, size = plan.costs.get(net.name), net.training.batch_size
    operations = 6 * cost.multiply_adds * size * STEPS if cost else 0
    return [size] if operations <= MOST_OPERATIONS else [size // 10, size]


def rehearse(plan, net, batch_size):
    """The mean loss of every pass, or the error instead."""
    keras.backend.clear_session()
    gc.collect()  # or the nets before stay in memory
    try:
        return learn(plan, net, batch_size)
    except Exception as error:
        return [str(error)]


def learn(plan, net, batch_size):
    data = workspace().prepare(*net.learns_from)
    settings = net.training.model_copy(
        update={
            "batch_size": batch_size,
            "epochs": PASSES,
            "restore": "last",
            "evaluate_every": None,
            "checkpoint_every": None,
        }
    )
    mimics = not isinstance(net, MemberPlan) and net.loss is not None and bool(plan.members)
    split = data.split("transfer" if mimics else "train")
    validation = data.split("validation")
    ids = np.random.default_rng(0).permutation(np.flatnonzero(split.labels >= 0))
    ids = np.sort(ids[: settings.batch_size * STEPS // PASSES])
    few = np.arange(min(VALIDATION, validation.num_examples))
    objective, logits = Objective(), [None, None]
    if isinstance(net, MemberPlan):
        (architecture,) = net.teacher.nested.values()
    else:
        architecture = net.architecture
        objective = Objective(net.loss()) if net.loss else objective
        if mimics:
            logits = label(data, split, ids, validation, few)
            scale, offset = (
                (logits[0][ids].std(0) + 1e-6, logits[0][ids].mean(0)) if net.standardize_logits else [None] * 2
            )
            objective = Objective(net.loss(), net.hard_label_weight, scale, offset)
    info = data.dataset.info
    trained = train(
        lambda: architecture(info.input_shape, info.num_classes),
        Examples(split, logits[0], ids),
        Examples(validation, logits[1], few),
        objective,
        settings,
        net.seed,
        net.name,
        strategy=tf.distribute.get_strategy(),
    )
    return trained.history["loss"]


def label(data, split, ids, validation, few):
    """The stand-in's logits by virtual id, of the copies that the passes see; 0 elsewhere."""
    predict, info = stand_in(data), data.dataset.info
    logits = np.zeros([split.num_examples * split.repeats, info.num_classes], np.float32)
    for copy in range(min(PASSES, split.repeats)):
        virtual = ids + copy * split.num_examples
        logits[virtual] = predict(split, virtual)
    factor = DEVIATION / logits[ids].std()
    judged = np.zeros([validation.num_examples, info.num_classes], np.float32)
    judged[few] = predict(validation, few)
    return logits * factor, judged * factor


@pytest.mark.rehearsal
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_net_trains_at_its_own_rate(file):
    corpus = "cifar10" if file.stem.startswith(("cifar10", "urban", "ba_table2")) else "timit"
    if not PLACES[corpus]:
        pytest.skip(f"MIMIC_KERAS_TEST_{corpus.upper()} does not say where the data is")
    record = Path(os.environ.get("MIMIC_KERAS_REHEARSAL", os.devnull))
    lines = map(json.loads, record.read_text().splitlines() if record.is_file() else [])
    done = {line["key"] for line in lines if line["works"]}
    failed = []
    for point, source in sources_of(file):
        plan = make_plan(make_source(with_root(source.given, PLACES[corpus]), Problems(str(file))), COSTS)
        for net in nets_of(plan):
            made_of = (
                net.teacher if isinstance(net, MemberPlan) else [net.architecture, net.loss, net.standardize_logits]
            )
            parts = made_of if isinstance(made_of, list) else [made_of]
            specification = [part.specification() if hasattr(part, "specification") else part for part in parts]
            settings = net.training.model_dump(include={"batch_size", "optimizer", "precision", "clip_norm"})
            key = hash_json([specification, settings, net.learns_from.dataset.specification()])
            if key in done:
                continue
            done.add(key)
            for batch_size in batch_sizes(plan, net):
                losses = rehearse(plan, net, batch_size)
                works = all(isinstance(loss, float) and np.isfinite(loss) for loss in losses) and losses[-1] < losses[0]
                if works:
                    break
            rate = settings["optimizer"]["learning_rate"]  # or its share of the limit
            line = {"file": file.stem, "point": point, "net": net.name, "rate": rate, "losses": losses, "works": works}
            line["batch"] = batch_size
            with record.open("a") as stream:
                stream.write(json.dumps({"key": key, **line}) + "\n")
            if not works:
                failed.append(line)
    assert not failed
