"""What a feature backend and a metric promise. N and M images, D features."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fruitgan.errors import DataError
from fruitgan.evaluation.statistics import Interval
from fruitgan.images import Pixels
from fruitgan.registry import Registry

Values = NDArray[np.float64]


class Features(nn.Module, ABC):
    """Images to numbers that describe them; the same for ever under one name and `version`, on any machine."""

    name: str
    dimensions: int
    resize: str
    """What is done to a picture before the network sees it, in words; it stands beside every number."""

    @abstractmethod
    def prepare(self, pixels: Pixels) -> Pixels:
        """uint8 [H, W, 3] of any size as the backend wants it, uint8 [H', W', 3]."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H', W'] in [0, 1] to [N, D]; an image's numbers do not depend on its neighbours."""


@dataclass(frozen=True)
class FeatureSet:
    """The features of a set of images, and how they came to be."""

    values: Values
    """[N, D] in float64."""
    features: str
    resize: str

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"features are [N, D], not {list(self.values.shape)}")

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """A number with its protocol, without which it means nothing."""

    value: float
    interval: Interval
    """95%, by the bootstrap over images."""
    n_real: int
    n_fake: int
    features: str
    resize: str
    seconds: float


class SetMetric(ABC):
    """How far two sets of images are apart."""

    name: str
    minimum_images: int
    """How many images of each kind it needs."""

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> MetricResult:
        """The number with its interval.

        Raises:
            DataError: too few images (says how many are needed), or features that are not finite.
            ValueError: the two sets' features are of different kinds.
        """
        if (real.features, real.resize, real.values.shape[1]) != (fake.features, fake.resize, fake.values.shape[1]):
            raise ValueError(f"features of two kinds cannot be compared: {real.features} and {fake.features}")
        self.check_counts(len(real), len(fake))
        for kind, features in (("real", real), ("generated", fake)):
            if not np.isfinite(features.values).all():
                raise DataError(f"the features {features.features} of the {kind} images are not all finite")
        begin = time.monotonic()
        value, interval = self.measure(real.values, fake.values)
        return MetricResult(
            value=value,
            interval=interval,
            n_real=len(real),
            n_fake=len(fake),
            features=real.features,
            resize=real.resize,
            seconds=round(time.monotonic() - begin, 3),
        )

    def check_counts(self, n_real: int, n_fake: int) -> None:
        """Whether there are enough images.

        Raises:
            DataError: too few; says how many are needed.
        """
        for kind, count in (("real", n_real), ("generated", n_fake)):
            if count < self.minimum_images:
                raise DataError(
                    f"{self.name} needs at least {self.minimum_images} {kind} images, found {count}; "
                    "export-dataset --count N makes more"
                )

    @abstractmethod
    def measure(self, real: Values, fake: Values) -> tuple[float, Interval]:
        """The number and its interval, from [N, D] and [M, D]."""

    @abstractmethod
    def floor(self, real: Values) -> tuple[float, Interval]:
        """What a perfect generator would score: halves of the real images against each other, over many random halvings."""

    def at_floor_size(self, real: Values, fake: Values) -> float | None:
        """The value for as many images as the floor's halves have; None where the number does not depend on how many."""
        return None


features: Registry[Callable[..., Features]] = Registry("features")
metrics: Registry[Callable[..., SetMetric]] = Registry("metrics")
