"""The examples of CONTRIBUTING.md are whole files that work."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# src/(\S+)\n(.*?)```", TEXT, re.DOTALL))
ANNOUNCED = re.findall(r'```toml\n\[project\.entry-points\."fruitgan\.\w+"\]\n\S+ = "(fruitgan\.[^"]+)"\n```', TEXT)


@pytest.fixture
def built(tmp_path: Path) -> dict[str, Any]:
    found = {}
    for entry in ANNOUNCED:
        module, name = entry.split(":")
        file = tmp_path / "example.py"
        file.write_text(EXAMPLES[module.replace(".", "/") + ".py"], encoding="utf-8")
        found[name] = runpy.run_path(str(file))[name]()
    return found


def test_the_examples_of_contributing_can_be_built_and_used(built: dict[str, Any]) -> None:
    assert set(built) == {"Affine", "smooth", "Brightness"}
    assert built["Affine"](torch.zeros(1, 3, 5, 7)).shape == (1, 3, 5, 7)
    assert built["smooth"].func.__name__ == "SmoothCycleGAN"
    dark, light = (np.full((2, 3, 3), grey, dtype=np.uint8) for grey in (10, 250))
    assert built["Brightness"].of_pair(dark, light) == 240
