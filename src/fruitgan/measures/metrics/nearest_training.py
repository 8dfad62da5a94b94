"""Whether generated images repeat those that the generator was trained on."""

from __future__ import annotations

import numpy as np

from fruitgan.errors import DataError
from fruitgan.measures.contracts import Measured, TrainingMetric, Values
from fruitgan.measures.distances import squared_distances
from fruitgan.measures.statistics import percentile_interval
from fruitgan.measures.subsampling import MINIMUM_IMAGES
from fruitgan.randomness import generator

COPY_SHARE = 0.5
"""With more of the real images than this among the training images there is nothing to compare with."""


class NearestTraining(TrainingMetric):
    """How near a generated image lies to a training image, where the measure is how near an unseen real one does."""

    name = "nearest-training"
    minimum_images = MINIMUM_IMAGES
    lower_is_better = False

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self.seed = seed

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


def nearest_training(*, resamples: int = 1000, seed: int = 0) -> NearestTraining:
    """Median distance to the nearest training image, generated over unseen real (after Meehan et al. 2020); well below 1 is
    copying.
    """
    return NearestTraining(resamples, seed)
