"""All benchmarks, one after the other: `python benchmarks` writes the tables to benchmarks/tables.md.

What needs something that is missing, such as TIMIT or a finished run, is left out with a line that says so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
TABLES = FOLDER / "tables.md"
TIMIT = "MIMIC_KERAS_TEST_TIMIT"  # as for `make test-slow`
RUN = FOLDER.parent / "runs" / "quickstart"
# {script: the options with which it shows in minutes that it works}
SCRIPTS = {
    "training_throughput.py": "--rounds 1 --epochs 1 --steps 2",
    "compiled_updates.py": "--rounds 2 --seconds 0.01 --nets shallow_student",
    "cached_logits.py": "--rounds 1 --epochs 1 --examples 256",
    "distiller.py": "--rounds 1 --epochs 2",
    "labelling.py": "--rounds 1 --examples 1024",
    "start_time.py": "--rounds 1",
    "sweep_overhead.py": "--rounds 1 --cells 2",
    "cluster_units.py": "--rounds 1 --cells 13",
    "export_400k.py": "--rounds 1 --hidden-units 2000",
    "cifar_input.py": "--rounds 1 --epochs 1",
    "mapped_data.py": "--rounds 1 --gigabytes 1.2",
}
ON_GPU = ("training_throughput.py", "cached_logits.py", "labelling.py")


def sections(quick: bool, options: list[str]) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """(title, command, environment) of everything that can run here."""
    for script, tried in SCRIPTS.items():
        yield f"{script}, processors", [script, *(tried.split() if quick else options)], {"CUDA_VISIBLE_DEVICES": "-1"}
    if name := first_gpu():
        for script in ON_GPU:
            yield f"{script}, {name}", [script, *(SCRIPTS[script].split() if quick else options)], {}
    if root := os.environ.get(TIMIT):
        yield "timit_data.py", ["timit_data.py", "--root", root], {"CUDA_VISIBLE_DEVICES": "-1"}
    if RUN.exists():
        yield "serving.py", ["serving.py", str(RUN)], {"CUDA_VISIBLE_DEVICES": "-1"}


def left_out() -> Iterator[str]:
    if not first_gpu():
        yield "on a GPU: there is none"
    if not os.environ.get(TIMIT):
        yield f"timit_data.py: {TIMIT} is not set"
    if not RUN.exists():
        yield "serving.py: there is no runs/quickstart; `make quickstart` makes it"


def first_gpu() -> str | None:
    """Its name, as TensorFlow gives it; asked in a process of its own, since it takes memory on the card."""
    ask = "import tensorflow as tf; [print(tf.config.experimental.get_device_details(each)['device_name']) "
    ask += "for each in tf.config.list_physical_devices('GPU')[:1]]"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.strip() or None


def describe() -> str:
    """The machine and the versions."""
    from mimic_keras.training.machine import describe_machine

    machine = describe_machine()
    packages = ["tensorflow", "keras", "numpy", "mimic-keras"]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    processors = f"{machine['processors_usable']} of {machine['processors']} processors, {machine['processor']}"
    return f"{time.strftime('%Y-%m-%d')}. {processors}; Python {sys.version.split()[0]}, {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="as short as possible: shows that all of them work")
    parser.add_argument("--only", nargs="+", metavar="SCRIPT", help="these alone")
    known, options = parser.parse_known_args()
    text = [
        "# Tables",
        "",
        "Written by `make benchmarks`; [README.md](README.md) says what is measured.",
        "",
        describe(),
    ]
    if known.quick:
        text += ["", "A trial of a few steps (`--quick`): it shows that everything runs, and no figure means anything."]
    for title, command, variables in sections(known.quick, options):
        if known.only and command[0] not in known.only:
            continue
        print(title, file=sys.stderr, flush=True)
        script, *arguments = command
        environment = {**os.environ, **variables}
        done = subprocess.run(
            [sys.executable, str(FOLDER / script), *arguments], env=environment, stdout=subprocess.PIPE, text=True
        )
        text += ["", f"## {title}", "", done.stdout.strip() or "nothing came of it"]
        text += [] if not done.returncode else ["", f"failed with {done.returncode}"]
        TABLES.write_text("\n".join(text) + "\n")
    text += ["", "## Left out", "", *(f"- {line}" for line in left_out())]
    TABLES.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
