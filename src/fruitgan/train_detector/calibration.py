"""Scores of a detector from its logits: accuracy, AUC, ROC, cross entropy, and how well its probabilities are calibrated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruitgan.data.labelled import LabelledImage
from fruitgan.measures.statistics import auc, binomial_p, independent, wilson

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of images by their class and by the class they were classified as."""

    generated_as_generated: int
    generated_as_real: int
    real_as_generated: int
    real_as_real: int

    @property
    def correct(self) -> int:
        return self.generated_as_generated + self.real_as_real


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Scores of a detector on the test set. Shares are in [0, 1]."""

    accuracy: float
    interval: tuple[float, float]
    """95% (Wilson) of the accuracy, of as many independent images as these are worth."""
    auc: float
    p_value: float
    """One-sided binomial test of the accuracy against the majority baseline."""
    majority_baseline: float
    """The accuracy of always answering with the more frequent class."""
    n: int
    confusion: Confusion

    @property
    def is_at_random(self) -> bool:
        """Whether neither accuracy nor AUC is better than chance; the latter by the rank sums' normal distribution."""
        generated = self.confusion.generated_as_generated + self.confusion.generated_as_real
        deviation = math.sqrt((self.n + 1) / (12 * max(1, generated * (self.n - generated))))
        return self.interval[0] <= self.majority_baseline and self.auc <= 0.5 + 2 * deviation


def judge(
    logits: NDArray[np.float64], generated: NDArray[np.bool_] | Sequence[bool], groups: Sequence[str] | None = None
) -> Verdict:
    """Scores of logits [n], above 0 for generated, against the truth [n]; both classes must occur.

    Images of one of the `groups` may be alike, and count for as many as they are worth (`independent`); None: each is its own.

    Raises:
        ValueError: one class alone.
    """
    truth = np.asarray(generated, dtype=np.bool_)
    said = logits > 0
    confusion = Confusion(
        generated_as_generated=int((truth & said).sum()),
        generated_as_real=int((truth & ~said).sum()),
        real_as_generated=int((~truth & said).sum()),
        real_as_real=int((~truth & ~said).sum()),
    )
    n = len(truth)
    worth = 1.0 if groups is None else independent(said == truth, groups) / n
    baseline = max(int(truth.sum()), int((~truth).sum())) / n
    return Verdict(
        accuracy=confusion.correct / n,
        interval=wilson(confusion.correct * worth, n * worth),
        auc=auc(logits, truth),
        p_value=binomial_p(round(confusion.correct * worth), round(n * worth), baseline),
        majority_baseline=baseline,
        n=n,
        confusion=confusion,
    )


def by_source_split(tested: Sequence[LabelledImage], logits: NDArray[np.float64]) -> tuple[Mapping[str, Any], ...]:
    """For each `split` of the generator's data, where it is known: the `n` fakes of its sources, and which share was recognised
    (`found`) with its Wilson `interval` of 95%.
    """
    found = []
    for split in ("test", "train"):
        members = [image.generated and image.split == split for image in tested]
        if n := sum(members):
            hits = int((logits[members] > 0).sum())
            found.append({"split": split, "n": n, "found": hits / n, "interval": wilson(hits, n)})
    return tuple(found)


def accuracy(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> float:
    """Share of the images that are classified correctly; a logit above 0 says generated."""
    return float(((logits > 0) == generated).mean())


def log_loss(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> float:
    """Mean cross entropy in nats: log(1 + exp(-z)) for a generated image, log(1 + exp(z)) for a real one; may be nan."""
    if not np.isfinite(logits).all():
        return math.nan
    return float(np.logaddexp(0, np.where(generated, -logits, logits)).mean())


def roc_points(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """For every threshold from the highest to the lowest: the shares of real and of generated images that lie above it."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(generated, logits, drop_intermediate=False)
    return false.tolist(), true.tolist()


def average_precision(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> float:
    """Mean precision over the recalls of the generated images, in steps (not interpolated)."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(generated, logits))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far predicted and observed probabilities are apart; bins without images are left out."""

    error: float
    """Expected calibration error: mean of |observed - predicted| over the images."""
    bins: tuple[Mapping[str, Any], ...]
    """Each has `low` and `high` of the probability of being generated, `n` images, the mean of these probabilities
    (`predicted`), and the share that is generated (`observed`) with its Wilson `interval` of 95%."""


def calibration(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> Calibration:
    """Reliability in bins of equal width over the probability 1 / (1 + exp(-logit)) (Naeini et al. 2015, section 2)."""
    from scipy.special import expit

    probabilities = expit(logits)
    places = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    found: list[dict[str, Any]] = []
    for place in np.unique(places):
        chosen = places == place
        n, hits = int(chosen.sum()), int(generated[chosen].sum())
        shares = {"predicted": float(probabilities[chosen].mean()), "observed": hits / n, "interval": wilson(hits, n)}
        found.append({"low": int(place) / BINS, "high": (int(place) + 1) / BINS, "n": n, **shares})
    error = sum(entry["n"] * abs(entry["observed"] - entry["predicted"]) for entry in found) / len(logits)
    return Calibration(error=float(error), bins=tuple(found))


def calibration_slope(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> float:
    """What logits are to be multiplied by for their sigmoid to be a probability; 0 where they say nothing.

    The inverse of a temperature (Guo et al. 2017, section 4.2), so that a logit of 0 stays one half: the likeliest for images
    that trained nothing, with Platt's targets (1999), so that it stays finite where all are classified correctly.
    """
    from sklearn.linear_model import LogisticRegression

    scale = float(np.abs(logits).max())
    if not scale:
        return 0.0
    n = len(logits)
    targets = np.where(generated, (generated.sum() + 1) / (generated.sum() + 2), 1 / ((~generated).sum() + 2))
    column, classes = np.tile(logits / scale, 2)[:, None], np.repeat([True, False], n)
    model = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", max_iter=200)
    model.fit(column, classes, sample_weight=np.concatenate([targets, 1 - targets]))
    return max(0.0, float(model.coef_[0, 0]) / scale)
