"""Run work on several items at a time and give the results in order."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
