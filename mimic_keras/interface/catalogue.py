"""The plugins: list them without importing an installed one, describe one, find those that are broken, test one."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mimic_keras.contracts import InputError
from mimic_keras.experiment.problems import describe_type
from mimic_keras.planning.plugins import GROUPS, GivenPlugin, Plugin, find_plugin, known

IMPORT = """
import sys
from mimic_keras.contracts import InputError, RunError
from mimic_keras.planning.plugins import installed
try:
    installed(sys.argv[1])[sys.argv[2]].parameters()
except (InputError, RunError) as error:
    sys.exit(str(error))
"""


def list_plugins() -> list[tuple[str, Plugin]]:
    """(the name that an experiment writes, the plugin) of every kind."""
    return [(name, plugin) for kind in GROUPS for name, plugin in known(kind).items()]


def format_plugins() -> Iterator[str]:
    """One line per plugin: kind, name, distribution and version, summary."""
    rows = [(plugin.kind, name, plugin.origin, plugin.summary) for name, plugin in list_plugins()]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        yield "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]).rstrip()


def describe_component(component: str) -> Iterator[str]:
    """The lines of the documentation and parameters of "kind/name".

    Raises:
        InputError: there is no such component.
    """
    kind, slash, name = component.partition("/")
    if not slash or kind not in GROUPS:
        raise InputError(f"{component!r}: expected KIND/NAME, as loss/temperature; kinds: {', '.join(GROUPS)}")
    plugin = find_plugin(kind, name)
    parameters = plugin.parameters()
    yield f"{plugin}: {plugin.summary}"
    yield ""
    yield inspect.getdoc(plugin.target) or "It has no documentation."
    yield ""
    rows = [
        (key, describe_type(hint), "required" if default is inspect.Parameter.empty else f"default {default!r}")
        for key, (hint, default) in parameters.items()
    ]
    width = max((len(row[0]) for row in rows), default=0)
    yield "\n".join(f"  {key.ljust(width)}  {hint}; {default}" for key, hint, default in rows) or "No parameters."


def find_broken() -> dict[str, str]:
    """{kind/name: reason} of the components that cannot be imported; each is tried in a process of its own."""

    def reason(entry: tuple[str, Plugin]) -> str | None:
        name, plugin = entry
        command = [sys.executable, "-P", "-c", IMPORT, plugin.kind, name]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
        if done.returncode == 0:
            return None
        if done.returncode < 0:
            return f"importing it kills the process (signal {-done.returncode})"
        return (done.stderr.strip().splitlines() or ["no message"])[-1]

    entries = list_plugins()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = list(pool.map(reason, entries))
    return {f"{plugin.kind}/{name}": why for (name, plugin), why in zip(entries, reasons, strict=True) if why}


@dataclass(frozen=True)
class ContractResult:
    """Whether a component keeps its contract, and a line that says so or why not."""

    is_kept: bool
    summary: str


def check_contract(plugin: GivenPlugin) -> ContractResult:
    """Test a component with its default arguments against the rules of `mimic_keras.testing`."""
    from mimic_keras.testing import RULES
    from mimic_keras.testing.rules import BrokenRuleError, Subject

    needed = [name for name, (_, default) in plugin.parameters().items() if default is inspect.Parameter.empty]
    if needed:
        return ContractResult(True, f"not tested: {', '.join(needed)} must be given; mimic_keras.testing can give them")
    rules = RULES[plugin.kind]
    for rule in rules:
        with tempfile.TemporaryDirectory() as folder:
            try:
                Subject(plugin, {}).check(rule, Path(folder))
            except BrokenRuleError as error:
                return ContractResult(False, " ".join(str(error).split()))
    return ContractResult(True, f"ok, {len(rules)} rules")
