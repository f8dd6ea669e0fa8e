"""The formats of an export besides the SavedModel: their files, and what must be installed for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

SAVED_MODEL: Literal["saved_model"] = "saved_model"
DEFAULT = "serving_default"  # the signature that every export has
FormatName = Literal["saved_model", "litert", "litert_dynamic", "litert_int8", "onnx"]


@dataclass(frozen=True)
class Format:
    """A format. Each signature is a file of its own, `student.onnx` or `student.serve_images.onnx`.

    `stem` and `suffix` make the names of its files. `extra` of mimic-keras installs `modules`. `is_quantized`: with
    fewer bits than float32, so that its logits are not the student's; such a format has `serving_default` alone.
    """

    stem: str
    suffix: str
    extra: str
    modules: tuple[str, ...]
    is_quantized: bool = False

    def file_name(self, signature: str) -> str:
        middle = "" if signature == DEFAULT else f".{signature}"
        return f"{self.stem}{middle}{self.suffix}"


_LITERT = (".tflite", "litert", ("ai_edge_litert",))
FORMATS: dict[str, Format] = {
    "litert": Format("student", *_LITERT),
    "litert_dynamic": Format("student_dynamic", *_LITERT, is_quantized=True),
    "litert_int8": Format("student_int8", *_LITERT, is_quantized=True),
    "onnx": Format("student", ".onnx", "onnx", ("tf2onnx", "onnxruntime")),
}
assert set(get_args(FormatName)) == {SAVED_MODEL, *FORMATS}


def describe_missing(names: Iterable[str]) -> list[str]:
    """A message for each extra that the formats need and that is not installed; imports nothing.

    Example:
        >>> describe_missing(["onnx"])  # where tf2onnx is not installed
        ["onnx needs tf2onnx, which is not installed: pip install 'mimic-keras[onnx]'"]
    """
    messages = {}
    for name in names:
        needed = FORMATS.get(name)
        absent = [module for module in needed.modules if importlib.util.find_spec(module) is None] if needed else []
        if needed and absent:
            messages[needed.extra] = (
                f"{name} needs {' and '.join(absent)}, which is not installed: "
                f"pip install 'mimic-keras[{needed.extra}]'"
            )
    return list(messages.values())
