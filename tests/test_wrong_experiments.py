"""Wrong experiment files: each ends in exit code 2 and a message with the path, what came, and what is accepted."""

import keras
import pytest

from tests.tiny import command, tiny, write

# name: (overrides or the whole file, pieces that the message must have)
WRONG = {
    "unknown key": (["student.trainning=3"], ["student.trainning: unknown key", "Did you mean 'training'?"]),
    "unknown top-level key": (["nmae=x"], ["nmae: unknown key", "Did you mean 'name'?", "dataset: mapping"]),
    "typo of an argument": (
        ["student.architecture.hiden_units=[3]"],
        [
            "student.architecture.hiden_units: unknown argument of 'bottleneck' (mimic-keras-architectures 0.1.0).",
            "Did you mean 'hidden_units'? Accepted: linear_units: int, hidden_units: list[int], activation: str =",
        ],
    ),
    "typo of a loss": (
        ["student.loss.name=logitl2"],
        [
            "student.loss.name: no loss 'logitl2'. Did you mean 'logit_l2'? "
            "Installed: kl, logit_l2, probability_l2, temperature"
        ],
    ),
    "typo of a data set": (["dataset.name=digit"], ["dataset.name: no dataset 'digit'. Did you mean 'digits'?"]),
    "no branch of a union": (
        ["dataset={name: timit, alignment: {fil: x}}"],
        [": 1 problem\n", "dataset.alignment: expected 'uniform' | {file: Path}, got {'fil': 'x'}"],
    ),
    "typo of a teacher": (
        ["teacher.members.0.teacher.name=train"],
        ["teacher.members[0].teacher.name: no teacher 'train'. Did you mean 'trained'?"],
    ),
    "typo of a nested architecture": (
        ["teacher.members.0.teacher.architecture.name=mpl"],
        ["teacher.members[0].teacher.architecture.name: no architecture 'mpl'. Did you mean 'mlp'?"],
    ),
    "typo of an optimizer": (
        ["student.training.optimizer.name=sdg"],
        ["student.training.optimizer: no such name: 'sdg'. Did you mean 'sgd'? Accepted: sgd, adam"],
    ),
    "typo in an optimizer": (
        ["student.training.optimizer.learning_rat=3"],
        ["student.training.optimizer.learning_rat: unknown key", "learning_rate: float > 0, momentum: float"],
    ),
    "unknown schedule": (
        ["student.training.schedule={name: plateau}"],
        ["student.training.schedule: no such name: 'plateau'. Did you mean 'plateau_halving'?"],
    ),
    "schedule without a name": (
        ["student.training.schedule={patience: 3}"],
        ["student.training.schedule: expected a mapping with a 'name', got {'patience': 3}"],
    ),
    "negative epochs": (
        ["student.training.epochs=-1"],
        ["student.training.epochs: expected a value greater than or equal to 1, got -1"],
    ),
    "text for a number": (["student.training.epochs=ten"], ["student.training.epochs: expected integer, got 'ten'"]),
    "quoted number": (["student.training.epochs='3'"], ["student.training.epochs: expected integer, got '3'"]),
    "not a number": (
        ["student.training.optimizer.learning_rate=.nan"],
        ["student.training.optimizer.learning_rate: expected a finite number, got nan"],
    ),
    "wrong item of a list": (
        ["student.architecture.hidden_units=[3, x]"],
        ["student.architecture.hidden_units[1]: expected integer, got 'x'"],
    ),
    "number for a list": (
        ["student.architecture.hidden_units=3"],
        ["student.architecture.hidden_units: expected list[int], got 3"],
    ),
    "impossible width": (
        ["student.architecture.hidden_units=[-5]"],
        ["student.architecture: architecture 'bottleneck' (mimic-keras-architectures 0.1.0) raised ValueError: ", "-5"],
    ),
    "convolution over a vector": (
        ["student.architecture={name: cnn, filters: [8], hidden_units: [8], pool_size: 9}"],
        ["student.architecture: architecture 'cnn'"],
    ),
    "missing argument": (
        ["student.architecture={name: cnn, filters: [8]}"],
        ["student.architecture.hidden_units: required, but missing"],
    ),
    "missing section": ({k: v for k, v in tiny().items() if k != "student"}, ["student: required, but missing"]),
    "name with a slash": (["name=a/b"], ["name: expected 1 to 100 letters, digits", "got 'a/b'"]),
    "name that climbs": (["name=../x"], ["name: expected 1 to 100 letters, digits", "got '../x'"]),
    "hidden name": (["name=.x"], ["name: expected 1 to 100 letters, digits", "got '.x'"]),
    "choice": (["student.training.restore=bst"], ["student.training.restore: expected 'best' or 'last', got 'bst'"]),
    "precision": (
        ["student.training.precision=float16"],
        ["student.training.precision: expected 'float32' or 'mixed_bfloat16', got 'float16'"],
    ),
    "share above one": (
        ["student.hard_label_weight=1.5"],
        ["student.hard_label_weight: expected a value less than or equal to 1, got 1.5"],
    ),
    "argument out of range": (["dataset.copies=0"], ["dataset: dataset 'digits'", "copies must be at least 1, got 0"]),
    "no members": (["teacher.members=[]"], ["teacher.members: expected at least 1 item, got []"]),
    "no copies": (
        ["teacher.members.0.copies=0"],
        ["teacher.members[0].copies: expected a value greater than or equal to 1, got 0"],
    ),
    "untrained members": (
        ["teacher.training=null"],
        ["teacher.members[0].training: required here or as teacher.training"],
    ),
    "the same member twice": (
        tiny(teacher={**tiny()["teacher"], "members": [tiny()["teacher"]["members"][0]] * 2}),
        ["teacher.members[1]: the same net as teacher.members[0]; to train several, use copies"],
    ),
    "the same member in other words": (
        tiny(
            teacher={
                **tiny()["teacher"],
                "members": [
                    {"teacher": {"name": "trained", "architecture": {"name": "mlp", "hidden_units": [24]}}},
                    {
                        "teacher": {
                            "name": "trained",
                            "architecture": {"name": "mlp", "hidden_units": [24], "dropout": 0.0},
                            "share": 1.0,
                        }
                    },
                ],
            }
        ),
        ["teacher.members[1]: the same net as teacher.members[0]; to train several, use copies"],
    ),
    "copies of a loaded model": (
        ["teacher.members.0.teacher={name: keras_file, path: no/such.keras}"],
        ["teacher.members[0].copies: copies of a loaded model are all the same; expected 1, got 2"],
    ),
    "wrong argument of the loss": (
        ["student.loss={name: temperature, temperature: -1}", "student.standardize_logits=false"],
        ["student.loss: loss 'temperature'", "temperature must be above 0 and finite, got -1"],
    ),
    "name that is a list": (["dataset.name=[digits]"], ["dataset.name: "]),
    "name that is a mapping": (["student.loss={name: {a: 1}}"], ["student.loss.name: "]),
    "infinite argument": (["student.architecture.dropout=.inf"], ["student.architecture.dropout: expected"]),
    "date": (["student.architecture.activation=2020-01-01"], ["student.architecture.activation: expected a text"]),
    "text for a schedule": (
        ["student.training.schedule=cosine"],
        ["student.training.schedule: expected a mapping, got 'cosine'"],
    ),
    "alias inside of itself": ("name: &a [*a]\n", ["nested too deeply, or an alias inside"]),
    "nested too deeply": ("name: " + "[" * 5000, ["nested too deeply"]),
    "index that is no number": (["teacher.members.².copies=2"], ["teacher.members is a list of 1, which has no '²'"]),
    "fault of the baseline beside one of the student": (
        ["student.training.epochs=0", "baseline.architecture.hidden_units=[x]"],
        ["2 problems\n", "baseline.architecture.hidden_units[0]: expected integer, got 'x'"],
    ),
    "missing model file": (
        ["teacher.members.0.teacher={name: keras_file, path: no/such.keras}"],
        ["teacher.members[0].teacher: path: no such file or folder: no/such.keras"],
    ),
    "loss without a teacher": (
        ["teacher=null"],
        ["student.loss: needs a teacher", "student.standardize_logits: needs a teacher", "baseline: needs a teacher"],
    ),
    "agreement without a teacher": (
        ["teacher=null", "export.minimum_agreement=0.9"],
        ["export.minimum_agreement: needs a teacher"],
    ),
    "agreement in per cent": (
        ["export.minimum_agreement=90"],
        ["export.minimum_agreement: expected a value less than or equal to 1, got 90"],
    ),
    "a format that there is not": (
        ["export.formats=[tflite]"],
        ["export.formats[0]: expected 'saved_model', 'litert', 'litert_dynamic', 'litert_int8' or 'onnx', got"],
    ),
    "one format, and no list": (["export.formats=onnx"], ["export.formats: expected array, got 'onnx'"]),
    "an increase in per cent": (
        ["export.maximum_error_increase=5"],
        ["export.maximum_error_increase: expected a value less than or equal to 1, got 5"],
    ),
    "publish, but what": (["export.publish=newest"], ["export.publish: expected boolean, got 'newest'"]),
    "teacher without a loss": (["student.loss=null"], ["student.loss: required with a teacher"]),
    "standardised, but not standardizable": (
        ["student.loss.name=kl"],
        ["student.standardize_logits: 'kl' needs real logits; true is accepted with standardizable losses"],
    ),
    "multi_worker": (
        ["distribution.strategy=multi_worker"],
        ["distribution.strategy: multi_worker is not supported yet; accepted: auto, one_device, mirrored"],
    ),
    "virtual devices without mirrored": (
        ["distribution.virtual_devices=2"],
        ["distribution.virtual_devices: only strategy: mirrored splits the processor"],
    ),
    "fault of the baseline": (
        ["baseline.architecture.dropuot=0.5"],
        ["1 problem\n", "baseline.architecture.dropuot: unknown argument of 'bottleneck'", "Did you mean 'dropout'?"],
    ),
    "inherited fault": (["seed=1.5"], ["1 problem\n", "seed: expected int >= 0 < 2147483648, got 1.5"]),
    "environment": (["dataset.copies=${NO_SUCH}"], ["dataset.copies: the environment has no variable NO_SUCH"]),
    "several problems at once": (
        ["student.training.epochs=0", "student.loss.name=kll", "student.architecture.linear_unit=3", "name=a b"],
        [
            "4 problems",
            "student.training.epochs: expected a value greater than or equal to 1, got 0",
            "student.loss.name: no loss 'kll'. Did you mean 'kl'?",
            "student.architecture.linear_unit: unknown argument",
            "name: expected 1 to 100 letters",
        ],
    ),
    "not a mapping": ("- 1\n- 2\n", ["expected a mapping of name, dataset, student, ...; got list"]),
    "empty": ("", ["expected a mapping of name, dataset, student, ...; got NoneType"]),
    "not YAML": ("name: [1, 2\nseed: 3\n", ["not a YAML file:", "line 2"]),
    "binary": ("name: \x00\x01", ["not a YAML file:"]),
    "key given twice": ("name: x\nname: y\n", ["not a YAML file:", 'duplicate key "name"']),
    "tag": ("name: !!python/object/apply:os.system [ls]\n", ["not a YAML file:", "could not determine a constructor"]),
    "override without a value": (["student.training.epochs"], ["--set student.training.epochs: expected KEY=VALUE"]),
    "override of a list's end": (
        ["teacher.members.5.copies=2"],
        ["--set teacher.members.5.copies=2: teacher.members is a list of 1, which has no '5'"],
    ),
    "override through a leaf": (["name.x=2"], ["--set name.x=2: name is 'tiny', which has no keys"]),
    "override that is no YAML": (["seed=[1"], ["--set seed=[1: the value is not YAML"]),
}


def test_the_list_is_long_enough():
    assert len(WRONG) >= 25


@pytest.mark.parametrize("name", WRONG)
def test_wrong_experiment_is_refused_with_its_path_and_what_is_accepted(name, tmp_path, capsys):
    content, pieces = WRONG[name]
    overrides = content if isinstance(content, list) else []
    file = write(tmp_path, tiny() if isinstance(content, list) else content)
    assert command("validate", file, *(part for override in overrides for part in ("--set", override))) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for piece in pieces:
        assert piece in message


def test_missing_file_is_named(tmp_path, capsys):
    assert command("run", tmp_path / "none.yaml") == 2
    assert f"{tmp_path / 'none.yaml'}: cannot be read: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "classes", "piece"),
    [((8, 8, 1), 7, "gives outputs of shape [7], the data set has 10 classes"),
     ((9, 8, 1), 10, "takes inputs of shape [9, 8, 1], the data set's are [8, 8, 1]")],
)  # fmt: skip
def test_a_loaded_member_that_does_not_fit_is_refused_before_anything_is_trained(
    shape, classes, piece, tmp_path, capsys
):
    keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes)]).save(
        tmp_path / "other.keras"
    )
    experiment = tiny()
    experiment["teacher"]["members"].append({"teacher": {"name": "keras_file", "path": str(tmp_path / "other.keras")}})
    home = tmp_path / "home"
    assert command("run", write(tmp_path, experiment), "--home", home, "--runs_dir", tmp_path / "runs") == 2
    message = capsys.readouterr().err
    assert "teacher.members[1].teacher: path: " in message
    assert piece in message
    assert not home.exists()
