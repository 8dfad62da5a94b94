"""Which number of CPU threads is fastest for a training: timed on a throw-away copy of it, on noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from fruitgan.data.loader import Batch
from fruitgan.networks.contracts import SizeRule
from fruitgan.threads import TRIAL_SECONDS, Threads, fastest_threads, fixed_threads, seconds_by_threads, using_threads
from fruitgan.train_gan.assemble import Plan, make_objective
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.trainer import Trainer

SMALLEST_PX = 32
ENOUGH_SECONDS = 0.15
"""A step this long is timed as it is; larger images and batches would make the trial too long."""
FOREVER = 1 << 30


class NoiseFeed:
    """Noise instead of photographs: the work is the same."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.shape = (plan.recipe.batch_size, 3, plan.recipe.image_size_px, plan.recipe.image_size_px)
        self.device = device

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        numbers = {name: torch.rand(self.shape[0], count, device=self.device) for name, count in draws.items()}
        a, b = (torch.rand(self.shape, device=self.device) * 2 - 1 for _ in range(2))
        return Batch(a, b, numbers)

    def reseed(self, seed: int) -> None:
        """One noise is as good as another."""


def training_threads(plan: Plan, asked: int | None, deterministic: bool) -> Threads:
    """The number to train with: the one asked for or given by the environment, else the fastest."""
    return fixed_threads(asked, deterministic) or fastest_threads(throw_away_step(plan))


def faster_threads(plan: Plan, now: int, by: float, seconds: float = TRIAL_SECONDS / 2) -> int | None:
    """Another number with which steps would now take less than 1 / `by` of the time, if there is one."""
    found = seconds_by_threads(throw_away_step(plan), seconds)
    best = min(found, key=lambda number: found[number])
    return best if now in found and found[now] > by * found[best] else None


def throw_away_step(plan: Plan) -> Callable[[], None]:
    """A step of the plan's networks on noise, on as much of it as takes about a tenth of a second with one thread."""
    objective = make_objective(plan)
    device = torch.device("cpu")
    feed = NoiseFeed(plan, device)
    trainer = Trainer(
        objective,
        plan.recipe,
        feed,
        total_steps=FOREVER,
        steps_per_epoch=FOREVER,
        seed=plan.seed,
        device=device,
        precision=plan.precision,
        log_every=FOREVER,
    )
    fresh = {name: extra.state() for name, extra in objective.extras.items()}

    def step() -> None:
        next(trainer.steps(trainer.step + 1))

    with torch.random.fork_rng(devices=[]), using_threads(1):
        for batch_size, side_px in _shapes(plan, size_rules(objective)):
            feed.shape = (batch_size, 3, side_px, side_px)
            for name, extra in objective.extras.items():  # a replay buffer holds images of one size
                extra.restore(fresh[name])
            step()
            began = time.perf_counter()
            step()
            if time.perf_counter() - began > ENOUGH_SECONDS:
                break
    return step


def size_rules(objective: Objective) -> list[SizeRule]:
    """Of the networks that have one."""
    rules = (getattr(network, "size_rule", None) for network in objective.networks.values())
    return [rule for rule in rules if isinstance(rule, SizeRule)]


def _shapes(plan: Plan, rules: list[SizeRule]) -> list[tuple[int, int]]:
    """Ever more work: one image of ever larger sides, then the training's own batch."""
    size_px = plan.recipe.image_size_px
    sides, side = [], SMALLEST_PX
    while side < size_px:
        if all(rule.accepts(side, side) for rule in rules):
            sides.append(side)
        side *= 2
    return [(1, side) for side in [*sides, size_px]] + [(plan.recipe.batch_size, size_px)]
