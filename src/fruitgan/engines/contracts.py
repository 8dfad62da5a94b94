"""Contract of engines, which run a bundle's generator, and their registry.

Images go in and come out as numpy arrays, so that whoever calls an engine needs no torch.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fruitgan.errors import FruitganError
from fruitgan.registry import Choice, Registry

Images = NDArray[np.float32]
"""[N, H, W, 3] float32 in [0, 1], sRGB."""
Weights = Mapping[str, NDArray[Any]]
"""A generator's tensors by parameter name."""
Precision = Literal["auto", "fp32", "bf16"]


class Engine(ABC):
    """One generator in one direction, ready to run."""

    concurrent: bool = False
    """Whether several threads may call it at the same time."""

    @abstractmethod
    def translate(self, images: Images) -> Images:
        """[N, H, W, 3] in [0, 1] to the same shape and range; H and W must fit the generator's size rule.

        What the generator gives outside of the range is clipped.

        Raises:
            FruitganError: no memory left for images of this size, or the generator gave numbers that are not finite.
        """


class EngineBuilder(Protocol):
    """What is registered under an engine's name."""

    def __call__(
        self,
        *,
        generator: Choice,
        weights: Weights,
        gpu: str | None = None,
        device: str | None = None,
        precision: Precision = "auto",
        threads: int | None = None,
    ) -> Engine:
        """The engine for the generator with these weights.

        `threads` is how many a call of a concurrent engine may take; None is all that there are.

        Raises:
            EnvironmentProblem: the generator's package is not installed, or this machine has no such device.
            DataError: the weights are not this generator's.
        """
        ...


engines: Registry[EngineBuilder] = Registry("engines")


class Queued(Engine):
    """An engine that is not concurrent, for callers of several threads: one call at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()

    def translate(self, images: Images) -> Images:
        with self._turn:
            return self._engine.translate(images)


def for_threads(engine: Engine) -> Engine:
    """The engine itself where it is concurrent, else one that keeps its calls apart."""
    return engine if engine.concurrent else Queued(engine)


def finite(images: NDArray[Any]) -> Images:
    """What a generator gave, clipped to [0, 1] in place. Raises: FruitganError for numbers that are not finite."""
    if not np.isfinite(images).all():
        raise FruitganError("the generator gave numbers that are not finite; its weights or the precision are to blame")
    return np.clip(images, 0, 1, out=images)
