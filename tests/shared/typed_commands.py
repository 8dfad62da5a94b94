"""Commands as they are typed, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fruitgan.cli import main

Cli = Callable[..., tuple[int, str, str]]
"""Runs a command with arguments; gives exit code, stdout and stderr."""


def typed(command: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([command, *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """The object that a command which succeeds prints with --json."""
    assert main([*map(str, arguments), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found
