"""Wrong experiment files: each ends in exit code 2 and a message with the path, what came, and what is accepted."""

import keras
import numpy as np
import pytest

from plugins.teachers.tests import makers
from tests.tiny import command, tiny, write

IMAGES = "dataset={name: image_folder, path: no/such, image_size: [8, 8], shares: {validation: 0.1, test: 0.1}%s}"
TABLE = "dataset={name: table, train: no/such.csv, target: y, shares: {validation: 0.1, test: 0.1}%s}"


def arrays(arguments: str = "shares: {validation: 0.1, test: 0.1}", train: str = "{x: x.npy, y: y.npy}") -> list[str]:
    """The override that makes files of one's own the data set."""
    return [f"dataset={{name: arrays, train: {train}, {arguments}}}"]


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
            "Installed: dkd, kl, logit_l2, probability_l2, squared_hinge, standardized_temperature, temperature"
        ],
    ),
    "code in a file": (
        ["student.loss.name=my_loss.py:Mine"],
        [
            "student.loss.name: no loss 'my_loss.py:Mine': an experiment cannot name code; "
            "use --plugins my_loss.py and name: Mine"
        ],
    ),
    "code in a module": (
        ["student.architecture.name=my_nets.small"],
        ["no architecture 'my_nets.small': an experiment cannot name code; use --plugins my_nets.py and name: small"],
    ),
    "typo of a data set": (["dataset.name=digit"], ["dataset.name: no dataset 'digit'. Did you mean 'digits'?"]),
    "no branch of a union": (
        ["dataset={name: timit, alignment: {fil: x}}"],
        [": 1 problem\n", "dataset.alignment: expected 'uniform' | {file: Path}, got {'fil': 'x'}"],
    ),
    "loss between logits without a teacher": (
        ["teacher=null", "baseline=null", "student.standardize_logits=false"],
        ["1 problem\n", "student.loss: needs a teacher: without one, the student is trained on the labels"],
    ),
    "loss of labels with a teacher": (
        ["student.loss={name: squared_hinge}", "student.standardize_logits=false"],
        ["1 problem\n", "student.loss: 'squared_hinge' compares with the labels alone: it is for a student without"],
    ),
    "share of groups that the data set has not": (
        ["teacher.members.0.teacher.share=0.5", "teacher.members.0.teacher.share_by=speaker"],
        ["1 problem\n", "share_by: the data set 'digits' has no groups 'speaker'; it has: none"],
    ),
    "typo of an argument of the transfer set": (
        ["transfer={copeis: 3}"],
        ["1 problem\n", "transfer.copeis: unknown argument of 'digits'", "Did you mean 'copies'?"],
    ),
    "argument of the transfer set that is out of range": (
        ["transfer={copies: 0}"],
        ["1 problem\n", "transfer: dataset 'digits'", "copies must be at least 1, got 0"],
    ),
    "typo of an argument of a member's data": (
        ["teacher.members.0.dataset={copeis: 3}"],
        ["1 problem\n", "teacher.members[0].dataset.copeis: unknown argument of 'digits'", "Did you mean 'copies'?"],
    ),
    "typo of an argument of the data that a member changes": (
        ["dataset={name: digits, copeis: 3}", "teacher.members.0.dataset={shift: 0}"],
        ["1 problem\n", "dataset.copeis: unknown argument of 'digits'", "Did you mean 'copies'?"],
    ),
    "another data set for transfer": (
        ["transfer={name: cifar10}"],
        ["1 problem\n", "transfer.name: not accepted: these are changes of the arguments of `dataset`"],
    ),
    "transfer set of another type": (["transfer=[copies]"], ["transfer: expected a mapping, got ['copies']"]),
    "transfer set without a teacher": (
        ["teacher=null", "baseline=null", "student.loss=null", "student.standardize_logits=false", "transfer={}"],
        ["1 problem\n", "transfer: needs a teacher: without one, the student is trained on the labels"],
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
    "typo of a monitored metric": (
        ["student.training.monitor=eror_rate"],
        ["student.training.monitor: no metric 'eror_rate'. Did you mean 'error_rate'? Accepted: loss, error_rate"],
    ),
    "typo in an optimizer": (
        ["student.training.optimizer.learning_rat=3"],
        ["student.training.optimizer.learning_rat: unknown key", "learning_rate: float > 0 | mapping, momentum: float"],
    ),
    "wrong argument of another optimizer": (
        ["student.training.optimizer={name: lion, learning_rate: 0.1, epsilon: 1}"],
        [
            "student.training.optimizer.epsilon: unknown key",
            "Accepted: name: 'lion', learning_rate: float > 0, beta_1:",
        ],
    ),
    "share of a limit that is not known": (
        ["student.training.optimizer={name: adam, learning_rate: {of_limit: 0.5}}"],
        [
            "1 problem\n",
            "student.training.optimizer.learning_rate: expected a number: a limit is known of sgd alone, "
            "got {'of_limit': 0.5}",
        ],
    ),
    "no share of the limit": (
        ["student.training.optimizer.learning_rate={of_limit: 0}"],
        ["1 problem\n", "student.training.optimizer.learning_rate.of_limit: expected a value greater than 0, got 0"],
    ),
    "typo of a share of the limit": (
        ["student.training.optimizer.learning_rate={of_limt: 0.5}"],
        ["student.training.optimizer.learning_rate.of_limt: unknown key", "Did you mean 'of_limit'?"],
    ),
    "share of the limit, merged into another optimizer": (
        [
            "student.training.optimizer={name: sgd, learning_rate: {of_limit: 0.5}}",
            "baseline.training.optimizer.name=lion",
        ],
        ["baseline.training.optimizer.learning_rate: required, but missing"],
    ),
    "optimizer without a rate": (
        ["student.training.optimizer={name: adamw}"],
        ["student.training.optimizer.learning_rate: required, but missing"],
    ),
    "negative weight decay": (
        ["student.training.optimizer={name: adamw, learning_rate: 0.1, weight_decay: -1.0}"],
        ["student.training.optimizer.weight_decay: expected a value greater than or equal to 0, got -1.0"],
    ),
    "clipping as an argument of the optimizer": (
        ["student.training.optimizer.global_clipnorm=1.0"],
        ["student.training.optimizer.global_clipnorm: unknown key"],
    ),
    "gradient clipped to nothing": (
        ["student.training.clip_norm=0"],
        ["student.training.clip_norm: expected a value greater than 0, got 0"],
    ),
    "average that never moves": (
        ["student.training.exponential_moving_average=1.0"],
        ["student.training.exponential_moving_average: expected a value less than 1, got 1.0"],
    ),
    "average that is a flag": (
        ["student.training.exponential_moving_average=true"],
        ["student.training.exponential_moving_average: expected", "got true"],
    ),
    "warm-up of the whole training": (
        ["student.training.warmup=2"],
        ["student.training.warmup: expected fewer than the training's 2 epochs, got 2"],
    ),
    "negative warm-up": (
        ["student.training.warmup=-1"],
        ["student.training.warmup: expected a value greater than or equal to 0, got -1"],
    ),
    "monitor that is no name": (
        ["student.training.monitor=5"],
        ["student.training.monitor: expected string, got 5"],
    ),
    "agreement of a member with a teacher": (
        ["teacher.training.monitor=agreement"],
        ["1 problem\n", "teacher.training.monitor: agreement is with a teacher, but this net learns the labels"],
    ),
    "agreement, inherited by the baseline": (
        ["student.training.monitor=agreement"],
        ["1 problem\n", "baseline.training.monitor: agreement is with a teacher, but this net learns the labels"],
    ),
    "mixup without copies": (["student.mixup={alpha: 0.2}"], ["student.mixup.copies: required, but missing"]),
    "mixup of no copies": (
        ["student.mixup={copies: 0}"],
        ["student.mixup.copies: expected a value greater than or equal to 1, got 0"],
    ),
    "mixup with a share": (
        ["student.mixup={copies: 2, alpha: 0}"],
        ["student.mixup.alpha: expected a value greater than 0, got 0"],
    ),
    "mixup as a number": (["student.mixup=0.2"], ["student.mixup: expected a mapping, got 0.2"]),
    "mixup without a teacher": (["teacher=null", "student.mixup={copies: 2}"], ["student.mixup: needs a teacher"]),
    "temperature of z-scores": (
        ["student.loss={name: standardized_temperature, temperature: 0}", "student.standardize_logits=false"],
        ["student.loss: loss 'standardized_temperature'", "temperature must be above 0 and finite, got 0"],
    ),
    "decoupled into nothing": (
        ["student.loss={name: dkd, target_weight: 0, others_weight: 0}", "student.standardize_logits=false"],
        ["student.loss: loss 'dkd'", "target_weight and others_weight are both 0: nothing would be learnt"],
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
        ["student.architecture: architecture 'bottleneck' (mimic-keras-architectures 0.1.0): ", "-5"],
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
        ["student.training.precision: expected 'float32', 'tensor_float_32' or 'mixed_bfloat16', got 'float16'"],
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
    "missing file of another framework": (
        ["teacher.members.0={teacher: {name: onnx_file, path: no/such.onnx}}"],
        ["teacher.members[0].teacher: path: no such file or folder: no/such.onnx"],
    ),
    "missing predictions": (
        [
            "teacher.members.0={teacher: {name: predictions, transfer: a.npy, validation: b.npy, test: c.npy}}",
        ],
        ["teacher.members[0].teacher: transfer: no such file: a.npy"],
    ),
    "predictions of no test set": (
        ["teacher.members.0={teacher: {name: predictions, transfer: a.npy, validation: b.npy}}"],
        [
            "teacher.members[0].teacher: ",
            "expected path, or transfer, validation and test; got transfer, validation",
        ],
    ),
    "predictions of all examples and of splits": (
        ["teacher.members.0={teacher: {name: predictions, path: a.npy, test: c.npy}}"],
        ["teacher.members[0].teacher: ", "expected path, or transfer, validation and test; got test, path"],
    ),
    "missing predictions of all examples": (
        ["teacher.members.0={teacher: {name: predictions, path: a.npy}}"],
        ["teacher.members[0].teacher: path: no such file: a.npy"],
    ),
    "unknown kind of outputs": (
        ["teacher.members.0={teacher: {name: keras_file, path: x.keras, outputs: softmax}}"],
        ["teacher.members[0].teacher.outputs: expected 'logits' | 'probabilities' | 'sigmoid', got 'softmax'"],
    ),
    "unknown layout": (
        ["teacher.members.0={teacher: {name: onnx_file, path: x.onnx, layout: NCHW}}"],
        ["teacher.members[0].teacher.layout: expected 'channels_last' | 'channels_first' | 'flat', got 'NCHW'"],
    ),
    "trust in code": (
        ["teacher.members.0={teacher: {name: sklearn, path: x.skops, trusted: [os.system]}}"],
        ["teacher.members[0].teacher: ", "trusted: only types of scikit-learn are accepted, got os.system"],
    ),
    "missing weights of an application": (
        ["teacher.members.0={teacher: {name: keras_application, model: MobileNet, weights: x.weights.h5}}"],
        ["teacher.members[0].teacher: weights: no such file or folder: x.weights.h5"],
    ),
    "application without weights as a teacher": (
        ["teacher.members.0={teacher: {name: keras_application, model: MobileNet}}"],
        ["teacher.members[0].teacher.weights: required, but missing"],
    ),
    "unknown application": (
        ["student.architecture={name: keras_application, model: MobilNet}", "baseline=null"],
        ["student.architecture: model: keras.applications has no 'MobilNet'. Did you mean 'MobileNet'? Accepted: "],
    ),
    "application that has no alpha": (
        ["student.architecture={name: keras_application, model: ResNet50, alpha: 0.5}", "baseline=null"],
        ["student.architecture: alpha: ResNet50 takes none, got 0.5"],
    ),
    "inputs too small for an application": (
        ["student.architecture={name: keras_application, model: MobileNet}", "baseline=null"],
        ["student.architecture: ", "Input size must be at least 32x32; Received: input_shape=(8, 8, 1)"],
    ),
    "missing file of a student": (
        ["student.architecture={name: keras_file, path: no/such.keras}", "baseline=null"],
        ["1 problem\n", "student.architecture: path: no such file: no/such.keras"],
    ),
    "missing weights of a student": (
        ["student.architecture={name: keras_application, model: MobileNet, weights: x.weights.h5}"],
        ["student.architecture: weights: no such file: x.weights.h5"],
    ),
    "missing file inside a teacher": (
        ["teacher.members.0.teacher.architecture={name: keras_file, path: no/such.keras}"],
        ["teacher.members[0].teacher.architecture: path: no such file: no/such.keras"],
    ),
    "unknown start of a student": (
        ["student.architecture={name: keras_file, path: x.keras, weights: random}", "baseline=null"],
        ["student.architecture.weights: expected 'keep' | 'fresh', got 'random'"],
    ),
    "text for separable": (
        ["student.architecture={name: cnn, filters: [8], hidden_units: [8], separable: 'yes'}"],
        ["student.architecture.separable: expected bool, got 'yes'"],
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
    "one format, and no list": (["export.formats=onnx"], ["export.formats: expected list, got 'onnx'"]),
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
    "several workers, but how many": (
        ["distribution.strategy=multi_worker"],
        ["1 problem\n", "distribution.workers: required with strategy: multi_worker, as in 2"],
    ),
    "one worker": (
        ["distribution={strategy: multi_worker, workers: 1}"],
        ["1 problem\n", "distribution.workers: expected a value greater than or equal to 2, got 1"],
    ),
    "workers of one machine": (
        ["distribution={strategy: mirrored, workers: 2}"],
        ["1 problem\n", "distribution.workers: only strategy: multi_worker has workers"],
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
    "not YAML": ("name: [1, 2\nseed: 3\n", ["not a YAML file: line 2, column 5: ", "\n  seed: 3\n      ^"]),
    "binary": ("name: \x00\x01", ["not a YAML file:"]),
    "key given twice": ("name: x\nname: y\n", ["not a YAML file:", 'duplicate key "name"']),
    "tag": ("name: !!python/object/apply:os.system [ls]\n", ["not a YAML file:", "could not determine a constructor"]),
    "override without a value": (["student.training.epochs"], ["--set student.training.epochs: expected KEY=VALUE"]),
    "override of a list's end": (
        ["teacher.members.5.copies=2"],
        ["--set teacher.members.5.copies=2: teacher.members is a list of 1, which has no '5'"],
    ),
    "override through a leaf": (["name.x=2"], ["--set name.x=2: name is 'tiny', which has no keys"]),
    "folder of images that is missing": ([IMAGES % ""], ["dataset: path: no such folder: no/such"]),
    "images without a size": (
        ["dataset={name: image_folder, path: no/such}"],
        ["dataset.image_size: required, but missing"],
    ),
    "one number for an image's size": (
        ["dataset={name: image_folder, path: no/such, image_size: 8}"],
        ["dataset.image_size: expected [int, int], got 8"],
    ),
    "images without a height": (
        ["dataset={name: image_folder, path: no/such, image_size: [0, 8]}"],
        ["dataset: ", "image_size: expected a height and a width of at least 1, got [0, 8]"],
    ),
    "images of two channels": ([IMAGES % ", channels: 2"], ["dataset.channels: expected 3 | 1, got 2"]),
    "unknown way to resize": ([IMAGES % ", resize: pad"], ["dataset.resize: expected 'stretch' | 'crop', got 'pad'"]),
    "number of image classes": ([IMAGES % ", classes: 3"], ["dataset.classes: expected list[str] | null, got 3"]),
    "class of images that is repeated": (
        [IMAGES % ", classes: [cat, dog, cat]"],
        ["dataset: ", "classes: each name must be there once, but cat is repeated"],
    ),
    "number of images as a share": (
        ["dataset={name: image_folder, path: no/such, image_size: [8, 8], shares: {validation: 10}}"],
        ["dataset: ", "shares: validation must be above 0 and below 1, got 10.0"],
    ),
    "images shifted out of sight": (
        [IMAGES % ", copies: 3, shift: 8"],
        ["dataset: ", "shift must be below the image's sides, 8 x 8, got 8"],
    ),
    "table that is missing": (
        [TABLE % ""],
        ["dataset: train: no/such.csv cannot be read as a table: No such file or directory"],
    ),
    "table that is a folder": (
        ["dataset={name: table, train: ., target: y, shares: {validation: 0.1, test: 0.1}}"],
        ["dataset: train: ", " cannot be read as a table: Is a directory"],
    ),
    "table without a target": (["dataset={name: table, train: a.csv}"], ["dataset.target: required, but missing"]),
    "table without validation": (
        ["dataset={name: table, train: a.csv, target: y, shares: {test: 0.1}}"],
        ["dataset: ", "validation: expected the split itself, or shares: {validation: 0.1}, got neither"],
    ),
    "table with a file and a share": (
        [TABLE % ", test: b.csv"],
        ["dataset: ", "test: expected the split itself, or shares: {test: 0.1}, got both"],
    ),
    "one class of a table": ([TABLE % ", classes: [a]"], ["dataset: ", "classes: expected at least 2, got ['a']"]),
    "numbers as the classes of a table": (
        [TABLE % ", classes: [2, 1]"],
        ["2 problems\n", "dataset.classes[0]: expected string, got 2"],
    ),
    "text for a list of columns": (
        [TABLE % ", categories: town"],
        ["dataset.categories: expected list[str] | null, got 'town'"],
    ),
    "separator of two characters": (
        [TABLE % ", separator: ';;'"],
        ["dataset: ", "separator: expected one character, got ';;'"],
    ),
    "override that is no YAML": (["seed=[1"], ["--set seed=[1: the value is not YAML"]),
    "arrays without files": (["dataset={name: arrays}"], ["dataset.train: required, but missing"]),
    "arrays that do not exist": (
        arrays(),
        ["1 problem", "dataset: train.x: no such file: x.npy", "train.y: no such file: y.npy"],
    ),
    "arrays without labels": (
        arrays(train="{x: x.npy}"),
        ["dataset.train: expected Path | {x: Path, y: Path}, got {'x': "],
    ),
    "typo in the files of a split": (
        arrays(train="{x: x.npy, y: y.npy, z: z.npy}"),
        ["dataset.train: expected Path | {x: Path, y: Path}, got {"],
    ),
    "one .npy file for a split": (
        arrays(train="x.npy"),
        ["dataset: train: expected {x: FILE.npy, y: FILE.npy}, or a .npz file with arrays x and y, got x.npy"],
    ),
    "arrays from a table": (
        arrays(train="{x: x.csv, y: y.npy}"),
        ["dataset: train.x: expected a .npy file, got x.csv"],
    ),
    "neither validation nor its share": (
        arrays("test: test.npz"),
        ["arrays 0.1.0): validation: expected the split itself, or shares: {validation: 0.1}, got neither"],
    ),
    "both test and its share": (
        arrays("test: test.npz, shares: {validation: 0.1, test: 0.1}"),
        ["(mimic-keras-arrays 0.1.0): test: expected the split itself, or shares: {test: 0.1}, got both"],
    ),
    "shares of everything": (
        arrays("shares: {validation: 0.5, test: 0.5}"),
        ["shares must leave examples for training: expected a sum below 1, got validation: 0.5, test: 0.5"],
    ),
    "share in percent": (
        arrays("shares: {validation: 10, test: 10}"),
        ["shares: validation must be above 0 and below 1, got 10"],
    ),
    "typo in the shares": (
        arrays("shares: {validation: 0.1, tests: 0.1}"),
        ["dataset.shares: expected {validation: float, test: float} | null, got {"],
    ),
    "inputs scaled twice": (
        arrays("shares: {validation: 0.1, test: 0.1}, inputs: {scale: 2.0}, standardize: true"),
        ["inputs: {'scale': 2.0} with standardize: true; both scale the inputs: give one of them"],
    ),
    "inputs scaled to nothing": (
        arrays("shares: {validation: 0.1, test: 0.1}, inputs: {scale: 0}"),
        ["inputs: scale must not be 0, which would make all inputs equal"],
    ),
    "typo in the inputs": (
        arrays("shares: {validation: 0.1, test: 0.1}, inputs: {scael: 2.0}"),
        ["dataset.inputs: expected {scale: float, offset: float} | null, got {'scael': 2.0}"],
    ),
    "copies that do not differ": (
        arrays("shares: {validation: 0.1, test: 0.1}, copies: 4"),
        ["copies: 4 with mirror: false, shift: 0, smallest_crop: 1.0; the first copy is the image itself"],
    ),
    "crop of nothing": (
        arrays("shares: {validation: 0.1, test: 0.1}, copies: 4, smallest_crop: 0"),
        ["smallest_crop must be above 0 and at most 1, got 0"],
    ),
    "one class": (
        arrays("shares: {validation: 0.1, test: 0.1}, classes: [cat]"),
        ["classes: expected at least 2, got ['cat']"],
    ),
    "class given twice": (
        arrays("shares: {validation: 0.1, test: 0.1}, classes: [cat, dog, cat]"),
        ["classes: each name must be there once, but cat is repeated"],
    ),
    "seed of the splits below 0": (
        arrays("shares: {validation: 0.1, test: 0.1}, split_seed: -1"),
        ["split_seed must be from 0 to 4294967295, got -1"],
    ),
    "set that TensorFlow Datasets does not know": (
        ["dataset={name: tfds, builder: nmist, shares: {validation: 0.1, test: 0.1}}"],
        ["dataset: builder: no set 'nmist' in tensorflow-datasets: Dataset nmist not found."],
    ),
    "one number for a size": (
        ["dataset={name: tfds, builder: mnist, shares: {validation: 0.1}, test: test, image_size: 28}"],
        ["dataset.image_size: expected [int, int] | null, got 28"],
    ),
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
        assert piece in message.replace(f"{tmp_path}/", "")  # paths are absolute


def test_a_metric_that_the_data_set_does_not_have_is_refused_before_anything_is_trained(tmp_path, capsys):
    file, places = write(tmp_path, tiny()), ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs")
    assert command("run", file, *places, "--set", "teacher.training.monitor=-acuracy") == 2
    message = (
        "teacher.training.monitor: no metric 'acuracy'. Did you mean 'accuracy'? Accepted: loss, error_rate, agreement"
    )
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "home").glob("teachers/*"))


def _keras_net(path, shape=(8, 8, 1), classes=10, last=None):
    keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes, last)]).save(path)


def _predictions(change):
    """Writes three files with a row for every example of the digits, one of them changed."""

    def write_files(folder):
        for split, count in {"transfer": 1097, "validation": 350, "test": 350}.items():
            rows = np.random.default_rng(0).normal(size=(count, 10))
            np.save(folder / f"{split}.npy", change(rows) if split == "test" else rows)

    return write_files


TEACHER, STUDENT = "teacher.members.0={{teacher: {}}}", "student.architecture={}"
STORED = TEACHER.format("{name: predictions, transfer: transfer.npy, validation: validation.npy, test: test.npy}")
KERNEL = np.ones((64, 10))
# name: (what writes the files into the working directory, the override that names them, a piece of the message)
WRONG_FILES = {
    "ONNX of another rank": (
        lambda folder: makers.save_onnx(folder / "x.onnx", KERNEL, (64,)),
        TEACHER.format("{name: onnx_file, path: x.onnx}"),
        "path: x.onnx with layout: channels_last takes inputs of shape [64], the data set's are [8, 8, 1]",
    ),
    "ONNX of one example": (
        lambda folder: makers.save_onnx(folder / "x.onnx", KERNEL, (8, 8, 1), first=1),
        TEACHER.format("{name: onnx_file, path: x.onnx}"),
        "path: x.onnx takes exactly 1 examples at a time, expected any number",
    ),
    "ONNX with probabilities": (
        lambda folder: makers.save_onnx(folder / "x.onnx", KERNEL, (1, 8, 8), softmax=True),
        TEACHER.format("{name: onnx_file, path: x.onnx, layout: channels_first}"),
        "outputs: the outputs of x.onnx sum to 1 and are not negative: expected 'probabilities', got 'logits'",
    ),
    "skops with unknown types": (
        lambda folder: makers.save_skops(folder / "x.skops", makers.make_forest(64, 10)),
        TEACHER.format("{name: sklearn, path: x.skops}"),
        "path: x.skops has types that skops does not trust: sklearn.tree._tree.Tree; if you trust the file: trusted:",
    ),
    "skops of other classes": (
        lambda folder: makers.save_skops(folder / "x.skops", makers.make_forest(64, 3)),
        TEACHER.format("{name: sklearn, path: x.skops, trusted: [sklearn.tree._tree.Tree]}"),
        "path: x.skops has the classes [0 1 2], expected the labels of the data set, 0 to 9",
    ),
    "predictions with NaN": (
        _predictions(lambda rows: np.where(rows == rows[3, 3], np.nan, rows)),
        STORED,
        "test: test.npy has infinite or NaN values, the first in row 3",
    ),
    "predictions that are pickled": (
        _predictions(lambda rows: rows.astype(object)),
        STORED,
        "test: test.npy is not an .npy file of numbers: ",
    ),
    "predictions that are classes": (
        _predictions(lambda rows: rows.argmax(-1)),
        STORED,
        "test: test.npy holds int64 [350], expected floating-point numbers [examples, 10]",
    ),
    "predictions for too few": (
        _predictions(lambda rows: rows[1:]),
        STORED,
        "test: test.npy has 349 rows, expected 350: 350 examples",
    ),
    "predictions of the rows of no file": (
        lambda folder: np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(1797, 10))),
        TEACHER.format("{name: predictions, path: x.npy}"),
        "path: the examples of 'transfer' are no rows of files in the data set 'digits'; expected transfer, validation",
    ),
    "weights of another application": (
        lambda folder: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights("x.weights.h5"),
        TEACHER.format("{name: keras_application, model: MobileNet, weights: x.weights.h5}"),
        "model: MobileNet: Input size must be at least 32x32; Received: input_shape=(8, 8, 1)",
    ),
    "output that a model does not have": (
        lambda folder: _keras_net(folder / "x.keras"),
        TEACHER.format("{name: keras_file, path: x.keras, output: logits}"),
        "output: expected one of dense",
    ),
    "outputs that are no sigmoids": (
        lambda folder: _keras_net(folder / "x.keras"),
        TEACHER.format("{name: keras_file, path: x.keras, outputs: sigmoid}"),
        "outputs: the outputs of x.keras are not all between 0 and 1: expected 'logits', got 'sigmoid'",
    ),
    "student with a softmax": (
        lambda folder: _keras_net(folder / "x.keras", last="softmax"),
        STUDENT.format("{name: keras_file, path: x.keras}"),
        "path: x.keras gives outputs between 0 and 1; a student gives logits: save it without the softmax",
    ),
    "student of another shape": (
        lambda folder: _keras_net(folder / "x.keras", shape=(9, 8, 1)),
        STUDENT.format("{name: keras_file, path: x.keras}"),
        "path: x.keras takes inputs of shape [9, 8, 1], the data set's are [8, 8, 1]",
    ),
    "student that is no model": (
        lambda folder: (folder / "x.keras").write_bytes(b"garbage"),
        STUDENT.format("{name: keras_file, path: x.keras}"),
        "path: x.keras is not a model that Keras can load: ",
    ),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_that_does_not_fit_is_refused_before_anything_is_trained(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_files, override, piece = WRONG_FILES[name]
    write_files(tmp_path)
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs")
    file = write(tmp_path, tiny(baseline=None))
    capsys.readouterr()
    assert command("run", file, "--set", override, *places) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert piece in message.replace(f"{tmp_path}/", "")  # paths are absolute
    assert not list(tmp_path.glob("home/teachers/*/model.keras"))


def test_stored_predictions_cannot_label_mixtures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _predictions(lambda rows: rows)(tmp_path)
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs")
    file = write(tmp_path, tiny(baseline=None))
    assert command("run", file, "--set", STORED, "--set", "student.mixup={copies: 1}", *places) == 2
    message = "teacher/0: stored predictions cannot label mixtures; remove student.mixup, or the member"
    assert message in capsys.readouterr().err


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
