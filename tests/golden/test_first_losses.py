"""Every recipe's first losses are those that were recorded; `regenerate.py` here says how to record them anew."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest

from fruitgan.train_gan.recipe import recipes

GOLDEN = runpy.run_path(str(Path(__file__).with_name("regenerate.py")))


STEPS: int = GOLDEN["STEPS"]
BRIEF = {"fruit": 4, "fast": 8}
"""The largest recipes are seen for a few steps, and for all in the slow tests: what they alone have begins with the first."""
CASES: list[Any] = [(name, BRIEF.get(name, STEPS)) for name in GOLDEN["RECIPES"]]
CASES += [pytest.param(name, STEPS, marks=pytest.mark.slow) for name in BRIEF]


@pytest.mark.parametrize(("recipe", "steps"), CASES)
def test_the_first_losses_of_a_recipe_are_those_recorded(recipe: str, steps: int, tmp_path: Path) -> None:
    recorded = json.loads(GOLDEN["golden_file"](recipe).read_text(encoding="utf-8"))[:steps]
    found = GOLDEN["first_losses"](recipe, tmp_path / "data", steps)
    assert len(found) == len(recorded) == steps
    for step, (losses, expected) in enumerate(zip(found, recorded, strict=True), start=1):
        # Other processors round differently, and steps add that up: to 1e-11 where it was tried.
        assert losses == pytest.approx(expected, rel=1e-6), f"step {step}"
        assert all(math.isfinite(loss) for loss in losses.values())


def test_every_recipe_of_ours_is_recorded() -> None:
    own = {entry.name for entry in recipes.entries() if entry.package == "fruitgan"}
    assert set(GOLDEN["RECIPES"]) == own
