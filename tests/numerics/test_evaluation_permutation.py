"""The one test of many attackers: exact on small sets, and of its promised size where there is nothing to find."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from fruitgan.measures.statistics import maximum_test

Scores = NDArray[np.float64]


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
        for chosen in combinations(range(8), 3)
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


def test_one_kind_alone_cannot_be_tested() -> None:
    with pytest.raises(ValueError, match="both real and generated"):
        maximum_test(np.zeros((1, 3)), np.ones(3, dtype=bool), apart(3))


def attacks(random: np.random.Generator, n: int) -> tuple[Scores, NDArray[np.bool_]]:
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
