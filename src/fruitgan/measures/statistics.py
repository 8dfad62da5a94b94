"""Intervals and tests: proportions, AUC, bootstrap over images or groups, McNemar's test, permutation of the largest AUC."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
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

    The p-value of a classifier two-sample test (Lopez-Paz and Oquab 2017), where a success is a correctly classified image.
    """
    from scipy.stats import binomtest

    return float(binomtest(successes, n, chance, alternative="greater").pvalue)


def auc(scores: ArrayLike, generated: ArrayLike) -> float:
    """The probability that a generated image scores higher than a real one, ties counted half (Mann and Whitney's U).

    Args:
        scores: [N], such as a detector's logits.
        generated: [N] of booleans; both kinds must occur.

    Raises:
        ValueError: one kind only.
    """
    from scipy.stats import rankdata

    truth = np.asarray(generated, dtype=bool)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        raise ValueError("an AUC needs both real and generated images")
    rank_sum = float(rankdata(np.asarray(scores, dtype=np.float64))[truth].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


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
        lambda drawn: auc(values[drawn], truth[drawn]),
        len(values) if groups is None else groups,
        resamples=resamples,
        seed=seed,
    )


@dataclass(frozen=True, kw_only=True)
class PairedShares:
    """The accuracy of a second detector, less that of a first one, over n images that both classified."""

    first: float
    second: float
    difference: float
    interval: Interval
    """95%, by the bootstrap over groups of questions."""
    p_value: float
    """McNemar's test, exact and two-sided."""
    only_first: int
    """How many only the first classified correctly."""
    only_second: int
    n: int


def mcnemar_p(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's test (1947), exact and two-sided, from how many images only one of two detectors got right.

    Without such images it is 1.
    """
    from scipy.stats import binomtest

    odd = only_first + only_second
    return 1.0 if not odd else float(binomtest(only_first, odd, 0.5).pvalue)


def paired_shares(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    groups: Sequence[Hashable] | int | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> PairedShares:
    """From [n] of whether each detector was right on an image, in the same order.

    Raises:
        ValueError: no questions, or not as many of the one as of the other.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} answers are no pairs")
    gains = second.astype(np.float64) - first.astype(np.float64)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return PairedShares(
        first=float(first.mean()),
        second=float(second.mean()),
        difference=float(gains.mean()),
        interval=bootstrap_interval(
            lambda drawn: float(gains[drawn].mean()),
            len(first) if groups is None else groups,
            resamples=resamples,
            seed=seed,
        ),
        p_value=mcnemar_p(only_first, only_second),
        only_first=only_first,
        only_second=only_second,
        n=len(first),
    )


ALPHA = 0.001
PERMUTATIONS = 9999
CHUNK = 500
"""Permutations drawn at a time: a thousand images then take 20 MB."""

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class MaximumTest:
    """What came out. With p at or below ALPHA the two kinds count as distinguished."""

    p_value: float
    aucs: tuple[float, ...]
    """Of each detector on the tested images."""
    permutations: int

    @property
    def rejects(self) -> bool:
        return self.p_value <= ALPHA


def maximum_test(
    scores: Scores,
    generated: Labels,
    groups: Sequence[Hashable],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> MaximumTest:
    """Permutation test of the largest AUC: its p-value if the labels said nothing about the images (Westfall and Young 1993).

    The detectors must have been trained on *other* images. Then, if the two kinds do not differ, the labels of the tested
    images are exchangeable while their scores stay what they are, and the test is exact, however the detectors depend on each
    other: it rejects at p <= alpha with a probability of at most alpha (Phipson and Smyth 2010). Permuted are whole groups:
    each group takes over the labels of another of the same size, in a random order within it.

    Args:
        scores: [A, n], one row a detector; higher means generated.
        generated: [n]; both kinds must occur.
        groups: of each image; images of one group show one thing.

    Raises:
        ValueError: one kind only.
    """
    positives = int(generated.sum())
    negatives = len(generated) - positives
    if not positives or not negatives:
        raise ValueError("a test needs images of both kinds")
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(scores, axis=1), dtype=np.float64)
    least = positives * (positives + 1) / 2

    def aucs(labels: NDArray[np.float64]) -> NDArray[np.float64]:
        """[B, n] of 0 and 1 to [B, A]: Mann and Whitney's U over the pairs."""
        found: NDArray[np.float64] = (labels @ ranks.T - least) / (positives * negatives)
        return found

    measured = aucs(generated[None].astype(np.float64))[0]
    random = generator(seed, 0, "evaluation/permutations")
    sizes = _by_size(groups)
    as_high = 0
    for start in range(0, permutations, CHUNK):
        labels = _permuted(generated, sizes, min(CHUNK, permutations - start), random)
        as_high += int((aucs(labels).max(axis=1) >= measured.max() - 1e-12).sum())  # ties count against the detectors
    return MaximumTest(
        p_value=(1 + as_high) / (1 + permutations), aucs=tuple(float(auc) for auc in measured), permutations=permutations
    )


def _by_size(groups: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """For each size of groups that occurs the positions of their images, [groups, size]."""
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    by_size: dict[int, list[list[int]]] = {}
    for positions in members.values():
        by_size.setdefault(len(positions), []).append(positions)
    return [np.array(by_size[size], dtype=np.int64) for size in sorted(by_size)]


def _permuted(
    generated: Labels, sizes: Sequence[NDArray[np.int64]], count: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """[count, n] of 0 and 1."""
    labels = np.empty((count, len(generated)))
    for positions in sizes:
        groups, size = positions.shape
        order = random.random((count, groups)).argsort(axis=1)  # [count, groups]: whose labels each group takes over
        taken = generated[positions][order]  # [count, groups, size]
        if size > 1:
            within = random.random(taken.shape).argsort(axis=2)
            taken = np.take_along_axis(taken, within, axis=2)
        labels[:, positions.ravel()] = taken.reshape(count, -1)
    return labels
