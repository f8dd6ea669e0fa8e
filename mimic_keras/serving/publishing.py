"""Versions below a base path that TensorFlow Serving watches: each appears complete, and none is ever changed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from mimic_keras.contracts import InputError, unique_name
from mimic_keras.storage.files import sync_folder, sync_tree, write_bytes

RECORD = "export.json"  # in every version: what it was made from, and the digests of its files
HIDDEN = ".partial-"  # the server only serves folders whose names are numbers
LARGEST_VERSION = 2**63 - 1  # the server's numbers have 64 bits; it passes over larger ones
BATCHING = """\
# Parameters of the server's batching: --enable_batching --batching_parameters_file=/models/{name}/batching.config
# A request waits up to batch_timeout_micros for others; set num_batch_threads to the number of processors.
max_batch_size {{ value: 64 }}
batch_timeout_micros {{ value: 1000 }}
max_enqueued_batches {{ value: 1000 }}
num_batch_threads {{ value: 4 }}
{pad}"""
PAD = "pad_variable_length_inputs: true  # utterances of different lengths, which their `lengths` tell apart\n"


def list_versions(base: Path) -> list[int]:
    """The versions below `base`, in order."""
    return sorted(number for path in base.iterdir() if path.is_dir() and (number := _number(path)) is not None)


def next_version(base: Path) -> int:
    """The number of the version to publish next below `base`.

    Raises:
        InputError: no larger number is left, or a file has one: the server would take it for the newest version.
    """
    newest = max(list_versions(base), default=0)
    for path in sorted(base.iterdir()):
        if not path.is_dir() and (_number(path) or 0) > newest:
            raise InputError(f"{path}: expected the folder of a version, got a file; the server would try to load it")
    if newest == LARGEST_VERSION:
        raise InputError(f"{base / str(newest)}: no version can follow the largest that the server takes; remove it")
    return newest + 1


def _number(path: Path) -> int | None:
    """The version that the server takes `path` for; None if for none."""
    number = int(path.name) if re.fullmatch("[0-9]{1,100}", path.name) else LARGEST_VERSION + 1
    return number if number <= LARGEST_VERSION else None


def publish(base: Path, fill: Callable[[Path], None]) -> Path:
    """Have `fill(folder)` write the next version below `base`; returns its folder.

    A crash at any moment leaves the versions as they were and at most a hidden folder, which the next call removes.
    Only one process may publish at a time.

    Raises:
        InputError: there can be no next version.
        OSError: another process has published the version.

    Example:
        >>> publish(Path("saved_models/digits"), lambda folder: saved_model.write(folder, net, info, {})).name
        '1'
    """
    for abandoned in base.glob(f"{HIDDEN}*"):
        shutil.rmtree(abandoned)
    version = base / str(next_version(base))
    hidden = base / f"{HIDDEN}{unique_name()}"
    hidden.mkdir()  # not mkdtemp, whose folder is its owner's alone: the umask decides whether the server may read it
    try:
        fill(hidden)
        sync_tree(hidden)
        hidden.rename(version)  # fails, rather than overwrites, where the version exists
        sync_folder(base)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return version


def write_server_files(base: Path, pads: bool) -> None:
    """Write `models.config` and `batching.config` beside the versions, for a server that mounts `base` as /models/NAME.

    Existing files are left alone, since they may have been edited. `pads`: requests in a batch may differ in length.
    """
    configuration = model_server_config_pb2.ModelServerConfig()
    configuration.model_config_list.config.add(
        name=base.name, base_path=f"/models/{base.name}", model_platform="tensorflow"
    )
    contents = {
        "models.config": text_format.MessageToString(configuration),
        "batching.config": BATCHING.format(name=base.name, pad=PAD if pads else ""),
    }
    for name, content in contents.items():
        if not (base / name).exists():
            write_bytes(base / name, content.encode())
