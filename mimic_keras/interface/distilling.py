"""`mimic_keras.distill`: the usual experiment in one call, from models and arrays that a program has."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mimic_keras.contracts import InputError
from mimic_keras.experiment.problems import did_you_mean
from mimic_keras.interface import api
from mimic_keras.interface.results import RunResult


def distill(
    teachers: Any,
    student: Any,
    *,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    unlabelled: Any = None,
    class_names: Sequence[str] | None = None,
    dataset: Any = None,
    loss: Any = "temperature",
    epochs: int = 40,
    batch_size: int = 64,
    optimizer: Mapping[str, Any] | None = None,
    baseline: bool = False,
    name: str = "distilled",
    seed: int = 0,
    **options: Any,
) -> RunResult:
    """Train a student on the logits of finished teachers, evaluate it beside them, and export it.

    Args:
        teachers: a model or a list of them: a `keras.Model`, whose outputs are logits or probabilities; a .keras file;
            the folder of a SavedModel; a component as in the file. The teacher is the mean of their logits.
        student: a function (input_shape, num_classes) that builds a net with logits as outputs, drawn from `seed`; a
            `keras.Model`, which is left as it is: training starts from a copy of its weights; or a component.
        train: (inputs [N, ...], labels [N]), arrays as the models take them; or .npy or .npz files, as the data set
            `arrays` takes them. `validation` and `test` likewise. Validation decides which epoch's weights are kept.
        unlabelled: more inputs, which the teacher alone labels.
        class_names: in the order of the labels.
        dataset: a data set as in the file, or a `Dataset`, in place of the arrays.
        loss: a name, a component, or a `keras.losses.Loss` of (teacher logits, student logits).
        epochs: passes over the training examples and `unlabelled`.
        optimizer: as in the file; None: {"name": "adam", "learning_rate": 0.001}.
        baseline: whether to train the same net on the labels too.
        name: of the run's folder and the export.
        options: `set`, for every other value of the experiment, `home`, `runs_dir`, `saved_models_dir`, `export`,
            `publish_to`, `replace` and `plugins`, as of `run`.

    Raises:
        InputError: an array, a model or another argument does not fit.
        NotPublishedError: the student is not worth publishing; `result` of the error is the run's.
        RunError: the run cannot continue, and not because of the input.

    Example:
        >>> result = mimic_keras.distill(
        ...     [model, "b.keras"], small_net, train=(x, y), validation=(xv, yv), test=(xt, yt), epochs=20
        ... )
        >>> result.student(xt[:1]).argmax()
        7
    """
    if optimizer is not None and not isinstance(optimizer, Mapping):
        got = repr(optimizer) if isinstance(optimizer, str) else type(optimizer).__name__
        raise InputError(f'optimizer: expected a mapping, as {{"name": "adam", "learning_rate": 0.001}}, got {got}')
    accepted = {**inspect.signature(distill).parameters, **inspect.signature(api.run).parameters}
    if unknown := [name for name in options if name not in accepted]:
        raise InputError(
            f"distill has no argument {unknown[0]!r}. {did_you_mean(unknown[0], accepted)}Other values of the "
            "experiment are set as in set={'student.training.schedule': {'name': 'cosine'}}"
        )
    arrays = {"train": train, "validation": validation, "test": test}
    training = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": dict(optimizer or {"name": "adam", "learning_rate": 1e-3}),
        "restore": "best",
    }
    experiment = {
        "name": name,
        "seed": seed,
        "dataset": _as_component(_make_dataset(arrays, unlabelled, class_names, dataset)),
        "teacher": {"members": [_as_member(each) for each in _as_list(teachers)]},
        "student": {"architecture": _as_component(student), "loss": _as_component(loss), "training": training},
        **({"baseline": {}} if baseline else {}),
    }
    return api.run(experiment, **options)


def _make_dataset(arrays: Mapping[str, Any], unlabelled: Any, class_names: Sequence[str] | None, dataset: Any) -> Any:
    """The data set of the arrays, or of their files, or the one that is given."""
    given = [name for name, value in {**arrays, "unlabelled": unlabelled}.items() if value is not None]
    if dataset is not None:
        if given or class_names is not None:
            raise InputError(f"dataset: it has all examples; {', '.join(given) or 'class_names'} cannot be given too")
        return dataset
    parts = {
        name: [_is_file(part) for part in (value if isinstance(value, tuple) else (value,))]
        for name, value in {**arrays, "unlabelled": unlabelled}.items()
        if value is not None
    }
    if any(map(any, parts.values())):
        if others := [name for name, are_files in parts.items() if not all(are_files)]:
            raise InputError(f"{', '.join(others)}: arrays, but other splits are files; give all as files, or none")
        files = {name: _as_files(value) for name, value in {**arrays, "unlabelled": unlabelled}.items()}
        names = {"classes": list(class_names)} if class_names is not None else {}
        return {"name": "arrays", **{name: value for name, value in files.items() if value is not None}, **names}
    if missing := [name for name in arrays if name not in given]:
        raise InputError(f"{', '.join(missing)}: required, (inputs, labels); or give a dataset")
    from mimic_keras.interface.arrays import InMemory

    return InMemory(arrays, unlabelled, class_names)


def _is_file(value: Any) -> bool:
    return isinstance(value, str | Path)


def _as_files(value: Any) -> Any:
    """Files as the data set `arrays` takes them: one, or {x: inputs, y: labels}."""
    return {"x": str(value[0]), "y": str(value[1])} if isinstance(value, tuple) else value and str(value)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _as_member(value: Any) -> dict[str, Any]:
    """An entry of the teacher's members."""
    if isinstance(value, Mapping):
        return dict(value) if "teacher" in value else {"teacher": value}
    if _is_file(value):
        kind = "saved_model" if Path(value).is_dir() else "keras_file"
        return {"teacher": {"name": kind, "path": str(value)}}
    return {"teacher": value}


def _as_component(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value
