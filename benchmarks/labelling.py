"""Labelling by the stage of a run against the products of a forward pass alone, and against `model.predict`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import measuring
import numpy as np
from nets import NETS, multiply_adds

if TYPE_CHECKING:
    import keras

MEMBERS = 3
LABELLING, TOGETHER, PREDICT, PRODUCTS = "labelling", f"labelling, {MEMBERS} members", "model.predict", "products"
SIZES = {"cnn": 16_384, "timit_8k": 131_072}  # examples that each net labels
TIMES = 2  # of which the fastest counts


def label(members: Sequence[keras.Model], inputs: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """Seconds from nothing to the shards on the disk, and the logits; graphs are built within that time."""
    from mimic_keras.contracts import ArraySplit
    from mimic_keras.stages.labelling import label_splits, load_shards
    from mimic_keras.stages.teachers import TeacherMember
    from mimic_keras.storage.store import Store
    from mimic_keras.training.models import inference_call, measure_cost

    split, classes = ArraySplit(inputs), members[0].output_shape[-1]
    dataset = SimpleNamespace(info=SimpleNamespace(num_classes=classes))
    data = SimpleNamespace(identity="random", dataset=dataset, split=lambda name: split)
    described = [
        TeacherMember(
            name=f"teacher/{place}",
            key=f"net {place}",
            cost=measure_cost(net),
            folder=None,
            history={},
            seed=place,
            weight=1.0,
            data=data,  # type: ignore[arg-type]
            load=lambda net=net: inference_call(net),
        )
        for place, net in enumerate(members)
    ]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        found = label_splits(described, ("test",), Store(Path(folder), {}))
        seconds = time.perf_counter() - started
        return seconds, [load_shards(found[member.name]["test"]) for member in described]


def measure(name: str, contender: str, examples: int) -> float:
    """Examples per second, of all members together."""
    import keras

    measuring.configure()
    keras.utils.set_random_seed(measuring.SEED)
    net = NETS[name]
    inputs = measuring.random_examples(examples, net.input_shape, net.num_classes)[0]
    if contender == PRODUCTS:
        from products import products

        from mimic_keras.training.models import PREDICTION_BATCH

        step, steps = products(net.layers(), PREDICTION_BATCH, "float32", training=False), examples // PREDICTION_BATCH
        seconds = measuring.repeated(lambda: [step() for _ in range(steps)][-1].numpy(), TIMES)
        return steps * PREDICTION_BATCH / min(seconds)
    if contender == PREDICT:
        model = net.build()
        return examples / min(measuring.repeated(lambda: model.predict(inputs, batch_size=512, verbose=0), TIMES))
    members = [net.build() for _ in range(MEMBERS if contender == TOGETHER else 1)]
    label(members, inputs[:1024])
    return len(members) * examples / min(label(members, inputs)[0] for _ in range(TIMES))


def print_table(name: str, figures: measuring.Figures) -> None:
    operations = 2 * sum(multiply_adds(NETS[name].layers()))
    print(f"\n### labelling by {NETS[name].title}: {operations / 1e6:.3g} MFLOP an example\n")
    print("| contender | examples/s: median | min | max | GFLOP/s | it / products |\n|---|---:|---:|---:|---:|---:|")
    for contender, results in figures.items():
        median, low, high = measuring.spread(results, "examples_per_second")
        share = measuring.ratio(figures, "examples_per_second", contender, PRODUCTS)
        row = f"{median:,.0f} | {low:,.0f} | {high:,.0f} | {median * operations / 1e9:.3g} | {share:.3f}"
        print(f"| {contender} | {row} |")
    print(f"\n{measuring.load_of_others(figures)}")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        name, contender, examples = sys.argv[2:]
        return print(json.dumps({"examples_per_second": measure(name, contender, int(examples))}))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=list(SIZES), default=list(SIZES), help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of every contender (default 3)")
    parser.add_argument("--examples", type=int, help="to label, 512 or more; fewer to try it")
    options = parser.parse_args()
    for name in options.nets:

        def command(contender: str, name: str = name) -> list[str]:
            count = str(options.examples or SIZES[name])
            return [sys.executable, str(Path(__file__)), "measure", name, contender, count]

        print_table(name, measuring.take_turns(options.rounds, [LABELLING, TOGETHER, PREDICT, PRODUCTS], command))


if __name__ == "__main__":
    main()
