"""The `training` section of the experiment file: how one net is trained."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from mimic_keras.experiment.optimizers import AnyOptimizer
from mimic_keras.experiment.sections import Fraction, NotNegative, Positive, Rate, Section


class ConstantRate(Section):
    name: Literal["constant"] = "constant"


class CosineDecay(Section):
    """Half a cosine over all epochs, from the rate down to `final_fraction` of it."""

    name: Literal["cosine"]
    final_fraction: Fraction = 0.0


class StepDecay(Section):
    """The rate is multiplied by `factor` every `every` epochs."""

    name: Literal["step"]
    every: Positive
    factor: Annotated[float, Field(gt=0, lt=1)]


class PlateauHalving(Section):
    """Urban et al. 2017, section 2.6; see `callbacks.Plateau`."""

    name: Literal["plateau_halving"]
    patience: Positive = 10
    cooldown: Annotated[int, Field(ge=0)] = 8
    stop_after: Positive = 30
    smallest_fraction: Fraction = 1 / 2000


class TrainingSection(Section):
    """How one net is trained.

    `restore`: whether to keep the weights of the best epoch on validation or of the last one.
    `monitor`: the metric on validation that says which epoch is best; it is minimised, or maximised with "-" in front.
    None: the error rate, or the loss if the validation examples have no labels.
    `warmup`: epochs, or a fraction of one, over which the rate rises linearly from 0; 0: none.
    `clip_norm`: the largest norm of the whole gradient, all weights' together; longer ones are shortened to it.
    `exponential_moving_average`: a in average = a * average + (1 - a) * weights after every step; the average is what
    is validated and kept.
    `checkpoint_every`: steps between the states from which an interrupted training resumes; None: chosen by their cost.
    `evaluate_every`: epochs between evaluations of the data set's own metrics on validation; None: only at the end.
    """

    added = ("monitor", "warmup", "clip_norm", "exponential_moving_average")

    epochs: Positive
    batch_size: Positive
    optimizer: AnyOptimizer
    schedule: Annotated[ConstantRate | CosineDecay | StepDecay | PlateauHalving, Field(discriminator="name")] = (
        ConstantRate()
    )
    restore: Literal["best", "last"] = "last"
    monitor: str | None = None
    warmup: NotNegative = 0.0
    clip_norm: Rate | None = None
    exponential_moving_average: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision: Literal["float32", "tensor_float_32", "mixed_bfloat16"] = "float32"
    checkpoint_every: Positive | None = None
    evaluate_every: Positive | None = None

    @pydantic.field_validator("warmup")
    @classmethod
    def _ends_before_the_training(cls, warmup: float, info: pydantic.ValidationInfo) -> float:
        if warmup >= info.data.get("epochs", math.inf):
            raise ValueError(f"expected fewer than the training's {info.data['epochs']} epochs")
        return warmup

    @property
    def monitored_metric(self) -> str | None:
        """The metric's name without its sign."""
        return self.monitor.removeprefix("-") if self.monitor is not None else None

    def key_inputs(self) -> dict[str, Any]:
        """What goes into a cache key: everything that the weights and the curves depend on."""
        return self.model_dump(
            exclude={"checkpoint_every"} | ({"evaluate_every"} if not self.evaluate_every else set())
        )
