"""Whether a detector's certainty can be trusted, and other shares of right answers than the plain one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fruitgan.measures.statistics import wilson

BINS = 10


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The images to which the detector gave a probability of being generated from `low` up to `high`."""

    low: float
    high: float
    n: int
    predicted: float
    """Mean of those probabilities."""
    observed: float
    """Share of these images that are generated."""
    interval: tuple[float, float]
    """95% (Wilson) of it."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far said and true probabilities are apart; bins without images are left out."""

    error: float
    """Expected calibration error: mean of |observed - predicted| over the images."""
    bins: tuple[ReliabilityBin, ...]


def calibration(logits: NDArray[np.float64], generated: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """Reliability in bins of equal width over the probability 1 / (1 + exp(-logit)) (Naeini et al. 2015, section 2)."""
    from scipy.special import expit

    probabilities = expit(logits)
    places = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    found = []
    for place in np.unique(places):
        chosen = places == place
        n, hits = int(chosen.sum()), int(generated[chosen].sum())
        low, high = wilson(hits, n)
        found.append(
            ReliabilityBin(
                low=int(place) / bins,
                high=(int(place) + 1) / bins,
                n=n,
                predicted=float(probabilities[chosen].mean()),
                observed=hits / n,
                interval=(low, high),
            )
        )
    error = sum(entry.n * abs(entry.observed - entry.predicted) for entry in found) / len(logits)
    return Calibration(error=float(error), bins=tuple(found))


def average_precision(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> float:
    """Mean precision over the recalls of the generated images, in steps (not interpolated)."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(generated, logits))


def balanced_accuracy(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> float:
    """Mean of the share of generated and the share of real images told right; a logit above 0 says generated."""
    said = logits > 0
    return float(((said[generated]).mean() + (~said[~generated]).mean()) / 2)
