"""The devices of a run: a tf.distribute strategy from the experiment, and settings of the whole process."""

from __future__ import annotations

import contextlib
import os

import tensorflow as tf

from mimic_keras.contracts import InputError
from mimic_keras.experiment.schema import DistributionSection
from mimic_keras.training import workers


def configure(section: DistributionSection, deterministic: bool) -> None:
    """Apply the settings of the whole process, before TensorFlow computes anything and so fixes the devices.

    float32 means float32: TF32, the tensor cores' format with 10 bits of mantissa, is switched off.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if section.virtual_devices and not tf.config.list_physical_devices("GPU"):
        split_processor(section.virtual_devices)


def make_strategy(section: DistributionSection) -> tf.distribute.Strategy:
    """The strategy of a run.

    auto: mirrored over the GPUs if there are several, else one device. mirrored: all GPUs; on a machine without one,
    `virtual_devices` parts of the processor, so that it can be tried anywhere. multi_worker: mirrored over the GPUs, or
    the processors, of all workers.

    Raises:
        InputError: mirrored without GPUs and without `virtual_devices`; multi_worker: as of `workers.join`.
    """
    if section.strategy == "multi_worker":
        return workers.join(section.workers or 0)
    gpus = tf.config.list_physical_devices("GPU")
    if section.strategy == "one_device" or (section.strategy == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    if gpus:
        return tf.distribute.MirroredStrategy()
    if not section.virtual_devices:
        raise InputError(
            "distribution.strategy: mirrored needs GPUs, and this machine shows none; "
            "accepted here: auto, one_device, or mirrored with virtual_devices: 2"
        )
    return tf.distribute.MirroredStrategy(
        split_processor(section.virtual_devices), cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def count_replicas(section: DistributionSection) -> int:
    """How many devices train a net; of several workers, each with as many GPUs as this process sees."""
    if section.strategy == "multi_worker":
        return (section.workers or 0) * max(1, len(tf.config.list_physical_devices("GPU")))
    return make_strategy(section).num_replicas_in_sync


def split_processor(count: int) -> list[str]:
    """The names of `count` logical devices that share the processor.

    Raises:
        InputError: TensorFlow computes already, with fewer devices; they are chosen only once in a process.
    """
    processor = tf.config.list_physical_devices("CPU")[0]
    with contextlib.suppress(RuntimeError):  # TensorFlow computes already
        if not tf.config.get_logical_device_configuration(processor):
            parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
            tf.config.set_logical_device_configuration(processor, parts)
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(devices) < count:
        raise InputError(
            f"distribution.virtual_devices: {count} wanted, but the processor has been split into {len(devices)} in "
            "this process; that can be done only once, before TensorFlow computes anything"
        )
    return devices[:count]
