"""How sure a number is: intervals for proportions, ranks, and the bootstrap over images or over groups of images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fruitgan.randomness import generator

CONFIDENCE = 0.95

Weights = NDArray[np.float64]
"""[B, n]: in each of B resamples, how often each of n images was drawn (whole numbers)."""


class Interval(NamedTuple):
    """Both ends included."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a proportion (Wilson 1927), which stays in [0, 1] and honest at small n.

    Raises:
        ValueError: not 0 <= successes <= n with n >= 1.
    """
    from scipy.stats import binomtest

    found = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def binomial_p(successes: int, n: int, chance: float = 0.5) -> float:
    """How probable at least so many successes in n are by chance alone (one-sided, exact).

    The p-value of a classifier two-sample test (Lopez-Paz and Oquab 2017), where a success is an image told right.
    """
    from scipy.stats import binomtest

    return float(binomtest(successes, n, chance, alternative="greater").pvalue)


def auc(scores: ArrayLike, generated: ArrayLike) -> float:
    """The probability that a generated image scores higher than a real one, ties counted half.

    Args:
        scores: [N], such as a detector's logits.
        generated: [N] of booleans; both kinds must occur.

    Raises:
        ValueError: one kind only.
    """
    from sklearn.metrics import roc_auc_score

    truth = np.asarray(generated, dtype=bool)
    if truth.all() or not truth.any():
        raise ValueError("an AUC needs both real and generated images")
    return float(roc_auc_score(truth, np.asarray(scores, dtype=np.float64)))


def resample_weights(n: int, resamples: int, seed: int, stream: str) -> Weights:
    """Draws of n out of n with replacement, as counts [B, n]; each row sums to n."""
    drawn = generator(seed, 0, f"bootstrap/{stream}").integers(n, size=(resamples, n))
    counts = np.zeros((resamples, n))
    np.add.at(counts, (np.arange(resamples)[:, None], drawn), 1.0)
    return counts


def percentile_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The middle part of the resampled values; those that are not finite are left out.

    Raises:
        ValueError: none is finite.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        raise ValueError("no resample gave a finite number")
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, (tail, 1 - tail))
    return Interval(float(low), float(high))


def normal_interval(value: float, values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The measured value and the resampled values' standard deviation to either side, as a normal distribution has it.

    For numbers whose bias depends on how many *different* images there are (a Frechet distance): a resample holds fewer of
    them, so its values lie too high and their percentiles would miss the measured value, while their spread is right.
    """
    from scipy.stats import norm

    reach = float(norm.ppf(0.5 + confidence / 2)) * float(np.std(np.asarray(values, dtype=np.float64), ddof=1))
    return Interval(value - reach, value + reach)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    groups: Sequence[Hashable] | int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The percentile interval of a statistic over images, or over groups of images that are drawn together.

    Args:
        statistic: a number from the positions of the images drawn; ValueError where it has none (that resample is left out).
        groups: the group of each image, or how many images there are if each is a group of its own.
    """
    keys: Sequence[Hashable] = range(groups) if isinstance(groups, int) else groups
    members: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        members.setdefault(key, []).append(position)
    lists = [np.array(positions, dtype=np.int64) for positions in members.values()]
    random = generator(seed, 0, "bootstrap/groups")
    values: list[float] = []
    for _ in range(resamples):
        drawn = random.integers(len(lists), size=len(lists))
        try:
            values.append(statistic(np.concatenate([lists[i] for i in drawn])))
        except ValueError:
            continue
    return percentile_interval(values, confidence)


def auc_interval(
    scores: ArrayLike,
    generated: ArrayLike,
    groups: Sequence[Hashable] | int | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The interval of an AUC by the bootstrap over groups (an image and its source are one group)."""
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(generated, dtype=bool)
    return bootstrap_interval(
        lambda drawn: rank_auc(values[drawn], truth[drawn]),
        len(values) if groups is None else groups,
        resamples=resamples,
        seed=seed,
    )


def rank_auc(scores: NDArray[np.float64], generated: NDArray[np.bool_]) -> float:
    """`auc` without checks of its input, fast enough for a thousand resamples (Mann and Whitney's U over the pairs)."""
    from scipy.stats import rankdata

    positives = int(generated.sum())
    negatives = len(generated) - positives
    if not positives or not negatives:
        raise ValueError("an AUC needs both real and generated images")
    rank_sum = float(rankdata(scores)[generated].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
