"""Examples per second of our trainer against plain `model.fit`, the bare products and PyTorch, in turns."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
from nets import NETS, Layer, Net, training_operations

OURS = ("ours", "ours, not deterministic")  # the first is how the program trains unless told otherwise


@dataclass(frozen=True)
class Job:
    """What a contender is told: `epochs` of `net` after one to warm up. `layers` are the net's."""

    net: Net
    epochs: int
    layers: list[Layer]

    @property
    def examples(self) -> int:
        return self.net.batch_size * self.net.steps


def train_ours(job: Job, *, precision: str = "float32") -> list[float]:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    return train_ours_not_deterministic(job, precision=precision)


def train_ours_not_deterministic(job: Job, *, precision: str = "float32") -> list[float]:
    net = job.net
    inputs, logits = measuring.random_examples(job.examples, net.input_shape, net.num_classes)
    settings = {"learning_rate": net.learning_rate, "precision": precision}
    return measuring.our_epochs(net.build, inputs, logits, net.batch_size, job.epochs, **settings)


def train_with_fit(job: Job) -> list[float]:
    import keras
    from mimic_keras_losses import LogitL2

    net = job.net
    keras.utils.set_random_seed(measuring.SEED)
    inputs, logits = measuring.random_examples(job.examples, net.input_shape, net.num_classes)
    model = net.build()
    optimizer = keras.optimizers.SGD(net.learning_rate, momentum=measuring.MOMENTUM)
    model.compile(optimizer=optimizer, loss=LogitL2(), jit_compile=False)
    return measuring.fit_epochs(model, inputs, logits, net.batch_size, job.epochs)


def multiply(job: Job, *, dtype: str = "float32") -> list[float]:
    from products import products

    step = products(job.layers, job.net.batch_size, dtype, training=True)

    def epoch() -> None:
        for _ in range(job.net.steps):
            last = step()
        last.numpy()

    return measuring.repeated(epoch, job.epochs)


def train_with_pytorch(job: Job, *, channels_last: bool = False, compiled: bool = False) -> list[float]:
    """On tensors in memory, with as many threads as this process has processors; eager unless `compiled`."""
    import numpy as np
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(measuring.SEED)
    inputs, logits = measuring.random_examples(job.examples, job.net.input_shape, job.net.num_classes)
    is_image = any(layer["kind"] == "convolution" for layer in job.layers)
    rows = np.moveaxis(inputs, -1, 1).copy() if is_image else inputs
    x, z = (torch.from_numpy(each).to(device) for each in (rows, logits))
    model = torch.nn.Sequential(*map(_module, job.layers)).to(device)
    if is_image:
        x, model = x.to(memory_format=layout), model.to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=job.net.learning_rate, momentum=measuring.MOMENTUM)
    call = torch.compile(model) if compiled else model

    def epoch() -> None:
        for ids in torch.randperm(len(x), device=device).split(job.net.batch_size):
            optimizer.zero_grad()
            loss = 0.5 * (call(x[ids]) - z[ids]).square().sum(-1).mean()
            loss.backward()
            optimizer.step()
        loss.item()

    return measuring.repeated(epoch, job.epochs)


def _module(layer: Layer) -> Any:
    from torch import nn

    if layer["kind"] == "dense":
        return nn.Linear(layer["inputs"], layer["outputs"], bias=layer["bias"])
    if layer["kind"] == "convolution":
        channels = layer["inputs"][-1]
        return nn.Conv2d(channels, layer["outputs"], layer["kernel"], padding="same", bias=layer["bias"])
    return {"pooling": lambda: nn.MaxPool2d(layer["size"]), "flatten": nn.Flatten, "relu": nn.ReLU}[layer["kind"]]()


CONTENDERS: dict[str, Callable[[Job], list[float]]] = {
    OURS[0]: train_ours,
    OURS[1]: train_ours_not_deterministic,
    "ours, bfloat16": lambda job: train_ours(job, precision="mixed_bfloat16"),
    "model.fit": train_with_fit,
    "products": multiply,
    "products, bfloat16": lambda job: multiply(job, dtype="bfloat16"),
    "PyTorch": train_with_pytorch,
    "PyTorch, channels_last": lambda job: train_with_pytorch(job, channels_last=True),
    "PyTorch, compiled": lambda job: train_with_pytorch(job, compiled=True),
    "PyTorch, channels_last, compiled": lambda job: train_with_pytorch(job, channels_last=True, compiled=True),
}


def compare(name: str, rounds: int, epochs: int, steps: int | None, torch_python: str) -> None:
    """Run the contenders of one net in turns and print the table."""
    net = dataclasses.replace(NETS[name], steps=steps or NETS[name].steps)
    layers = net.layers()
    has_torch = measuring.imports(torch_python, "torch")

    def command(contender: str) -> list[str]:
        python = torch_python if contender.startswith("PyTorch") else sys.executable
        return [python, str(Path(__file__)), "measure", name, contender, json.dumps([net.steps, epochs, layers])]

    contenders = [each for each in net.contenders if has_torch or not each.startswith("PyTorch")]
    print_table(net, layers, measuring.take_turns(rounds, contenders, command))
    if not has_torch:
        print("PyTorch is left out: the interpreter of --torch-python cannot import torch")


def print_table(net: Net, layers: list[Layer], figures: measuring.Figures) -> None:
    operations = training_operations(layers)
    count = net.batch_size * net.steps
    print(f"\n### {net.title}, batch {net.batch_size}: {operations / 1e6:.3g} MFLOP an example, {count:,} an epoch\n")
    titles = ["contender", "examples/s: median", "min", "max", "GFLOP/s"]
    titles += [*(f"{mine} / it" for mine in OURS), "peak, GB"]
    print(f"| {' | '.join(titles)} |\n|---|{'---:|' * (len(titles) - 1)}")
    for contender, results in figures.items():
        median, low, high = measuring.spread(results, "examples_per_second")
        ratios = [measuring.ratio(figures, "examples_per_second", mine, contender) for mine in OURS]
        row = [f"{median:,.0f}", f"{low:,.0f}", f"{high:,.0f}", f"{median * operations / 1e9:.3g}"]
        row += [*(f"{value:.3f}" for value in ratios), f"{measuring.spread(results, 'peak')[0]:.2f}"]
        print(f"| {' | '.join([contender, *row])} |")
    print(f"\n{measuring.load_of_others(figures)}")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        name, contender, told = sys.argv[2:]
        steps, epochs, layers = json.loads(told)
        job = Job(dataclasses.replace(NETS[name], steps=steps), epochs, layers)
        seconds = min(CONTENDERS[contender](job))  # the least disturbed epoch: see README.md
        return print(json.dumps({"examples_per_second": job.examples / seconds, "peak": measuring.peak()}))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS), help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of every contender (default 5)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs in each, of which the fastest counts")
    parser.add_argument("--steps", type=int, help="of an epoch; fewer to try it")
    parser.add_argument("--torch-python", default=sys.executable, metavar="PATH", help="an interpreter with PyTorch")
    options = parser.parse_args()
    for name in options.nets:
        compare(name, options.rounds, options.epochs, options.steps, options.torch_python)


if __name__ == "__main__":
    main()
