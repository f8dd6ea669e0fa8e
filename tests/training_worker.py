"""One of several workers, a process with TF_CONFIG: python -m tests.training_worker FOLDER NAME ...

It makes the trainings of these names, one after another, with their states in FOLDER, and writes FOLDER/NAME.RANK.npz.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from mimic_keras.contracts import MappedSplit
from mimic_keras.training import trainer, workers
from mimic_keras.training.batches import Examples
from mimic_keras.training.checkpoint import Checkpoint
from mimic_keras.training.objective import Objective
from tests import small_training as small


def on_the_disk(count):
    """Examples that Python reads, and so the host prepares."""
    examples = small.data(count)
    inputs = examples.split.batch(tf.range(count, dtype=tf.int64)).numpy()
    return Examples(MappedSplit([inputs], examples.split.labels))


def in_memory(count):
    return small.data(count, unlabelled=10)


LIMITED = {"name": "sgd", "learning_rate": {"of_limit": 0.1}}
# name: (net, objective, examples, settings). 101 = 6 * 16 + 5 gives two replicas 3 and 2 examples of the last batch; 97
# leaves one of them empty.
TRAININGS = {
    "mimic": (small.hidden, Objective(small.LogitL2()), in_memory, 101, small.settings()),
    "empty share": (small.hidden, Objective(small.LogitL2()), in_memory, 97, small.settings(optimizer=small.ADAM)),
    "normalised": (small.normalised, Objective(), in_memory, 101, small.settings(optimizer=small.ADAM, clip_norm=1.0)),
    "on the disk": (small.hidden, Objective(), on_the_disk, 101, small.settings(exponential_moving_average=0.9)),
    "share of the limit": (small.normalised, Objective(), in_memory, 101, small.settings(optimizer=LIMITED)),
    "long": (
        small.noisy,
        Objective(),
        in_memory,
        101,
        small.settings(
            epochs=40,
            optimizer=small.ADAM,
            checkpoint_every=3,
            restore="best",
            schedule={"name": "plateau_halving", "patience": 2, "cooldown": 1, "stop_after": 50},
        ),
    ),
}


def train(name, strategy, state=None):
    tf.config.experimental.enable_op_determinism()  # as a run does, and maybe another test of the process
    build, objective, make, count, settings = TRAININGS[name]
    examples = make(count)
    return trainer.train(build, examples, examples, objective, settings, 3, "net", strategy=strategy, state=state)


def main(folder, names):
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    strategy = workers.join(len(workers.read_cluster(os.environ["TF_CONFIG"]).addresses))
    end, send = Checkpoint.on_epoch_end, Checkpoint._send_again

    def on_epoch_end(self, epoch, logs=None):
        end(self, epoch, logs)
        print("epoch", epoch, flush=True)
        time.sleep(0.02)

    def send_again(self):
        if self._stop is not None:
            print("stopped", self.saved_step, flush=True)
        send(self)

    Checkpoint.on_epoch_end, Checkpoint._send_again = on_epoch_end, send_again
    for name in names:
        trained = train(name, strategy, folder / f"{name}.state.npz")
        arrays = {f"weights{place}": array for place, array in enumerate(trained.model.get_weights())}
        np.savez(folder / f"{name}.{workers.rank_of(strategy)}.npz", **arrays, **trained.history)
    print("done", flush=True)


class Workers:
    """So many processes of `arguments` to Python, each with its TF_CONFIG, their output in `folder`."""

    def __init__(self, folder, *arguments, count=2):
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        for each in sockets:
            each.close()
        self.files = [folder / f"output.{rank}" for rank in range(count)]
        self.processes = []
        for rank, file in enumerate(self.files):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(config), "CUDA_VISIBLE_DEVICES": "-1"}
            with file.open("w") as stream:
                command = [sys.executable, *map(str, arguments)]
                self.processes.append(
                    subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
                )

    def wait(self):
        """The exit codes."""
        return [process.wait() for process in self.processes]

    def outputs(self):
        return [file.read_text() for file in self.files]

    def wait_for(self, text):
        """Until every worker has printed `text`."""
        while not all(text in output for output in self.outputs()):
            assert all(process.poll() is None for process in self.processes), self.outputs()
            time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
