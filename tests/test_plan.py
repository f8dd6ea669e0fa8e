"""A plan: members and their seeds, nets and their costs, versions of code; nothing of TensorFlow is configured."""

import hashlib
import importlib.metadata
import json
from pathlib import Path

import mimic_keras_architectures
import mimic_keras_digits
import mimic_keras_losses
import mimic_keras_teachers
import pytest
import tensorflow as tf

from mimic_keras.contracts import InputError
from mimic_keras.experiment.file import read
from mimic_keras.planning import preflight
from mimic_keras.planning.plan import make_plan
from mimic_keras.storage.files import hash_json
from mimic_keras.training.models import Cost
from tests.tiny import plan_of, tiny, write


def member(units, **more):
    return {"teacher": {"name": "trained", "architecture": {"name": "mlp", "hidden_units": [units]}}, **more}


def experiment(*members, **sections):
    content = tiny(**sections)
    content["teacher"]["members"] = list(members)
    return content


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    training = {"epochs": 7, "batch_size": 16, "optimizer": {"name": "adam", "learning_rate": 0.5}}
    members = (member(24, copies=2, weight=3.0), member(8, training=training, dataset={"name": "digits", "copies": 2}))
    return plan_of(tmp_path_factory.mktemp("plan"), experiment(*members, seed=5))


def test_members_are_the_copies_of_every_entry(plan):
    assert [each.name for each in plan.members] == ["teacher/0", "teacher/1", "teacher/2"]
    assert [each.weight for each in plan.members] == [3.0, 3.0, 1.0]
    assert [each.training.epochs for each in plan.members] == [2, 2, 7]
    assert [each.labels.dataset.arguments["copies"] for each in plan.members] == [1, 1, 2]
    assert all(each.is_trained for each in plan.members)
    units = [each.teacher.nested["architecture"].arguments["hidden_units"] for each in plan.members]
    assert units == [[24], [24], [8]]


def test_a_members_seed_follows_from_its_entry(plan):
    arguments = {"architecture": {"name": "mlp", "arguments": {"hidden_units": [24]}}}  # no defaults
    for copy in (0, 1):
        content = {
            "seed": 5,
            "teacher": {"name": "trained", "arguments": arguments},
            "dataset": None,
            "training": None,
            "copy": copy,
        }
        text = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
        expected = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 2**31
        assert plan.members[copy].seed == expected


@pytest.fixture
def unbuilt(monkeypatch):
    """Plans whose nets are not built, which takes most of the time."""
    monkeypatch.setattr(preflight, "measure_net", lambda *_: Cost(1, 1))


def seeds(folder, *members, **sections):
    """{(units, number of the copy among those): seed}"""
    found = {}
    for each in plan_of(folder, experiment(*members, baseline=None, **sections)).members:
        (units,) = each.teacher.nested["architecture"].arguments["hidden_units"]
        found[units, sum(key[0] == units for key in found)] = each.seed
    return found


def test_keys_and_seeds_of_an_old_experiment_never_change(tmp_path):
    """Computed once: an option at its default is in no key, so that new ones change none."""
    content = tiny()
    own = {"epochs": 3, "batch_size": 64, "optimizer": {"name": "sgd", "learning_rate": 0.1}, "restore": "best"}
    content["teacher"]["members"][0]["training"] = own
    plan, plain = plan_of(tmp_path, content), plan_of(tmp_path, tiny())
    assert [each.seed for each in plan.members] == [1302743074, 1043921604]
    assert [each.seed for each in plain.members] == [1145996180, 529215243]
    trainings = [plan.members[0].training, plain.members[0].training, plain.student.training]
    assert [hash_json(each.key_inputs()) for each in trainings] == [
        "9b115c739194c5f0",
        "6dbf512e729d835c",
        "e88fabd897ac6eb9",
    ]


def test_seeds_do_not_depend_on_the_order_of_the_list(tmp_path, unbuilt):
    few = seeds(tmp_path, member(4, copies=2), member(5))
    assert len(set(few.values())) == 3
    assert seeds(tmp_path, member(5), member(4, copies=2)) == few
    more = seeds(tmp_path, member(6), member(5, weight=2.0), member(4, copies=3))
    assert more == {**more, **few}
    assert set(few.values()).isdisjoint(seeds(tmp_path, member(4, copies=2), member(5), seed=1).values())


def test_costs_are_those_counted_by_hand(plan):
    # A hidden layer of n units on 64 pixels and 10 classes, with biases; products alone are multiply-adds.
    mlp = {units: Cost(64 * units + units + units * 10 + 10, 64 * units + units * 10) for units in (24, 8)}
    student = Cost(64 * 8 + 8 * 32 + 32 + 32 * 10 + 10, 64 * 8 + 8 * 32 + 32 * 10)
    assert plan.costs == {
        "teacher/0": mlp[24],
        "teacher/1": mlp[24],
        "teacher/2": mlp[8],
        "student": student,
        "baseline": student,
    }
    assert mlp[24] == Cost(1810, 1776)


def test_a_net_is_built_once(tmp_path, monkeypatch):
    built, real = [], preflight.measure_net

    def counted(component, *arguments):
        built.append(component.configuration())
        return real(component, *arguments)

    monkeypatch.setattr(preflight, "measure_net", counted)
    known = {}
    content = experiment(member(24, copies=3), member(8))
    first = make_plan(read(write(tmp_path, content)).source(), known)
    assert [each["name"] for each in built] == ["mlp", "mlp", "bottleneck", "bottleneck"]  # student and baseline differ
    assert len(known) == 4
    assert make_plan(read(write(tmp_path, content)).source(), known).costs == first.costs
    assert len(built) == 4


def test_code_versions_are_of_every_component(plan):
    def digest_of(module, *lines):
        digest = hashlib.sha256()
        folder = Path(module.__file__).parent
        files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        for file in sorted(files, key=lambda file: file.relative_to(folder.parent).as_posix()):
            name = file.relative_to(folder.parent).as_posix()
            digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        for line in lines:
            digest.update(line.encode())
        return digest.hexdigest()

    digests = {each: digest_of(each) for each in (mimic_keras_architectures, mimic_keras_digits, mimic_keras_losses)}
    (first, *_) = importlib.metadata.distribution("mimic-keras-architectures").entry_points
    required = f"{first.name}\0{digests[mimic_keras_architectures]}\n"
    digests[mimic_keras_teachers] = digest_of(mimic_keras_teachers, required)
    names = {each.__name__.replace("_", "-"): digest for each, digest in digests.items()}
    expected = {f"{name} {importlib.metadata.version(name)} {digest}" for name, digest in names.items()}
    assert plan.code_versions() == expected


def test_the_baseline_comes_before_the_student_and_learns_the_labels(plan, tmp_path):
    assert plan.nets == [plan.baseline, plan.student]
    baseline, student = plan.nets
    assert (baseline.name, baseline.loss, baseline.standardize_logits, baseline.hard_label_weight) == (
        "baseline",
        None,
        False,
        0.0,
    )
    assert (student.name, student.loss.plugin.name, student.standardize_logits) == ("student", "logit_l2", True)
    assert baseline.seed == student.seed == 5
    assert (baseline.architecture.arguments["dropout"], student.architecture.arguments["dropout"]) == (0.1, 0.0)
    alone = plan_of(tmp_path, tiny(baseline=None))
    assert alone.nets == [alone.student]


def test_every_net_sees_the_virtual_copies_of_the_teachers_seed(tmp_path, unbuilt):
    content = tiny(seed=3)
    content["student"]["seed"] = 4
    assert plan_of(tmp_path, content).transfer.seed == 3
    content["teacher"]["seed"] = 6
    plan = plan_of(tmp_path, content)
    assert plan.transfer.seed == 6
    assert {use for net in plan.nets for use in [net.learns_from.seed]} == {6}
    assert {use.seed for member in plan.members for use in (member.learns_from, member.labels)} == {6}
    assert plan.other_uses == []
    student = {key: content["student"][key] for key in ("architecture", "training", "seed")}
    plan = plan_of(tmp_path, tiny(teacher=None, baseline=None, student=student))
    assert (plan.transfer.seed, plan.members, plan.select) == (4, (), None)


def test_with_a_transfer_section_every_net_that_learns_labels_draws_its_own_copies(tmp_path, unbuilt):
    content = experiment(
        member(24, copies=2), member(8, dataset={"name": "digits", "copies": 3, "shift": 2}), transfer={"copies": 5}
    )
    plan = plan_of(tmp_path, content)
    uses = [plan.student.learns_from, plan.baseline.learns_from, *(each.learns_from for each in plan.members)]
    assert [use.dataset.arguments for use in uses] == [
        {"copies": 5, "shift": 1},
        {"copies": 1, "shift": 1},
        {"copies": 1, "shift": 1},
        {"copies": 1, "shift": 1},
        {"copies": 3, "shift": 2},
    ]
    assert [use.seed for use in uses[1:]] == [0, *(each.seed for each in plan.members)]
    assert len({use.seed for use in uses}) == 5
    assert [each.labels.dataset.arguments for each in plan.members] == [
        {"copies": 5, "shift": 1},
        {"copies": 5, "shift": 1},
        {"copies": 5, "shift": 2},
    ]
    assert {each.labels.seed for each in plan.members} == {plan.transfer.seed}
    assert plan.transfer_examples == 5 * 1097


def test_the_changes_of_the_transfer_set_are_kept_as_they_are(tmp_path, unbuilt):
    resolved = plan_of(tmp_path, tiny(transfer={"copies": 5})).experiment.model_dump()
    assert resolved["transfer"] == {"copies": 5}
    assert "transfer" not in plan_of(tmp_path, tiny()).experiment.model_dump()


@pytest.mark.parametrize("name", ["distribution", "deterministic"])
def test_nothing_of_tensorflow_is_configured(tmp_path, monkeypatch, name):
    def fail(*_, **__):
        pytest.fail("make_plan changed a setting of the process")

    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", fail)
    monkeypatch.setattr(tf.config.experimental, "enable_tensor_float_32_execution", fail)
    monkeypatch.setattr(tf.config, "set_logical_device_configuration", fail)
    sections = {"distribution": {"distribution": {"strategy": "mirrored", "virtual_devices": 8}}}
    made = plan_of(tmp_path, tiny(**sections.get(name, {"deterministic": True})))
    assert made.experiment.deterministic


def test_problems_of_every_part_are_raised_at_once(tmp_path):
    content = experiment(member(4), member(4), member(5, training=None, dataset={"name": "digits", "copies": 0}))
    content["teacher"]["training"] = None
    content["student"]["architecture"]["hidden_units"] = [-1]
    with pytest.raises(InputError) as caught:
        plan_of(tmp_path, content)
    found = {str(place): message for place, message in caught.value.found.items()}
    assert {place: message for place, message in found.items() if "(mimic-keras-" not in message} == {
        "teacher.members[0].training": "required here or as teacher.training: this teacher is trained",
        "teacher.members[1].training": "required here or as teacher.training: this teacher is trained",
        "teacher.members[1]": "the same net as teacher.members[0]; to train several, use copies: N",
        "teacher.members[2].training": "required here or as teacher.training: this teacher is trained",
    }
    of_components = [place for place, message in found.items() if "(mimic-keras-" in message]
    assert of_components == ["teacher.members[2].dataset", "student.architecture"]
