"""What of the machine and of TensorFlow's settings the bits of a result depend on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import tensorflow as tf

from mimic_keras.training.private_api import is_onednn_enabled

VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
PROCESSOR_FILE = Path("/proc/cpuinfo")


def describe_machine() -> dict[str, Any]:
    """The processors, the threads and oneDNN, as in environment.json and export.json.

    `processors_usable`: those that this process may use, which `taskset` and containers reduce. Threads: 0 lets
    TensorFlow choose. `onednn`: whether TensorFlow uses oneDNN's kernels; None if this release does not tell. The
    environment's variables are as set, None where they are not.
    """
    return {
        "processor": _processor_model(),
        "processors": os.cpu_count(),
        "processors_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "onednn": is_onednn_enabled(),
        **{name: os.environ.get(name) for name in VARIABLES},
    }


def _processor_model() -> str:
    if PROCESSOR_FILE.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", PROCESSOR_FILE.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
