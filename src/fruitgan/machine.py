"""What can be known of this machine without torch: its cores, whether a GPU may be there, where the cache lies."""

from __future__ import annotations

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


def is_offline() -> bool:
    """Whether `FRUITGAN_OFFLINE` forbids every download."""
    return os.environ.get("FRUITGAN_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")


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
