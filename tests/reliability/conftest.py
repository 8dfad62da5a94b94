"""What the tests of hostile files share, and commands in forks of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hostile as functions
import pytest

Forked = Callable[..., list[dict[str, Any]]]
"""Does what each of its arguments orders, all at once, as held_commands.py says."""


@pytest.fixture(scope="session")
def hostile() -> SimpleNamespace:
    return SimpleNamespace(
        json=functions.spoilt_json,
        text=functions.spoilt_text,
        bytes=functions.spoilt_bytes,
        tensor_file=functions.tensor_file,
        parts_of=functions.parts_of,
        little_memory=functions.little_memory,
    )


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    words = [sys.executable, str(Path(__file__).with_name("held_commands.py"))]
    # With what tests share, and without a GPU, for which torch would start threads: these survive no fork.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    folder = tmp_path_factory.mktemp("here")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes, env=environment, cwd=folder) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def do(*orders: dict[str, Any]) -> list[dict[str, Any]]:
            print(json.dumps(orders), file=process.stdin, flush=True)
            found: list[dict[str, Any]] = json.loads(process.stdout.readline())  # type: ignore[union-attr]
            return found

        yield do
        process.stdin.close()
