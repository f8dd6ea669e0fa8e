"""The four contracts as tests that run. The whole test file of a plugin:

    from mimic_keras.testing import conformance

    test_conformance = conformance("mimic-keras-my-loss")

Every component of the distribution is tested against the rules of its kind; a rule's docstring is its specification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mimic_keras.planning.plugins import GROUPS, installed
from mimic_keras.testing import architectures, datasets, losses, teachers
from mimic_keras.testing.rules import Arguments, Rule, Subject

RULES: dict[str, tuple[Rule, ...]] = {
    "loss": losses.RULES,
    "architecture": architectures.RULES,
    "dataset": datasets.RULES,
    "teacher": teachers.RULES,
}


def conformance(
    distribution: str,
    arguments: Mapping[str, Arguments] | None = None,
    skip: Mapping[str, str] | None = None,
) -> Callable[..., None]:
    """A pytest test of every component of an installed distribution, with a case for each rule.

    Args:
        distribution: its name, as in its pyproject.toml.
        arguments: {"architecture/mlp": {"hidden_units": [8]}}: the component's arguments, as an experiment would write
            them; needed where its defaults do not do. A function of a temporary folder that returns them may write fake
            files there first. For architectures and teachers `input_shape` and `num_classes` may be among them; their
            defaults are (8, 8, 3) and 5.
        skip: {"dataset/faces: two_reads_are_identical": "why"}: rules that cannot be kept. pytest reports the reason.

    Raises:
        ValueError: the distribution is not installed or has no component, or `arguments` or `skip` names one that does
            not exist.

    Example:
        >>> test_conformance = conformance("my-plugins", {"architecture/wide": {"hidden_units": [8]}})
    """
    import pytest

    arguments, skip = dict(arguments or {}), dict(skip or {})
    subjects = [
        Subject(plugin, arguments.pop(f"{kind}/{plugin.name}", {}))
        for kind in GROUPS
        for plugin in installed(kind).values()
        if _is_same_distribution(plugin.distribution, distribution)
    ]
    if not subjects:
        raise ValueError(f"{distribution} is not installed, or has no entry point in {', '.join(GROUPS.values())}")
    cases = [(subject, rule) for subject in subjects for rule in RULES[subject.plugin.kind]]
    names = {f"{subject.name}: {rule.__name__}" for subject, rule in cases}
    unknown = [*arguments, *(name for name in skip if name not in names)]
    if unknown:
        raise ValueError(f"{distribution} has no {', '.join(unknown)}; it has {', '.join(sorted(names))}")

    def parameter(subject: Subject, rule: Rule) -> Any:
        name = f"{subject.name}: {rule.__name__}"
        marks = [pytest.mark.skip(reason=skip[name])] if name in skip else []
        return pytest.param(subject, rule, id=name, marks=marks)

    @pytest.mark.parametrize(("subject", "rule"), [parameter(*case) for case in cases])
    def test_conformance(subject: Subject, rule: Rule, tmp_path: Path) -> None:
        __tracebackhide__ = True
        subject.check(rule, tmp_path)

    return test_conformance


def _is_same_distribution(one: str, other: str) -> bool:
    """Whether two names are one distribution's, by PyPA's name normalisation."""
    return one.lower().replace("_", "-").replace(".", "-") == other.lower().replace("_", "-").replace(".", "-")
