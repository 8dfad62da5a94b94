"""What a training takes: multiply-adds counted operation by operation, memory and time measured on a few steps of noise."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fruitgan.data.loader import Batch, Sampler
from fruitgan.data.sources import find_source
from fruitgan.device import choose_device, keep_freed_memory
from fruitgan.threads import using_threads
from fruitgan.train_gan.assemble import bare_trainer, default_recipe, make_objective, make_plan
from fruitgan.train_gan.cuda_graphs import WARM_UP_STEPS
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.recipe import Clock, Recipe
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.train_gan.speed import NoiseLoader, training_threads
from fruitgan.train_gan.trainer import Trainer

MEASURED_STEPS = 2
SAMPLED_STEPS = 4800
"""Schedules are shares of the training: so many steps tell how often each kind of step comes."""


@dataclass(frozen=True)
class Estimate:
    """Sizes, work, and the time it would take on this machine."""

    recipe: str
    device: str
    precision: str
    generator: str
    generator_parameters: int
    discriminator: str
    discriminator_parameters: int
    training_images: tuple[int, int]
    image_size_px: int
    batch_size: int
    multiply_adds_per_step: int
    memory_bytes: int
    """What a step needs beyond what the program takes anyway."""
    threads: int | None
    """Of the CPU; None on another device."""
    seconds_per_step: float
    steps: int
    seconds_total: float
    suggested_recipe: str
    suggested_why: str


def estimate(settings: TrainGanSettings) -> Estimate:
    """Count and time a few steps on noise.

    Raises:
        As `train_gan`, for what would stop it at once.
    """
    device = choose_device(settings.gpu, settings.device)
    if device.type == "cpu":
        keep_freed_memory()
    plan = make_plan(settings, device)
    source = find_source(settings.data, settings.data_a, settings.data_b, settings.domains)
    objective = make_objective(plan)
    counts = (len(source.a.train), len(source.b.train))
    steps_per_epoch = Sampler(*counts, plan.recipe.batch_size, plan.seed, plan.recipe.pairing).steps_per_epoch
    trainer = bare_trainer(plan, objective, NoiseLoader(plan, device), steps_per_epoch, device, 1)
    steps = trainer.total_steps
    before = _memory_peak(device)
    with Counting() as counting:
        next(trainer.steps(until=1))
    if device.type == "cuda":
        for _ in trainer.steps(until=WARM_UP_STEPS + 1):  # up to the one that is recorded
            pass
    memory = _memory_peak(device) - before
    threads = training_threads(plan, settings.threads, settings.deterministic) if device.type == "cpu" else None
    with using_threads(threads.number) if threads is not None else nullcontext():
        seconds = _seconds_per_step(trainer)
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in objective.networks.items()}
    suggested = default_recipe(device)
    return Estimate(
        recipe=plan.recipe_name,
        device=str(device),
        precision=plan.precision,
        generator=plan.generator.name,
        generator_parameters=next((n for name, n in sizes.items() if name.startswith("generator")), 0),
        discriminator=plan.discriminator.name,
        discriminator_parameters=next((n for name, n in sizes.items() if name.startswith("discriminator")), 0),
        training_images=counts,
        image_size_px=plan.recipe.image_size_px,
        batch_size=plan.recipe.batch_size,
        multiply_adds_per_step=counting.multiply_adds,
        memory_bytes=memory,
        threads=None if threads is None else threads.number,
        seconds_per_step=seconds,
        steps=steps,
        seconds_total=seconds * steps,
        suggested_recipe=suggested,
        suggested_why="a light generator that shows something within the hour" if suggested == "fast" else "there is a GPU",
    )


def _seconds_per_step(trainer: Trainer) -> float:
    """The fastest of a few steps: what else runs on the machine only adds. A logged step waits for the device."""
    best = float("inf")
    for step in range(trainer.step + 1, trainer.step + 1 + MEASURED_STEPS):
        began = time.perf_counter()
        next(trainer.steps(until=step))
        best = min(best, time.perf_counter() - began)
    return best


def _memory_peak(device: torch.device) -> int:
    """The most bytes held so far: of the GPU's memory, or else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)  # what a graph works in is reserved, but not allocated between steps
    try:
        import resource
    except ImportError:  # Windows counts otherwise
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Counts convolutions and matrix products inside a `with`, gradients' too, by torch's own formulas."""

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
    """Forward and backward passes of all networks, both domains; elementwise operations and norms are not counted."""


def count_work(recipe_name: str) -> list[KindOfStep]:
    """What a step by a registered recipe takes.

    Raises:
        UsageError: there is no such recipe.
    """
    plan = make_plan(TrainGanSettings(data="", recipe=recipe_name, precision="fp32"), torch.device("cpu"))
    with torch.device("meta"):
        objective = make_objective(plan)
    return work_of(objective, plan.recipe)


def work_of(objective: Objective, recipe: Recipe) -> list[KindOfStep]:
    """The same for an objective at hand, whose networks may lie on the device `meta`."""
    steps_per_epoch = max(1, SAMPLED_STEPS // (recipe.epochs or 1))
    clocks = (Clock(step, SAMPLED_STEPS, steps_per_epoch) for step in range(SAMPLED_STEPS))
    weights = ({name: schedule.at(clock) for name, schedule in recipe.weights.items()} for clock in clocks)
    seen = collections.Counter(map(objective.variant, weights))
    return [
        KindOfStep(
            tuple(name for name in recipe.weights if name in variant),
            times / SAMPLED_STEPS,
            _counted(objective, recipe, variant),
        )
        for variant, times in seen.items()
    ]


def mean_multiply_adds(kinds: Sequence[KindOfStep]) -> float:
    """Multiply-adds of a step, the mean over the training."""
    return sum(kind.share * kind.multiply_adds for kind in kinds)


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
    return counting.multiply_adds
