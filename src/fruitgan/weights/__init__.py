"""Bundles that ship inside the package, by name."""

from __future__ import annotations

from pathlib import Path

from fruitgan.errors import UsageError
from fruitgan.registry import suggestion

FOLDER = Path(__file__).parent
SUFFIX = ".safetensors"


def shipped_names() -> list[str]:
    """The names of the shipped bundles."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def shipped(name: str) -> Path:
    """The file of a shipped bundle.

    Raises:
        UsageError: no such name.
    """
    names = shipped_names()
    if name not in names:
        raise UsageError(f"no shipped bundle named {name!r}: {suggestion(name, names)}")
    return FOLDER / f"{name}{SUFFIX}"
