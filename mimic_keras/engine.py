"""Functions computed on a Ray cluster; the only file that imports Ray.

A function whose worker or machine dies is computed again elsewhere; so is one that several workers compute together, by
all of them. What they compute is none of this file's business.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, wait
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mimic_keras.contracts import InputError, MimicError, RunError, unique_name

MOST_ATTEMPTS = 3
SECONDS_FOR_PLACES = 1
SECONDS_FOR_DEATHS = 10.0  # within which the death is known that is the reason for another worker's error


class WorkerDied(RunError):
    """The workers that computed one task died, MOST_ATTEMPTS times."""


@dataclass(frozen=True)
class Resources:
    """What Ray reserves for one task. A reservation limits nothing: TensorFlow uses every processor of its machine.

    Raises:
        InputError: Ray cannot reserve so many: 0 processors, less than 0, or a part of more than one.
    """

    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        for name, number in (("cpus_per_task", self.cpus), ("gpus_per_task", self.gpus)):
            is_whole_or_part = 0 <= number <= 1 or (number > 1 and float(number).is_integer())
            if not is_whole_or_part or (name == "cpus_per_task" and not number):
                least = "above 0" if name == "cpus_per_task" else "of at least 0"
                raise InputError(f"--{name}: expected a number {least}, whole if it is above 1; got {number:g}")

    def options(self) -> dict[str, float]:
        """As Ray takes them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    def count_fitting(self, node: dict[str, float]) -> int:
        """How many tasks a machine with these resources takes at once."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return min(int(node.get(name, 0) / number) for name, number in wanted.items() if number)


class _Board:
    """An actor of the cluster, which knows what is computed where."""

    def __init__(self) -> None:
        self._places: dict[int, str] = {}

    def begin(self, number: int, machine: str) -> None:
        self._places[number] = machine

    def end(self, number: int) -> None:
        self._places.pop(number, None)

    def read(self) -> dict[int, str]:
        return self._places


def _compute(board: Any, number: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a worker does. Nobody waits for the board."""
    board.begin.remote(number, socket.gethostname())
    try:
        return function(*arguments)
    finally:
        board.end.remote(number)


class Engine:
    """A Ray cluster that this process is connected to. `dashboard` is the address of Ray's own page, if it has one."""

    def __init__(self, ray: ModuleType, resources: Resources, dashboard: str | None):
        self._ray, self._resources, self.dashboard = ray, resources, dashboard
        self._board = ray.remote(_Board).options(num_cpus=0).remote()
        self._guard, self._waiting, self._is_closed = threading.Lock(), set[Future[Any]](), False

    @property
    def slots(self) -> int:
        """How many tasks the cluster computes at once."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return sum(map(self._resources.count_fitting, nodes))

    def find_places(self) -> dict[int, str]:
        """{number of a call: machine} of what is computed at the moment; {} if the cluster does not say soon."""
        with self._guard:
            if self._is_closed:  # Ray would start a cluster of its own
                return {}
            future = self._board.read.remote().future()
        try:
            found: dict[int, str] = future.result(SECONDS_FOR_PLACES)
        except Exception:  # it is a view: the calls themselves say what is wrong
            return {}
        return found

    def call(self, number: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `function(*arguments)`, computed by a worker; any thread may wait for one. `find_places` knows
        the call by its `number`.

        Raises:
            WorkerDied: its worker died MOST_ATTEMPTS times.
            RunError: the function raised an error, or the connection is closed.
        """
        future = self._submit(number, function, *arguments)
        errors = self._ray.exceptions
        try:
            return future.result()
        except errors.RayTaskError as error:
            raise RunError(f"a worker of the cluster failed: {error.cause!r}") from error
        except errors.RayError as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise WorkerDied(f"its worker died {MOST_ATTEMPTS} times; the last time: {reason}") from error
        except CancelledError as error:
            raise RunError("the connection to the cluster is closed") from error

    def _submit(self, *arguments: Any) -> Future[Any]:
        with self._open():
            options = self._resources.options()
            task = self._ray.remote(_compute).options(**options, max_retries=MOST_ATTEMPTS - 1)
            return self._note(task.remote(self._board, *arguments))

    def gang(self, number: int, function: Callable[..., Any], workers: int, *arguments: Any) -> Any:
        """The result of the first of `workers` calls `function(addresses, rank, *arguments)`, which are computed at the
        same time, each in a new process. `addresses`, HOST:PORT, of all; `rank`: the place of a call among them.
        `number` as of `call`.

        If a worker dies, all compute again.

        Raises:
            InputError: the cluster has fewer slots.
            WorkerDied: workers died MOST_ATTEMPTS times.
            RunError: the function raised an error, or the connection is closed.
        """
        if self.slots < workers:
            raise InputError(f"distribution.workers: {workers}, but the cluster computes {self.slots} tasks at once")
        for _ in range(MOST_ATTEMPTS):
            try:
                return self._compute_together(number, function, workers, arguments)
            except self._ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, MimicError):
                    raise error.cause from error
                raise RunError(f"a worker of the cluster failed: {error.cause!r}") from error
            except self._ray.exceptions.RayError as error:
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            except CancelledError as error:
                raise RunError("the connection to the cluster is closed") from error
        raise WorkerDied(f"one of its {workers} workers died, {MOST_ATTEMPTS} times; the last time: {reason}")

    def _compute_together(
        self, number: int, function: Callable[..., Any], workers: int, arguments: Sequence[Any]
    ) -> Any:
        """One attempt of `gang`."""
        with self._reserving(workers) as ranks:
            with self._open():
                found = [self._note(each.find_address.remote()) for each in ranks]
            addresses = [each.result() for each in found]
            with self._open():
                what = (self._board, number, function, addresses)
                results = [self._note(each.compute.remote(*what, rank, *arguments)) for rank, each in enumerate(ranks)]
            return self._first_result(results)

    @contextlib.contextmanager
    def _reserving(self, workers: int) -> Iterator[list[Any]]:
        """Within the block, so many new processes that start together: handles of `_Rank`."""
        from ray.util.placement_group import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        needed = {"CPU": self._resources.cpus, "GPU": self._resources.gpus}
        bundle = {name: number for name, number in needed.items() if number}
        with self._open():
            group = placement_group([bundle] * workers, strategy="SPREAD")
            reserved = self._note(group.ready())
        try:
            reserved.result()
            # A variable of its own: Ray would reuse processes, and TensorFlow chooses its devices once in each.
            new = {"runtime_env": {"env_vars": {"MIMIC_KERAS_GANG": unique_name()}}}
            options = {**self._resources.options(), **new}
            places = [PlacementGroupSchedulingStrategy(group, index) for index in range(workers)]
            with self._open():
                rank = self._ray.remote(_Rank)
                started = [rank.options(**options, scheduling_strategy=place).remote() for place in places]
            yield started
        finally:
            with contextlib.suppress(RunError), self._open():
                remove_placement_group(group)  # and end its processes

    def _first_result(self, results: Sequence[Future[Any]]) -> Any:
        """That of the first; an error of any ends the others. A death is the reason for others' errors, so that it
        comes first."""
        done, others = wait(results, return_when=FIRST_EXCEPTION)
        if any(each.exception() for each in done):
            done |= wait(others, timeout=SECONDS_FOR_DEATHS).done
        errors = [error for each in results if each in done and (error := each.exception())]
        for error in sorted(errors, key=lambda each: isinstance(each, self._ray.exceptions.RayTaskError)):
            raise error
        return results[0].result()

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """Within the block, the connection stays open."""
        with self._guard:
            if self._is_closed:  # Ray would start a cluster of its own
                raise RunError("the connection to the cluster is closed")
            yield

    def _note(self, reference: Any) -> Future[Any]:
        """What is to be cancelled when the connection is closed, until it is done."""
        future: Future[Any] = reference.future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def close(self) -> None:
        """Stop what is under way, and then end the calls that wait for it."""
        with self._guard:
            self._is_closed = True
        self._ray.shutdown()
        for future in list(self._waiting):
            future.cancel()


class _Rank:
    """A process of a gang."""

    def find_address(self) -> str:
        """HOST:PORT, which nobody uses."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.socket() as found:
            found.bind((host, 0))
            return f"{host}:{found.getsockname()[1]}"

    def compute(self, *arguments: Any) -> Any:
        return _compute(*arguments)


@contextlib.contextmanager
def connected(address: str, resources: Resources) -> Iterator[Engine]:
    """Within the block, this process is connected to the cluster at `address`, as Ray takes it: "auto", or HOST:PORT.

    Raises:
        InputError: Ray is not installed, this process uses a cluster already, no cluster answers, or none of its
            machines has the resources of a task.
    """
    ray = import_ray()
    if ray.is_initialized():
        raise InputError("this program is connected to a Ray cluster already; ray.shutdown() ends that")
    with _keeping_handlers():
        try:
            context = ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            message = f"--cluster {address}: no Ray cluster answers there; ray start --head starts one"
            raise InputError(f"{message} ({reason})") from error
    engine = Engine(ray, resources, context.dashboard_url)
    try:
        if not engine.slots:
            machines = [{name: node["Resources"].get(name, 0) for name in ("CPU", "GPU")} for node in ray.nodes()]
            wanted = f"--cpus_per_task {resources.cpus:g} --gpus_per_task {resources.gpus:g}"
            raise InputError(f"{wanted}: no machine of the cluster has so many; they have {machines}")
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def _keeping_handlers() -> Iterator[None]:
    """Keep Ray from ending the process at a signal, without a message."""
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def import_ray() -> ModuleType:
    """Ray itself.

    Raises:
        InputError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("--cluster needs Ray, which is not installed: pip install 'mimic-keras[ray]'") from error
    return ray
