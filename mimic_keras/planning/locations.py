"""Which arguments of an experiment's components are paths."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typing_extensions

from mimic_keras.contracts import InputError
from mimic_keras.experiment.file import Source
from mimic_keras.experiment.paths import anchor
from mimic_keras.experiment.places import Place, substitute
from mimic_keras.planning.plugins import find_plugin, is_type, mentions


def anchor_paths(source: Source) -> Source:
    """A copy in which the paths among the components' arguments are absolute, so that it can be written anywhere.

    Keys do not change: no path is part of one. An experiment without a file is left as it is.
    """
    if source.folder is None:
        return source
    changes: dict[Place, Any] = {}
    transfer, dataset = source.complete.get("transfer"), source.complete.get("dataset")
    parts = list(source.components())
    if isinstance(transfer, dict) and isinstance(dataset, dict):  # arguments of the data set, without its name
        parts.append(("dataset", {**transfer, "name": dataset.get("name")}, Place("transfer")))
    for kind, spec, place in parts:
        changes |= {where: anchor(text, source.folder) for where, text in _find_paths(kind, spec, place)}
    return replace(source, given=substitute(source.given, changes), complete=substitute(source.complete, changes))


def _find_paths(kind: str, spec: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, str]]:
    """(place, text) of every path among the arguments of a component and of those nested in it."""
    try:
        plugin = find_plugin(kind, str(spec.get("name")))
    except InputError:  # which is reported when it is bound
        return
    for key, (hint, _) in plugin.parameters().items():
        value = spec.get(key)
        if key in plugin.nested_parameters and isinstance(value, dict):
            yield from _find_paths("architecture", value, place / key)
        else:
            yield from _paths_of(hint, value, place / key)


def _paths_of(hint: Any, value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str) and is_type(Path, hint):
        yield place, value
    for option in (hint, *typing.get_args(hint)):
        if isinstance(value, dict) and typing_extensions.is_typeddict(option) and mentions(Path, option):
            for key, inner in typing_extensions.get_type_hints(option).items():
                yield from _paths_of(inner, value.get(key), place / key)
