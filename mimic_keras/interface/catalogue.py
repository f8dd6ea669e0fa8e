"""What is installed: listing plugins without importing any, showing one, and finding out which are broken."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from mimic_keras.contracts import InputError
from mimic_keras.planning.components import GROUPS, Plugin, find, installed

IMPORT = """
import sys
from mimic_keras.contracts import InputError, RunError
from mimic_keras.planning.components import installed
try:
    installed(sys.argv[1])[sys.argv[2]].parameters()
except (InputError, RunError) as error:
    sys.exit(str(error))
"""


def everything() -> list[tuple[str, Plugin]]:
    """(the name that an experiment writes, the plugin) of every kind."""
    return [(name, plugin) for kind in GROUPS for name, plugin in installed(kind).items()]


def listed() -> Iterator[str]:
    """A line for each: kind, name, distribution and version, summary."""
    rows = [
        (plugin.kind, name, f"{plugin.distribution} {plugin.version}", plugin.summary) for name, plugin in everything()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        yield "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]).rstrip()


def shown(component: str) -> Iterator[str]:
    """The documentation and the parameters of "kind/name".

    Raises:
        InputError: there is none.
    """
    from mimic_keras.experiment.problems import describe

    kind, slash, name = component.partition("/")
    if not slash or kind not in GROUPS:
        raise InputError(f"{component!r}: expected KIND/NAME, as loss/temperature; kinds: {', '.join(GROUPS)}")
    plugin = find(kind, name)
    parameters = plugin.parameters()
    yield f"{plugin}: {plugin.summary}"
    yield ""
    yield inspect.getdoc(plugin.target) or "It has no documentation."
    yield ""
    rows = [
        (key, describe(hint), "required" if default is inspect.Parameter.empty else f"default {default!r}")
        for key, (hint, default) in parameters.items()
    ]
    width = max((len(row[0]) for row in rows), default=0)
    yield "\n".join(f"  {key.ljust(width)}  {hint}; {default}" for key, hint, default in rows) or "No parameters."


def broken() -> dict[str, str]:
    """{kind/name: why} of what can not be imported; each is tried in a process of its own."""

    def reason(entry: tuple[str, Plugin]) -> str | None:
        name, plugin = entry
        command = [sys.executable, "-c", IMPORT, plugin.kind, name]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
        if done.returncode == 0:
            return None
        if done.returncode < 0:
            return f"importing it kills the process (signal {-done.returncode})"
        return (done.stderr.strip().splitlines() or ["no message"])[-1]

    entries = everything()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = list(pool.map(reason, entries))
    return {f"{plugin.kind}/{name}": why for (name, plugin), why in zip(entries, reasons, strict=True) if why}
