"""The code in the documents: YAML fits the schema and the plugins' signatures; Python is run, or compiled alone
where it needs what only the reader has."""

import ast
import inspect
import json
import sys
import textwrap
import tomllib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from ruamel.yaml import YAML
from tensorflow_serving.config import model_server_config_pb2

import mimic_keras
from mimic_keras.contracts import RawSignature, TeacherContext
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.experiment.schema import parse_experiment
from mimic_keras.planning import components, plugins
from mimic_keras.stages.data import prepare
from tests.document_blocks import BLOCKS, blocks_of
from tests.tiny import command, plan_of, tiny, write

# Sweeps, searches, and their parts are planned in tests/test_documents.py.
PLANNED = ("docs/sweeps.md", "docs/searching.md")
# Python that needs what only the reader has, such as a server, PyTorch or trained models: it is compiled, and its calls
# of this program are compared with the signatures. With what it needs.
COMPILED = {
    "docs/anywhere.md": "an export; run by test_a_page_works_from_top_to_bottom",
    "docs/serving.md": "a server; tests/test_serving_client.py runs the client that has both",
    "docs/teachers.md": "PyTorch and skl2onnx, which are not installed; the other blocks are run below",
}


def read_yaml(block):
    """The experiment that a block is, or TINY with the block as a part of it."""
    content = YAML(typ="safe").load(block.text)
    if isinstance(content, list):
        content = {"teacher": {"members": content}}
    if "name" in content:
        return content
    whole = tiny(baseline=None)
    return {
        **whole,
        **{key: {**whole.get(key, {}), **part} if key != "dataset" else part for key, part in content.items()},
    }


def list_specs(content):
    """(kind, place, specification) of every component of an experiment."""
    student, members = content["student"], content.get("teacher", {}).get("members", [])
    yield "dataset", Place("dataset"), content["dataset"]
    yield "architecture", Place("student", "architecture"), student["architecture"]
    yield "loss", Place("student", "loss"), student["loss"]
    for index, member in enumerate(members):
        yield "teacher", Place("teacher", "members", index, "teacher"), member["teacher"]


@pytest.mark.parametrize("block", [each for each in blocks_of("yaml") if each.page not in PLANNED], ids=str)
def test_yaml_fits_the_schema_and_the_signatures(block, tmp_path):
    """Types, keys, names and arguments. The files that it names need not exist."""
    content = read_yaml(block)
    source = experiment_file.read(write(tmp_path, content)).source()
    assert parse_experiment(source), source.problems
    problems = Problems(str(block))
    for kind, place, spec in list_specs(content):
        if spec["name"] != "cosine_distance":  # which the page writes
            components.bind(kind, spec, place, problems)
    assert [message for message in problems.found.values() if "no such file" not in message] == []


def test_toml_and_json_and_the_servers_configuration_are_read():
    (toml,), (metrics,), (server,) = (blocks_of(kind) for kind in ("toml", "json", "models.config"))
    (groups,) = tomllib.loads(toml.text)["project"]["entry-points"]
    assert groups in plugins.GROUPS.values()
    assert {"experiment", "models", "classes", "stages", "export"} <= json.loads(metrics.text).keys()
    text_format.Parse(server.text, model_server_config_pb2.ModelServerConfig())


def test_every_block_of_python_is_run_or_said_to_be_compiled_alone():
    run = {"README.md", "docs/index.md", "docs/python.md", "docs/plugins.md"}
    assert {block.page for block in blocks_of("python")} == run | COMPILED.keys()


@pytest.mark.parametrize("block", blocks_of("python"), ids=str)
def test_python_compiles_and_calls_this_program_by_its_signatures(block):
    tree = ast.parse(textwrap.dedent(block.text))
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "mimic_keras":
            named = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(getattr(mimic_keras, call.func.attr)).bind_partial(*call.args, **named)


def plugin_blocks():
    """The blocks of docs/plugins.md by the first name that each defines."""
    found = {}
    for block in blocks_of("python", "docs/plugins.md"):
        tree = ast.parse(textwrap.dedent(block.text))
        names = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        found[names[0]] = block.text
    return found


def test_the_parts_in_a_file_have_a_value_and_a_size_by_hand():
    names = {}
    exec(plugin_blocks()["Cosine"], names)
    assert names["Cosine"]().call(tf.constant([[3.0, 4.0]]), tf.constant([[4.0, 3.0]])).numpy() == pytest.approx([0.04])
    power = names["Power"].from_config(names["Power"](exponent=3.0).get_config())
    # (|3 - 4| ** 3 + |4 - 2| ** 3) / 2
    assert power.call(tf.constant([[3.0, 4.0]]), tf.constant([[4.0, 2.0]])).numpy() == pytest.approx([4.5])
    assert names["two_layers"]((2, 3), 4).count_params() == 6 * 32 + 32 + 32 * 4 + 4


def test_scikit_learn_on_a_table_becomes_teachers_as_the_page_says(tmp_path, monkeypatch):
    """A forest on the prepared rows, and the predictions of a pipeline on the columns: both know the growers."""
    monkeypatch.chdir(tmp_path)
    acids = np.random.default_rng(0).normal(0, 0.1, 99) + np.arange(99) % 3
    lines = [f"{acid:.3f},{'clay chalk'.split()[row % 2]},{'abc'[row % 3]}" for row, acid in enumerate(acids)]
    (tmp_path / "wine.csv").write_text("\n".join(["acid,soil,grower", *lines, ""]))
    for block in blocks_of("python", "docs/teachers.md"):
        if "wine.csv" in block.text:
            exec(block.text, {})
    experiments = [block for block in blocks_of("yaml", "docs/teachers.md") if "wine.csv" in block.text]
    assert len(experiments) == 2
    for block in experiments:
        plan = plan_of(tmp_path, read_yaml(block))
        data = prepare(plan.dataset, tmp_path / "home", 0)
        member = plan.members[0].teacher().member(TeacherContext(data.dataset, 0, tmp_path, None))
        for name in ("transfer", "validation", "test"):
            split, ids = data.split(name), np.arange(data.split(name).num_examples)
            logits = member.predict(name, ids) if member.predict else member.call(split.batch(ids)).numpy()
            assert logits.argmax(-1).tolist() == split.labels.tolist()


@pytest.mark.slow
def test_the_parts_in_a_file_keep_their_contracts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_parts.py").write_text(plugin_blocks()["Cosine"])
    assert command("plugins", "--check", "my_parts.py") == 0
    printed = capsys.readouterr().out
    assert "Cosine" in printed
    assert "Power" in printed
    assert "two_layers" in printed


def test_the_loss_of_the_page_has_the_value_of_its_test(monkeypatch):
    package = types.ModuleType("cosine_distance")
    exec(plugin_blocks()["CosineDistance"], package.__dict__)
    monkeypatch.setitem(sys.modules, "cosine_distance", package)
    monkeypatch.setattr("mimic_keras.testing.conformance", lambda *_: None)  # of a package that is not installed
    tests = {}
    exec(plugin_blocks()["test_a_value_by_hand"], tests)
    tests["test_a_value_by_hand"]()


def test_the_data_set_of_the_page_reads_its_arrays_and_has_its_metric_and_its_signature(tmp_path):
    """The methods that the page adds are put into the class that it begins with."""
    blocks = plugin_blocks()
    code = blocks["MyData"] + blocks["evaluate"] + blocks["raw_signatures"]
    names = {"RawSignature": RawSignature}
    exec(code, names)
    parts = ("train", "validation", "test")
    inputs = {f"{part}_x": np.full((4, 32), index) for index, part in enumerate(parts)}
    np.savez(tmp_path / "data.npz", **inputs, **{f"{part}_y": np.array([0, 1, 2, 0]) for part in parts})
    data = names["MyData"](tmp_path)
    assert len(data.prepare(tmp_path)) == 64
    assert data.split("validation").batch(tf.constant([2], tf.int64)).numpy().tolist() == [[1.0] * 32]
    assert data.evaluate({"test": np.eye(3)[[0, 1, 2, 2]]}) == {"test": {"distance": 0.5}}
    data.validation_pixels, data.prepared = np.zeros((8, 28, 28), np.uint8), tf.identity
    assert data.raw_signatures()["serve_images"].inputs["images"].shape.as_list() == [None, 28, 28]


def build(input_shape, num_classes, units=4):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(keras.layers.Dense(units)(inputs)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [each for each in BLOCKS if each.kind == "python" and "distill(" in each.text], ids=str
)
def test_distillation_from_python_runs(block, tmp_path, monkeypatch):
    """With small models and arrays for those of the reader."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIMIC_KERAS_HOME", str(tmp_path / "home"))
    numbers = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model = build((5,), 3)
    model.save("other.keras")
    arrays = {}
    for inputs, labels in (("x", "y"), ("xv", "yv"), ("xt", "yt")):
        arrays[inputs] = numbers.normal(size=(600, 5)).astype(np.float32)
        arrays[labels] = model.predict(arrays[inputs], verbose=0).argmax(-1)
    names = {**arrays, "xu": arrays["x"][:20], "model": model, "build": build}
    exec(block.text, names)
    assert names["result"].student(arrays["xt"][:5]).shape == (5, 3)
