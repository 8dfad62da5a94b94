"""Where and how torch computes: on which device, in which precision, in which memory, with how many threads of the CPU.

Beside another busy process all cores can be ten times slower than one thread, since every operation waits for its slowest
thread: the number that is fastest here and now is found by a short trial.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fruitgan.errors import EnvironmentProblem, UsageError
from fruitgan.machine import cores
from fruitgan.settings import Precision

KNOWN = "cpu, mps, cuda or cuda:N"
BF16_TRIAL_SIDE, BF16_TRIALS = 512, 8
BF16_GAIN = 1.3
"""So many times as fast as fp32 a product must be in bf16, since norms and additions gain nothing."""
SHARE_FOR_DATA = 0.4
"""Of a GPU's free memory; the rest is for networks and what they compute."""
TRIAL_SECONDS = 3.0
MOST_ROUNDS = 20
ENVIRONMENT = "OMP_NUM_THREADS"


def choose_device(gpu: str | None = None, device: str | None = None) -> torch.device:
    """The device that `--gpu auto|none|N` or `--device cpu|mps|cuda[:N]` asks for; without either the best there is.

    Raises:
        UsageError: both, or neither form.
        EnvironmentProblem: this machine has no such device.
    """
    if gpu is not None and device is not None:
        raise UsageError("--gpu and --device say the same thing; give one of them")
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    first = "mps" if has_mps and not has_cuda else "cuda:0"
    wanted = device
    if wanted is None:
        names = {"auto": first if has_cuda or has_mps else "cpu", "none": "cpu", "0": first}
        wanted = names.get(gpu or "auto", f"cuda:{gpu}")
    match = re.fullmatch(r"(cpu|mps|cuda)|cuda:(\d+)", wanted)
    if not match:
        asked, known = (f"--gpu {gpu}", "auto, none or a number such as 0") if device is None else (f"--device {device}", KNOWN)
        raise UsageError(f"{asked}: expected {known}")
    if match[1] == "cpu":
        return torch.device("cpu")
    if match[1] == "mps":
        if not has_mps:
            raise EnvironmentProblem("--device mps: torch finds no Apple GPU here; use --device cpu")
        return torch.device("mps")
    index = int(match[2] or 0)
    count = torch.cuda.device_count() if has_cuda else 0
    if index >= count:
        found = f"{count} found" if count else "no CUDA GPU found"
        raise EnvironmentProblem(f"GPU {index}: {found}; use --gpu none, or see fruitgan doctor")
    return torch.device("cuda", index)


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """The context in which networks are called: bf16 multiplications, or nothing changed."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The context in which an autocast around it does not count."""
    if device.type == "meta":  # where operations are counted, and which has no autocast
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def memory_format_of(device: torch.device) -> torch.memory_format:
    """How networks lie there: a GPU's convolutions want the channels of a pixel side by side, a CPU's are slower with that."""
    return torch.channels_last if device.type == "cuda" else torch.preserve_format


def at_least_fp32(x: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 where they are that already (tests compute in it)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def has_room_for(device: torch.device, size_bytes: int) -> bool:
    """Whether data of this size belong in a GPU's own memory: they take less than two fifths of what is free there."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return size_bytes < SHARE_FOR_DATA * free


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_largest_kept_bytes = 32 << 20  # what glibc comes to by itself


def keep_freed_memory(threshold_bytes: int = 1 << 30, trim_bytes: int = (1 << 31) - 1) -> None:
    """Let this process keep the large blocks that it frees, where the C library is one that can be told so (glibc).

    A training step asks for the same hundreds of megabytes again and again. By default each block above 32 MiB goes back to the
    system and comes anew with every page cleared: filling one takes ten times as long.
    """
    global _largest_kept_bytes
    if _tell_malloc(_MMAP_THRESHOLD, threshold_bytes):
        _largest_kept_bytes = threshold_bytes
    else:  # an older glibc takes no more than it comes to by itself; without a word it would stay at its first 128 KiB
        _tell_malloc(_MMAP_THRESHOLD, _largest_kept_bytes)
    _tell_malloc(_TRIM_THRESHOLD, trim_bytes)


@contextlib.contextmanager
def freed_memory_returned(threshold_bytes: int = 1 << 20) -> Iterator[None]:
    """In here, blocks from this size on go back to the system when they are freed, where glibc is the C library.

    Where many sizes take turns, what is kept has holes that fit none of them: the tiles of a picture of 3000 x 2000 px took 601
    MB of memory, and 239 MB so.
    """
    _tell_malloc(_MMAP_THRESHOLD, threshold_bytes)
    try:
        yield
    finally:
        _tell_malloc(_MMAP_THRESHOLD, _largest_kept_bytes)


def _tell_malloc(parameter: int, value: int) -> bool:
    """Whether it took it."""
    with contextlib.suppress(AttributeError):  # another C library
        return sys.platform.startswith("linux") and bool(ctypes.CDLL(None).mallopt(parameter, value))
    return False


class LivingTensors(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Inside a `with`: the bytes of all tensors that are alive at one time, at most, those given and what is made in it."""

    def __init__(self, given: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._bytes = self.peak_bytes = 0
        self._given = [tensor.untyped_storage() for tensor in given]  # which are held, and so stay
        for storage in self._given:
            self._keep(storage)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._keep(tensor.untyped_storage())
        return out

    def _keep(self, storage: torch.UntypedStorage) -> None:
        name, size = id(storage), storage.nbytes()
        if name in self._alive:
            return

        def forget(_: Any) -> None:
            del self._alive[name]
            self._bytes -= size

        self._alive[name] = weakref.ref(storage, forget)
        self._bytes += size
        self.peak_bytes = max(self.peak_bytes, self._bytes)


def own_randomness(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Weights and dropout are drawn from torch's own generator; after this it is given back as it was."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type="cuda")


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Allow torch only kernels that give the same bits every time, until the block ends.

    Raises:
        EnvironmentProblem: not on a GPU, where the gradient of reflected padding has no such kernel.
    """
    if device.type != "cpu":
        raise EnvironmentProblem(f"--deterministic: torch has not all that it takes on {device.type}; use --gpu none with it")
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 multiplications have instructions of their own there."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Kernels for bf16 are there on any AVX-512 machine, but where the instructions are missing they are slower than fp32.
        able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")) and _bf16_pays_here()
    return False


@functools.cache
def _bf16_pays_here() -> bool:
    """Whether this CPU multiplies matrices faster in bf16: some have the instructions at half the speed of those for fp32."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(BF16_TRIAL_SIDE, BF16_TRIAL_SIDE, dtype=dtype)
        times = []
        for _ in range(BF16_TRIALS):
            began = time.perf_counter()
            torch.mm(matrix, matrix)
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] * BF16_GAIN < seconds[torch.float32]


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


@contextlib.contextmanager
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


def shared_threads(asked: int | None, share: int) -> Threads:
    """For one of several processes: the fixed number, else its share of the cores."""
    return fixed_threads(asked) or Threads(share, "a share of the cores")


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
