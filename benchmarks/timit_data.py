"""TIMIT at its full size: the memory of its data, the speed of its features, and its windows against what they feed."""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import measuring
import numpy as np
from timit_stages import drawn, forget_peak, labelled, memory, prepared, student_section, train_noting

if TYPE_CHECKING:
    from mimic_keras.training.batches import Examples

TRAINING_SPEAKERS, UTTERANCES = 462, 8
MEMBERS = 9  # of the teacher of experiments/timit_*k.yaml
BATCH_SIZE, BATCHES = 512, 200
STUDENT_STEPS = 10  # in a measurement of the student
GB = 1e9


def repeat_corpus(root: Path, place: Path, training_speakers: int) -> None:
    """Make a corpus in TIMIT's layout and size at `place`, of links to the utterances under `root`, repeated."""
    from mimic_keras_timit import corpus, speakers

    found = corpus.find(root)
    names = {"TRAIN": [f"X{number:03}0" for number in range(training_speakers)]}
    names["TEST"] = sorted(speakers.DEVELOPMENT | speakers.CORE_TEST)
    for part, folder_names in names.items():
        pool = itertools.cycle(utterances(found, part))
        for number, name in enumerate(folder_names):
            folder = place / part / f"DR{1 + number % 8}" / name
            folder.mkdir(parents=True)
            for sentence, files in enumerate(itertools.islice(pool, UTTERANCES), 1):
                for file in files:
                    (folder / f"SX{sentence}.{file.name.partition('.')[2]}").symlink_to(file.resolve())


def utterances(corpus: Path, part: str) -> list[tuple[Path, Path]]:
    """(transcript, sound) of every utterance under TRAIN or TEST but the SA sentences."""
    (half,) = [folder for folder in corpus.iterdir() if folder.name.upper() == part]
    sounds = sorted(half.rglob("*.[wW][aA][vV]"), key=lambda file: len(file.name), reverse=True)
    known = {(file.parent, file.name.partition(".")[0]): file for file in sounds}  # the shortest name wins
    transcripts = sorted(half.rglob("*.[pP][hH][nN]"))
    return [(file, known[file.parent, file.stem]) for file in transcripts if not file.name.upper().startswith("SA")]


def set_up(folder: Path) -> dict[str, float]:
    """Write features and one member's logits to files; returns the counts of the corpus."""
    from mimic_keras_timit import Timit, audio, features

    measuring.configure()
    data = prepared(folder / "corpus", folder)
    labelled(data, folder)
    assert isinstance(data.dataset, Timit)
    utterances = [utterance for split in data.dataset.corpus.values() for utterance in split]
    return {
        "utterances": len(data.dataset.corpus["train"]),
        "frames": data.split("train").num_examples,
        "all_frames": sum(features.num_frames(utterance.samples) for utterance in utterances),
        "hours": sum(utterance.samples for utterance in utterances) / audio.SAMPLE_RATE / 3600,
    }


def measure_memory(computed: bool, members: int, folder: Path) -> dict[str, float]:
    """GB of one process before there is data, while it is prepared, and while batches are drawn from it."""
    for module in ("mimic_keras.runner", "mimic_keras_architectures", "mimic_keras_timit", "mimic_keras_losses"):
        importlib.import_module(module)
    from mimic_keras.contracts import ArraySplit
    from mimic_keras.training.batches import Examples

    measuring.configure()
    draw(Examples(ArraySplit(*measuring.random_examples(BATCH_SIZE, (15, 123), 1))), 2)
    if computed:
        shutil.rmtree(folder / "datasets")
    figures = {"without": memory("VmHWM"), "without_now": memory("VmRSS")}
    forget_peak()
    data = prepared(folder / "corpus", folder)
    figures["preparing"] = memory("VmHWM")
    forget_peak()
    teacher = labelled(data, folder, members)
    figures["labelling"] = memory("VmHWM")
    forget_peak()
    examples = Examples(data.split("transfer"), teacher.transfer)
    rest = [Examples(data.split("validation"), teacher.mean["validation"]), data.split("train"), data.split("test")]
    draw(examples, BATCHES)
    figures |= {"drawing": memory("VmHWM"), "now": memory("VmRSS")}
    del rest
    peak = max(figures[stage] for stage in ("preparing", "labelling", "drawing"))
    return figures | {"over": peak - figures["without"], "over_now": figures["now"] - figures["without_now"]}


def draw(examples: Examples, count: int) -> None:
    """Draw `count` training batches; nothing uses them."""
    from mimic_keras.training.batches import training_batches

    for _ in training_batches(examples, BATCH_SIZE, measuring.SEED).take(count):
        pass


def measure_features(folder: Path) -> dict[str, float]:
    """Seconds of sound per second: verifying it, and turning it into features, graphs and files included."""
    from mimic_keras_timit import audio, corpus, preparation

    measuring.configure()
    started = time.perf_counter()
    found = corpus.read(folder / "corpus", {})
    verified = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        preparation.prepare(found, Path(empty))
        done = time.perf_counter()
    sound = sum(utterance.samples for split in found.values() for utterance in split) / audio.SAMPLE_RATE
    return {"verifying": sound / (verified - started), "features": sound / (done - verified)}


def draw_windows(folder: Path) -> dict[str, float]:
    """Draw the batches that `train` iterates over; nothing uses them."""
    from mimic_keras.training.batches import Examples, training_batches

    measuring.configure()
    data = prepared(folder / "corpus", folder)
    examples = Examples(data.split("transfer"), labelled(data, folder).transfer)
    batches = iter(training_batches(examples, BATCH_SIZE, measuring.SEED))

    def some() -> None:
        for _ in range(BATCHES):
            next(batches)

    return {"examples_per_second": BATCHES * BATCH_SIZE / min(measuring.repeated(some, 5))}


def train_student(folder: Path) -> dict[str, float]:
    """The student of experiments/timit_8k.yaml, fed by such batches."""
    measuring.configure()
    data = prepared(folder / "corpus", folder)
    teacher = labelled(data, folder)
    # One step more than is measured, since a step lasts from note to note.
    examples = drawn(teacher, data, BATCH_SIZE * (6 * STUDENT_STEPS + 1))
    notes = train_noting(student_section("timit_8k.yaml"), examples, teacher.transfer, batch_size=BATCH_SIZE)
    first, *seconds = np.diff([note.time for note in notes[::STUDENT_STEPS]])
    return {"examples_per_second": STUDENT_STEPS * BATCH_SIZE / min(seconds), "first": first}


COMPUTED, CACHED, NINE = "memory, features computed", "memory, features cached", f"memory, {MEMBERS} members"
FEATURES, WINDOWS, STUDENT = "features", "windows", "student, training"
CONTENDERS: dict[str, Callable[[Path], dict[str, float]]] = {
    "set up": set_up,
    COMPUTED: functools.partial(measure_memory, True, 1),
    CACHED: functools.partial(measure_memory, False, 1),
    NINE: functools.partial(measure_memory, False, MEMBERS),
    FEATURES: measure_features,
    WINDOWS: draw_windows,
    STUDENT: train_student,
}
PARTS = {"memory": [COMPUTED, CACHED, NINE], "features": [FEATURES], "windows": [WINDOWS, STUDENT]}
MEMORY_FIGURES = {
    "without": "peak without data",
    "preparing": "peak, data prepared",
    "labelling": "peak, logits read",
    "drawing": f"peak, {BATCHES} batches of {BATCH_SIZE} drawn",
    "over": "largest peak, over that without data",
    "without_now": "resident without data",
    "now": "resident at the end",
    "over_now": "resident at the end, over that without data",
}


def print_size(size: dict[str, float]) -> None:
    frames, every = int(size["frames"]), int(size["all_frames"])
    print(f"\n{size['utterances']:,} training utterances, {frames:,} frames", end="; ")
    print(f"{every:,} frames, {size['hours']:.2f} hours with validation and test")
    print(f"features {4 * 123 * every / GB:.2f} GB, logits {4 * 183 * frames / GB:.2f} GB", end="; ")
    print(f"as windows, the training features would be {4 * 15 * 123 * frames / GB:.2f} GB")


def print_tables(figures: measuring.Figures) -> None:
    if COMPUTED in figures:
        print(f"\n| median, GB | features computed | cached | cached, {MEMBERS} members |\n|---|---:|---:|---:|")
        for key, title in MEMORY_FIGURES.items():
            values = [measuring.spread(figures[contender], key)[0] for contender in PARTS["memory"]]
            print(f"| {title} | {' | '.join(f'{value:.2f}' for value in values)} |")
    if FEATURES in figures:
        print("\n| seconds of sound a second | median | min | max |\n|---|---:|---:|---:|")
        for key in ("verifying", "features"):
            row = " | ".join(f"{value:,.0f}" for value in measuring.spread(figures[FEATURES], key))
            print(f"| {key} | {row} |")
    if WINDOWS in figures:
        print("\n| contender | examples/s: median | min | max | it / student |\n|---|---:|---:|---:|---:|")
        for contender in (WINDOWS, STUDENT):
            median, low, high = measuring.spread(figures[contender], "examples_per_second")
            times = measuring.ratio(figures, "examples_per_second", contender, STUDENT)
            print(f"| {contender} | {median:,.0f} | {low:,.0f} | {high:,.0f} | {times:.1f} |")
    print(f"\n{measuring.load_of_others(figures)}")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        contender, folder = sys.argv[2:]
        return print(json.dumps(CONTENDERS[contender](Path(folder))))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=Path, required=True, help="TIMIT, or a part of it, whose utterances are repeated"
    )
    parser.add_argument("--scratch", type=Path, help="where a temporary folder of 3 GB is made")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of every contender (default 3)")
    parser.add_argument("--speakers", type=int, default=TRAINING_SPEAKERS, help="for training; fewer to try it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        repeat_corpus(options.root, Path(scratch) / "corpus", options.speakers)

        def command(contender: str) -> list[str]:
            return [sys.executable, str(Path(__file__)), "measure", contender, scratch]

        print_size(measuring.in_a_fresh_process(command("set up")))
        contenders = [contender for part in options.parts for contender in PARTS[part]]
        print_tables(measuring.take_turns(options.rounds, contenders, command))


if __name__ == "__main__":
    main()
