"""The multiply-adds of a recipe's steps: counted on networks without weights, operation by operation."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fruitgan.data.loader import Batch
from fruitgan.train_gan.assemble import make_objective, make_plan
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.recipe import Recipe
from fruitgan.train_gan.schedules import Clock
from fruitgan.train_gan.settings import TrainGanSettings

SAMPLED_STEPS = 4800
"""Schedules are shares of the training: so many steps tell how often each kind of step comes."""


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Within it, convolutions and matrix products are counted by torch's own formulas, those of gradients among them.

    torch's FlopCounterMode also says which module they were in, which a penalty's inner gradient does not survive.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.multiply_adds: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.multiply_adds += formula(*args, **(kwargs or {}), out_val=out) // 2
        return out


@dataclass(frozen=True)
class KindOfStep:
    """Steps that compute the same: how much of the training they are, and what one takes."""

    weights: tuple[str, ...]
    """The losses that count in it."""
    share: float
    multiply_adds: int


@dataclass(frozen=True)
class Work:
    """Forward and backward passes of all networks, both domains, one step; elementwise operations and norms are not counted."""

    kinds: tuple[KindOfStep, ...]

    @property
    def mean(self) -> float:
        """Multiply-adds of a step, the mean over the training."""
        return sum(kind.share * kind.multiply_adds for kind in self.kinds)


def count_work(recipe_name: str) -> Work:
    """What a step by a registered recipe takes.

    Raises:
        UsageError: there is no such recipe.
    """
    plan = make_plan(TrainGanSettings(data="", recipe=recipe_name, precision="fp32"), torch.device("cpu"))
    with torch.device("meta"):
        objective = make_objective(plan)
    return work_of(objective, plan.recipe)


def work_of(objective: Objective, recipe: Recipe) -> Work:
    """The same for an objective at hand, whose networks may lie on the device `meta`."""
    seen = collections.Counter(objective.variant(weights) for weights in _weights(recipe))
    total = sum(seen.values())
    kinds = (
        KindOfStep(
            tuple(name for name in recipe.weights if name in variant), times / total, _counted(objective, recipe, variant)
        )
        for variant, times in seen.items()
    )
    return Work(tuple(kinds))


def _weights(recipe: Recipe) -> list[dict[str, float]]:
    epochs = recipe.epochs or 1
    clocks = (Clock(step, SAMPLED_STEPS, max(1, SAMPLED_STEPS // epochs)) for step in range(SAMPLED_STEPS))
    return [{name: schedule.at(clock) for name, schedule in recipe.weights.items()} for clock in clocks]


def _counted(objective: Objective, recipe: Recipe, variant: frozenset[str]) -> int:
    shape = (recipe.batch_size, 3, recipe.image_size_px, recipe.image_size_px)
    device = next(objective.networks.parameters()).device
    a, b = (torch.zeros(shape, device=device) for _ in range(2))
    draws = {name: torch.zeros((shape[0], numbers), device=device) for name, numbers in objective.draws.items()}
    with Counting() as counting:
        prepared = objective.prepare(Batch(a, b, draws), variant)
        for player in objective.players:
            own = [p for name in player.networks for p in objective.networks[name].parameters()]
            torch.autograd.backward(torch.stack(list(player.loss(prepared).values())).sum(), inputs=own)
    for parameter in objective.networks.parameters():
        parameter.grad = None
    counted: int = counting.multiply_adds
    return counted
