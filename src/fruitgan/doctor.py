"""`fruitgan doctor`: what this machine can do, and what is wrong with this installation."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fruitgan import installed
from fruitgan.console import Console, options

SHOWN_PACKAGES = ("fruitgan", "torch", "torchvision", "kornia", "numpy", "pillow", "safetensors")
IMPORTED_PACKAGES = ("torch", "torchvision", "kornia")
"""Those whose builds must fit together, which only an import shows."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Gpu:
    name: str
    device: str
    memory_gib: float | None
    has_bf16: bool


@dataclass(frozen=True, kw_only=True)
class Cpu:
    name: str
    cores: int
    torch_threads: int | None
    instructions: str | None
    has_bf16: bool


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What `--json` prints. None stands for what could not be found out."""

    python: str
    platform: str
    packages: dict[str, str | None]
    cpu: Cpu
    gpus: list[Gpu]
    memory_gib: float | None
    memory_free_gib: float | None
    folder: str
    disk_free_gib: float
    cache: str
    cache_free_gib: float | None
    environment: dict[str, str]
    problems: list[str]


def doctor(json: options.Json = False) -> None:
    """Show what this machine can do, and what is wrong with this installation."""
    console = Console(json=json)
    diagnosis = diagnose()
    console.result(diagnosis)
    console.table("", ("what", "here"), _rows(diagnosis))
    console.out("")
    for problem in diagnosis.problems:
        console.out(f"problem: {problem}")
    if not diagnosis.problems:
        console.out("nothing is wrong with this installation")


def diagnose() -> Diagnosis:
    """Look at everything; imports torch and whatever is registered."""
    from fruitgan.machine import cache_folder

    problems = [*_import_problems(), *installed.problems()]
    memory_gib, memory_free_gib = _memory()
    cache = cache_folder()
    return Diagnosis(
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        packages={name: _version(name) for name in SHOWN_PACKAGES},
        cpu=_cpu(),
        gpus=_gpus(),
        memory_gib=memory_gib,
        memory_free_gib=memory_free_gib,
        folder=str(Path.cwd()),
        disk_free_gib=_free_gib(Path.cwd()),
        cache=str(cache),
        cache_free_gib=_free_gib(cache),
        environment={name: value for name, value in sorted(os.environ.items()) if name.startswith("FRUITGAN_")},
        problems=problems,
    )


def _rows(found: Diagnosis) -> list[tuple[str, str]]:
    cpu = found.cpu
    threads = "" if cpu.torch_threads is None else f", {cpu.torch_threads} threads fastest now"
    fast = ", fast bf16" if cpu.has_bf16 else ""
    rows = [("python", found.python), ("platform", found.platform)]
    rows += [(name, version or "not installed") for name, version in found.packages.items()]
    rows.append(("cpu", f"{cpu.name}, {cpu.cores} cores{threads}{f', {cpu.instructions}' if cpu.instructions else ''}{fast}"))
    for gpu in found.gpus:
        size = "" if gpu.memory_gib is None else f", {gpu.memory_gib} GiB"
        rows.append(("gpu", f"{gpu.name} ({gpu.device}{size}{', fast bf16' if gpu.has_bf16 else ''})"))
    if not found.gpus:
        rows.append(("gpu", "none that torch can use"))
    if found.memory_gib is not None:
        free = "" if found.memory_free_gib is None else f", {found.memory_free_gib} GiB free"
        rows.append(("memory", f"{found.memory_gib} GiB{free}"))
    rows.append(("disk", f"{found.disk_free_gib} GiB free at {found.folder}"))
    rows.append(("cache", f"{found.cache} ({found.cache_free_gib} GiB free)"))
    return rows + list(found.environment.items())


def _import_problems() -> list[str]:
    problems = []
    for name in IMPORTED_PACKAGES:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken build raises what it likes
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            problems.append(f"{name} {_version(name) or ''} cannot be imported: {reason}")
    return problems


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> Cpu:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads, instructions, bf16 = None, None, False
    with contextlib.suppress(Exception):  # torch may be the very thing that is broken
        import torch

        from fruitgan.device import has_fast_bf16
        from fruitgan.threads import fastest_threads, fixed_threads

        threads = (fixed_threads(None) or fastest_threads(seconds=1)).number
        instructions = torch.backends.cpu.get_cpu_capability()
        bf16 = has_fast_bf16(torch.device("cpu"))
    return Cpu(name=_cpu_name(), cores=cores, torch_threads=threads, instructions=instructions, has_bf16=bf16)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        names = Counter(
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        )
        if names:
            return names.most_common(1)[0][0]
    return platform.processor() or platform.machine()


def _gpus() -> list[Gpu]:
    found = []
    with contextlib.suppress(Exception):  # as above; a driver may fail too
        import torch

        from fruitgan.device import has_fast_bf16

        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            device = torch.device("cuda", index)
            facts = torch.cuda.get_device_properties(device)
            memory = round(facts.total_memory / GIB, 1)
            found.append(Gpu(name=facts.name, device=str(device), memory_gib=memory, has_bf16=has_fast_bf16(device)))
        if torch.backends.mps.is_available():
            found.append(Gpu(name="Apple GPU", device="mps", memory_gib=None, has_bf16=False))
    return found


def _memory() -> tuple[float | None, float | None]:
    """Memory of the machine, or of the container where that is less, and what of it is free, in GiB."""
    total: float | None = None
    free: float | None = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    with contextlib.suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024 / GIB
    with contextlib.suppress(OSError, ValueError):  # the file says "max" where there is no limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")) / GIB
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8")) / GIB
        total = limit if total is None else min(total, limit)
        free = limit - used if free is None else min(free, limit - used)
    return (None if total is None else round(total, 1)), (None if free is None else round(free, 1))


def _free_gib(folder: Path) -> float:
    """Room on the disk of the folder, or of the one that it would be made in."""
    while not folder.exists():
        folder = folder.parent
    return round(shutil.disk_usage(folder).free / GIB, 1)
