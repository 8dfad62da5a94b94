"""Precision, recall, density and coverage: which real pictures have generated neighbours, and which generated ones real
neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fruitgan.measures.distances import Array, squared_distances
from fruitgan.measures.subsampling import HalvedMetric

NEIGHBOURS = 5
"""k: as in the code of Naeem et al. 2020."""


def radii(x: Array, k: int) -> Array:
    """[n]: the squared distance of each point to its k-th nearest other one; fewer points than that give the farthest."""
    squared = squared_distances(x, x)
    np.fill_diagonal(squared, -1.0)  # itself comes first and is not counted
    found: Array = np.partition(squared, min(k, len(x) - 1), axis=1)[:, min(k, len(x) - 1)]
    return found


def within(centres: Array, points: Array, k: int) -> NDArray[np.bool_]:
    """[n, m]: whether point j lies strictly inside the ball about centre i that reaches its k-th neighbour."""
    inside: NDArray[np.bool_] = squared_distances(centres, points) < radii(centres, k)[:, None]
    return inside


class Precision(HalvedMetric):
    """The share of generated images inside the balls of real ones."""

    name = "precision"
    lower_is_better = False
    bounds = (0.0, 1.0)

    def compute(self, real: Array, fake: Array) -> float:
        return float(within(real, fake, NEIGHBOURS).any(0).mean())


class Recall(HalvedMetric):
    """The share of real images inside the balls of generated ones."""

    name = "recall"
    lower_is_better = False
    bounds = (0.0, 1.0)

    def compute(self, real: Array, fake: Array) -> float:
        return float(within(fake, real, NEIGHBOURS).any(0).mean())


class Density(HalvedMetric):
    """In how many balls of real images a generated one lies, over k."""

    name = "density"
    lower_is_better = False
    bounds = (0.0, np.inf)

    def compute(self, real: Array, fake: Array) -> float:
        return float(within(real, fake, NEIGHBOURS).sum(0).mean() / NEIGHBOURS)


class Coverage(HalvedMetric):
    """The share of real images whose ball holds a generated one."""

    name = "coverage"
    lower_is_better = False
    bounds = (0.0, 1.0)

    def compute(self, real: Array, fake: Array) -> float:
        return float(within(real, fake, NEIGHBOURS).any(1).mean())


def precision(*, resamples: int = 200, seed: int = 0) -> Precision:
    """Share of generated images inside the 5-neighbour balls of real ones (Kynkaanniemi et al. 2019, equations 1 and 2); 0
    to 1.
    """
    return Precision(resamples, seed)


def recall(*, resamples: int = 200, seed: int = 0) -> Recall:
    """Share of real images inside the 5-neighbour balls of generated ones (Kynkaanniemi et al. 2019, equation 2); 0 to 1."""
    return Recall(resamples, seed)


def density(*, resamples: int = 200, seed: int = 0) -> Density:
    """Real balls about a generated image, over 5 (Naeem et al. 2020, equation 3); about 1 for a perfect generator, can
    exceed it.
    """
    return Density(resamples, seed)


def coverage(*, resamples: int = 200, seed: int = 0) -> Coverage:
    """Share of real images with a generated one inside their 5-neighbour ball (Naeem et al. 2020, equation 4); 0 to 1."""
    return Coverage(resamples, seed)
