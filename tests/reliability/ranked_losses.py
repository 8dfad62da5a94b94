"""The first losses of every recipe as the golden ones are made, on 1, 2 and 4 of the processes that run this: as JSON.

Started once for all of it, with the variables that torchrun sets; the first one writes. Arguments: the file, a folder, the
recipes (empty: all), how many steps in float64 and in fp32 (0: none), and the numbers of processes.
"""

from __future__ import annotations

import dataclasses
import json
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fruitgan import distributed
from fruitgan.process_group import Group, joined

GOLDEN = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "regenerate.py"))
BATCH = 4
FP32_RATE = 0.01
"""Times the recipe's learning rate: at the whole of it rounding can grow more than a hundredfold in a step."""


def losses(recipe: str, folder: Path, steps: int, *, in_float64: bool) -> list[dict[str, float]]:
    """Of the first steps, by term."""
    if not steps:
        return []
    plan = GOLDEN["plan_of"](recipe, batch_size=BATCH)
    if not in_float64:
        slower = {
            name: dataclasses.replace(adam, learning_rate=FP32_RATE * adam.learning_rate)
            for name, adam in plan.recipe.optimizers.items()
        }
        plan = dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, optimizers=slower))
    datasets = GOLDEN["datasets_of"](plan, folder)
    trainer = GOLDEN["trainer_of"](plan, datasets, in_float64=in_float64)
    return [dict(report.losses or {}) for report in trainer.steps(steps)]


def main(file: Path, folder: Path, recipes: list[str], float64_steps: int, fp32_steps: int, numbers: list[int]) -> None:
    found: dict[str, Mapping[str, Any]] = {}
    with joined() as group:
        assert isinstance(group, Group)
        pair: Any = dist.new_group([0, 1])
        if group.is_first:
            for recipe in recipes:
                plan = GOLDEN["plan_of"](recipe, batch_size=BATCH)
                GOLDEN["draw_for"](plan, folder / recipe)
        group.divide(BATCH)
        group.begin(torch.device("cpu"))
        everybody = group._data
        for number in sorted(numbers, reverse=True):
            group.world, group._data = number, pair if number == 2 else everybody
            if group.rank >= number:
                continue
            distributed._ranks = group if number > 1 else distributed.Ranks()
            for recipe in recipes:
                found[f"{recipe} {number}"] = {
                    "float64": losses(recipe, folder / recipe, float64_steps, in_float64=True),
                    "fp32": losses(recipe, folder / recipe, fp32_steps, in_float64=False),
                }
        distributed._ranks = group
        if group.is_first:
            file.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = sys.argv[3].split(",") if sys.argv[3] else [*GOLDEN["RECIPES"]]
    numbers = [int(word) for word in sys.argv[6:]]
    main(Path(sys.argv[1]), Path(sys.argv[2]), asked, *map(int, sys.argv[4:6]), numbers=numbers)
