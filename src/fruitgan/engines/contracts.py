"""Contract of engines, which run a bundle's generator, and their registry.

Images go in and come out as numpy arrays, so that whoever calls an engine needs no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from fruitgan.errors import FruitganError, UsageError
from fruitgan.machine import cores
from fruitgan.registry import Choice, Registry
from fruitgan.settings import Precision

Images = NDArray[np.float32]
"""[N, H, W, 3] float32 in [0, 1], sRGB."""
Weights = Mapping[str, NDArray[Any]]
"""A generator's tensors by parameter name."""
LARGE_PIXELS = 1 << 20
"""Up to here nobody asks how much memory there is; beyond it tiles may be needed, which the engine torch alone has."""
FEW_IMAGES = 12
"""Fewer than these go one after the other, each with all cores: threads would not make good what they cost."""
MOST_WORKERS = 8


class Engine(ABC):
    """One generator in one direction, ready to run; several threads may call it, beside each other or in turns."""

    concurrent: bool = False
    """Whether calls of several threads run beside each other, and not one after the other."""

    @abstractmethod
    def translate(self, images: Images) -> Images:
        """[N, H, W, 3] in [0, 1] to the same shape and range; H and W must fit the generator's size rule.

        What the generator gives outside of the range is clipped. For pictures of any size see `padding.translate_pixels`.

        Raises:
            UsageError: no float32 array of this shape and range.
            FruitganError: no memory left for images of this size, or the generator gave numbers that are not finite.
        """


class Machine(TypedDict, total=False):
    """Where and how an engine runs, as the options of these names say it."""

    gpu: str | None
    device: str | None
    precision: Precision
    threads: int | None
    """How many a call of a concurrent engine may take; None is all that there are."""


class EngineBuilder(Protocol):
    """What is registered under an engine's name: builds the engine for a generator with these weights.

    Raises:
        EnvironmentProblem: the generator's package is not installed, or this machine has no such device.
        DataError: the weights are not this generator's.
    """

    def __call__(self, *, generator: Choice, weights: Weights, **machine: Unpack[Machine]) -> Engine: ...


engines: Registry[EngineBuilder] = Registry("engines")


def worker_count(images: int) -> int:
    """How many images are worked on at the same time."""
    return 1 if images < FEW_IMAGES else min(cores(), MOST_WORKERS)


def checked(images: Any) -> Images:
    """The images, if they are what an engine takes. Raises: UsageError if not, with what they are."""
    what = "an engine takes [N, H, W, 3] float32 in [0, 1]"
    if not isinstance(images, np.ndarray) or images.dtype != np.float32 or images.ndim != 4 or images.shape[3] != 3:
        found = f"{list(images.shape)} {images.dtype}" if isinstance(images, np.ndarray) else type(images).__name__
        raise UsageError(f"{what}, not {found}")
    if not images.size or not 0 <= images.min() <= images.max() <= 1:
        raise UsageError(f"{what}, not from {images.min():g} to {images.max():g}" if images.size else f"{what}; here is none")
    return images


def finite(images: NDArray[Any]) -> Images:
    """What a generator gave, clipped to [0, 1] in place. Raises: FruitganError for numbers that are not finite."""
    if not np.isfinite(images).all():
        raise FruitganError("the generator gave numbers that are not finite; its weights or the precision are to blame")
    return np.clip(images, 0, 1, out=images)


def out_of_memory(images: Images, where: str = "memory", or_else: str = "") -> FruitganError:
    """The error to raise where there is no room for images of this size."""
    count, height, width = images.shape[:3]
    several = f"{count} images of " if count > 1 else ""
    return FruitganError(
        f"not enough {where} for {several}{width} x {height} px; lower --scale (--scale auto, or 256){or_else}"
    )
