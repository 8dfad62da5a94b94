"""How many CPU threads torch computes with: the number that is fastest here and now, found by a short trial.

Beside another busy process all cores can be ten times slower than one thread: every operation waits for its slowest thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fruitgan.machine import cores

TRIAL_SECONDS = 3.0
MOST_ROUNDS = 20
ENVIRONMENT = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Threads:
    """A number of threads, and why it is that."""

    number: int
    why: str

    def __str__(self) -> str:
        return f"{self.number} thread{'s' * (self.number > 1)} ({self.why})"


def fixed_threads(asked: int | None, deterministic: bool = False) -> Threads | None:
    """The number that needs no trial: `--threads N`, that of the environment, or all cores for `--deterministic`."""
    if asked is not None:
        return Threads(asked, "as asked")
    if os.environ.get(ENVIRONMENT):
        return Threads(torch.get_num_threads(), ENVIRONMENT)
    if deterministic:
        return Threads(cores(), "deterministic")
    return Threads(1, "all there are") if cores() == 1 else None


def seconds_by_threads(work: Callable[[], None], seconds: float = TRIAL_SECONDS) -> dict[int, float]:
    """Mean seconds of the work with one thread, half of the cores and all of them, in turns, for so long in all.

    torch is left with the number that it had.
    """
    numbers = sorted({1, max(1, cores() // 2), cores()})
    spent = dict.fromkeys(numbers, 0.0)
    rounds = 0
    began = time.monotonic()
    with using_threads(torch.get_num_threads()):
        for number in numbers:
            torch.set_num_threads(number)
            work()  # makes the threads, and kernels for these shapes
        while rounds < MOST_ROUNDS and (not rounds or time.monotonic() - began < seconds):
            for number in numbers:
                torch.set_num_threads(number)
                start = time.perf_counter()
                work()
                spent[number] += time.perf_counter() - start
            rounds += 1
    return {number: total / rounds for number, total in spent.items()}


def fastest_threads(work: Callable[[], None] | None = None, seconds: float = TRIAL_SECONDS) -> Threads:
    """The number with which the work, or else a few convolutions with their gradients, is done soonest."""
    found = seconds_by_threads(work or _convolutions(), seconds)
    others = ", ".join(map(str, found))
    return Threads(min(found, key=lambda number: found[number]), f"fastest of {others}")


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """Compute with so many threads, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def chosen_threads(asked: int | None) -> Threads:
    """For fits and evaluations: the fixed number, else the fastest, chosen anew each time."""
    return fixed_threads(asked) or fastest_threads(seconds=TRIAL_SECONDS / 3)


def _convolutions() -> Callable[[], None]:
    """A few layers as detectors and feature networks have them, on 8 images of 64 px."""
    x = torch.ones(8, 3, 64, 64)
    weights = [torch.full(shape, 0.01, requires_grad=True) for shape in ((32, 3, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3))]

    def work() -> None:
        y = x
        for weight in weights:
            y = F.relu(F.conv2d(y, weight, padding=1))
        torch.autograd.grad(y.sum(), weights)

    return work
