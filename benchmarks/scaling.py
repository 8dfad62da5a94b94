"""How a training step grows with batch, image size and width: predicted from counted work, measured, and memory beside it.

    python benchmarks/scaling.py --recipe fast --precision fp32 --batches 1,2,4,8 --sizes 64,96,128 --widths 16,32,64

A row changes one thing. Predicted is the time of the multiplications and additions, at the rate that this machine reaches on
one large convolution, and then that of the bytes that every operation reads and writes, at the rate of a copy of 256 MB: no
overlap, no cache. `measured / predicted` says how far that picture holds. The last column is what the process holds after the
rows so far.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from train_step import peak_gflops, seconds, stepper, trainer_of

from fruitgan.device import keep_freed_memory
from fruitgan.settings import Precision
from fruitgan.train_gan.assemble import make_plan
from fruitgan.train_gan.cuda_graphs import WARM_UP_STEPS
from fruitgan.train_gan.settings import Plan, TrainGanSettings

# They only say anew where numbers lie.
FREE = ("view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "detach", "alias", "unbind", "split")


class Bytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What the operations read and write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in FREE:
            self.operations += 1
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


@dataclass(frozen=True)
class Row:
    batch: int
    size_px: int
    width: int
    gflop: float
    gigabytes: float
    operations: int
    predicted_ms: float
    measured_ms: float
    peak_mib: float


def copy_rate(device: torch.device) -> float:
    """Bytes read and written a second by a copy."""
    source, target = (torch.ones(64 << 20, device=device) for _ in range(2))
    best = min(seconds(lambda: target.copy_(source), device, 2) for _ in range(5))
    return 2 * source.numel() * 4 / best


def measure(plan: Plan, device: torch.device, precision: Precision, rates: tuple[float, float], rounds: int) -> Row:
    trainer = trainer_of(plan, device, precision, eager=True)
    with FlopCounterMode(display=False) as flops:
        next(trainer.steps(1))
    with Bytes() as moved:
        next(trainer.steps(2))
    del trainer
    _memory(device)  # from here on
    step = stepper(trainer_of(plan, device, precision))
    repeats = 10 if device.type == "cuda" else 1  # the host runs ahead
    seconds(step, device, WARM_UP_STEPS + 2 if device.type == "cuda" else 1)
    before = _memory(device)
    times = [seconds(step, device, repeats) for _ in range(rounds)]
    operations, bytes_moved = flops.get_total_flops(), moved.total
    return Row(
        batch=plan.recipe.batch_size,
        size_px=plan.recipe.image_size_px,
        width=int(plan.generator.options["base_channels"]),
        gflop=operations / 1e9,
        gigabytes=bytes_moved / 1e9,
        operations=moved.operations,
        predicted_ms=1000 * (operations / rates[0] + bytes_moved / rates[1]),
        measured_ms=1000 * statistics.median(times),
        peak_mib=before / 2**20,
    )


def _memory(device: torch.device) -> int:
    """The most in use so far: of the GPU's memory since the last look, or what the process holds now."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_reserved(device)  # a graph's own memory is not allocated between its steps
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a pseudo file of one line
        return int(file.read().split()[1]) * 4096


def wishes(given: argparse.Namespace) -> Iterator[TrainGanSettings]:
    base = TrainGanSettings(recipe=given.recipe, image_size=given.image_size, batch_size=given.batch_size, seed=0)
    yield from (replace(base, batch_size=int(n)) for n in _numbers(given.batches))
    yield from (replace(base, image_size=int(n)) for n in _numbers(given.sizes))
    yield from (replace(base, generator_options={"base_channels": int(n)}) for n in _numbers(given.widths))


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--batches", default="")
    parser.add_argument("--sizes", default="")
    parser.add_argument("--widths", default="")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    if device.type == "cpu":
        keep_freed_memory()
    precision = cast(Precision, given.precision)
    began = time.perf_counter()
    rates = (1e9 * peak_gflops(device, precision)["convolution"], copy_rate(device))
    print(f"{given.recipe}, {precision}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"rates: {rates[0] / 1e9:.0f} GFLOP/s on a convolution, {rates[1] / 1e9:.1f} GB/s read and written by a copy")
    print("| batch | px | width | GFLOP | GB | operations | predicted ms | measured ms | measured / predicted | img/s | MiB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for settings in wishes(given):
        row = measure(make_plan(settings, device), device, precision, rates, given.rounds)
        print(
            f"| {row.batch} | {row.size_px} | {row.width} | {row.gflop:.1f} | {row.gigabytes:.2f} | {row.operations} "
            f"| {row.predicted_ms:.0f} | {row.measured_ms:.0f} | {row.measured_ms / row.predicted_ms:.2f} "
            f"| {1000 * row.batch / row.measured_ms:.2f} | {row.peak_mib:.0f} |",
            flush=True,
        )
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
