"""One step's images on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One step's images, augmented, and the random numbers that the objective asked for.

    `a` and `b` are [N, 3, S, S] in [-1, 1]; each of `draws` is [N, k], uniform in [0, 1).
    """

    a: Tensor
    b: Tensor
    draws: Mapping[str, Tensor] = field(default_factory=dict)
