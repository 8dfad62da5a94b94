"""Paired tests against closed forms, scipy and loops that spell the resamples out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from fruitgan.measures.distances import kernel_distance, kid_difference, ratio_difference
from fruitgan.measures.statistics import mcnemar_p, paired_shares, resample_weights
from fruitgan.randomness import generator


def closed_form(b: int, c: int) -> float:
    """Twice the smaller tail of a fair coin, at most 1."""
    n, smaller = b + c, min(b, c)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(smaller + 1)) / 2**n)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 6), (3, 9), (10, 10), (40, 21), (2, 31)])
def test_mcnemar_is_the_exact_binomial_of_the_odd_pairs(b: int, c: int) -> None:
    assert mcnemar_p(b, c) == pytest.approx(closed_form(b, c), rel=1e-12)
    if b + c:
        assert mcnemar_p(b, c) == pytest.approx(binomtest(c, b + c).pvalue, rel=1e-12)


def test_paired_shares_count_who_alone_is_right() -> None:
    first = np.array([True, True, True, False, False, True])
    second = np.array([True, False, False, True, False, True])
    found = paired_shares(first, second)
    assert (found.only_first, found.only_second, found.n) == (2, 1, 6)
    assert found.second - found.first == pytest.approx(3 / 6 - 4 / 6)
    assert found.interval.low <= found.second - found.first <= found.interval.high
    with pytest.raises(ValueError, match="no pairs"):
        paired_shares(first, second[:3])


def test_the_interval_of_paired_shares_is_that_of_a_naive_bootstrap_over_groups() -> None:
    random = np.random.default_rng(1)
    first, second = random.random(40) < 0.8, random.random(40) < 0.6
    groups = [f"g{i // 2}" for i in range(40)]
    found = paired_shares(first, second, groups, resamples=300, seed=5)
    drawing = generator(5, 0, "bootstrap/groups")
    values = []
    for _ in range(300):
        drawn = [place for group in drawing.integers(20, size=20) for place in (2 * group, 2 * group + 1)]
        values.append(sum(int(second[i]) - int(first[i]) for i in drawn) / len(drawn))
    assert found.interval == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))))


def naive_kid(x: np.ndarray, y: np.ndarray) -> float:
    """Means over pairs of different images, pair by pair; equal rows of a resample are one image's copies."""

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        values = [
            (float(p @ q) / len(p) + 1) ** 3 for i, p in enumerate(a) for j, q in enumerate(b) if not same or (p != q).any()
        ]
        return sum(values) / len(values)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def drawn(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.repeat(points, weights.astype(int), axis=0)


@pytest.fixture
def sets() -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(0)
    real, source = random.normal(0, 1, (12, 3)), random.normal(1.5, 1, (10, 3))
    return real, source * 0.5, source * 0.8, source


def test_paired_differences_of_distances_are_those_of_a_loop_that_draws_both_fakes_of_a_source_together(
    sets: tuple[np.ndarray, ...],
) -> None:
    real, first, second, source = sets
    weights_real = resample_weights(12, 25, 3, "real")
    weights_fake = resample_weights(10, 25, 3, "fake")
    kids, ratios = [], []
    for wr, wf in zip(weights_real, weights_fake, strict=True):
        r, f, s, o = drawn(real, wr), drawn(first, wf), drawn(second, wf), drawn(source, wf)
        kids.append(naive_kid(r, f) - naive_kid(r, s))
        ratios.append((naive_kid(r, f) - naive_kid(r, s)) / naive_kid(r, o))
    kid = kid_difference(real, first, second, resamples=25, seed=3)
    ratio = ratio_difference(real, first, second, source, sources_paired=True, resamples=25, seed=3)
    below = naive_kid(real, source)
    for found, values, scale in ((kid, kids, 1.0), (ratio, ratios, below)):
        value = (naive_kid(real, first) - naive_kid(real, second)) / scale
        reach = norm.ppf(0.975) * np.std(values, ddof=1)
        assert found.value == pytest.approx(value)
        assert found.interval == pytest.approx((value - reach, value + reach))
        assert found.p_value == pytest.approx(2 * norm.sf(abs(value) / np.std(values, ddof=1)))
        assert (found.p_value < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


def test_a_ratios_difference_is_the_difference_of_the_ratios_and_nothing_for_one_and_the_same(
    sets: tuple[np.ndarray, ...],
) -> None:
    real, first, second, source = sets
    found = ratio_difference(real, first, second, source[:7], sources_paired=False, resamples=50)
    below = kernel_distance(real, source[:7])
    assert found.value == pytest.approx(kernel_distance(real, first) / below - kernel_distance(real, second) / below)
    same = ratio_difference(real, first, first, source, sources_paired=True, resamples=50)
    assert (same.value, same.interval, same.p_value) == (0, (0, 0), 1)
