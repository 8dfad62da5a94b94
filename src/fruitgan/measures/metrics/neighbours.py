"""Metrics by nearest neighbours: precision, recall, density, coverage, and whether training images are repeated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fruitgan.errors import DataError
from fruitgan.measures.contracts import HalvedMetric, Measured, TrainingMetric, Values
from fruitgan.measures.distances import Array, squared_distances
from fruitgan.measures.statistics import percentile_interval
from fruitgan.randomness import generator

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


class NeighbourMetric(HalvedMetric):
    """A number from which images lie in the balls about others; it is between 0 and `most`."""

    lower_is_better = False

    def __init__(
        self, name: str, resamples: int, seed: int, compute: Callable[[Array, Array], float], most: float = 1.0
    ) -> None:
        super().__init__(resamples=resamples, seed=seed)
        self.name = name
        self.bounds = (0.0, most)
        self._compute = compute

    def compute(self, real: Array, fake: Array) -> float:
        return float(self._compute(real, fake))


def precision(*, resamples: int = 200, seed: int = 0) -> NeighbourMetric:
    """Share of generated images inside the 5-neighbour balls of real ones (Kynkaanniemi et al. 2019, equations 1 and 2); 0
    to 1.
    """
    return NeighbourMetric("precision", resamples, seed, lambda real, fake: within(real, fake, NEIGHBOURS).any(0).mean())


def recall(*, resamples: int = 200, seed: int = 0) -> NeighbourMetric:
    """Share of real images inside the 5-neighbour balls of generated ones (Kynkaanniemi et al. 2019, equation 2); 0 to 1."""
    return NeighbourMetric("recall", resamples, seed, lambda real, fake: within(fake, real, NEIGHBOURS).any(0).mean())


def density(*, resamples: int = 200, seed: int = 0) -> NeighbourMetric:
    """Real balls about a generated image, over 5 (Naeem et al. 2020, equation 3); about 1 for a perfect generator, can
    exceed it.
    """

    def balls(real: Array, fake: Array) -> float:
        return float(within(real, fake, NEIGHBOURS).sum(0).mean() / NEIGHBOURS)

    return NeighbourMetric("density", resamples, seed, balls, most=np.inf)


def coverage(*, resamples: int = 200, seed: int = 0) -> NeighbourMetric:
    """Share of real images with a generated one inside their 5-neighbour ball (Naeem et al. 2020, equation 4); 0 to 1."""
    return NeighbourMetric("coverage", resamples, seed, lambda real, fake: within(real, fake, NEIGHBOURS).any(1).mean())


COPY_SHARE = 0.5
"""With more of the real images than this among the training images there is nothing to compare with."""


class NearestTraining(TrainingMetric):
    """Median distance to the nearest training image, generated over unseen real (after Meehan et al. 2020); well below 1 is
    copying.
    """

    name = "nearest-training"
    lower_is_better = False

    def measure(self, real: Values, fake: Values, training: Values) -> Measured:
        to_real, to_fake = (nearest_distances(side, training) for side in (real, fake))
        scale = float(np.sqrt((training**2).sum(1).mean()))
        if float((to_real <= 1e-6 * scale).mean()) > COPY_SHARE:
            raise DataError("most real images are among the training images: nearest-training needs real images not trained on")
        random = generator(self.seed, 0, "bootstrap/nearest-training")
        drawn = [
            np.median(random.choice(to_fake, len(to_fake))) / np.median(random.choice(to_real, len(to_real)))
            for _ in range(self.resamples)
        ]
        medians = float(np.median(to_fake)), float(np.median(to_real))
        return Measured(medians[0] / medians[1], percentile_interval(drawn), {"fake": medians[0], "real": medians[1]})


def nearest_distances(points: Values, training: Values) -> Values:
    """[N]: the Euclidean distance of each of [N, D] to the nearest of [T, D]."""
    nearest: Values = np.sqrt(squared_distances(points, training).min(1))
    return nearest
