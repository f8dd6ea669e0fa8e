"""Versions below a base path that TensorFlow Serving watches: each appears complete, and none is ever changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from mimic_keras.contracts import unique_name
from mimic_keras.storage.files import sync_folder, sync_tree, write_bytes

HIDDEN = ".partial-"  # the server only serves folders whose names are numbers
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
    return sorted(int(path.name) for path in base.iterdir() if path.is_dir() and path.name.isdecimal())


def publish(base: Path, fill: Callable[[Path], None]) -> Path:
    """Have `fill(folder)` write the next version below `base`; returns its folder.

    A crash at any moment leaves the versions as they were and at most a hidden folder, which the next call removes.
    Only one process may publish at a time.

    Raises:
        OSError: another process has published the version.

    Example:
        >>> publish(Path("saved_models/digits"), lambda folder: saved_model.write(folder, net, info, {})).name
        '1'
    """
    for abandoned in base.glob(f"{HIDDEN}*"):
        shutil.rmtree(abandoned)
    version = base / str(max(list_versions(base), default=0) + 1)
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
