"""What runs a bundle's generator. Images in and out are numpy uint8, so that nobody above needs torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fruitgan.registry import Choice

Images = NDArray[np.uint8]
"""[N, H, W, 3], 0..255, sRGB."""


class Engine(ABC):
    """One generator in one direction, ready to run."""

    concurrent: bool = False
    """Whether calls from several threads run side by side; else they must not overlap, or wait for each other."""

    @abstractmethod
    def translate(self, images: Images) -> Images:
        """uint8 [N, H, W, 3] to the same shape; H and W must fit the generator's size rule.

        What the generator gives is clipped to its range, then rounded.

        Raises:
            FruitganError: no memory left for images of this size, or the generator gave numbers that are not finite.
        """


class EngineBuilder(Protocol):
    """What is registered under an engine's name."""

    def __call__(
        self,
        *,
        generator: Choice,
        weights: Mapping[str, NDArray[Any]],
        gpu: str | None = None,
        device: str | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        threads: int | None = None,
    ) -> Engine:
        """The engine for the generator with these weights, by parameter name.

        `threads` is how many a call of a concurrent engine may take; None is all that there are.

        Raises:
            EnvironmentProblem: the generator's package is not installed, or this machine has no such device.
            DataError: the weights are not this generator's.
        """
        ...
