"""KID and FID: each a distance between two sets of images, its bootstrap interval over images, and its floor."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from fruitgan.measures.contracts import FeatureSet, Measured, MetricResult, SetMetric, Values, protocol, subsets
from fruitgan.measures.distances import affordable, all_then_resampled, frechet_distances, kernel_distances
from fruitgan.measures.statistics import Interval, Weights, normal_interval, percentile_interval

HALVINGS = 100
SUBSETS, SUBSET_IMAGES = 100, 100
"""The literature's subsets, of at most so many images: it often takes 1,000, which such sets do not have."""


class Kid(SetMetric):
    """Squared MMD with a cubic polynomial kernel, unbiased, on all images (Binkowski et al. 2018).

    Its expectation is 0 for a perfect generator, whatever the number of images.
    """

    name = "kid"
    every_features = True
    is_biased = False

    def measure(self, real: Values, fake: Values) -> Measured:
        value, *drawn = kernel_distances(real, fake, *_both(len(real), len(fake), self.resamples, self.seed))
        return Measured(float(value), percentile_interval(drawn))

    def weighted(self, real: Values, fake: Values, weights_real: Weights, weights_fake: Weights) -> Values:
        return kernel_distances(real, fake, weights_real, weights_fake)

    def floor_repeats(self, n: int) -> int:
        return HALVINGS


class Fid(SetMetric):
    """The Frechet distance between Gaussians fitted to the features (Heusel et al. 2017, equation 6), by the nuclear norm.

    The literature's number, but biased at few images; read it beside its floor.
    """

    name = "fid"
    every_features = True

    def __init__(self, *, resamples: int = 200, seed: int = 0) -> None:
        super().__init__(resamples=resamples, seed=seed)

    def measure(self, real: Values, fake: Values) -> Measured:
        resamples = affordable(self.resamples, max(len(real), len(fake)))
        found = frechet_distances(real, fake, *_both(len(real), len(fake), resamples, self.seed))
        value = float(found[0])
        low, high = normal_interval(value, found[1:])
        return Measured(value, Interval(max(0.0, low), high))  # a distance is not below 0

    def weighted(self, real: Values, fake: Values, weights_real: Weights, weights_fake: Weights) -> Values:
        return frechet_distances(real, fake, weights_real, weights_fake)

    def floor_repeats(self, n: int) -> int:
        return affordable(self.resamples // 4, n // 2)


def _both(n_real: int, n_fake: int, resamples: int, seed: int) -> tuple[Weights, Weights]:
    return all_then_resampled(n_real, resamples, seed, "real"), all_then_resampled(n_fake, resamples, seed, "fake")


class KidSubsets(Kid):
    """KID as the literature has it: mean over 100 subsets of at most 100 images (Binkowski et al. 2018, section 4).

    Its expectation is that of `kid`, and so is its interval's width; the standard deviation is that of subsets of one set,
    and no measure of how sure the mean is. With as few images as a subset holds, all subsets are one set, and it is 0.
    """

    name = "kid-subsets"
    every_features = False

    def measure(self, real: Values, fake: Values) -> Measured:
        size = min(SUBSET_IMAGES, len(real), len(fake))
        chosen = [subsets(len(x), size, SUBSETS, self.seed, f"kid/{kind}") for kind, x in (("real", real), ("fake", fake))]
        values = kernel_distances(real, fake, *chosen)
        value = float(values.mean())
        drawn = kernel_distances(real, fake, *_both(len(real), len(fake), self.resamples, self.seed))[1:]
        details = {"subsets": float(SUBSETS), "subset_images": float(size), "sd": float(values.std(ddof=1))}
        return Measured(value, normal_interval(value, drawn), details)


@dataclass(frozen=True, kw_only=True)
class RatioResult(MetricResult):
    """R: how much of the distance between sources and real images is left."""

    n_source: int
    source_value: float
    """KID of the sources against the real images."""
    source_interval: Interval
    paired: bool
    """Whether each generated image was resampled together with its source."""


def translation_ratio(
    real: FeatureSet, fake: FeatureSet, source: FeatureSet, *, paired: bool, resamples: int, seed: int
) -> RatioResult:
    """R = KID(fakes, reals) / KID(sources, reals): 0 is perfect, 1 has done nothing, above 1 is worse than doing nothing.

    Its interval resamples real images once for both distances; `paired` says that fake i was made of source i, so that
    those two are drawn together.
    """
    began = time.monotonic()
    weights_real, weights_fake = _both(len(real), len(fake), resamples, seed)
    weights_source = weights_fake if paired else all_then_resampled(len(source), resamples, seed, "source")
    below = kernel_distances(real.values, source.values, weights_real, weights_source)
    above = kernel_distances(real.values, fake.values, weights_real, weights_fake)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = above / below
    return RatioResult(
        value=float(ratios[0]),
        interval=percentile_interval(ratios[1:]),
        n_source=len(source),
        source_value=float(below[0]),
        source_interval=percentile_interval(below[1:]),
        paired=paired,
        **protocol(real, fake, began),
    )
