"""The optimizers of Keras by the names that Keras gives them, each with its own arguments and Keras' defaults.

The classes have the names of Keras' classes. They are written out, not read from Keras, so that a file is checked
without TensorFlow, and so that a newer Keras with other defaults does not change an experiment; a test compares them
with the installed Keras. Gradient clipping, moving averages and the like are options of the training, for all alike.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import pydantic
from pydantic import Discriminator, Field, Tag

from mimic_keras.experiment.sections import Decay, NotNegative, Positive, Rate, Section


class OfLimit(Section):
    """A learning rate as a share of the limit above which SGD is unstable at the start; see `training.stability`."""

    of_limit: Rate


def _kind_of_rate(rate: Any) -> str:
    return "share" if isinstance(rate, dict | OfLimit) else "number"


class Optimizer(Section):
    """What all have. `slots`: how many numbers it keeps for each weight, at most, for estimates of memory."""

    slots: ClassVar[int] = 2
    name: str
    learning_rate: Rate

    @pydantic.field_validator("learning_rate", mode="before")
    @classmethod
    def _limit_is_known(cls, rate: Any) -> Any:
        if cls is not SGD and _kind_of_rate(rate) == "share":
            raise ValueError("expected a number: a limit is known of sgd alone")
        return rate


class SGD(Optimizer):
    """With `momentum`, it keeps a number for each weight."""

    slots = 1
    added = ("weight_decay",)
    name: Literal["sgd"]
    learning_rate: Annotated[  # type: ignore[assignment]
        Annotated[Rate, Tag("number")] | Annotated[OfLimit, Tag("share")], Discriminator(_kind_of_rate)
    ]
    momentum: Decay = 0.0
    nesterov: bool = False
    weight_decay: NotNegative | None = None


class Adam(Optimizer):
    """Kingma & Ba 2015, arXiv:1412.6980; `amsgrad` of Reddi et al. 2018 keeps a third number for each weight."""

    added = ("amsgrad", "weight_decay")
    name: Literal["adam"]
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: Rate = 1e-7
    amsgrad: bool = False
    weight_decay: NotNegative | None = None


class AdamW(Optimizer):
    """Loshchilov & Hutter 2019, arXiv:1711.05101."""

    name: Literal["adamw"]
    weight_decay: NotNegative = 0.004
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: Rate = 1e-7
    amsgrad: bool = False


class Nadam(Optimizer):
    """Dozat 2015."""

    name: Literal["nadam"]
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: Rate = 1e-7
    weight_decay: NotNegative | None = None


class Adamax(Optimizer):
    """Kingma & Ba 2015, section 7.1."""

    name: Literal["adamax"]
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: Rate = 1e-7
    weight_decay: NotNegative | None = None


class Lamb(Optimizer):
    """You et al. 2020, arXiv:1904.00962."""

    name: Literal["lamb"]
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: Rate = 1e-7
    weight_decay: NotNegative | None = None


class Lion(Optimizer):
    """Chen et al. 2023, arXiv:2302.06675."""

    slots = 1
    name: Literal["lion"]
    beta_1: Decay = 0.9
    beta_2: Decay = 0.99
    weight_decay: NotNegative | None = None


class RMSprop(Optimizer):
    """Hinton 2012; `momentum` and `centered` keep up to two numbers more for each weight."""

    slots = 1
    name: Literal["rmsprop"]
    rho: Decay = 0.9
    momentum: Decay = 0.0
    epsilon: Rate = 1e-7
    centered: bool = False
    weight_decay: NotNegative | None = None


class Adagrad(Optimizer):
    """Duchi et al. 2011."""

    slots = 1
    name: Literal["adagrad"]
    initial_accumulator_value: NotNegative = 0.1
    epsilon: Rate = 1e-7
    weight_decay: NotNegative | None = None


class Adadelta(Optimizer):
    """Zeiler 2012, arXiv:1212.5701; the paper has no learning rate, that is 1.0."""

    name: Literal["adadelta"]
    rho: Decay = 0.95
    epsilon: Rate = 1e-7
    weight_decay: NotNegative | None = None


class Adafactor(Optimizer):
    """Shazeer & Stern 2018, arXiv:1804.04235."""

    slots = 1
    name: Literal["adafactor"]
    beta_2_decay: Annotated[float, Field(lt=0)] = -0.8
    epsilon_1: Rate = 1e-30
    epsilon_2: Rate = 1e-3
    clip_threshold: Rate = 1.0
    relative_step: bool = True
    weight_decay: NotNegative | None = None


class Ftrl(Optimizer):
    """McMahan et al. 2013."""

    name: Literal["ftrl"]
    learning_rate_power: Annotated[float, Field(le=0)] = -0.5
    initial_accumulator_value: NotNegative = 0.1
    l1_regularization_strength: NotNegative = 0.0
    l2_regularization_strength: NotNegative = 0.0
    l2_shrinkage_regularization_strength: NotNegative = 0.0
    beta: NotNegative = 0.0
    weight_decay: NotNegative | None = None


class Muon(Optimizer):
    """Jordan 2024 and Liu et al. 2025, arXiv:2502.16982: for matrices, and AdamW for all other weights.

    `exclude_layers`: regular expressions of weights' paths that AdamW trains too, usually the last layer's.
    """

    slots = 1
    name: Literal["muon"]
    adam_beta_1: Decay = 0.9
    adam_beta_2: Decay = 0.999
    adam_weight_decay: NotNegative = 0.004
    epsilon: Rate = 1e-7
    weight_decay: NotNegative = 0.004
    exclude_layers: list[str] | None = None
    exclude_embeddings: bool = True
    muon_a: float = 3.4445
    muon_b: float = -4.7750
    muon_c: float = 2.0315
    adam_lr_ratio: Rate = 1.0
    momentum: Decay = 0.95
    ns_steps: Positive = 5
    nesterov: bool = True
    rms_rate: Rate = 0.2


class ScheduleFreeAdamW(Optimizer):
    """Defazio et al. 2024, arXiv:2405.15682; `warmup_steps` is its own, beside the training's `warmup`."""

    name: Literal["schedulefreeadamw"]
    beta_1: Annotated[float, Field(gt=0, lt=1)] = 0.9
    beta_2: Decay = 0.999
    epsilon: Rate = 1e-8
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: NotNegative | None = None


AnyOptimizer: TypeAlias = Annotated[
    SGD
    | Adam
    | AdamW
    | Nadam
    | Adamax
    | Lamb
    | Lion
    | RMSprop
    | Adagrad
    | Adadelta
    | Adafactor
    | Ftrl
    | Muon
    | ScheduleFreeAdamW,
    Field(discriminator="name"),
]
