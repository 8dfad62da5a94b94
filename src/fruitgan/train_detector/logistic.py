"""A detector that is a logistic regression on what a feature backend sees, which the evaluation has computed already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from fruitgan.measures.contracts import Features, features
from fruitgan.networks.contracts import LinearDetector

PROBE_PX = 256
"""Side of the picture that a backend is asked with which size it wants; one that takes any is given this."""


class Logistic(LinearDetector):
    """On images at the backend's own size. The backend is no part of what is saved: its weights are its package's."""

    def __init__(self, name: str, backend: Features) -> None:
        super().__init__(backend.dimensions)
        self.features_name = name
        self._backend = (backend.eval(),)  # in a tuple, where torch does not look for parts
        height, width = backend.prepare(np.zeros((PROBE_PX, PROBE_PX, 3), dtype=np.uint8)).shape[:2]
        if height != width:
            raise ValueError(f"the features {name} want pictures of {width} x {height} px, no squares")
        self.image_size_px = height

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._backend[0]._apply(fn)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def features(self, x: Tensor) -> Tensor:
        seen: Tensor = self._backend[0](x)
        return seen


def logistic(*, features: str = "random") -> Logistic:
    """Logistic regression on a feature backend (`--detector-option features=colour`): seconds on a CPU."""
    return Logistic(features, _backend(features))


def _backend(name: str) -> Features:
    backend: Features = features.build(features.choose(name))
    return backend
