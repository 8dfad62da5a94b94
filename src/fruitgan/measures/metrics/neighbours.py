"""Metrics by nearest neighbours: precision, recall, density, coverage, and whether training images are repeated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fruitgan.errors import DataError
from fruitgan.measures.contracts import HalvedMetric, Measured, TrainingMetric, Values
from fruitgan.measures.distances import squared_distances
from fruitgan.measures.statistics import percentile_interval
from fruitgan.randomness import generator

NEIGHBOURS = 5
"""k: as in the code of Naeem et al. 2020."""
COPY_SHARE = 0.5
"""With more of the real images than this among the training images there is nothing to compare with."""


def radii(x: Values) -> Values:
    """[n]: the squared distance of each point to its 5th nearest other one; fewer points than that give the farthest."""
    squared, k = squared_distances(x, x), min(NEIGHBOURS, len(x) - 1)
    np.fill_diagonal(squared, -1.0)  # itself comes first and is not counted
    found: Values = np.partition(squared, k, axis=1)[:, k]
    return found


def within(centres: Values, points: Values) -> NDArray[np.bool_]:
    """[n, m]: whether point j lies strictly inside the ball about centre i that reaches its 5th neighbour."""
    inside: NDArray[np.bool_] = squared_distances(centres, points) < radii(centres)[:, None]
    return inside


class Precision(HalvedMetric):
    """Share of generated images inside the 5-neighbour balls of real ones (Kynkaanniemi et al. 2019, equations 1 and 2); 0
    to 1.
    """

    name = "precision"
    lower_is_better = False
    bounds = (0.0, 1.0)

    def compute(self, real: Values, fake: Values) -> float:
        return float(within(real, fake).any(0).mean())


class Recall(Precision):
    """Share of real images inside the 5-neighbour balls of generated ones (Kynkaanniemi et al. 2019, equation 2); 0 to 1."""

    name = "recall"

    def compute(self, real: Values, fake: Values) -> float:
        return super().compute(fake, real)


class Density(HalvedMetric):
    """Real balls about a generated image, over 5 (Naeem et al. 2020, equation 3); about 1 for a perfect generator, can
    exceed it.
    """

    name = "density"
    lower_is_better = False
    bounds = (0.0, np.inf)

    def compute(self, real: Values, fake: Values) -> float:
        return float(within(real, fake).sum(0).mean() / min(NEIGHBOURS, len(real) - 1))


class Coverage(HalvedMetric):
    """Share of real images with a generated one inside their 5-neighbour ball (Naeem et al. 2020, equation 4); 0 to 1."""

    name = "coverage"
    lower_is_better = False
    bounds = (0.0, 1.0)

    def compute(self, real: Values, fake: Values) -> float:
        return float(within(real, fake).any(1).mean())


class NearestTraining(TrainingMetric):
    """Median distance to the nearest training image, generated over unseen real (after Meehan et al. 2020); well below 1 is
    copying.
    """

    name = "nearest-training"
    lower_is_better = False

    def measure(self, real: Values, fake: Values, training: Values) -> Measured:
        to_real, to_fake = (np.sqrt(squared_distances(side, training).min(1)) for side in (real, fake))
        scale = float(np.sqrt((training**2).sum(1).mean()))
        unseen = to_real > 1e-6 * scale
        if 1 - float(unseen.mean()) > COPY_SHARE:
            raise DataError("most real images are among the training images: nearest-training needs real images not trained on")
        to_real = to_real[unseen]
        random = generator(self.seed, 0, "bootstrap/nearest-training")
        drawn = [
            np.median(random.choice(to_fake, len(to_fake))) / np.median(random.choice(to_real, len(to_real)))
            for _ in range(self.resamples)
        ]
        medians = float(np.median(to_fake)), float(np.median(to_real))
        return Measured(medians[0] / medians[1], percentile_interval(drawn), {"fake": medians[0], "real": medians[1]})
