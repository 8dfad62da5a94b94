"""Contracts and registries of feature backends and metrics. N and M images, D features."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fruitgan.errors import DataError
from fruitgan.images import Pixels, resize
from fruitgan.measures.statistics import Interval, Weights, normal_interval, percentile_interval, resample_weights
from fruitgan.randomness import generator
from fruitgan.registry import Registry

Values = NDArray[np.float64]

MINIMUM_IMAGES = 8
"""Below it an interval by resampling says nothing, and the floor's halves are no sets any more."""
NOT_KNOWN = "not known"


class Features(nn.Module, ABC):
    """Images to numbers that describe them; the same for ever under one name and `version`, on any machine."""

    name: str
    version: str = "1"
    """Changes whenever the numbers may: cached features are of one version."""
    dimensions: int
    resize: str
    """What is done to a picture before the network sees it, in words; it stands beside every number."""
    trained_on: str = NOT_KNOWN
    """The data that its weights were trained on; empty where it has no trained weights."""

    def __init__(self) -> None:  # a class is a builder, and torch's own signature takes everything
        super().__init__()

    def prepare(self, pixels: Pixels) -> Pixels:
        """uint8 [H, W, 3] of any size as the backend wants it, uint8 [H', W', 3]: unless said otherwise, as it is."""
        return pixels

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H', W'] in [0, 1] to [N, D]; an image's numbers do not depend on its neighbours."""


def squashing(size_px: int) -> str:
    """In words, how a square of this size is made of every picture."""
    return f"squashed to {size_px} px (Lanczos, antialiased, 8 bits)"


class SquashedFeatures(Features):
    """Features of pictures that are squashed to a square of `size_px`."""

    size_px: int
    filter: Image.Resampling = Image.Resampling.LANCZOS

    def __init__(self) -> None:
        super().__init__()
        self.resize = squashing(self.size_px)

    def prepare(self, pixels: Pixels) -> Pixels:
        return resize(pixels, self.size_px, self.size_px, self.filter)


@dataclass(frozen=True)
class FeatureSet:
    """The features of a set of images, and how they came to be."""

    values: Values
    """[N, D] in float64."""
    features: str
    resize: str

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """A number with its protocol, without which it means nothing."""

    value: float
    interval: Interval
    """95%; how it is found is the metric's."""
    n_real: int
    n_fake: int
    features: str
    resize: str
    seconds: float
    details: Mapping[str, float] = field(default_factory=dict)
    """What belongs to the number, by name: how many subsets, the spread over them, its parts."""


@dataclass(frozen=True, kw_only=True)
class FloorResult(MetricResult):
    """Real images against real ones; `n_real` and `n_fake` are the two halves."""

    value_at_size: float | None = None
    """What the generated images score with as few images as a half has, where the number depends on how many there are."""


class Measured(NamedTuple):
    """What a metric computes: the number, its 95% interval, and what belongs to it by name."""

    value: float
    interval: Interval
    details: Mapping[str, float] = {}


class Metric(ABC):
    """A number for a set of images, with an interval by resampling. Registered are the classes themselves."""

    name: str
    minimum_images: int = MINIMUM_IMAGES
    """How many images of each kind it needs."""
    lower_is_better: bool = True

    def __init__(self, *, resamples: int = 1000, seed: int = 0) -> None:
        self.resamples = resamples
        self.seed = seed

    def check_counts(self, n_real: int, n_fake: int) -> None:
        """Raises: DataError if there are too few images; it says how many are needed."""
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
    is_biased: bool = True
    """Whether the number's expectation depends on how many images there are."""
    own_features: type[Features] | None = None
    """What it describes pictures by, where it needs no backend; None is the backend that was asked for."""

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
        return MetricResult(**self.measure(real.values, fake.values)._asdict(), **protocol(real, fake, begin))

    @abstractmethod
    def measure(self, real: Values, fake: Values) -> Measured:
        """The number and its interval, from [N, D] and [M, D]."""

    @abstractmethod
    def weighted(self, real: Values, fake: Values, weights_real: Weights, weights_fake: Weights) -> Values:
        """[B]: the number of each of B resamples, from [N, D], [M, D], and how often each image counts, [B, N] and [B, M]."""

    def floor_repeats(self, n: int) -> int:
        """How many halvings of n real images the floor takes."""
        return max(20, self.resamples // 4)

    def floor(self, real: FeatureSet, fake: FeatureSet) -> FloorResult:
        """What a perfect generator would score: two disjoint parts of the real images, over many random draws."""
        begin = time.monotonic()
        n, repeats = len(real), self.floor_repeats(len(real))
        half = min(n // 2, len(fake)) if self.is_biased else n // 2  # as many as there are of the generated ones, too
        order = generator(self.seed, 0, "halvings").random((repeats, n)).argsort(1)
        halves = (order < half).astype(np.float64), (order >= n - half).astype(np.float64)
        values, at_size = self.weighted(real.values, real.values, *halves), None
        if self.is_biased:
            chosen_real = subsets(n, half, repeats, self.seed, "size/real")
            chosen_fake = subsets(len(fake), half, repeats, self.seed, "size/fake")
            at_size = float(self.weighted(real.values, fake.values, chosen_real, chosen_fake).mean())
        found = {"value": float(values.mean()), "interval": percentile_interval(values), "value_at_size": at_size}
        return FloorResult(**protocol(real, fake, begin) | {"n_real": half, "n_fake": half} | found)


class PairMetric(Metric):
    """What became of each source image in its translation; the number is the mean over the pairs."""

    features: str
    """What it looks at, in a word."""
    resize: str

    @abstractmethod
    def of_pair(self, source: Pixels, fake: Pixels) -> float:
        """The number of one source and its translation, uint8 [H, W, 3] of one size; NaN where it has none."""

    def result(self, values: Sequence[float], seconds: float) -> MetricResult:
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
        details = {**measured.details, "n_training": float(len(training))}
        return MetricResult(**measured._replace(details=details)._asdict(), **protocol(real, fake, begin))


def protocol(real: FeatureSet, fake: FeatureSet, began: float) -> dict[str, Any]:
    """What stands beside every number of two sets; `began` is by the monotonic clock."""
    counts = {"n_real": len(real), "n_fake": len(fake)}
    return counts | {"features": real.features, "resize": real.resize, "seconds": round(time.monotonic() - began, 3)}


features: Registry[Callable[..., Features]] = Registry("features")
metrics: Registry[Callable[..., Metric]] = Registry("metrics")


def subsets(n: int, size: int, count: int, seed: int, stream: str) -> Weights:
    """[count, n]: random subsets, 1 for the images that are in."""
    order = generator(seed, 0, f"subsets/{stream}").random((count, n)).argsort(1)
    return (order < size).astype(np.float64)


class HalvedMetric(SetMetric):
    """A metric resampled by random halves without replacement: a repeated image would make nonsense of it, or it is expensive.

    Over random halves of n images a statistic has the same spread as over samples of n images (the delete-half jackknife: Efron
    1982, section 6; Shao and Wu 1989): half as many images vary twice as much, and halves of one set agree by half of that.
    The interval lies about the measured value, so that a bias by the number of images does not move it.
    """

    bounds: tuple[float, float] = (-np.inf, np.inf)
    """What the number can be; the interval is cut there."""

    def __init__(self, *, resamples: int = 200, seed: int = 0) -> None:
        super().__init__(resamples=resamples, seed=seed)

    @abstractmethod
    def compute(self, real: Values, fake: Values) -> float:
        """The number of [N, D] and [M, D]."""

    def details(self, real: Values, fake: Values) -> dict[str, float]:
        """What belongs to the number."""
        return {}

    def measure(self, real: Values, fake: Values) -> Measured:
        value = self.compute(real, fake)
        halves_real = subsets(len(real), len(real) // 2, self.resamples, self.seed, "half/real")
        halves_fake = subsets(len(fake), len(fake) // 2, self.resamples, self.seed, "half/fake")
        low, high = normal_interval(value, self.weighted(real, fake, halves_real, halves_fake))
        return Measured(value, Interval(max(low, self.bounds[0]), min(high, self.bounds[1])), self.details(real, fake))

    def weighted(self, real: Values, fake: Values, weights_real: Weights, weights_fake: Weights) -> Values:
        return np.array([self.compute(real[r > 0], fake[f > 0]) for r, f in zip(weights_real, weights_fake, strict=True)])
