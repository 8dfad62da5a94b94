"""The same work for many items: by threads, by actors of Ray, or divided between the jobs of an array.

Actors work on a cluster that is there, or on one of this machine's cores for the time, which listens on loopback alone. Ray
does all the rest: it hands out the items, holds back what would not fit into memory, and gives what a dead actor or node had to
another.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from fruitgan import __version__
from fruitgan.errors import EnvironmentProblem, FruitganError, UsageError, needing, reason_of, shown
from fruitgan.machine import cores
from fruitgan.progress import OnProgress, Progress, silent

Item = TypeVar("Item")
Result = TypeVar("Result")
LOCAL, HERE = "local", "auto"
"""The addresses of a cluster of this machine for the time, and of the one that this machine is part of."""
STORE_BYTES = 100_000_000
"""Of Ray's object store in a local cluster: through it go names and numbers, no pictures."""
MOST_TIMES = 4
"""An item that an actor is given for the fourth time, after deaths, is given up: it may be what kills them."""
ANSWER_SECONDS = 10
# HTTP/2's first words, and an empty frame of settings; a server answers with its own settings, a frame of type 4.
GREETING, ANSWER = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 4

Work = Callable[[Any], Any]
"""What is done for an item, from JSON to JSON; raises FruitganError where nothing more can be done for any."""
Build = Callable[[str], Work]
"""Makes the work, with all that it needs, on the device `none` or `0`: once for each actor."""


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
    workers = workers or cores()
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


def _refused(item: Any) -> Any:
    raise FruitganError(f"--ray: every actor died that had {shown(item)}; leave it out, or do it without --ray to see why")


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to."""

    cores: int
    gpus: int
    """Those that may be used; with one at least, each actor has one."""

    @property
    def device(self) -> str:
        """Of an actor, as `--gpu` says it: a GPU (`0`), or a core (`none`)."""
        return "0" if self.gpus else "none"

    def each(
        self, build: Build, items: Sequence[Any], on_gpus: bool = True, at_once: int = 64, given_up: Work = _refused
    ) -> Generator[Any]:
        """What the work gives for each item, in their order; with `on_gpus` where there are any.

        An actor is given so many `at_once`, or fewer where all would not be busy; those are done again where it dies. An item
        on which actors die again and again is `given_up`, which gives what stands in its place.

        Raises:
            FruitganError: what the work or its making raised, or Ray itself; an item was given up with nothing in its place.
        """
        import ray
        from ray.data import ActorPoolStrategy, DataContext, from_items

        context = DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        rows = [{"at": at, "item": json.dumps(item)} for at, item in enumerate(items)]
        gpus = self.gpus if on_gpus else 0
        actors = gpus or self.cores
        blocks = max(1, len(rows) // at_once, min(len(rows), 4 * actors))
        begun = cast(Any, ray).remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Begun).remote()
        data = from_items(rows, override_num_blocks=blocks).map(
            cast(Any, _Actor),
            fn_constructor_args=(build, self.device if on_gpus else "none", str(Path.cwd()), __version__, begun),
            compute=ActorPoolStrategy(min_size=1, max_size=min(actors, blocks), initial_size=min(actors, blocks)),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )
        early: dict[int, Any] = {}
        due = 0
        try:
            for row in data.iter_rows():
                early[row["at"]], *problem = json.loads(row["told"]) or [given_up(items[row["at"]])]
                if problem:
                    error = FruitganError(problem[0])
                    error.exit_code = problem[1]
                    raise error
                while due in early:
                    yield early.pop(due)
                    due += 1
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise FruitganError(f"Ray gave up: {lines[-1].strip() if lines else error!r}; the same command goes on") from error
        finally:
            if ray.is_initialized():  # an error on its way may keep this for longer than the connection
                ray.kill(begun)


class _Begun:
    """What is known beside the actors that die: which were there before, and how often they have begun an item since."""

    def __init__(self) -> None:
        self._actors: set[str] = set()
        self._times: dict[int, int] = {}

    def is_anew(self, actor: str) -> bool:
        was_there = actor in self._actors
        self._actors.add(actor)
        return was_there

    def times(self, at: int, done: int) -> int:
        self._times.pop(done, None)
        self._times[at] = self._times.get(at, 0) + 1
        return self._times[at]


class _Actor:
    """The work of one process of Ray. One that is started anew keeps count of what it begins: that may be what killed it."""

    def __init__(self, build: Build, device: str, folder: str, version: str, begun: Any = None) -> None:
        self._begun, self._done = None, -1
        if begun is not None:
            import ray

            if ray.get(begun.is_anew.remote(ray.get_runtime_context().get_actor_id())):
                self._begun = begun
        with suppress(OSError):  # paths mean what they mean to the command, where its folder is there
            os.chdir(folder)
        self._work: Work | None = None
        self._error: FruitganError | None = None
        try:
            if version != __version__:  # whose results would be others
                raise EnvironmentProblem(
                    f"--ray: a node has fruitgan {__version__}, here is {version}; install one of them everywhere"
                )
            self._work = build(device)
        except FruitganError as error:  # told with the first item: what an actor raises while it is made, Ray tries for ever
            self._error = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._begun is not None:
            import ray

            if ray.get(self._begun.times.remote(row["at"], self._done)) >= MOST_TIMES:
                return {"at": row["at"], "told": "null"}
        try:
            if self._error is not None:
                raise self._error
            told = [cast(Work, self._work)(json.loads(row["item"]))]
        except FruitganError as error:
            told = [None, str(error), error.exit_code]
        self._done = row["at"]
        return {"at": row["at"], "told": json.dumps(told)}


@contextmanager
def connected(address: str, gpu: str | None, device: str | None) -> Iterator[Cluster]:
    """A cluster to work on: `HOST:PORT`, `auto` for the one that this machine is part of, or `local` for one of its own.

    `gpu` and `device` are those options of the command: whether GPUs may be used; which one, Ray says.

    Raises:
        UsageError: not of this form.
        EnvironmentProblem: Ray is not installed, or nothing answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of each use
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as an error
    if address == LOCAL:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # off, Ray takes loopback for this machine's address
    elif address != HERE:
        _must_answer(address)
    with needing("ray", "--ray"):
        import ray
        import ray.data
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    was_there = ray.is_initialized()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        quiet |= {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": STORE_BYTES}
        quiet["_node_ip_address"] = "127.0.0.1"
    try:
        if not was_there:
            ray.init(address=address, **quiet)
        held = cast(Any, ray).cluster_resources()
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EnvironmentProblem(f"--ray {address}: no cluster to be had ({reason_of(error)})") from error
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of a lost node; results alone go to stdout
            yield Cluster(max(1, int(held.get("CPU", 1))), 0 if gpu == "none" or device == "cpu" else int(held.get("GPU", 0)))
    finally:
        if not was_there:
            ray.shutdown()


def _must_answer(address: str) -> None:
    """Raises: UsageError for no `HOST:PORT`; EnvironmentProblem if nothing there speaks as Ray does: Ray itself waits long."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host or int(port) > 65535:
        raise UsageError(
            f"--ray {address}: expected HOST:PORT of a cluster's head, auto, or nothing for a cluster of this machine"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as server:
            server.sendall(GREETING)
            answer = server.recv(9)
    except OSError as error:
        raise EnvironmentProblem(f"--ray {address}: no cluster answers there ({error})") from error
    if len(answer) < 4 or answer[3] != ANSWER:
        raise EnvironmentProblem(f"--ray {address}: what answers there is no Ray cluster")
