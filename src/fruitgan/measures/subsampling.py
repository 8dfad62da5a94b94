"""Random subsets of images, and metrics whose interval and floor come from them."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from fruitgan.measures.contracts import Measured, SetMetric, Values
from fruitgan.measures.statistics import Interval, Weights, normal_interval, percentile_interval
from fruitgan.randomness import generator

MINIMUM_IMAGES = 8
"""Below it an interval by resampling says nothing, and the floor's halves are no sets any more."""


def subsets(n: int, size: int, count: int, seed: int, stream: str) -> Weights:
    """[count, n]: random subsets, 1 for the images that are in."""
    order = generator(seed, 0, f"subsets/{stream}").random((count, n)).argsort(1)
    return (order < size).astype(np.float64)


def halvings(n: int, count: int, seed: int) -> tuple[Weights, Weights]:
    """Two disjoint random halves [count, n] each, `n // 2` images in either."""
    order = generator(seed, 0, "halvings").random((count, n)).argsort(1)
    half = n // 2
    return (order < half).astype(np.float64), (order >= n - half).astype(np.float64)


class HalvedMetric(SetMetric):
    """A metric of which a copy of an image would make nonsense, or that is dear: resampled by halves, without putting back.

    The spread of a statistic over random halves of n images is that of the statistic over samples of n images (the
    delete-half jackknife: Efron 1982, section 6; Shao and Wu 1989), since half as many images vary twice as much, and halves
    of one set
    agree by half of that. The interval lies about the measured value, so that a bias by the number of images does not move it.
    """

    minimum_images = MINIMUM_IMAGES
    bounds: ClassVar[tuple[float, float]] = (-np.inf, np.inf)
    """What the number can be; the interval is cut there."""
    most_resamples: ClassVar[int] = 200

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples = min(resamples, self.most_resamples)
        self.seed = seed

    @abstractmethod
    def compute(self, real: Values, fake: Values) -> float:
        """The number of [N, D] and [M, D]."""

    def details(self, real: Values, fake: Values) -> dict[str, float]:
        """What belongs to the number."""
        return {}

    def measure(self, real: Values, fake: Values) -> Measured:
        value = self.compute(real, fake)
        spread = self._computed(
            real,
            fake,
            subsets(len(real), len(real) // 2, self.resamples, self.seed, "half/real"),
            subsets(len(fake), len(fake) // 2, self.resamples, self.seed, "half/fake"),
        )
        low, high = normal_interval(value, spread)
        return Measured(value, Interval(max(low, self.bounds[0]), min(high, self.bounds[1])), self.details(real, fake))

    def floor(self, real: Values) -> tuple[float, Interval]:
        values = self._computed(real, real, *halvings(len(real), max(20, self.resamples // 4), self.seed))
        return float(values.mean()), percentile_interval(values)

    def at_floor_size(self, real: Values, fake: Values) -> float:
        half = len(real) // 2
        count = max(20, self.resamples // 4)
        chosen_real = subsets(len(real), half, count, self.seed, "size/real")
        chosen_fake = subsets(len(fake), min(half, len(fake)), count, self.seed, "size/fake")
        return float(self._computed(real, fake, chosen_real, chosen_fake).mean())

    def _computed(self, real: Values, fake: Values, chosen_real: Weights, chosen_fake: Weights) -> Values:
        return np.array([self.compute(real[r > 0], fake[f > 0]) for r, f in zip(chosen_real, chosen_fake, strict=True)])
