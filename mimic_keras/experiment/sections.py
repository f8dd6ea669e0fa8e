"""What every section of the experiment file is: a frozen mapping without unknown keys; and the numbers in sections."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pydantic
from pydantic import Field

Positive = Annotated[int, Field(ge=1, lt=2**31)]  # TensorFlow's counters are of 32 and 64 bits
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Weight = Annotated[float, Field(gt=0, le=1e9)]  # so that the sum over a teacher's members is finite in float32
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(pydantic.BaseModel):
    """A mapping of the file: unknown keys are errors, and values are not converted (no '3' for 3).

    `added` names the options that came after the section was first used in cache keys. A dump leaves them out while
    they have their defaults, so that no key and no seed of an existing experiment changes.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    added: ClassVar[tuple[str, ...]] = ()

    @pydantic.model_serializer(mode="wrap")
    def _leave_out_added(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = {name: type(self).model_fields[name].default for name in self.added}
        return {
            key: value
            for key, value in dump(self).items()
            if key not in defaults or getattr(self, key) != defaults[key]
        }
