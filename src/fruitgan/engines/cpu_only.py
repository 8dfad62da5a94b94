"""What the engines beside torch share: they run on the CPU and say what went wrong as torch's does."""

from __future__ import annotations

import math
from typing import Any

from fruitgan.engines.contracts import Images
from fruitgan.errors import FruitganError, UsageError

SIGNS = ("bad_alloc", "allocate", "out of memory", "not enough memory")


def refuse_gpu(engine: str, gpu: str | None, device: str | None) -> None:
    """Raises: UsageError where a GPU was asked for by name."""
    if gpu is not None and device is not None:
        raise UsageError("--gpu and --device say the same thing; give one of them")
    asked = f"--gpu {gpu}" if gpu not in (None, "auto", "none") else f"--device {device}" if device not in (None, "cpu") else ""
    if asked:
        raise UsageError(f"--engine {engine} runs on the CPU alone, not with {asked}; use --engine torch")


def no_memory(error: Exception, images: Images) -> Exception:
    """The error to raise: ours where the memory did not suffice, else the one that came."""
    if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in SIGNS):
        return error
    count, height, width = images.shape[:3]
    several = f"{count} images of " if count > 1 else ""
    return FruitganError(
        f"not enough memory for {several}{width} x {height} px; lower --scale (--scale auto, or --scale 256), "
        "or use --engine torch, which cuts a large picture into tiles"
    )


def checked(pictures: Images, total: Any) -> Images:
    """The pictures. Raises: FruitganError unless all that the generator gave is finite, as its sum says."""
    if not math.isfinite(float(total)):
        raise FruitganError("the generator gave numbers that are not finite; its weights or the precision are to blame")
    return pictures
