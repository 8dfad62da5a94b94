"""Precision, recall, density, coverage and KID over subsets against loops, scikit-learn and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fruitgan.measures.contracts import FeatureSet, subsets
from fruitgan.measures.distances import kernel_distance, squared_distances
from fruitgan.measures.metrics.fid_kid import SUBSETS, KidSubsets
from fruitgan.measures.metrics.neighbours import NEIGHBOURS, Coverage, Density, NearestTraining, Precision, Recall, radii


def draw(n: int, seed: int, shift: float = 0.0, dimensions: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dimensions)) + shift


def feature_set(values: np.ndarray) -> FeatureSet:
    return FeatureSet(values, "test", "none")


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
    real, fake = draw(23, 0), draw(17, 1, shift=0.7)
    found = [make().compute(real, fake) for make in (Precision, Recall, Density, Coverage)]
    assert found == pytest.approx(naive_four(real, fake, NEIGHBOURS), abs=1e-12)


def test_radii_and_nearest_training_images_are_those_of_scikit_learn() -> None:
    x, real, fake = draw(50, 0), draw(20, 1), draw(16, 2, shift=0.5)
    theirs = NearestNeighbors(n_neighbors=6).fit(x)
    assert np.allclose(np.sqrt(radii(x)), theirs.kneighbors(x)[0][:, 5])  # itself is its first neighbour there
    medians = [np.median(theirs.kneighbors(side)[0][:, 0]) for side in (fake, real)]
    assert NearestTraining(resamples=20).measure(real, fake, x).value == pytest.approx(medians[0] / medians[1])
    assert np.allclose(squared_distances(x, x[:3]), ((x[:, None] - x[None, :3]) ** 2).sum(-1))


def test_one_distribution_has_density_one_and_coverage_near_one_and_a_collapse_shows() -> None:
    real, fake = draw(400, 0), draw(400, 1)
    assert Density().compute(real, fake) == pytest.approx(1, abs=0.12)
    # Naeem et al. 2020, lemma 2, for large sets of one size: 1 - 2^-k.
    assert Coverage().compute(real, fake) == pytest.approx(1 - 2.0**-NEIGHBOURS, abs=0.03)
    collapsed = np.tile(real[:1], (400, 1)) + 0.01 * fake
    assert Precision().compute(real, collapsed) == 1
    assert Coverage().compute(real, collapsed) < 0.05
    assert Recall().compute(real, collapsed) < 0.05


def test_the_interval_by_halves_is_as_wide_as_the_scatter() -> None:
    scatter = np.std([Density().compute(draw(100, 2 * i), draw(100, 2 * i + 1, shift=0.5)) for i in range(150)])
    low, high = Density()(feature_set(draw(100, 0)), feature_set(draw(100, 1, shift=0.5))).interval
    assert 0.6 < (high - low) / (2 * 1.96 * scatter) < 1.7


def test_kid_over_subsets_is_the_mean_of_kernel_distances_over_the_drawn_subsets() -> None:
    real, fake = draw(140, 0), draw(120, 1, shift=0.4)
    found = KidSubsets(seed=3)(feature_set(real), feature_set(fake))
    drawn = [subsets(len(x), 100, SUBSETS, 3, f"kid/{kind}") > 0 for kind, x in (("real", real), ("fake", fake))]
    values = [kernel_distance(real[r], fake[f]) for r, f in zip(*drawn, strict=True)]
    assert math.isclose(found.value, float(np.mean(values)), rel_tol=1e-9)
    assert math.isclose(found.details["sd"], float(np.std(values, ddof=1)), rel_tol=1e-6)
    assert (found.details["subsets"], found.details["subset_images"]) == (100, 100)
    few = KidSubsets()(feature_set(real[:50]), feature_set(fake[:50]))
    assert few.value == pytest.approx(kernel_distance(real[:50], fake[:50]))
    assert few.details["sd"] == pytest.approx(0, abs=1e-9)
