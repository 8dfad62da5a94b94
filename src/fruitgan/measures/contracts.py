"""What a feature backend and a metric promise. N and M images, D features."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fruitgan.errors import DataError
from fruitgan.images import Pixels
from fruitgan.measures.statistics import Interval, percentile_interval, resample_weights
from fruitgan.registry import Registry

Values = NDArray[np.float64]


class Features(nn.Module, ABC):
    """Images to numbers that describe them; the same for ever under one name and `version`, on any machine."""

    name: str
    version: str = "1"
    """Changes whenever the numbers may: cached features are of one version."""
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
    details: Mapping[str, float] = field(default_factory=dict)
    """What belongs to the number, by name: how many subsets, the spread over them, its parts."""


class Measured(NamedTuple):
    """What a metric computes: the number, its 95% interval, and what belongs to it by name."""

    value: float
    interval: Interval
    details: Mapping[str, float] = {}


class Metric(ABC):
    """What all numbers have in common. `MetricResult` carries the number with its protocol."""

    name: str
    minimum_images: int
    """How many images of each kind it needs."""
    lower_is_better: bool = True

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


class SetMetric(Metric):
    """How far two sets of images are apart."""

    every_features: bool = False
    """Whether it is computed on all feature backends that were asked for; else on the first of them alone."""

    def own_features(self) -> Features | None:
        """What it describes pictures by, where it needs no backend; None is the backend that was asked for."""
        return None

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
        measured = Measured(*self.measure(real.values, fake.values))
        return MetricResult(
            value=measured.value,
            interval=measured.interval,
            n_real=len(real),
            n_fake=len(fake),
            features=real.features,
            resize=real.resize,
            seconds=round(time.monotonic() - begin, 3),
            details=measured.details,
        )

    @abstractmethod
    def measure(self, real: Values, fake: Values) -> Measured | tuple[float, Interval]:
        """The number and its interval, from [N, D] and [M, D]."""

    @abstractmethod
    def floor(self, real: Values) -> tuple[float, Interval]:
        """What a perfect generator would score: halves of the real images against each other, over many random halvings."""

    def at_floor_size(self, real: Values, fake: Values) -> float | None:
        """The value for as many images as the floor's halves have; None where the number does not depend on how many."""
        return None


class PairMetric(Metric):
    """What became of each source image in its translation; the number is the mean over the pairs."""

    features: str
    """What it looks at, in a word."""
    resize: str
    resamples: int
    seed: int

    @abstractmethod
    def of_pair(self, source: Pixels, fake: Pixels) -> float:
        """The number of one source and its translation, uint8 [H, W, 3] of one size; NaN where it has none."""

    def summary(self, values: Sequence[float], seconds: float) -> MetricResult:
        """The mean over the pairs that have a number, with its bootstrap interval over pairs.

        Raises:
            DataError: fewer pairs have a number than are needed.
        """
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        if len(known) < self.minimum_images:
            raise DataError(f"{self.name} needs at least {self.minimum_images} pairs that have a number, found {len(known)}")
        drawn = resample_weights(len(known), self.resamples, self.seed, f"pairs/{self.name}") @ known / len(known)
        return MetricResult(
            value=float(known.mean()),
            interval=percentile_interval(drawn),
            n_real=len(known),
            n_fake=len(known),
            features=self.features,
            resize=self.resize,
            seconds=round(seconds, 3),
            details={"median": float(np.median(known)), "pairs_without": float(len(values) - len(known))},
        )


class TrainingMetric(Metric):
    """How real and generated images lie to those that the generator was trained on."""

    @abstractmethod
    def measure(self, real: Values, fake: Values, training: Values) -> Measured:
        """The number and its interval, from [N, D], [M, D] and [T, D].

        Raises:
            DataError: the real images are training images.
        """

    def __call__(self, real: FeatureSet, fake: FeatureSet, training: FeatureSet) -> MetricResult:
        """The number with its protocol; Raises: DataError as `measure`."""
        begin = time.monotonic()
        measured = self.measure(real.values, fake.values, training.values)
        return MetricResult(
            value=measured.value,
            interval=measured.interval,
            n_real=len(real),
            n_fake=len(fake),
            features=real.features,
            resize=real.resize,
            seconds=round(time.monotonic() - begin, 3),
            details={**measured.details, "n_training": float(len(training))},
        )


features: Registry[Callable[..., Features]] = Registry("features")
metrics: Registry[Callable[..., Metric]] = Registry("metrics")
