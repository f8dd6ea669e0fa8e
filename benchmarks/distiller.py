"""A student of three nets by `mimic_keras.distill` and by a script for `keras.distillation.Distiller`, on the digits:
lines, seconds, errors. The same student, loss and optimizer; the labels do not enter the loss."""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring
import numpy as np

if TYPE_CHECKING:
    import keras

Split = tuple[np.ndarray, np.ndarray]
SEEDS, TEACHERS, TEACHER_EPOCHS = 3, 3, 20


def distill_by_distiller(
    teachers: list[keras.Model], train: Split, validation: Split, test: Split, epochs: int, seed: int, folder: str
) -> np.ndarray:
    """Logits of the test inputs, as of `distill_by_mimic_keras`."""
    import keras

    keras.utils.set_random_seed(seed)
    inputs = keras.Input(train[0].shape[1:])
    mean = keras.layers.Average()([teacher(inputs) for teacher in teachers])
    student = build_student(train[0].shape[1:], 10)
    # Keras 3.15.1 takes the loss "kl_divergence", its default here, of logits as if they were probabilities.
    softened = keras.distillation.LogitsDistillation(temperature=4.0, loss=keras.losses.KLDivergence())
    distiller = keras.distillation.Distiller(keras.Model(inputs, mean), student, softened, student_loss_weight=0.0)
    on_labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.Adam(0.001), on_labels, metrics=["accuracy"])
    distiller.fit(*train, batch_size=64, epochs=epochs, validation_data=validation, verbose=0)
    student.export(f"{folder}/student", verbose=False)
    return student.predict(test[0], verbose=0)


def distill_by_mimic_keras(
    teachers: list[keras.Model],
    train: Split,
    validation: Split,
    test: Split,
    epochs: int,
    seed: int,
    folder: str,
    export: bool = True,
) -> np.ndarray:
    import mimic_keras

    places = {"home": folder, "runs_dir": f"{folder}/runs", "saved_models_dir": f"{folder}/exports", "export": export}
    last = {"student.training.restore": "last"}  # as the Distiller keeps its weights
    splits = {"train": train, "validation": validation, "test": test}
    result = mimic_keras.distill(teachers, build_student, **splits, epochs=epochs, seed=seed, set=last, **places)
    return result.student(test[0])


def build_student(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    import keras

    layers = [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(32, "relu")]
    return keras.Sequential([*layers, keras.layers.Dense(num_classes)])


DISTILLER, OURS = "keras.distillation.Distiller, and export", "mimic_keras.distill"
CONTENDERS: dict[str, Callable[..., np.ndarray]] = {
    DISTILLER: distill_by_distiller,
    OURS: distill_by_mimic_keras,
    f"{OURS}, without export": functools.partial(distill_by_mimic_keras, export=False),
}


def read_digits() -> dict[str, Split]:
    """The division of the data set `digits`; pixels from 0 to 1."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    inputs = (pixels / 16).astype("float32").reshape(-1, 8, 8, 1)
    parts = {"train": slice(1097), "validation": slice(1097, 1447), "test": slice(1447, None)}
    return {name: (inputs[part], labels[part]) for name, part in parts.items()}


def train_teachers(splits: dict[str, Split], folder: str) -> None:
    """Three convolutional nets, once for all contenders; their test errors go to stderr."""
    import keras

    for number in range(TEACHERS):
        keras.utils.set_random_seed(100 + number)
        layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(32, 3, activation="relu"), keras.layers.MaxPooling2D()]
        layers += [keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
        net = keras.Sequential(layers)
        net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        net.fit(*splits["train"], batch_size=64, epochs=TEACHER_EPOCHS, verbose=0)
        print(f"teacher {number}: test error {1 - net.evaluate(*splits['test'], verbose=0)[1]:.4f}", file=sys.stderr)
        net.save(f"{folder}/{number}.keras")


def measure(contender: str, teachers_folder: str, epochs: int) -> dict[str, float]:
    """Seconds and test error of every seed, each with an empty home: nothing is reused."""
    import keras

    figures, splits = {}, read_digits()
    for seed in range(SEEDS):
        teachers = [keras.models.load_model(f"{teachers_folder}/{number}.keras") for number in range(TEACHERS)]
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            logits = CONTENDERS[contender](teachers, **splits, epochs=epochs, seed=seed, folder=folder)
            figures[f"seconds {seed}"] = time.perf_counter() - started
        figures[f"error {seed}"] = float((logits.argmax(-1) != splits["test"][1]).mean())
    return figures


def count_lines(contender: str) -> int:
    """Of the function's body, without its docstring, comments, blank lines and the import."""
    function: Any = CONTENDERS[contender]
    lines = inspect.getsource(getattr(function, "func", function)).split(") -> np.ndarray:\n")[1].splitlines()
    return sum(bool(line.strip()) and not line.strip().startswith(('"""', "import ", "#")) for line in lines)


def print_table(epochs: int, figures: measuring.Figures) -> None:
    print(f"\n### a student of {TEACHERS} convolutional nets on the digits, {epochs} epochs, {SEEDS} seeds\n")
    print("| contender | lines | first call, seconds: median | min | max | third call: median | test errors, % |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for contender, results in figures.items():
        first, low, high = measuring.spread(results, "seconds 0")
        third = measuring.spread(results, f"seconds {SEEDS - 1}")[0]
        errors = " / ".join(f"{100 * results[0][f'error {seed}']:.1f}" for seed in range(SEEDS))
        row = f"{count_lines(contender)} | {first:.1f} | {low:.1f} | {high:.1f} | {third:.1f} | {errors}"
        print(f"| {contender} | {row} |")
    print(f"\n{measuring.load_of_others(figures)}")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        contender, folder, epochs = sys.argv[2:]
        return print(json.dumps(measure(contender, folder, int(epochs))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of every contender (default 3)")
    parser.add_argument("--epochs", type=int, default=40, help="of the student; fewer to try it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        train_teachers(read_digits(), folder)

        def command(contender: str) -> list[str]:
            return [sys.executable, str(Path(__file__)), "measure", contender, folder, str(options.epochs)]

        print_table(options.epochs, measuring.take_turns(options.rounds, list(CONTENDERS), command))


if __name__ == "__main__":
    main()
