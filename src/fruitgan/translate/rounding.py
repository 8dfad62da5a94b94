"""How far a picture computed in bf16 is from the same in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fruitgan.data.decode import decode
from fruitgan.engines.contracts import Engine
from fruitgan.engines.padding import Fit, translate_pixels
from fruitgan.errors import FruitganError
from fruitgan.translate.plan import Task


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Differences of a result in bf16 from that in fp32, in grey levels of 255, over all pixels and channels."""

    path: str
    """The picture that was translated both ways."""
    mean: float
    largest: int


def measured_rounding(task: Task, fit: Fit, scale: str | int, bf16: Engine, fp32: Callable[[], Engine]) -> Rounding | None:
    """The picture of this task by both engines; None if it is gone meanwhile, or fp32's memory does not suffice."""
    try:
        pixels = decode(task.read()).pixels
        results = [translate_pixels(engine, fit, pixels, scale).astype(np.int16) for engine in (bf16, fp32())]
    except (FruitganError, OSError, MemoryError):
        return None
    apart = np.abs(results[0] - results[1])
    return Rounding(path=task.source_name, mean=round(float(apart.mean()), 3), largest=int(apart.max()))
