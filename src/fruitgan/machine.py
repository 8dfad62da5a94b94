"""What can be known of this machine without torch: its cores, its memory, whether a GPU may be there, where the cache lies."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path

GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA and AMD make on Linux, and Windows inside its Linux."""


def cache_folder() -> Path:
    """Where fetched, drawn and exported things lie: `FRUITGAN_CACHE`, else the platform's place."""
    given = os.environ.get("FRUITGAN_CACHE")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("fruitgan")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def may_have_gpu() -> bool:
    """Whether a GPU that torch can use may be here; asking torch itself would cost its import."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll").exists()
    return any(Path(file).exists() for file in GPU_FILES)


def memory_bytes() -> tuple[int | None, int | None]:
    """Memory of the machine, or of the container where that is less, and what of it is free; None is unknown."""
    total: int | None = None
    free: int | None = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):  # the file says "max" where there is no limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8"))
        total = limit if total is None else min(total, limit)
        free = limit - used if free is None else min(free, limit - used)
    return total, free
