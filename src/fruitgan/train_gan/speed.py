"""How fast a step is on this machine: the fastest number of CPU threads, and a profile of where a step's time goes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fruitgan.data.loader import Batch
from fruitgan.files import write_atomically
from fruitgan.networks.contracts import SizeRule
from fruitgan.threads import TRIAL_SECONDS, Threads, fastest_threads, fixed_threads, seconds_by_threads, using_threads
from fruitgan.train_gan.assemble import Plan, bare_trainer, make_objective
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.trainer import STAGE

SMALLEST_PX = 32
ENOUGH_SECONDS = 0.15
"""A step this long is timed as it is; larger images and batches would make the trial too long."""
FOREVER = 1 << 30
SKIPPED_STEPS = 2
"""The first ones choose kernels and lay out memory."""
PROFILED_STEPS = 6
"""On a GPU the first of them run as they are, or while they are recorded, the others as recorded: those have no stages."""
TRACE, SUMMARY = "trace.json", "summary.txt"
SHOWN_OPERATIONS = 15
Steps = Iterator[Any]


class NoiseLoader:
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


def profiled(steps: Steps, device: torch.device, folder: Path) -> Steps:
    """The same steps; behind the first few, some are profiled, and what was found is written to the folder.

    Fewer steps than that leave what there is, or nothing.

    Raises:
        FruitganError: the folder cannot be written.
    """
    for _, report in zip(range(SKIPPED_STEPS), steps, strict=False):
        yield report
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else its library tells stderr when it starts, and that there is no GPU
    count = 0
    with torch.profiler.profile(activities=kinds) as profiler:
        for _, report in zip(range(PROFILED_STEPS), steps, strict=False):
            count += 1
            yield report
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    if count:
        _write(profiler, count, device, folder)
    yield from steps


def _write(profiler: Any, steps: int, device: torch.device, folder: Path) -> None:
    """The trace, and the share of each stage in a step with a table of the operations that take longest."""
    averages = profiler.key_averages()
    stages_ms = {
        event.key.removeprefix(STAGE): event.cpu_time_total / 1000 / event.count
        for event in averages
        if event.key.startswith(STAGE)
    }
    total_ms = sum(stages_ms.values())
    lines = [f"{steps} steps on {device}, {total_ms:.1f} ms each within the stages", ""]
    if device.type != "cpu":
        lines[1:1] = ["the stages' times are the host's, which launches the work and does not wait for it"]
    for name, spent_ms in sorted(stages_ms.items(), key=lambda item: -item[1]):
        lines.append(f"{name:32} {spent_ms:10.2f} ms {100 * spent_ms / max(total_ms, 1e-9):6.1f}%")
    order = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
    table = averages.table(sort_by=order, row_limit=SHOWN_OPERATIONS, max_name_column_width=50)
    with tempfile.TemporaryDirectory(prefix="fruitgan-") as scratch:
        trace = Path(scratch, TRACE)
        profiler.export_chrome_trace(str(trace))
        write_atomically(folder / TRACE, trace.read_bytes())
    write_atomically(folder / SUMMARY, "\n".join([*lines, "", table]).encode())
