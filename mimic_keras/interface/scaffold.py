"""`mimic-keras new`: a complete plugin package to start from, with tests that pass."""

from __future__ import annotations

import importlib.metadata
import keyword
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2

from mimic_keras.contracts import InputError
from mimic_keras.planning.plugins import GROUPS

# How an experiment uses the component.
USAGE = {
    "loss": "loss: {{name: {name}}}",
    "architecture": "architecture: {{name: {name}}}",
    "teacher": "teacher: {{name: {name}, architecture: {{name: mlp, hidden_units: [100]}}}}",
    "dataset": "dataset: {{name: {name}, file: points.txt}}",
}


@dataclass(frozen=True)
class Change:
    """What to change in a new package: the part, and lines of it with others in their place, as an example."""

    what: str
    old: str
    new: str


CHANGES = {
    "loss": Change(
        "the formula, `call`",
        "        return ops.mean(ops.abs(student_logits - teacher_logits) ** self.power, axis=-1)",
        "        errors = ops.log(1.0 + ops.abs(student_logits - teacher_logits) ** self.power)\n"
        "        return ops.mean(errors, axis=-1)",
    ),
    "architecture": Change(
        "the layers between input and logits",
        '    x = layers.Dense(units, activation="relu")(x)',
        '    x = layers.Dense(units, activation="gelu")(x)\n    x = layers.Dense(units, activation="gelu")(x)',
    ),
    "teacher": Change(
        "what a member learns from, in `member`",
        "        drawn = random.integers(0, split.num_examples, split.num_examples)",
        "        drawn = random.permutation(split.num_examples)[: split.num_examples // 2]",
    ),
    "dataset": Change(
        "the format of the file, `COLUMNS`, `CLASSES` and `prepare`",
        'COLUMNS = 2\nCLASSES = ("left", "right")',
        'COLUMNS = 4\nCLASSES = ("low", "middle", "high")',
    ),
}


def create_package(kind: str, name: str, into: Path) -> Path:
    """Write a distribution called `name` into a new folder below `into`; returns the folder.

    Raises:
        InputError: the name cannot name a Python package, or the folder exists.
    """
    module = name.replace("-", "_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module) or keyword.iskeyword(module):
        raise InputError(f"{name!r} cannot name a package: expected letters, digits, '-' and '_', a letter first")
    folder = into / module.replace("_", "-")
    if folder.exists():
        raise InputError(f"{folder} exists already")
    major, minor = importlib.metadata.version("mimic-keras").split(".")[:2]
    target = module if kind == "architecture" else "".join(part.capitalize() for part in module.split("_"))
    values = {
        "kind": kind,
        "usage": USAGE[kind].format(name=module),
        "change": CHANGES[kind],
        "name": module,
        "module": module,
        "distribution": folder.name,
        "group": GROUPS[kind],
        "target": target,
        "requirement": f">={major}.{minor},<{major}.{int(minor) + 1}",
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mimic_keras.interface"),
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}/__init__.py": f"{kind}.py",
        f"tests/test_{module}.py": f"test_{kind}.py",
    }
    for file, template in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        text = environment.get_template(f"{template}.jinja").render(values)
        (folder / file).write_text(text, encoding="utf-8")
    (folder / module / "py.typed").touch()
    return folder
