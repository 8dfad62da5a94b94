"""What can be known of this machine without torch: cores, memory, whether a GPU may be there, where the cache lies."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA and AMD make on Linux, and Windows inside its Linux."""
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of the container that this process may be in."""


def cache_folder() -> Path:
    """Where fetched, drawn and exported things lie: `FRUITGAN_CACHE`, else the platform's place."""
    given = os.environ.get("FRUITGAN_CACHE")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("fruitgan")


def is_on(variable: str) -> bool:
    """Whether a variable of the environment says yes."""
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no", "off")


def is_offline() -> bool:
    """Whether `FRUITGAN_OFFLINE` forbids every download."""
    return is_on("FRUITGAN_OFFLINE")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def may_have_gpu() -> bool:
    """Whether a GPU that torch can use may be here; asking torch itself would cost its import."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll").exists()
    return any(Path(file).exists() for file in GPU_FILES)


def total_memory_bytes() -> int | None:
    """The memory of the machine, or of the container where that is less; None where the system does not tell."""
    return _memory_bytes()[0]


def spare_memory_bytes() -> int:
    """What the system could give without swapping, or what a container's limit leaves if that is less."""
    return _memory_bytes()[1]


def _memory_bytes() -> tuple[int | None, int]:
    try:
        total: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        total = None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        spare = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):  # not Linux
        spare = 4 * 2**30 if total is None else total // 2
    older = CGROUP / "memory"  # where version 1 has it
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if older.is_dir() else ("memory.max", "memory.current")
    folder = older if older.is_dir() else CGROUP
    try:
        limit, used = (int((folder / name).read_text(encoding="ascii")) for name in names)  # "max" where there is none
        # Pages of files count as used, though they make room.
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        files = next((int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "total_inactive_file "))), 0)
    except (OSError, ValueError):
        return total, spare
    return limit if total is None else min(total, limit), max(0, min(spare, limit - used + files))
