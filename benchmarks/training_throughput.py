"""Examples per second of our trainer against plain `model.fit`, the bare matrix products and PyTorch, in turns."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring

if TYPE_CHECKING:
    import keras

OURS = ("ours", "ours, not deterministic")  # the first is how the program trains unless told otherwise


@dataclass(frozen=True)
class Net:
    """A fully connected student and an epoch of its training; `linear_units` is the bottleneck's width, if any."""

    title: str
    input_shape: tuple[int, ...]
    num_classes: int
    linear_units: int | None
    hidden_units: list[int]
    batch_size: int
    steps: int
    contenders: tuple[str, ...]

    @property
    def examples(self) -> int:
        return self.batch_size * self.steps

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of every fully connected layer."""
        inputs = 1
        for size in self.input_shape:
            inputs *= size
        linear = [self.linear_units] if self.linear_units else []
        return list(itertools.pairwise([inputs, *linear, *self.hidden_units, self.num_classes]))

    @property
    def operations(self) -> int:
        """Floating-point operations of training on one example."""
        return measuring.training_operations(self.layers)

    def build(self) -> keras.Model:
        from mimic_keras_architectures import bottleneck, mlp

        if self.linear_units is None:
            return mlp(self.input_shape, self.num_classes, hidden_units=self.hidden_units)
        arguments = {"linear_units": self.linear_units, "hidden_units": self.hidden_units}
        return bottleneck(self.input_shape, self.num_classes, **arguments)


KERAS = (*OURS, "model.fit")
NETS = {
    "bottleneck": Net(
        "1845-250L-8000-183, batch 512", (15, 123), 183, 250, [8000], 512, 20, (*KERAS, "matrix products", "PyTorch")
    ),
    "small": Net("64-64-10, batch 128", (8, 8, 1), 10, None, [64], 128, 1600, KERAS),
}


def train_ours(net: Net, epochs: int) -> list[float]:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    return train_ours_not_deterministic(net, epochs)


def train_ours_not_deterministic(net: Net, epochs: int) -> list[float]:
    inputs, logits = measuring.random_examples(net.examples, net.input_shape, net.num_classes)
    return measuring.our_epochs(net.build, inputs, logits, net.batch_size, epochs)


def train_with_fit(net: Net, epochs: int) -> list[float]:
    import keras
    from mimic_keras_losses import LogitL2

    keras.utils.set_random_seed(measuring.SEED)
    inputs, logits = measuring.random_examples(net.examples, net.input_shape, net.num_classes)
    model = net.build()
    optimizer = keras.optimizers.SGD(measuring.LEARNING_RATE, momentum=measuring.MOMENTUM)
    model.compile(optimizer=optimizer, loss=LogitL2(), jit_compile=False)
    return measuring.fit_epochs(model, inputs, logits, net.batch_size, epochs)


def multiply_matrices(net: Net, epochs: int) -> list[float]:
    step = measuring.matrix_products(net.layers, net.batch_size)

    def epoch() -> None:
        for _ in range(net.steps):
            outputs = step()
        outputs[-1].numpy()

    return measuring.repeated(epoch, epochs)


def train_with_pytorch(net: Net, epochs: int) -> list[float]:
    """Eager, on tensors in memory, with as many threads as this process has processors."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(measuring.SEED)
    x, z = map(torch.from_numpy, measuring.random_examples(net.examples, net.input_shape, net.num_classes))
    modules: list[Any] = [torch.nn.Flatten()]
    for number, (before, after) in enumerate(net.layers):
        linear = number == 0 and net.linear_units is not None
        modules.append(torch.nn.Linear(before, after, bias=not linear))
        if not linear and number < len(net.layers) - 1:
            modules.append(torch.nn.ReLU())
    model = torch.nn.Sequential(*modules)
    optimizer = torch.optim.SGD(model.parameters(), lr=measuring.LEARNING_RATE, momentum=measuring.MOMENTUM)

    def epoch() -> None:
        for ids in torch.randperm(net.examples).split(net.batch_size):
            optimizer.zero_grad()
            loss = 0.5 * (model(x[ids]) - z[ids]).square().sum(-1).mean()
            loss.backward()
            optimizer.step()
        loss.item()

    return measuring.repeated(epoch, epochs)


CONTENDERS: dict[str, Callable[[Net, int], list[float]]] = {
    OURS[0]: train_ours,
    OURS[1]: train_ours_not_deterministic,
    "model.fit": train_with_fit,
    "matrix products": multiply_matrices,
    "PyTorch": train_with_pytorch,
}


def measure(net: Net, contender: str, epochs: int) -> None:
    """The hidden sub-command: run one contender in this process and print a JSON object."""
    seconds = min(CONTENDERS[contender](net, epochs))  # the least disturbed epoch: see README.md
    print(json.dumps({"examples_per_second": net.examples / seconds, "epoch_seconds": seconds}))


def compare(name: str, rounds: int, epochs: int, torch_python: str) -> None:
    """Run the contenders of one net in turns and print the table."""
    net, absent = NETS[name], set()
    if "PyTorch" in net.contenders and not imports_torch(torch_python):
        print("PyTorch is left out: the interpreter of --torch-python cannot import torch")
        absent = {"PyTorch"}

    def command(contender: str) -> list[str]:
        python = torch_python if contender == "PyTorch" else sys.executable
        return [python, str(Path(__file__)), "measure", name, contender, str(epochs)]

    contenders = [contender for contender in net.contenders if contender not in absent]
    print_table(net, measuring.take_turns(rounds, contenders, command))


def imports_torch(python: str) -> bool:
    return subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 0


def print_table(net: Net, figures: measuring.Figures) -> None:
    print(f"\n{net.title}: {net.operations / 1e6:.3g} MFLOP an example, epochs of {net.examples:,} examples\n")
    print(f"| contender | examples/s: median | min | max | GFLOP/s | {' | '.join(f'{mine} / it' for mine in OURS)} |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for contender, results in figures.items():
        median, low, high = measuring.spread(results, "examples_per_second")
        ratios = [measuring.ratio(figures, "examples_per_second", mine, contender) for mine in OURS]
        row = [f"{median:,.0f}", f"{low:,.0f}", f"{high:,.0f}", f"{median * net.operations / 1e9:.3g}"]
        print(f"| {' | '.join([contender, *row, *(f'{value:.3f}' for value in ratios)])} |")
    print(f"\n{measuring.load_of_others(figures)}")


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        name, contender, epochs = sys.argv[2:]
        return measure(NETS[name], contender, int(epochs))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS), help="default: both")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of every contender (default 5)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs in each, of which the fastest counts")
    parser.add_argument("--torch-python", default=sys.executable, metavar="PATH", help="an interpreter with PyTorch")
    options = parser.parse_args()
    for name in options.nets:
        compare(name, options.rounds, options.epochs, options.torch_python)


if __name__ == "__main__":
    main()
