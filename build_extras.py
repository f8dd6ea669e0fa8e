"""The extras of the distribution: `[plugins]` is the folders of a checkout, and names where it is published.

Building for an index, set MIMIC_KERAS_RELEASE=1: no published file may point to a folder of the building machine.
"""

import os
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

PLUGINS = ("losses", "architectures", "teachers", "digits", "cifar", "timit", "arrays")
LITERT = ["ai-edge-litert>=2.1"]
ONNX = ["onnx>=1.17,!=1.19.*", "onnxruntime>=1.20", "tf2onnx>=1.17"]  # onnx 1.19 fails with TensorFlow 2.17's ml_dtypes
DOCUMENTATION = ["mkdocs", "mkdocs-material", "mkdocstrings[python]"]
RAY = ["ray>=2.40"]  # its core alone
PUBLISH = ["fsspec>=2024.2", "s3fs>=2024.2", "gcsfs>=2024.2"]
DEVELOPMENT = [
    "build",
    "flask",  # with flask-cors, moto as a server
    "flask-cors",
    "hatchling",
    "hypothesis",
    "importlib-resources",
    "import-linter",
    "ipykernel",
    "markdown-it-py",
    "moto[s3]",
    "mypy",
    "nbclient",
    "onnx",
    "onnxruntime",
    "pandas",
    "pytest",
    "pytest-xdist",
    "ruff",
    "scipy",
    "skops",
    "tensorflow-datasets",
    "tensorflow-io",
]


class CustomMetadataHook(MetadataHookInterface):
    """Hatchling calls `update` with the project's metadata."""

    def update(self, metadata: dict) -> None:
        checkout = Path(self.root) / "plugins"
        local = checkout.is_dir() and not os.environ.get("MIMIC_KERAS_RELEASE")

        def require(name: str, extra: str = "") -> str:
            place = f" @ {(checkout / name).as_uri()}" if local else f"=={metadata['version']}"
            return f"mimic-keras-{name}{extra}{place}"

        metadata["optional-dependencies"] = {
            "plugins": [require(name) for name in PLUGINS],
            "litert": LITERT,
            "onnx": [require("teachers", "[onnx]"), *ONNX],
            "sklearn": [require("teachers", "[sklearn]")],
            "ray": RAY,
            "publish": PUBLISH,
            "dev": [*DEVELOPMENT, *DOCUMENTATION, *LITERT, *ONNX, *RAY, *PUBLISH],
            "docs": DOCUMENTATION,
            "fuzz": ["atheris"],
        }
