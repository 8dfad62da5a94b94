"""Run work on several items at a time and give the results in order; share it between the jobs of an array."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from fruitgan.errors import UsageError
from fruitgan.progress import OnProgress, Progress, silent

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None = None,
    *,
    what: str = "",
    tell: OnProgress = silent,
) -> Generator[tuple[Item, Result]]:
    """Each item with its result, in the order of the items, only a few of them worked on ahead.

    `tell` hears how many the caller is done with. Threads suffice for decoding and generating, which Pillow and the engines do
    outside Python's global lock.
    """
    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="images") as pool:
        ahead: deque[tuple[Item, Future[Result]]] = deque()
        waiting = iter(items)
        try:
            for done in range(1, len(items) + 1):
                for item in itertools.islice(waiting, 1 + 4 * workers - len(ahead)):
                    ahead.append((item, pool.submit(work, item)))
                first, future = ahead.popleft()
                yield first, future.result()
                tell(Progress(what, done, len(items)))
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Shard:
    """One of `count` jobs that share the work without a word to each other; `index` is from 0."""

    index: int
    count: int

    def has(self, name: str) -> bool:
        """Whether what has this name is this job's, by the name's sha256: others that come or go move nothing."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index


def parse_shard(text: str | None) -> Shard | None:
    """What `--shard I/N` means; `auto` asks the environment of a Slurm array, or else RANK and WORLD_SIZE.

    Raises:
        UsageError: not of this form, or no such environment.
    """
    if text is None:
        return None
    said = os.environ.get
    where = "expected I/N with I from 0 to N - 1, or auto"
    try:
        if text != "auto":
            index, count = (int(part) for part in text.split("/"))
        else:
            where = "the environment has no SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT, and no RANK with WORLD_SIZE"
            index, count = int(said("RANK", "0")), int(said("WORLD_SIZE", "0"))
            if task := said("SLURM_ARRAY_TASK_ID"):
                step, first = int(said("SLURM_ARRAY_TASK_STEP", "1")), int(said("SLURM_ARRAY_TASK_MIN", "0"))
                index, count = (int(task) - first) // step, int(said("SLURM_ARRAY_TASK_COUNT", "0"))
    except (ValueError, ZeroDivisionError):
        index = count = 0
    if not 0 <= index < count:
        raise UsageError(f"--shard {text}: {where}")
    return Shard(index, count)
