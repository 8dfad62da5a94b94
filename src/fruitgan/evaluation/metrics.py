"""The metrics that come with the package: each a distance, the bootstrap over images around it, and its floor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fruitgan.evaluation.contracts import SetMetric, Values
from fruitgan.evaluation.distances import frechet_distance, frechet_distances, kernel_distance, kernel_distances
from fruitgan.evaluation.statistics import Interval, Weights, normal_interval, percentile_interval, resample_weights
from fruitgan.randomness import generator

MINIMUM_IMAGES = 8
"""Below it an interval by resampling says nothing, and the floor's halves are no sets any more."""

HALVINGS = 100


class Kid(SetMetric):
    """Kernel distance: unbiased, so that its expectation is 0 for a perfect generator at any number of images."""

    name = "kid"
    minimum_images = MINIMUM_IMAGES

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self.seed = seed

    def measure(self, real: Values, fake: Values) -> tuple[float, Interval]:
        drawn = kernel_distances(real, fake, *_both(len(real), len(fake), self.resamples, self.seed))
        return kernel_distance(real, fake), percentile_interval(drawn)

    def floor(self, real: Values) -> tuple[float, Interval]:
        first, second = halvings(len(real), HALVINGS, self.seed)
        values = kernel_distances(real, real, first, second)
        return float(values.mean()), percentile_interval(values)


class Fid(SetMetric):
    """Frechet distance between Gaussians: the literature's number, but biased at few images; read it beside its floor."""

    name = "fid"
    minimum_images = MINIMUM_IMAGES

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self.seed = seed

    def measure(self, real: Values, fake: Values) -> tuple[float, Interval]:
        value = frechet_distance(real, fake)
        resamples = affordable(self.resamples, max(len(real), len(fake)))
        drawn = frechet_distances(real, fake, *_both(len(real), len(fake), resamples, self.seed))
        return value, normal_interval(value, drawn)

    def floor(self, real: Values) -> tuple[float, Interval]:
        first, second = halvings(len(real), affordable(self.resamples // 4, len(real) // 2), self.seed)
        values = frechet_distances(real, real, first, second)
        return float(values.mean()), percentile_interval(values)

    def at_floor_size(self, real: Values, fake: Values) -> float:
        """The value for as many images as the floor had, which alone may be held against it: the bias depends on the number."""
        half = len(real) // 2
        count = min(half, len(fake))
        resamples = affordable(self.resamples // 4, half)
        chosen_real = subsets(len(real), half, resamples, self.seed, "size/real")
        chosen_fake = subsets(len(fake), count, resamples, self.seed, "size/fake")
        return float(frechet_distances(real, fake, chosen_real, chosen_fake).mean())


def affordable(resamples: int, images: int) -> int:
    """Fewer resamples where each is dear (it costs the cube of the number of images), but at least 20."""
    return max(20, min(resamples, int(resamples * (600 / images) ** 3)))


def _both(n_real: int, n_fake: int, resamples: int, seed: int) -> tuple[Weights, Weights]:
    return resample_weights(n_real, resamples, seed, "real"), resample_weights(n_fake, resamples, seed, "fake")


def subsets(n: int, size: int, count: int, seed: int, stream: str) -> Weights:
    """[count, n]: random subsets, 1 for the images that are in."""
    order = generator(seed, 0, f"subsets/{stream}").random((count, n)).argsort(1)
    return (order < size).astype(np.float64)


def halvings(n: int, count: int, seed: int) -> tuple[Weights, Weights]:
    """Two disjoint random halves [count, n] each, `n // 2` images in either."""
    order = generator(seed, 0, "halvings").random((count, n)).argsort(1)
    half = n // 2
    return (order < half).astype(np.float64), (order >= n - half).astype(np.float64)


class Ratio(NamedTuple):
    """R, and what it was made of."""

    value: float
    interval: Interval
    sources_distance: float
    sources_interval: Interval


def translation_ratio(real: Values, fake: Values, source: Values, *, paired: bool, resamples: int, seed: int) -> Ratio:
    """R = KID(fakes, reals) / KID(sources, reals): 0 is perfect, 1 has done nothing, above 1 is worse than doing nothing.

    Its interval resamples real images once for both distances; `paired` says that fake i was made of source i, so that
    those two are drawn together.
    """
    weights_real, weights_fake = _both(len(real), len(fake), resamples, seed)
    weights_source = weights_fake if paired else resample_weights(len(source), resamples, seed, "source")
    distance = kernel_distance(real, source)
    below = kernel_distances(real, source, weights_real, weights_source)
    above = kernel_distances(real, fake, weights_real, weights_fake)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = above / below
    return Ratio(kernel_distance(real, fake) / distance, percentile_interval(ratios), distance, percentile_interval(below))


def kid(*, resamples: int = 1000, seed: int = 0) -> Kid:
    """Binkowski et al. 2018: the unbiased U-statistic with a cubic polynomial kernel on all images."""
    return Kid(resamples, seed)


def fid(*, resamples: int = 200, seed: int = 0) -> Fid:
    """Heusel et al. 2017, through the nuclear norm."""
    return Fid(resamples, seed)
