"""What a training will take here: counted and measured on a few steps, with nothing left behind."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from fruitgan.data.sources import find_source
from fruitgan.device import choose_device, keep_freed_memory
from fruitgan.threads import using_threads
from fruitgan.train_gan.assemble import default_recipe, make_objective, make_plan, make_sampler
from fruitgan.train_gan.cuda_graphs import WARM_UP_STEPS, CudaGraphs
from fruitgan.train_gan.multiply_adds import Counting
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.train_gan.thread_trial import NoiseFeed, training_threads
from fruitgan.train_gan.trainer import Trainer

MEASURED_STEPS = 2


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
    steps_per_epoch = make_sampler(plan, *counts).steps_per_epoch
    steps = plan.recipe.total_steps(steps_per_epoch)
    trainer = Trainer(
        objective,
        plan.recipe,
        NoiseFeed(plan, device),
        total_steps=steps,
        steps_per_epoch=steps_per_epoch,
        seed=plan.seed,
        device=device,
        precision=plan.precision,
        log_every=1,
        capture=CudaGraphs(device) if device.type == "cuda" else None,
    )
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
