"""What a training takes here: multiply-adds and memory are counted, seconds and threads tried out."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from fruitgan.data.loader import Batch, Loader, Sampler
from fruitgan.data.sources import find_source
from fruitgan.device import (
    TRIAL_SECONDS,
    LivingTensors,
    Threads,
    choose_device,
    fastest_threads,
    fixed_threads,
    seconds_by_threads,
    using_threads,
)
from fruitgan.distributed import as_if_alone, processes_here, ranks
from fruitgan.errors import FruitganError
from fruitgan.machine import spare_memory_bytes
from fruitgan.networks.contracts import SizeRule
from fruitgan.train_gan.assemble import bare_trainer, default_recipe, make_objective, make_plan
from fruitgan.train_gan.cuda_graphs import WARM_UP_STEPS
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.recipe import Clock
from fruitgan.train_gan.settings import Plan, TrainGanSettings

MEASURED_STEPS = 2
SAMPLED_STEPS = 4800
"""Schedules are shares of the training: so many steps tell how often each kind of step comes."""
MOST_BYTES_PER_PIXEL = 60_000
"""More than a step of any recipe of ours takes for a pixel of a domain's batch: what fits so needs no closer look."""
PARAMETER_COPIES = 8
MARGIN = 0.9
"""A step is refused only if this share of its estimate is more than is free."""
GIB = 2**30
SMALLEST_PX = 32
ENOUGH_SECONDS = 0.15
"""A step this long is timed as it is; larger images and batches would make the trial too long."""
FOREVER = 1 << 30


class OutOfMemory(FruitganError):
    """A step takes more memory than there is."""


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
    """The mean over the training."""
    memory_bytes: int
    """All tensors that are alive at one time in its largest step; what libraries work in comes on top."""
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
    plan = make_plan(settings, device)
    source = find_source(settings.data, settings.data_a, settings.data_b, settings.domains)
    objective = make_objective(plan)
    if not settings.force:
        check_memory(plan, objective, device)
    work = count_work(plan)
    counts = (len(source.a.train), len(source.b.train))
    steps_per_epoch = Sampler(*counts, plan.recipe.batch_size, plan.seed, plan.recipe.pairing).steps_per_epoch
    trainer = bare_trainer(plan, objective, NoiseLoader(plan, device), steps_per_epoch, device, 1)
    steps = trainer.total_steps
    for _ in trainer.steps(until=WARM_UP_STEPS + 1 if device.type == "cuda" else 1):  # up to the one that is recorded
        pass
    threads = training_threads(plan, settings.threads, settings.deterministic) if device.type == "cpu" else None
    with using_threads(threads.number) if threads is not None else nullcontext():
        ends = [time.perf_counter(), *(time.perf_counter() for _ in trainer.steps(until=trainer.step + MEASURED_STEPS))]
        seconds = min(end - begin for begin, end in itertools.pairwise(ends))  # what else runs here only adds
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
        multiply_adds_per_step=round(mean_multiply_adds(work)),
        memory_bytes=max(kind.peak_bytes for kind in work),
        threads=None if threads is None else threads.number,
        seconds_per_step=seconds,
        steps=steps,
        seconds_total=seconds * steps,
        suggested_recipe=suggested,
        suggested_why="a light generator that shows something within the hour" if suggested == "fast" else "there is a GPU",
    )


def check_memory(plan: Plan, objective: Objective, device: torch.device) -> None:
    """Refuse a step that cannot fit into the memory that is free, of the GPU or of this machine or container.

    The estimate is what the step's tensors take, and no kernel's work space: it refuses nothing that fits.

    Raises:
        OutOfMemory: with the largest batch that fits.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else spare_memory_bytes() // processes_here()
    world, side_px = ranks().world, plan.recipe.image_size_px
    batch_size = plan.recipe.batch_size // world  # this process' rows
    parameter_bytes = sum(p.nbytes for p in objective.networks.parameters())
    if batch_size * side_px**2 * MOST_BYTES_PER_PIXEL + PARAMETER_COPIES * parameter_bytes <= free:
        return
    needed = MARGIN * sketched_step(plan, batch_size).peak_bytes
    if needed <= free:
        return
    one = MARGIN * sketched_step(plan, 1).peak_bytes
    largest = int(1 + (free - one) / max((needed - one) / max(1, batch_size - 1), 1.0)) if one <= free else 0
    instead = f"the largest that fits is --batch-size {world * largest}" if largest else f"not even --batch-size {world} fits"
    raise OutOfMemory(
        f"--batch-size {world * batch_size} with --image-size {side_px} needs at least {needed / GIB:.1f} GiB of memory, and "
        f"{free / GIB:.1f} GiB are free on {device}: {instead}; --force tries it all the same"
    )


def sketched_step(plan: Plan, batch_size: int, step: int = 0) -> Counting:
    """A step without data, on torch's device that has shapes and no memory: what it computes and what it keeps.

    `step` is one of SAMPLED_STEPS, as which the training's schedules are looked at.
    """
    recipe = dataclasses.replace(plan.recipe, batch_size=batch_size, steps=SAMPLED_STEPS + 1)
    in_fp32 = dataclasses.replace(plan, recipe=recipe, precision="fp32")
    meta = torch.device("meta")
    objective = make_objective(in_fp32)  # not made there, where initial weights take longer than the step
    objective.to(meta)
    kept = [*objective.networks.parameters(), *objective.networks.buffers()]
    counting = Counting(kept)
    with as_if_alone(), counting:
        trainer = bare_trainer(in_fp32, objective, NoiseLoader(in_fp32, meta), _steps_per_epoch(plan), meta, FOREVER)
        trainer.step = step
        next(trainer.steps(until=step + 1))
    if plan.precision == "bf16":  # of what is kept for the gradients; weights, gradients and Adam's two stay
        fixed = 4 * sum(tensor.nbytes for tensor in kept)
        counting.peak_bytes = min(counting.peak_bytes, fixed + max(0, counting.peak_bytes - fixed) // 2)
    return counting


class Counting(LivingTensors):  # type: ignore[no-untyped-call, unused-ignore]
    """Counts what is computed, too: convolutions and matrix products by torch's own formulas, in multiply-adds."""

    multiply_adds: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._fused_adam_.tensor_lr and args[0][0].is_meta:
            return None  # it changes tensors in their places, and has no shapes without kernels
        out = super().__torch_dispatch__(func, types, args, kwargs)
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
    peak_bytes: int
    """All tensors that are alive at one time in it."""


def count_work(plan: Plan) -> list[KindOfStep]:
    """What the steps of a training take."""
    variants = collections.defaultdict(list)
    for step in range(SAMPLED_STEPS):
        clock = Clock(step, SAMPLED_STEPS + 1, _steps_per_epoch(plan))  # as `sketched_step` has it
        weights = {name: schedule.at(clock) for name, schedule in plan.recipe.weights.items()}
        variants[frozenset(name for name, weight in weights.items() if weight)].append(step)
    kinds = []
    for variant, steps in variants.items():
        counting = sketched_step(plan, plan.recipe.batch_size, steps[0])
        counted = tuple(name for name in plan.recipe.weights if name in variant)
        kinds.append(KindOfStep(counted, len(steps) / SAMPLED_STEPS, counting.multiply_adds, counting.peak_bytes))
    return kinds


def _steps_per_epoch(plan: Plan) -> int:
    return max(1, SAMPLED_STEPS // (plan.recipe.epochs or 1))


def mean_multiply_adds(kinds: Sequence[KindOfStep]) -> float:
    """Of a step, the mean over the training."""
    return sum(kind.share * kind.multiply_adds for kind in kinds)


class NoiseLoader(Loader):
    """Noise instead of photographs: the work is the same."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.shape = (plan.recipe.batch_size, 3, plan.recipe.image_size_px, plan.recipe.image_size_px)
        self.device = device

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        numbers = {name: torch.rand(self.shape[0], count, device=self.device) for name, count in draws.items()}
        a, b = (torch.rand(self.shape, device=self.device) * 2 - 1 for _ in range(2))
        return Batch(a, b, numbers)


def training_threads(plan: Plan, asked: int | None, deterministic: bool) -> Threads:
    """The number to train with: the one asked for or given by the environment, else the fastest."""
    return fixed_threads(asked, deterministic) or fastest_threads(throw_away_step(plan))


def faster_threads(plan: Plan, now: int, by: float) -> int | None:
    """Another number of threads with which steps would now take less than 1 / `by` of the time, if there is one."""
    found = seconds_by_threads(throw_away_step(plan), TRIAL_SECONDS / 2)
    best = min(found, key=lambda number: found[number])
    return best if now in found and found[now] > by * found[best] else None


def throw_away_step(plan: Plan) -> Callable[[], None]:
    """A step of the plan's networks on noise, on as much of it as takes about a tenth of a second with one thread."""
    objective = make_objective(plan)
    device = torch.device("cpu")
    loader = NoiseLoader(plan, device)
    trainer = bare_trainer(plan, objective, loader, FOREVER, device, FOREVER)
    fresh = {name: extra.state() for name, extra in objective.extras.items()}

    def step() -> None:
        next(trainer.steps(trainer.step + 1))

    with torch.random.fork_rng(devices=[]), using_threads(1):
        for batch_size, side_px in _shapes(plan, objective):
            loader.shape = (batch_size, 3, side_px, side_px)
            for name, extra in objective.extras.items():  # a replay buffer holds images of one size
                extra.restore(fresh[name])
            step()
            began = time.perf_counter()
            step()
            if time.perf_counter() - began > ENOUGH_SECONDS:
                break
    return step


def _shapes(plan: Plan, objective: Objective) -> list[tuple[int, int]]:
    """Ever more work: one image of ever larger sides, then the training's own batch."""
    size_px = plan.recipe.image_size_px
    rules = [getattr(network, "size_rule", None) for network in objective.networks.values()]
    sides = [SMALLEST_PX << doublings for doublings in range(16) if SMALLEST_PX << doublings < size_px]
    taken = [side for side in sides if all(rule.accepts(side, side) for rule in rules if isinstance(rule, SizeRule))]
    return [(1, side) for side in [*taken, size_px]] + [(plan.recipe.batch_size, size_px)]
