"""Intervals and tests: proportions, AUC, bootstrap over images or groups, McNemar's test, permutation of the largest AUC."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fruitgan.randomness import generator

CONFIDENCE = 0.95
ALPHA = 0.001
PERMUTATIONS = 9999
CHUNK = 500
"""Permutations drawn at a time: a thousand images then take 20 MB."""

Weights = NDArray[np.float64]
"""[B, n]: in each of B resamples, how often each of n images was drawn (whole numbers)."""
Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]


class Interval(NamedTuple):
    """Both ends included; of 95% confidence."""

    low: float
    high: float


def wilson(successes: float, n: float) -> Interval:
    """The score interval of a proportion (Wilson 1927), which stays in [0, 1] and honest at small n.

    Of grouped images both numbers are those of as many independent ones (`independent`), and need not be whole.

    Raises:
        ValueError: not 0 <= successes <= n with n > 0.
    """
    if not 0 <= successes <= n or not n > 0:
        raise ValueError(f"{successes} of {n} is no proportion")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, part = successes / n, z**2 / n
    middle, half = share + part / 2, z * math.sqrt(share * (1 - share) / n + part / (4 * n))
    low, high = (middle - half) / (1 + part), (middle + half) / (1 + part)
    return Interval(0.0 if successes == 0 else low, 1.0 if successes == n else high)


def independent(values: ArrayLike, groups: Sequence[str]) -> float:
    """As many independent values as these [n] are worth for their mean, at most n, where values of a group may be alike.

    That is n over the design effect (Kish 1965, section 5.4; Rao and Scott 1992): how much larger the variance of the groups'
    sums is than that of as many independent values. Where all values are one, a group counts as if its values were.
    """
    values = np.asarray(values, dtype=np.float64)
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    sizes, n = np.bincount(codes), len(values)
    variance = float(values.var())
    if sizes.max() == 1:
        return float(n)
    sums = np.bincount(codes, weights=values - values.mean())
    effect = float((sums**2).sum()) / (n * variance) if variance else float((sizes**2).sum()) / n
    return n / max(1.0, effect)


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
    return float(_aucs(_ranks(scores), np.asarray(generated, dtype=bool)[None])[0, 0])


def _ranks(scores: ArrayLike) -> Scores:
    """[A, n] or [n] scores to their ranks in each row, [A, n]; ties share the mean of theirs."""
    from scipy.stats import rankdata

    return np.atleast_2d(np.asarray(rankdata(scores, axis=-1), dtype=np.float64))


def _aucs(ranks: Scores, labels: Labels) -> NDArray[np.float64]:
    """[B, A]: the AUC of each of [A, n] rows of ranks by each of [B, n] labellings, all with as many generated images."""
    positives = int(labels[0].sum())
    negatives = labels.shape[1] - positives
    if not positives or not negatives:
        raise ValueError("an AUC needs both real and generated images")
    rank_sums = labels.astype(np.float64) @ ranks.T
    found: NDArray[np.float64] = (rank_sums - positives * (positives + 1) / 2) / (positives * negatives)
    return found


def placements(scores: ArrayLike, generated: ArrayLike) -> NDArray[np.float64]:
    """[N]: the share of the images of the other class that each image lies on the right side of, ties counted half.

    Their mean over either class is the AUC (DeLong, DeLong and Clarke-Pearson 1988).

    Raises:
        ValueError: one kind only.
    """
    truth = np.asarray(generated, dtype=np.bool_)
    if len(set(truth.tolist())) < 2:
        raise ValueError("an AUC needs both real and generated images")
    found = _ranks(scores)[0]
    for mine in (truth, ~truth):  # the rank among all less that among its own
        found[mine] = (found[mine] - _ranks(np.asarray(scores)[mine])[0]) / (~mine).sum()
    placed: NDArray[np.float64] = np.where(truth, found, 1 - found)
    return placed


def auc_interval(area: float, placed: ArrayLike, generated: ArrayLike, groups: Sequence[str]) -> Interval:
    """The score interval of an AUC (Newcombe 2006, part 2, method 5), which stays in [0, 1] and is no point at 1.

    Its ends solve (t - area)^2 = z^2 V(t), V(t) = t (1 - t) (1 + (M - 1) ((1 - t) / (2 - t) + t / (1 + t))) / (m n), of m
    generated and n real images, M = (m + n) / 2. Of grouped images m and n are those of as many independent ones.

    Args:
        placed: [N] of `placements`, by the detector that judged each image.
    """
    from scipy.optimize import brentq

    placed, truth = np.asarray(placed, dtype=np.float64), np.asarray(generated, dtype=np.bool_)
    sizes = np.array([truth.sum(), (~truth).sum()])
    middles = np.where(truth, placed[truth].mean(), placed[~truth].mean())
    m, n = sizes * independent((placed - middles) / np.where(truth, *sizes), groups) / len(placed)
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

    def beyond(t: float) -> float:
        odds = (1 - t) / (2 - t) + t / (1 + t)
        return float((t - area) ** 2 - z**2 * t * (1 - t) * (1 + ((m + n) / 2 - 1) * odds) / (m * n))

    inside = min(max(area, 1e-9), 1 - 1e-9)
    low = 0.0 if area <= 0 else float(brentq(beyond, 0.0, inside))
    return Interval(low, 1.0 if area >= 1 else float(brentq(beyond, inside, 1.0)))


def resample_weights(n: int, resamples: int, seed: int, stream: str) -> Weights:
    """Draws of n out of n with replacement, as counts [B, n]; each row sums to n."""
    drawn = generator(seed, 0, f"bootstrap/{stream}").integers(n, size=(resamples, n))
    counts = np.zeros((resamples, n))
    np.add.at(counts, (np.arange(resamples)[:, None], drawn), 1.0)
    return counts


def percentile_interval(values: ArrayLike) -> Interval:
    """The middle 95% of the resampled values; those that are not finite are left out.

    Raises:
        ValueError: none is finite.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        raise ValueError("no resample gave a finite number")
    tail = (1 - CONFIDENCE) / 2
    return Interval(*np.quantile(finite, (tail, 1 - tail)).tolist())


def normal_interval(value: float, values: ArrayLike) -> Interval:
    """The measured value and 1.96 standard deviations of the resampled values to either side.

    For numbers whose bias depends on how many *different* images there are (a Frechet distance): a resample holds fewer of
    them, so its values lie too high and their percentiles would miss the measured value, while their spread is right.
    """
    from scipy.stats import norm

    reach = float(norm.ppf(0.5 + CONFIDENCE / 2)) * float(np.std(np.asarray(values, dtype=np.float64), ddof=1))
    return Interval(value - reach, value + reach)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float], groups: Sequence[Hashable], *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """The percentile interval of a statistic over groups of images that are drawn together, such as an image and its source.

    Args:
        statistic: a number from the positions of the images drawn; ValueError where it has none (that resample is left out).
        groups: the group of each image.
    """
    members = _members(groups)
    random = generator(seed, 0, "bootstrap/groups")
    values: list[float] = []
    for _ in range(resamples):
        drawn = random.integers(len(members), size=len(members))
        try:
            values.append(statistic(np.concatenate([members[i] for i in drawn])))
        except ValueError:
            continue
    return percentile_interval(values)


def _members(groups: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """The positions of each group's images."""
    members: dict[Hashable, list[int]] = {}
    for position, key in enumerate(groups):
        members.setdefault(key, []).append(position)
    return [np.array(positions, dtype=np.int64) for positions in members.values()]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A number of a second set of images less that of a first; image i of both was made of one source."""

    value: float
    interval: Interval
    p_value: float
    """Two-sided, of no difference."""
    n: int
    """Pairs."""


def normal_difference(value: float, values: ArrayLike, n: int) -> Difference:
    """With the interval of `normal_interval` about the measured difference, and the p-value of the same distribution."""
    from scipy.stats import norm

    spread = float(np.std(np.asarray(values, dtype=np.float64), ddof=1))
    p_value = 2 * norm.sf(abs(value) / spread) if spread else float(not value)
    return Difference(value=value, interval=normal_interval(value, values), p_value=float(p_value), n=n)


def paired_shares(
    first: Labels, second: Labels, groups: Sequence[Hashable], *, resamples: int = 1000, seed: int = 0
) -> Difference:
    """Of two detectors' accuracies on the same images, from [n] of whether each was right on an image.

    The interval is of the bootstrap over groups, p of McNemar's test (1947), exact: from the images that one of the two alone
    classified correctly. Without such images it is 1.
    """
    from scipy.stats import binomtest

    gains = second.astype(np.float64) - first.astype(np.float64)
    only_first, odd = int((gains < 0).sum()), int((gains != 0).sum())
    return Difference(
        value=float(gains.mean()),
        interval=bootstrap_interval(lambda drawn: float(gains[drawn].mean()), groups, resamples=resamples, seed=seed),
        p_value=float(binomtest(only_first, odd, 0.5).pvalue) if odd else 1.0,
        n=len(first),
    )


@dataclass(frozen=True, kw_only=True)
class MaximumTest:
    """What came out. With p at or below ALPHA the two kinds count as distinguished."""

    p_value: float
    aucs: tuple[float, ...]
    """Of each detector on the tested images."""

    @property
    def rejects(self) -> bool:
        return self.p_value <= ALPHA


def maximum_test(
    scores: Scores, generated: Labels, groups: Sequence[Hashable], *, permutations: int = PERMUTATIONS, seed: int = 0
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
    ranks = _ranks(scores)
    measured = _aucs(ranks, generated[None])[0]
    random = generator(seed, 0, "evaluation/permutations")
    members = _members(groups)
    by_size = [np.stack([one for one in members if len(one) == size]) for size in sorted(set(map(len, members)))]
    as_high = 0
    for start in range(0, permutations, CHUNK):
        labels = _permuted(generated, by_size, min(CHUNK, permutations - start), random)
        as_high += int((_aucs(ranks, labels).max(axis=1) >= measured.max() - 1e-12).sum())  # ties count against the detectors
    return MaximumTest(p_value=(1 + as_high) / (1 + permutations), aucs=tuple(measured.tolist()))


def _permuted(generated: Labels, by_size: Sequence[NDArray[np.int64]], count: int, random: np.random.Generator) -> Labels:
    """[count, n] permuted labels; `by_size` has for each size of groups the positions of their images, [groups, size]."""
    labels = np.empty((count, len(generated)), dtype=np.bool_)
    for positions in by_size:
        groups, size = positions.shape
        order = random.random((count, groups)).argsort(axis=1)  # [count, groups]: whose labels each group takes over
        taken = generated[positions][order]  # [count, groups, size]
        if size > 1:
            within = random.random(taken.shape).argsort(axis=2)
            taken = np.take_along_axis(taken, within, axis=2)
        labels[:, positions.ravel()] = taken.reshape(count, -1)
    return labels
