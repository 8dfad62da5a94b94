"""How much memory a process may still take."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def spare_memory_bytes() -> int:
    """What the system could give without swapping, or what a container's limit leaves if that is less."""
    found = [_said_by_linux(), _left_in_container(), _half_of_all()]
    return min((size for size in found[:2] if size is not None), default=found[2] or 0)


def _said_by_linux() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _left_in_container() -> int | None:
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))  # "max" where there is none
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        # Pages of files count as used, though they make room.
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        files = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    except (OSError, ValueError):
        return None
    return max(0, limit - used + files)


def _half_of_all() -> int | None:
    """Where nothing tells what is free."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):  # Windows
        return 4 * 2**30
