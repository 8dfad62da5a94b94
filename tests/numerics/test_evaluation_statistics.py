"""Intervals, ranks, the bootstrap and the one test of many attackers against published numbers, naive counts, simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, norm
from sklearn.metrics import roc_auc_score

from fruitgan.measures.statistics import (
    auc,
    auc_interval,
    binomial_p,
    bootstrap_interval,
    independent,
    maximum_test,
    normal_interval,
    paired_shares,
    percentile_interval,
    placements,
    resample_weights,
    wilson,
)
from fruitgan.randomness import generator
from fruitgan.train_detector.calibration import judge


@pytest.mark.parametrize(("right", "n"), [(0, 7), (3, 7), (7, 7), (330, 360)])
def test_the_wilson_interval_is_scipys(right: int, n: int) -> None:
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((theirs.low, theirs.high))
    with pytest.raises(ValueError, match="no proportion"):
        wilson(n + 1, n)


def test_images_that_are_copies_in_groups_are_worth_as_many_as_there_are_groups() -> None:
    random = np.random.default_rng(0)
    once = random.random(40) < 0.7
    groups = [str(i) for i in np.repeat(np.arange(40), 5)]
    assert independent(np.repeat(once, 5), groups) == pytest.approx(40)
    assert independent(np.ones(200), groups) == pytest.approx(40)  # all the same: as if those of a group were copies
    assert independent(once, [str(i) for i in range(40)]) == 40
    apart = independent(random.random(200) < 0.7, groups)  # in groups, and not alike
    assert 120 < apart <= 200


def test_the_interval_of_grouped_images_holds_the_truth_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        logits, groups = np.repeat(random.normal(size=40), 5), [str(i) for i in np.repeat(np.arange(40), 5)]
        generated = np.repeat(np.arange(40) % 2 == 0, 5)
        low, high = judge(logits, generated, groups).interval
        hits += low <= 0.5 <= high
    assert hits >= 180


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (300, 500), (1, 3)])
def test_the_wilson_interval_solves_its_own_equation(right: int, n: int) -> None:
    share, z = right / n, 1.959963984540054
    for end in wilson(right, n):
        assert math.isclose(abs(share - end), z * math.sqrt(end * (1 - end) / n), abs_tol=1e-9)
        assert 0 <= end <= 1


def test_the_binomial_p_value_is_the_sum_of_the_upper_tail() -> None:
    tail = sum(math.comb(20, k) for k in range(15, 21)) / 2**20
    assert math.isclose(binomial_p(15, 20), tail, rel_tol=1e-12)
    assert binomial_p(0, 20) == 1


def test_an_auc_counts_pairs_and_halves_ties() -> None:
    random = np.random.default_rng(1)
    scores = random.integers(6, size=40).astype(float)
    truth = random.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(scores[truth], scores[~truth])]
    assert math.isclose(auc(scores, truth), float(np.mean(pairs)), rel_tol=1e-12)


def test_one_class_alone_has_no_auc_and_cannot_be_tested() -> None:
    with pytest.raises(ValueError, match="both real and generated"):
        auc([1.0, 2.0], [True, True])
    with pytest.raises(ValueError, match="both real and generated"):
        maximum_test(np.zeros((1, 3)), np.ones(3, dtype=bool), apart(3))


def test_resamples_draw_as_many_images_as_there_are_and_are_the_same_each_time() -> None:
    weights = resample_weights(30, 50, seed=3, stream="x")
    assert weights.shape == (50, 30)
    assert (weights.sum(1) == 30).all()
    assert (weights == resample_weights(30, 50, seed=3, stream="x")).all()
    assert (weights != resample_weights(30, 50, seed=4, stream="x")).any()
    assert abs(weights.mean() - 1) < 1e-12


def test_a_percentile_interval_leaves_out_what_is_not_finite() -> None:
    assert percentile_interval([math.nan, math.inf, 1.0, 1.0]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="finite"):
        percentile_interval([math.nan])


def test_a_normal_interval_stands_around_the_value() -> None:
    low, high = normal_interval(5.0, [1.0, 2.0, 3.0])
    assert math.isclose((low + high) / 2, 5.0)
    assert math.isclose(high - low, 2 * 1.959963984540054, rel_tol=1e-9)


def test_placements_are_a_naive_count_of_pairs_and_their_mean_is_the_auc() -> None:
    random = np.random.default_rng(0)
    scores, truth = random.integers(0, 6, 30).astype(float), np.arange(30) % 3 == 0
    found = placements(scores, truth)
    for i in range(30):
        others = [j for j in range(30) if truth[j] != truth[i]]
        right = [(scores[i] - scores[j]) * (1 if truth[i] else -1) for j in others]
        assert found[i] == pytest.approx(np.mean([(gap > 0) + 0.5 * (gap == 0) for gap in right]))
    for kind in (truth, ~truth):
        assert found[kind].mean() == pytest.approx(roc_auc_score(truth, scores))
    with pytest.raises(ValueError, match="both"):
        placements(scores, np.ones(30))


def hanley_mcneil(area: float, of_generated: int, of_real: int) -> float:
    """The variance of an AUC of exponential scores (Hanley and McNeil 1982, equation 2), in their writing."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    return (area * (1 - area) + (of_generated - 1) * (q1 - area**2) + (of_real - 1) * (q2 - area**2)) / (of_generated * of_real)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_the_ends_of_an_auc_interval_are_as_far_off_as_hanley_and_mcneil_say(shift: float) -> None:
    truth = np.arange(60) < 30
    scores = np.random.default_rng(1).normal(size=60) + shift * truth
    area = auc(scores, truth)
    for end in auc_interval(area, placements(scores, truth), truth, [str(i) for i in range(60)]):
        assert abs(end - area) == pytest.approx(1.959963984540054 * math.sqrt(hanley_mcneil(end, 30, 30)))


def test_perfect_separation_of_few_images_is_no_certainty() -> None:
    widths = []
    for n in (7, 70):
        truth = np.arange(2 * n) < n
        low, high = auc_interval(1.0, np.ones(2 * n), truth, [str(i) for i in range(2 * n)])
        assert high == 1
        widths.append(1 - low)
        assert auc_interval(0.0, np.zeros(2 * n), truth, [str(i) for i in range(2 * n)]) == pytest.approx((0, 1 - low))
    assert widths[0] > 0.2
    assert widths[1] < 0.05


def test_copies_do_not_narrow_an_auc_interval() -> None:
    truth = np.arange(40) % 2 == 0
    scores = np.random.default_rng(2).normal(size=40) + truth
    alone = auc_interval(auc(scores, truth), placements(scores, truth), truth, [str(i) for i in range(40)])
    copied, five = np.repeat(scores, 5), np.repeat(truth, 5)
    groups = [str(i // 5) for i in range(200)]
    assert auc_interval(auc(copied, five), placements(copied, five), five, groups) == pytest.approx(alone)


@pytest.mark.parametrize("area", [0.5, 0.8, 0.97])
def test_an_auc_interval_holds_the_truth_about_as_often_as_it_says(area: float) -> None:
    truth, groups, hits = np.arange(50) % 2 == 0, [str(i) for i in range(50)], 0
    for trial in range(300):
        scores = np.random.default_rng(trial).normal(size=50) + math.sqrt(2) * norm.ppf(area) * truth
        low, high = auc_interval(auc(scores, truth), placements(scores, truth), truth, groups)
        hits += low <= area <= high
    assert 0.92 * 300 <= hits <= 0.99 * 300


def test_the_bootstrap_covers_a_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        values = random.normal(size=60)
        low, high = bootstrap_interval(lambda drawn, v=values: float(v[drawn].mean()), range(60), resamples=200, seed=trial)
        hits += low <= 0 <= high
    assert 87 <= hits <= 99


def test_groups_are_drawn_whole_so_that_copies_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=40)
    copied = np.repeat(values, 5)
    alone = bootstrap_interval(lambda drawn: float(values[drawn].mean()), range(40))
    naive = bootstrap_interval(lambda drawn: float(copied[drawn].mean()), range(200))
    grouped = bootstrap_interval(lambda drawn: float(copied[drawn].mean()), [i // 5 for i in range(200)])
    assert math.isclose(grouped.high - grouped.low, alone.high - alone.low, rel_tol=0.15)
    assert naive.high - naive.low < 0.6 * (grouped.high - grouped.low)


def closed_form(b: int, c: int) -> float:
    """Twice the smaller tail of a fair coin, at most 1."""
    n, smaller = b + c, min(b, c)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(smaller + 1)) / 2**n)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 6), (3, 9), (10, 10), (40, 21), (2, 31)])
def test_paired_shares_are_tested_by_the_exact_binomial_of_those_whom_one_alone_gets_right(b: int, c: int) -> None:
    first = np.array([True] * b + [False] * c + [True, True, False])
    second = np.array([False] * b + [True] * c + [True, True, False])
    found = paired_shares(first, second, range(b + c + 3), resamples=50)
    assert found.p_value == pytest.approx(closed_form(b, c), rel=1e-12)
    assert found.value == pytest.approx((c - b) / (b + c + 3))
    assert found.n == b + c + 3


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


def apart(n: int) -> list[str]:
    return [f"image {i}" for i in range(n)]


def test_the_p_value_is_that_of_all_permutations() -> None:
    random = np.random.default_rng(3)
    scores, generated = random.normal(size=(3, 8)), np.arange(8) < 3
    scores[1, :3] += 1.0
    found = maximum_test(scores, generated, apart(8), permutations=40_000)
    largest = max(roc_auc_score(generated, row) for row in scores)
    assert max(found.aucs) == pytest.approx(largest)
    as_high = [
        max(roc_auc_score(np.isin(np.arange(8), chosen), row) for row in scores) >= largest - 1e-12
        for chosen in itertools.combinations(range(8), 3)
    ]
    assert found.p_value == pytest.approx(np.mean(as_high), abs=4 * np.sqrt(0.25 / 40_000))


def test_pairs_are_permuted_as_pairs() -> None:
    """Each source stands beside its fake: all that can be permuted is which of the two is the fake."""
    generated = np.tile([True, False], 6)
    groups = [f"pair {i // 2}" for i in range(12)]
    scores = np.where(generated, 1.0, 0.0) + np.repeat(np.arange(6) * 10.0, 2)  # the fake of each pair a little higher
    found = maximum_test(scores[None], generated, groups, permutations=50_000)
    assert found.p_value == pytest.approx(1 / 2**6, abs=0.003)
    assert maximum_test(scores[None], generated, apart(12), permutations=2000).p_value > 0.2


def test_groups_of_several_images_count_once_each() -> None:
    generated = np.repeat([True, False], 20)
    scores = generated.astype(float)[None]
    few = maximum_test(scores, generated, [f"group {i // 10}" for i in range(40)], permutations=999)
    many = maximum_test(scores, generated, apart(40), permutations=999)
    assert few.p_value == pytest.approx(1 / 6, abs=0.05)  # two of four groups
    assert many.p_value == 1 / 1000
    assert many.rejects
    assert not few.rejects


def attacks(random: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Two attackers that learn the difference of means in noise on one half, and what they say of the other half."""
    features, generated = random.normal(size=(2 * n, 12)), random.permutation(2 * n) < n
    learn, judge = slice(n), slice(n, 2 * n)
    rows = []
    for columns in (slice(6), slice(3, 12)):
        x, truth = features[learn, columns], generated[learn]
        rows.append(features[judge, columns] @ (x[truth].mean(0) - x[~truth].mean(0)))
    return np.stack(rows), generated[judge]


def test_where_there_is_nothing_to_find_it_rejects_no_more_often_than_it_says() -> None:
    random = np.random.default_rng(0)
    p_values = []
    for seed in range(600):
        scores, generated = attacks(random, 40)
        p_values.append(maximum_test(scores, generated, apart(40), permutations=199, seed=seed).p_value)
    for alpha in (0.005, 0.05, 0.5):  # 0.005 is as low as 199 permutations can give
        low, high = binom.ppf([0.0005, 0.9995], 600, alpha)
        assert low <= (np.array(p_values) <= alpha).sum() <= high
