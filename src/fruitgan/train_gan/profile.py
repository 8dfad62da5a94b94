"""Where a step's time goes: a trace for a viewer, and the share of each stage in words."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler import record_function

from fruitgan.files import write_atomically

SKIPPED_STEPS = 2
"""The first ones choose kernels and lay out memory."""
PROFILED_STEPS = 6
"""On a GPU the first of them run as they are, or while they are recorded, the others as recorded: those have no stages."""
STAGE = "fruitgan: "
TRACE, SUMMARY = "trace.json", "summary.txt"
SHOWN_OPERATIONS = 15
Steps = Iterator[Any]


def stage(name: str) -> record_function:
    """A part of the step under a name, for a `with`."""
    return record_function(STAGE + name)


@dataclass(frozen=True)
class Profile:
    """What was found in the steps that were profiled."""

    steps: int
    stages_ms: Mapping[str, float]
    """By name, of one step: the host's time, on a CPU that of the work itself."""
    operations: str
    """A table of the operations that take longest."""

    def text(self, device: torch.device) -> str:
        """The share of each stage, then the table."""
        total = sum(self.stages_ms.values())
        lines = [f"{self.steps} steps on {device}, {total:.1f} ms each within the stages", ""]
        if device.type != "cpu":
            lines[1:1] = ["the stages' times are the host's, which launches the work and does not wait for it"]
        for name, spent in sorted(self.stages_ms.items(), key=lambda item: -item[1]):
            lines.append(f"{name:32} {spent:10.2f} ms {100 * spent / max(total, 1e-9):6.1f}%")
        return "\n".join([*lines, "", self.operations])


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
    averages = profiler.key_averages()
    stages = {
        event.key.removeprefix(STAGE): event.cpu_time_total / 1000 / event.count
        for event in averages
        if event.key.startswith(STAGE)
    }
    order = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
    found = Profile(steps, stages, averages.table(sort_by=order, row_limit=SHOWN_OPERATIONS, max_name_column_width=50))
    with tempfile.TemporaryDirectory(prefix="fruitgan-") as scratch:
        trace = Path(scratch, TRACE)
        profiler.export_chrome_trace(str(trace))
        write_atomically(folder / TRACE, trace.read_bytes())
    write_atomically(folder / SUMMARY, found.text(device).encode())
