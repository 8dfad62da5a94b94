"""Several processes that train as one: who they are, how they add up gradients, and how they agree before and while they train.

Each process, a rank, takes its rows of every batch; what is drawn is drawn for the whole batch. So the same batch is the same
run on any number of processes, to the order of floating-point sums. Alone, all of this is nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fruitgan.errors import FruitganError, UsageError, shown
from fruitgan.machine import cores

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun, and most other launchers, set for each process."""
LAUNCH = "FRUITGAN_LAUNCH"
"""The folder by which the processes that `launch` starts find each other; set in these alone."""
MOST_NAMED = 8


class RankLost(FruitganError):
    """Another process of the training died or hangs: to start again from the last checkpoint may help."""


class Elsewhere(FruitganError):
    """Another process found what is wrong, or stopped, and says it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


class Ranks:
    """This process among those of its training; this class: alone.

    `rank` counts from 0 to below `world`; the first one alone writes and speaks.
    """

    rank = 0
    local_rank = 0
    """Among those on this machine."""
    world = 1
    """How many divide the batch between them."""
    is_idle = False
    """Whether this one only waits, since the number of all does not divide the batch."""
    is_group = False
    launch: str | None = None
    """What names this start of several processes, also where they are started anew after a loss; None: nothing does."""
    restarts = 0
    rows = 1
    """Of the whole batch, before some networks are given two batches as one."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's rows of `n`."""
        return slice(n * self.rank // self.world, n * (self.rank + 1) // self.world)

    def own(self, whole: Tensor) -> Tensor:
        """This rank's rows of k batches in one tensor, [k * rows, ...]."""
        if self.world == 1:
            return whole
        batches = whole.view(-1, self.rows, *whole.shape[1:])[:, self.share(self.rows)]
        return batches.reshape(-1, *whole.shape[1:])

    def whole_length(self, n: int) -> int:
        """How many rows all ranks have together of a tensor of which this one has `n`."""
        if self.world == 1:
            return n
        part = self.share(self.rows)
        return n // max(1, int(part.stop) - int(part.start)) * self.rows

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Make each the sum over all ranks, by one all-reduce; nothing waits for the device."""

    def gathered(self, *tensors: Tensor) -> list[Tensor]:
        """Each [n, ...] with the rows of all ranks, [world * n, ...], by one all-gather; without gradients."""
        return list(tensors)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether any rank says so, for each flag, of which the first one means to stop; every rank asks at the same place."""
        return flags

    def exchange(self, value: Any) -> list[Any]:
        """What each rank has, a JSON value, in their order. Raises: Elsewhere if one has failed instead."""
        return [value]

    def in_turn(self, work: Callable[[], T]) -> T:
        """Let the first rank of each machine do what leaves something in a cache, and then the others."""
        if self.local_rank:
            self.exchange(None)
            return work()
        found = work()
        self.exchange(None)
        return found

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Raises: UsageError naming all of these, tables of JSON values, that is not the same everywhere."""
        everywhere = self.exchange(dict(_leaves(facts)))
        found = []
        for rank, theirs in enumerate(everywhere):
            for name in sorted({*everywhere[0], *theirs}):
                first, other = everywhere[0].get(name), theirs.get(name)
                if first != other:
                    found.append(f"{name} is {shown(first)} in process 0 and {shown(other)} in process {rank}")
        if found:
            more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            raise UsageError(f"the processes do not train the same: {'; '.join(found[:MOST_NAMED])}{more}")

    def divide(self, batch_size: int) -> None:
        """Divide batches of so many rows.

        Where these processes were started anew, with fewer machines perhaps, and do not divide it, the last ones wait.

        Raises:
            UsageError: they do not divide it evenly from the start.
        """

    def begin(self, device: torch.device) -> None:
        """From here on they train.

        Raises:
            Elsewhere: this one was not needed, has waited, and the training is over.
        """

    def release(self) -> None:
        """Let those go that only waited."""


_ranks = Ranks()


def ranks() -> Ranks:
    """This process among those of its training."""
    return _ranks


def is_started_as_rank() -> bool:
    """Whether a launcher has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 or all(os.environ.get(name) for name in VARIABLES)


def own_gpu(gpu: str | None, device: str | None) -> str | None:
    """Which of the GPUs of `--gpu` is this process' own, in the same words; as it stands where `--device` is given.

    Raises:
        UsageError: it names fewer than there are processes on this machine.
    """
    if device is not None or gpu == "none":
        return gpu
    if not _ranks.is_group:
        return "auto" if gpu == "all" else gpu
    here = _ranks.local_rank
    if gpu in (None, "auto", "all"):
        import torch

        count = torch.cuda.device_count()
        return str(here if here < count else 0) if count or gpu == "all" else "none"  # a launcher may show each its own alone
    numbers = str(gpu).split(",")
    if here >= len(numbers):
        raise UsageError(f"--gpu {gpu}: names {len(numbers)}, and {here + 1} or more processes run on this machine")
    return numbers[here]


def processes_here() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", _ranks.world))


def own_threads() -> int:
    """This process' share of the cores."""
    return max(1, cores() // processes_here())


@contextmanager
def as_if_alone() -> Iterator[None]:
    """While inside, this process is no rank: for what is computed on a batch that is not divided."""
    global _ranks
    mine, _ranks = _ranks, Ranks()
    try:
        yield
    finally:
        _ranks = mine


def _leaves(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a table and those in it, by dotted names."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
