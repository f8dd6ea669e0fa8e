"""A SavedModel's files without what differs between two processes that write the same net.

TensorFlow numbers functions by a counter of the process, and puts a random id into fingerprint.pb.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from mimic_keras.storage.files import write_bytes

GRAPH, FINGERPRINT = "saved_model.pb", "fingerprint.pb"
ARGUMENT = "_user_specified_name"


def normalize(folder: Path) -> None:
    """Number the functions of a SavedModel from 0, and remove fingerprint.pb, which loaders do not need.

    Example:
        >>> normalize(Path("saved_models/digits/1"))
    """
    saved = saved_model_pb2.SavedModel.FromString((folder / GRAPH).read_bytes())
    for graph in saved.meta_graphs:
        _rename(graph, _new_names(graph.graph_def.library.function))
        for function in graph.graph_def.library.function:
            for argument in function.arg_attr.values():
                if ARGUMENT in argument.attr and argument.attr[ARGUMENT].s.isdigit():  # a variable's: a count too
                    del argument.attr[ARGUMENT]
        graph.graph_def.library.function.sort(key=lambda function: function.signature.name)
    write_bytes(folder / GRAPH, saved.SerializeToString(deterministic=True))
    (folder / FINGERPRINT).unlink(missing_ok=True)


def _new_names(functions: Any) -> dict[str, str]:
    """{name: new name}, numbered in the order of the process's counter, which is that of their creation."""
    split = [(name, re.fullmatch(r"(__.*)_(\d+)", name)) for name in (each.signature.name for each in functions)]
    counted = sorted(((int(found[2]), found[1], name) for name, found in split if found))
    return {name: f"{prefix}_{place}" for place, (_, prefix, name) in enumerate(counted)}


def _rename(message: Any, names: dict[str, str]) -> None:
    """Replace every text of a message, at any depth, that is one of `names`."""
    for field, value in message.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            _rename_entries(value, field.message_type.fields_by_name["value"].message_type is not None, names)
        elif field.message_type:
            for each in [value] if hasattr(value, "ListFields") else value:
                _rename(each, names)
        elif field.type == field.TYPE_STRING and isinstance(value, str):
            setattr(message, field.name, names.get(value, value))
        elif field.type == field.TYPE_STRING:
            value[:] = [names.get(each, each) for each in value]


def _rename_entries(entries: Any, of_messages: bool, names: dict[str, str]) -> None:
    """The same for a map: its keys and its values."""
    for value in entries.values() if of_messages else ():
        _rename(value, names)
    if not names.keys().isdisjoint(entries):
        kept = {key: copy.deepcopy(value) for key, value in entries.items()}
        entries.clear()
        for key, value in kept.items():
            if of_messages:
                entries[names.get(key, key)].CopyFrom(value)
            else:
                entries[names.get(key, key)] = names.get(value, value)
