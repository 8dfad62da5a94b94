"""Scripts that take an order and give what they found, both in JSON, as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def answer(script: Path, order: Any, *arguments: str | Path) -> Any:
    """What a script found; it works with one thread, and can import what stands in this folder."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        input=json.dumps(order),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)
