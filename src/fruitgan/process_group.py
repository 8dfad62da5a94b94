"""The processes that torchrun, or another launcher, has started as one training; see `distributed`."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from fruitgan import distributed
from fruitgan.distributed import LAUNCH, VARIABLES, Elsewhere, RankLost, Ranks
from fruitgan.errors import EnvironmentProblem, UsageError, reason_of

CONNECT_SECONDS = 30
PREPARE_SECONDS = 24 * 3600
"""One rank may decode a million pictures while the others wait."""
ANSWER_VARIABLE, ANSWER_SECONDS = "FRUITGAN_RANK_SECONDS", 600.0
"""How long the others wait for a rank in a step; a rank that takes longer hangs."""
MOST_FLAGS = 4
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Group(Ranks):
    """The processes that torchrun, or another launcher, has started as one.

    Until `begin`, they exchange JSON values alone, so that whoever fails can say so with the next one.
    """

    is_group = True

    def __init__(self) -> None:
        """Raises: UsageError where a variable is missing, EnvironmentProblem where the others cannot be found."""
        launch = os.environ.get(LAUNCH)
        missing = [name for name in VARIABLES[: 2 if launch else None] if not os.environ.get(name)]
        if missing:
            raise UsageError(
                f"WORLD_SIZE is {os.environ.get('WORLD_SIZE', 'not set')}, but {' and '.join(missing)} not: several processes "
                "need a rendezvous; start them with torchrun or --processes N, or unset WORLD_SIZE"
            )
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self.restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
        self.launch = None if name == "none" else name  # torchrun's word where it was given none
        self.is_preparing = True
        self._all = self.world
        self._data: Any = None
        self._is_released = False
        self.seconds = float(os.environ.get(ANSWER_VARIABLE, ANSWER_SECONDS))
        answer, prepare = (datetime.timedelta(seconds=seconds) for seconds in (self.seconds, PREPARE_SECONDS))
        address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
        if launch or address in LOOPBACK:  # gloo would listen at the address of the machine's name
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if Path("/sys/class/net/lo").exists() else "lo0")
            os.environ.setdefault("NCCL_SOCKET_IFNAME", os.environ["GLOO_SOCKET_IFNAME"])
        try:
            if launch:
                store: Any = cast(Any, dist).FileStore(str(Path(launch, f"store-{self.restarts}")), self.world)
            else:
                if self.rank:
                    _wait_for(address, int(port))
                store = next(rendezvous("env://", timeout=answer))[0]
            dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.world, timeout=answer)
            self._words: Any = dist.new_group(backend="gloo", timeout=prepare)
        except (RuntimeError, ValueError, OSError) as error:  # torch's own are RuntimeErrors
            raise EnvironmentProblem(
                f"process {self.rank} of {self.world} cannot join the others at {launch or f'{address}:{port}'} "
                f"({reason_of(error)}); is the first one there, and the port open?"
            ) from error

    def exchange(self, value: Any) -> list[Any]:
        return [entry["value"] for entry in self._exchanged({"value": value, "error": None})]

    def tell(self, error: Exception) -> None:
        """Tell the others that this one has failed. Raises: Elsewhere where an earlier one has too, which says it."""
        self._exchanged({"value": None, "error": getattr(error, "exit_code", 1)})

    def _exchanged(self, entry: Mapping[str, Any]) -> list[Any]:
        words = json.dumps(entry).encode()
        with self._answering("while preparing"):
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self._all)]
            dist.all_gather(lengths, torch.tensor([len(words)]), group=self._words)
            longest = int(max(lengths))
            texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self._all)]
            own = torch.frombuffer(bytearray(words.ljust(longest)), dtype=torch.uint8)
            dist.all_gather(texts, own, group=self._words)
        entries = [json.loads(bytes(text.tolist())) for text in texts]
        failed = [rank for rank, other in enumerate(entries) if other["error"] is not None]
        if failed and failed[0] != self.rank:
            raise Elsewhere(entries[failed[0]]["error"])
        return entries

    def divide(self, batch_size: int) -> None:
        divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        if self._all not in divisors and not self.restarts:
            fitting = ", ".join(map(str, divisors))
            raise UsageError(f"{self._all} processes do not divide a batch of {batch_size} images evenly; these do: {fitting}")
        self.world = max(n for n in divisors if n <= self._all)
        self.rows, self.is_idle = batch_size, self.rank >= self.world

    def begin(self, device: torch.device) -> None:
        self.exchange(None)  # the last thing that is said: from here on who fails is lost
        self.is_preparing = False
        answer = datetime.timedelta(seconds=self.seconds)
        self._data = dist.group.WORLD
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if device.type == "cuda" or self.world < self._all:
            backend = "nccl" if device.type == "cuda" else "gloo"
            self._data = dist.new_group(list(range(self.world)), backend=backend, timeout=answer)
        if self.is_idle:
            while not self.any(False)[0]:
                pass
            raise Elsewhere(0)

    def add(self, tensors: Sequence[Tensor]) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._answering("in a step"):
            dist.all_reduce(flat, group=self._data)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)])

    def gathered(self, *tensors: Tensor) -> list[Tensor]:
        own = torch.cat([tensor.detach().flatten(1) for tensor in tensors], dim=1)
        whole = own.new_empty((self.world * len(own), own.shape[1]))
        with self._answering("in a step"):
            dist.all_gather(list(whole.chunk(self.world)), own, group=self._data)
        parts = torch.split(whole, [tensor[0].numel() for tensor in tensors], dim=1)
        return [part.reshape(-1, *t.shape[1:]) for part, t in zip(parts, tensors, strict=True)]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        # Between hosts, by gloo: the device goes on meanwhile.
        found = torch.tensor((*flags, *[False] * (MOST_FLAGS - len(flags))), dtype=torch.uint8)
        with self._answering("in a step"):
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        self._is_released = bool(found[0])
        return tuple(map(bool, found[: len(flags)].tolist()))

    def release(self) -> None:
        if self.world < self._all and not self._is_released:
            self.any(True)

    @contextlib.contextmanager
    def _answering(self, when: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            hangs = re.search("time(d )?out", str(error), flags=re.IGNORECASE)
            what = f"has not answered for {self.seconds:g} seconds; it hangs" if hangs else "died"
            raise RankLost(f"another process than this one, {self.rank} of {self._all}, {what} ({when})") from error


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """In here this process is one of those that its launcher started.

    Raises:
        UsageError, EnvironmentProblem: as `Group`.
        Elsewhere: another process has failed, and says why.
    """
    distributed._ranks = group = Group()
    try:
        yield group
    except Exception as error:
        if group.is_preparing and not isinstance(error, (RankLost, Elsewhere)):
            group.tell(error)
        if not group.is_first and isinstance(error, RankLost):
            raise RankLost("") from error  # the first one says it
        if not group.is_first and getattr(error, "is_everywhere", False):
            raise Elsewhere(getattr(error, "exit_code", 1)) from error
        raise
    else:
        dist.destroy_process_group()
        distributed._ranks = Ranks()


def _wait_for(address: str, port: int) -> None:
    """Raises: OSError if nobody listens there within half a minute: torch itself would try for much longer."""
    until = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            socket.create_connection((address, port), timeout=CONNECT_SECONDS).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
