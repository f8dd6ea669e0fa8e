"""Several processes that train one net together: which of them this one is, and what they tell each other.

TF_CONFIG, a variable of the environment, says where they are. The first is the chief: it alone writes files.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mimic_keras.contracts import InputError, RunError

EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
ROLES = ("chief", "worker")
# What TensorFlow raises in the others when a worker ends; which of them depends on what they are doing.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


@dataclass(frozen=True)
class Cluster:
    """`addresses`, HOST:PORT, of all workers, the chief's first; this process is number `rank` of them."""

    addresses: tuple[str, ...]
    rank: int


def read_cluster(text: str) -> Cluster:
    """What TF_CONFIG says, as Kubernetes' TFJob, Vertex AI and TensorFlow's guides write it.

    Raises:
        InputError: it is no JSON, lacks something, or has parameter servers or evaluators.

    Example:
        >>> read_cluster('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}')
        Cluster(addresses=('a:1', 'b:1'), rank=1)
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"TF_CONFIG is no JSON ({error}); expected {EXAMPLE}") from error
    try:
        cluster, role, index = dict(content["cluster"]), str(content["task"]["type"]), content["task"]["index"]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"TF_CONFIG: expected {EXAMPLE}, got {text}") from None
    if others := sorted({*cluster, role} - {*ROLES}):
        raise InputError(f"TF_CONFIG: {', '.join(others)}: expected the roles chief and worker alone; all train alike")
    chiefs, workers = (_read_addresses(cluster, each) for each in ROLES)
    place = int(index) if str(index).isdecimal() else -1
    if len(chiefs) > 1 or not 0 <= place < len(chiefs if role == "chief" else workers):
        raise InputError(f"TF_CONFIG: task {role} {index}: the cluster has {len(chiefs)} chief, {len(workers)} worker")
    return Cluster((*chiefs, *workers), place + (len(chiefs) if role == "worker" else 0))


def _read_addresses(cluster: dict[str, Any], role: str) -> list[str]:
    addresses = cluster.get(role, [])
    if not isinstance(addresses, list) or not all(_is_address(each) for each in addresses):
        raise InputError(f"TF_CONFIG: {role}: expected a list of HOST:PORT, got {addresses!r}")
    return addresses


def _is_address(item: Any) -> bool:
    host, _, port = item.rpartition(":") if isinstance(item, str) else ("", "", "")
    return bool(host) and port.isdecimal()


def join(count: int) -> tf.distribute.Strategy:
    """Wait for all `count` workers of TF_CONFIG; the strategy of all their devices, the same at every call.

    Call it before TensorFlow computes anything in this process.

    Raises:
        InputError: there is no TF_CONFIG, it is wrong, or it has another number of workers.
    """
    text = os.environ.get("TF_CONFIG")
    if text is None:
        raise InputError(
            "distribution.strategy: multi_worker needs TF_CONFIG in the environment of every worker, as TFJob and "
            "Vertex AI set it, or --cluster; accepted without: auto, one_device, mirrored"
        )
    cluster = read_cluster(text)
    if len(cluster.addresses) != count:
        raise InputError(f"distribution.workers: {count}, but TF_CONFIG has {len(cluster.addresses)}")
    return _connect(cluster)


@functools.cache
def _connect(cluster: Cluster) -> tf.distribute.Strategy:
    logging.info("worker %d of %d; waiting for the others", cluster.rank + 1, len(cluster.addresses))
    kinds = tf.distribute.experimental.CommunicationImplementation
    kind = kinds.NCCL if tf.config.list_physical_devices("GPU") else kinds.RING
    options = tf.distribute.experimental.CommunicationOptions(implementation=kind)
    with interruptible():
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        except RuntimeError as error:  # "Collective ops must be configured at program startup"
            raise InputError(
                f"distribution.strategy: multi_worker has to be the first that TensorFlow does in a process: {error}"
            ) from error


def are_several(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def rank_of(strategy: tf.distribute.Strategy) -> int:
    """The place of this process among the workers; 0, the chief's, without others."""
    if not are_several(strategy):
        return 0
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().as_dict()
    return int(resolver.task_id) + (1 if has_chief and resolver.task_type == "worker" else 0)


def gather(strategy: tf.distribute.Strategy, values: Sequence[float]) -> np.ndarray:
    """The values of every worker in their order, float64 [workers, values]; all call it at once, with as many values.

    Raises:
        RunError: a worker has ended.
    """
    if not are_several(strategy):
        return np.array([values], np.float64)
    with noticing_losses(strategy):
        rows = _gatherer(strategy)(tf.constant([rank_of(strategy), *values], tf.float64)).numpy()
    _, first = np.unique(rows[:, 0], return_index=True)  # every replica gives a row
    return rows[first, 1:]


@functools.cache
def _gatherer(strategy: tf.distribute.Strategy) -> Any:
    @tf.function(reduce_retracing=True, autograph=False)
    def gathered(row: tf.Tensor) -> tf.Tensor:
        def of_replica() -> tf.Tensor:
            return tf.distribute.get_replica_context().all_gather(tf.identity(row)[tf.newaxis], axis=0)

        return strategy.experimental_local_results(strategy.run(of_replica))[0]

    return gathered


def exchange(strategy: tf.distribute.Strategy, content: bytes) -> list[bytes]:
    """The content of every worker in their order; all call it at once. Meanwhile a signal has its default effect.

    Raises:
        RunError: a worker has ended.
    """
    with interruptible():
        lengths = gather(strategy, [len(content)])[:, 0].astype(int)
        padded = np.frombuffer(content.ljust(lengths.max(), b"\0"), np.uint8)
        rows = gather(strategy, padded.tolist()).astype(np.uint8) if len(padded) else np.zeros([len(lengths), 0])
    return [row.tobytes()[:length] for row, length in zip(rows, lengths, strict=True)]


def agree(strategy: tf.distribute.Strategy, problem: str) -> None:
    """Go on if no worker has a problem; all call it at once.

    Raises:
        RunError: a worker has; names each of them, with its problem.
    """
    problems = [text.decode(errors="replace") for text in exchange(strategy, problem.encode())]
    if found := [f"worker {rank + 1}: {text}" for rank, text in enumerate(problems) if text]:
        raise RunError("; ".join(found))


@contextlib.contextmanager
def noticing_losses(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Within the block, what TensorFlow raises when another worker has ended becomes a RunError that says so."""
    try:
        yield
    except LOST as error:
        if not are_several(strategy):
            raise
        reason = f"{type(error).__name__}: {error.message}".strip().partition("\n")[0]
        raise RunError(
            "the workers have lost each other: one has ended, and its own messages say why; the same command on every "
            f"worker resumes ({reason})"
        ) from error


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, a signal ends the process at once: Python's handlers would wait for TensorFlow."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) not in (signal.SIG_IGN, None)]
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
