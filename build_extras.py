"""The extras of the distribution: `[plugins]` is the folders of a checkout, and names where it is published."""

from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

PLUGINS = ("losses", "architectures", "teachers", "digits")
DEVELOPMENT = ["build", "hatchling", "hypothesis", "import-linter", "mypy", "pytest", "pytest-xdist", "ruff", "scipy"]


class CustomMetadataHook(MetadataHookInterface):
    """Hatchling calls `update` with the project's metadata."""

    def update(self, metadata: dict) -> None:
        folders = {name: Path(self.root) / "plugins" / name for name in PLUGINS}
        metadata["optional-dependencies"] = {
            "plugins": [
                f"mimic-keras-{name} @ {folder.as_uri()}"
                if folder.is_dir()
                else f"mimic-keras-{name}=={metadata['version']}"
                for name, folder in folders.items()
            ],
            "dev": DEVELOPMENT,
        }
