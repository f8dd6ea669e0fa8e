"""mimic-keras: train small student nets to mimic deep teacher nets, and export them for serving."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimic_keras.contracts import InputError, MimicError, RunError
    from mimic_keras.interface.api import export, run, sweep, tune, validate
    from mimic_keras.interface.distilling import distill
    from mimic_keras.interface.exports import predict, verify
    from mimic_keras.interface.results import NotPublishedError

__version__ = "0.1.0"

_PLACES = {
    **dict.fromkeys(("InputError", "MimicError", "RunError"), "mimic_keras.contracts"),
    **dict.fromkeys(("export", "run", "sweep", "tune", "validate"), "mimic_keras.interface.api"),
    **dict.fromkeys(("predict", "verify"), "mimic_keras.interface.exports"),
    "distill": "mimic_keras.interface.distilling",
    "NotPublishedError": "mimic_keras.interface.results",
}
__all__ = [
    "InputError",
    "MimicError",
    "NotPublishedError",
    "RunError",
    "distill",
    "export",
    "predict",
    "run",
    "sweep",
    "tune",
    "validate",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Imported at the first use (PEP 562): `import mimic_keras` costs nothing, and the rooms below import no other."""
    if name not in _PLACES:
        raise AttributeError(f"module 'mimic_keras' has no attribute {name!r}")
    found = getattr(importlib.import_module(_PLACES[name]), name)
    if not isinstance(found, type):
        found = importlib.import_module("mimic_keras.interface.spelling").speaks_python(found)
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
