"""Kernel and Frechet distances, and the metrics of neighbours, against naive loops, closed forms and other libraries."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors

from fruitgan.measures import distances
from fruitgan.measures.contracts import FeatureSet, SetMetric, subsets
from fruitgan.measures.distances import (
    affordable,
    fid_difference,
    frechet_distance,
    frechet_distances,
    kernel_distance,
    kernel_distances,
    kid_difference,
    ratio_difference,
    squared_distances,
)
from fruitgan.measures.metrics.fid_kid import SUBSETS, Fid, Kid, KidSubsets, translation_ratio
from fruitgan.measures.metrics.neighbours import NEIGHBOURS, Coverage, Density, NearestTraining, Precision, Recall, radii
from fruitgan.measures.statistics import resample_weights


def draw(n: int, dimensions: int, seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, dimensions)) * np.linspace(2, 0.2, dimensions) + shift


def drawn(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A resample: each point as often as its weight says."""
    return np.repeat(points, weights.astype(int), axis=0)


def naive_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Means over pairs of different images, pair by pair; equal rows of a resample are one image's copies."""

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        pairs = [(p, q) for p in a for q in b if not same or (p != q).any()]
        return sum((float(p @ q) / len(p) + 1) ** 3 for p, q in pairs) / len(pairs)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def naive_frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(cov_x @ cov_y)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y - 2 * root.real))


def test_the_kernel_distance_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw(23, 7, 0), draw(17, 7, 1), resample_weights(23, 5, 0, "x"), resample_weights(17, 5, 0, "y")
    whole = kernel_distances(*drawn)
    monkeypatch.setattr(distances, "BLOCK_ROWS", 4)
    assert np.allclose(kernel_distances(*drawn), whole)


def test_a_weight_of_two_is_an_image_twice_but_never_a_pair_with_itself() -> None:
    x, y = draw(6, 3, 0), draw(5, 3, 1)
    weights_x, weights_y = np.array([[2.0, 1, 0, 3, 0, 1]]), np.array([[1.0, 0, 2, 1, 1]])
    (found,) = kernel_distances(x, y, weights_x, weights_y)
    assert math.isclose(found, naive_kernel_distance(drawn(x, weights_x[0]), drawn(y, weights_y[0])), rel_tol=1e-12)


def test_the_kernel_distance_of_one_distribution_is_zero_on_average() -> None:
    values = [kernel_distance(draw(30, 5, 2 * i), draw(40, 5, 2 * i + 1)) for i in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(300)


@pytest.mark.parametrize(("n", "m", "dimensions"), [(60, 40, 8), (12, 9, 30), (30, 20, 25)])
def test_the_frechet_distance_is_that_of_the_matrix_square_root(n: int, m: int, dimensions: int) -> None:
    x, y = draw(n, dimensions, 0), draw(m, dimensions, 1, shift=0.2)
    assert math.isclose(frechet_distance(x, y), naive_frechet_distance(x, y), rel_tol=1e-5)


def test_weighted_frechet_distances_are_those_of_repeated_images() -> None:
    x, y = draw(9, 20, 0), draw(11, 20, 1)
    weights_x, weights_y = resample_weights(9, 4, 0, "x"), resample_weights(11, 4, 0, "y")
    found = frechet_distances(x, y, weights_x, weights_y)
    for value, wx, wy in zip(found, weights_x, weights_y, strict=True):
        assert math.isclose(value, naive_frechet_distance(drawn(x, wx), drawn(y, wy)), rel_tol=1e-5)


@pytest.mark.parametrize(("n", "dimensions"), [(50, 16), (40, 64)])
def test_both_distances_are_those_of_torch_fidelity(n: int, dimensions: int) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = draw(n, dimensions, 0), draw(n, dimensions, 1, shift=0.1)
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    theirs = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False)
    assert math.isclose(frechet_distance(x, y), theirs["frechet_inception_distance"], rel_tol=1e-4)
    theirs = kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=n, verbose=False)
    assert math.isclose(kernel_distance(x, y), theirs["kernel_inception_distance_mean"], rel_tol=1e-9)


def feature_set(values: np.ndarray) -> FeatureSet:
    return FeatureSet(values, "test", "none")


@pytest.mark.parametrize(
    ("metric", "distance", "n"), [(Kid(resamples=500), kernel_distance, 80), (Fid(resamples=100), frechet_distance, 60)]
)
def test_an_interval_is_as_wide_as_the_scatter(metric: SetMetric, distance: Callable[..., float], n: int) -> None:
    scatter = np.std([distance(draw(n, 10, 2 * i), draw(n, 10, 2 * i + 1, shift=0.5)) for i in range(100)])
    found = metric(feature_set(draw(n, 10, 0)), feature_set(draw(n, 10, 1, shift=0.5)))
    assert found.interval.low < found.value < found.interval.high
    assert 0.5 < (found.interval.high - found.interval.low) / (4 * scatter) < 2


def test_a_floor_is_what_halves_of_one_set_score() -> None:
    sets = feature_set(draw(60, 10, 0)), feature_set(draw(60, 10, 1))
    kid, fid = Kid().floor(*sets), Fid().floor(*sets)
    assert kid.interval.low < 0 < kid.interval.high
    assert abs(kid.value) < (kid.interval.high - kid.interval.low) / 2
    assert kid.value_at_size is None
    assert 0 < fid.interval.low < fid.value < fid.interval.high
    assert fid.value_at_size == pytest.approx(fid.value, rel=0.5)


def test_resamples_become_fewer_where_each_is_dear() -> None:
    assert affordable(200, 250) == 200
    assert 20 <= affordable(200, 2000) < 30


def test_r_is_one_where_nothing_was_done_and_zero_where_all_was() -> None:
    real, source = feature_set(draw(100, 6, 0)), feature_set(draw(100, 6, 1, shift=1.0))
    nothing = translation_ratio(real, feature_set(source.values.copy()), source, paired=True, resamples=200, seed=0)
    assert nothing.value == 1
    assert nothing.interval == (1.0, 1.0)
    perfect = translation_ratio(real, feature_set(draw(100, 6, 2)), source, paired=False, resamples=200, seed=0)
    assert perfect.interval.low < 0 < perfect.interval.high < 0.3
    half = translation_ratio(real, feature_set(draw(100, 6, 3, shift=0.6)), source, paired=True, resamples=200, seed=0)
    assert half.interval.low < half.value < half.interval.high
    assert 0.1 < half.value < 0.7


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
        kids.append(naive_kernel_distance(r, f) - naive_kernel_distance(r, s))
        ratios.append((naive_kernel_distance(r, f) - naive_kernel_distance(r, s)) / naive_kernel_distance(r, o))
    kid = kid_difference(real, second, first, resamples=25, seed=3)
    ratio = ratio_difference(real, second, first, source, sources_paired=True, resamples=25, seed=3)
    below = naive_kernel_distance(real, source)
    for found, values, scale in ((kid, kids, 1.0), (ratio, ratios, below)):
        value = (naive_kernel_distance(real, first) - naive_kernel_distance(real, second)) / scale
        reach = norm.ppf(0.975) * np.std(values, ddof=1)
        assert found.value == pytest.approx(value)
        assert found.interval == pytest.approx((value - reach, value + reach))
        assert found.p_value == pytest.approx(2 * norm.sf(abs(value) / np.std(values, ddof=1)))
        assert (found.p_value < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


def test_a_ratios_difference_is_the_difference_of_the_ratios_and_nothing_for_one_and_the_same(
    sets: tuple[np.ndarray, ...],
) -> None:
    real, first, second, source = sets
    found = ratio_difference(real, second, first, source[:7], sources_paired=False, resamples=50)
    below = kernel_distance(real, source[:7])
    assert found.value == pytest.approx(kernel_distance(real, first) / below - kernel_distance(real, second) / below)
    same = ratio_difference(real, first, first, source, sources_paired=True, resamples=50)
    assert (same.value, same.interval, same.p_value) == (0, (0, 0), 1)


def test_a_difference_of_pairs_is_sure_of_a_small_shift_and_has_the_right_sign() -> None:
    real, source = draw(80, 4, 0), draw(80, 4, 1, shift=1.0)
    better = source - 0.2
    for difference, distance in ((kid_difference, kernel_distance), (fid_difference, frechet_distance)):
        found = difference(real, source, better)
        assert found.value == pytest.approx(distance(real, better) - distance(real, source))
        assert found.interval[1] < 0


def naive_four(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """The definitions of Kynkaanniemi et al. 2019 and Naeem et al. 2020, point by point."""

    def radius(points: np.ndarray, i: int) -> float:
        return sorted(math.dist(points[i], other) for j, other in enumerate(points) if j != i)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, j) for j in range(len(fake))]
    hits = [[math.dist(r, f) < real_radii[i] for i, r in enumerate(real)] for f in fake]  # [fake][real]
    back = [[math.dist(r, f) < fake_radii[j] for j, f in enumerate(fake)] for r in real]
    return (
        sum(any(row) for row in hits) / len(fake),
        sum(any(row) for row in back) / len(real),
        sum(sum(row) for row in hits) / (k * len(fake)),
        sum(any(row[i] for row in hits) for i in range(len(real))) / len(real),
    )


def test_the_four_are_those_of_the_definitions_point_by_point() -> None:
    real, fake = draw(23, 4, 0), draw(17, 4, 1, shift=0.7)
    found = [make().compute(real, fake) for make in (Precision, Recall, Density, Coverage)]
    assert found == pytest.approx(naive_four(real, fake, NEIGHBOURS), abs=1e-12)


def test_radii_and_nearest_training_images_are_those_of_scikit_learn() -> None:
    x, real, fake = draw(50, 4, 0), draw(20, 4, 1), draw(16, 4, 2, shift=0.5)
    theirs = NearestNeighbors(n_neighbors=6).fit(x)
    assert np.allclose(np.sqrt(radii(x)), theirs.kneighbors(x)[0][:, 5])  # itself is its first neighbour there
    medians = [np.median(theirs.kneighbors(side)[0][:, 0]) for side in (fake, real)]
    found = NearestTraining(resamples=20).measure(real, fake, x)
    assert found.value == pytest.approx(medians[0] / medians[1])
    with_copies = NearestTraining(resamples=20).measure(np.concatenate([x[: len(real) - 1], real]), fake, x)
    assert with_copies == found  # copies of training images are none that nobody trained on
    assert np.allclose(squared_distances(x, x[:3]), ((x[:, None] - x[None, :3]) ** 2).sum(-1))


def test_one_distribution_has_density_one_and_coverage_near_one_and_a_collapse_shows() -> None:
    real, fake = draw(400, 4, 0), draw(400, 4, 1)
    assert Density().compute(real, fake) == pytest.approx(1, abs=0.12)
    # Naeem et al. 2020, lemma 2, for large sets of one size: 1 - 2^-k.
    assert Coverage().compute(real, fake) == pytest.approx(1 - 2.0**-NEIGHBOURS, abs=0.03)
    collapsed = np.tile(real[:1], (400, 1)) + 0.01 * fake
    assert Precision().compute(real, collapsed) == 1
    assert Coverage().compute(real, collapsed) < 0.05
    assert Recall().compute(real, collapsed) < 0.05


def test_the_floor_of_a_number_that_hangs_on_how_many_there_are_takes_no_more_than_there_are_generated_ones() -> None:
    real, few = feature_set(draw(200, 4, 0)), feature_set(draw(30, 4, 1))
    for metric in (Fid(resamples=40), Coverage(resamples=40)):
        floor = metric.floor(real, few)
        assert (floor.n_real, floor.n_fake) == (30, 30)
        assert floor.interval.low <= (floor.value_at_size or 0) <= floor.interval.high  # of the same distribution
    assert Kid(resamples=40).floor(real, few).n_real == 100
    assert Density(resamples=20).compute(draw(8, 4, 0), draw(400, 4, 1)) == pytest.approx(1, abs=0.6)


def test_the_interval_by_halves_is_as_wide_as_the_scatter() -> None:
    scatter = np.std([Density().compute(draw(100, 4, 2 * i), draw(100, 4, 2 * i + 1, shift=0.5)) for i in range(150)])
    low, high = Density()(feature_set(draw(100, 4, 0)), feature_set(draw(100, 4, 1, shift=0.5))).interval
    assert 0.6 < (high - low) / (2 * 1.96 * scatter) < 1.7


def test_kid_over_subsets_is_the_mean_of_kernel_distances_over_the_drawn_subsets() -> None:
    real, fake = draw(140, 4, 0), draw(120, 4, 1, shift=0.4)
    found = KidSubsets(seed=3)(feature_set(real), feature_set(fake))
    drawn = [subsets(len(x), 100, SUBSETS, 3, f"kid/{kind}") > 0 for kind, x in (("real", real), ("fake", fake))]
    values = [kernel_distance(real[r], fake[f]) for r, f in zip(*drawn, strict=True)]
    assert math.isclose(found.value, float(np.mean(values)), rel_tol=1e-9)
    assert math.isclose(found.details["sd"], float(np.std(values, ddof=1)), rel_tol=1e-6)
    assert (found.details["subsets"], found.details["subset_images"]) == (100, 100)
    few = KidSubsets()(feature_set(real[:50]), feature_set(fake[:50]))
    assert few.value == pytest.approx(kernel_distance(real[:50], fake[:50]))
    assert few.details["sd"] == pytest.approx(0, abs=1e-9)
