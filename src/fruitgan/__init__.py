"""fruitgan: unpaired image translation, and an honest audit of its results."""

from __future__ import annotations

from typing import Any

__version__: str


def __getattr__(name: str) -> Any:
    """The version, read from the package's metadata at first use: importing must stay cheap."""
    if name == "__version__":
        from importlib.metadata import version

        return version("fruitgan")
    raise AttributeError(f"module 'fruitgan' has no attribute {name!r}")
