"""Work in a process of its own, since native code that is given something wrong can bring its process down.

The process says in lines of JSON where it is, and how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mimic_keras.contracts import RunError


class ProcessError(RunError):
    """The process raised an error, or died: then `died_at` says what it was at, else it is None."""

    def __init__(self, message: str, died_at: str | None = None):
        super().__init__(message)
        self.died_at = died_at


def call(module: str, *arguments: Path | str, variables: Mapping[str, str] | None = None) -> Any:
    """What `run(function)` of `python -m module arguments` hands over; `variables` are added to its environment.

    Raises:
        ProcessError: the message is its error's, or says which signal it died of and where.

    Example:
        >>> call("mimic_keras.serving.verification", Path("saved_models/quickstart/1"))["warmup_requests"]
        4
    """
    command = [sys.executable, "-P", "-m", module, *map(str, arguments)]
    environment = {**os.environ, **(variables or {})}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        said, complaints = process.communicate()
    lines: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    last: dict[str, Any] = lines[-1] if lines else {"at": "the start"}
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise ProcessError(f"the process died ({name}) at {last['at']}", last["at"])
    if "result" not in last:
        raise ProcessError(last.get("failure") or (complaints.strip().splitlines() or ["no message"])[-1])
    return last["result"]


def run(function: Callable[[Callable[[str], None]], Any]) -> None:
    """Be the process: `function(at)` does the work and returns the result; it calls `at(what)` before each step."""
    # Libraries print to stdout, also from C++: the lines have a descriptor of their own.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)

        def say(line: dict[str, Any]) -> None:
            print(json.dumps(line), file=channel, flush=True)

        try:
            result = function(lambda what: say({"at": what}))
        except RunError as error:
            say({"failure": str(error)})
            sys.exit(1)
        say({"result": result})
