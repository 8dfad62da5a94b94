"""The numbers of a judgement and its calibration against counts by hand, closed forms and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from fruitgan.train_detector.calibration import average_precision, calibration, judge, log_loss, roc_points
from fruitgan.train_detector.fit import batches

LOGITS = np.array([2.0, 1.0, -1.0, 0.5, -0.5, -2.0, -3.0, 0.0])
GENERATED = np.array([True, True, True, False, False, False, False, True])


def test_a_verdict_equals_counts_by_hand() -> None:
    verdict = judge(LOGITS, GENERATED)
    confusion = verdict.confusion
    assert (confusion.generated_as_generated, confusion.generated_as_real) == (2, 2)  # a logit of 0 is not above 0
    assert (confusion.real_as_generated, confusion.real_as_real) == (1, 3)
    assert (verdict.accuracy, verdict.n, verdict.majority_baseline) == (5 / 8, 8, 0.5)
    pairs = [(f, r) for f in LOGITS[GENERATED] for r in LOGITS[~GENERATED]]
    assert verdict.auc == pytest.approx(sum((f > r) + 0.5 * (f == r) for f, r in pairs) / len(pairs))
    assert verdict.p_value == pytest.approx(sum(math.comb(8, k) for k in range(5, 9)) / 2**8)


def test_the_interval_is_wilsons_and_the_lab_reports_is_found_again() -> None:
    logits = np.concatenate([np.full(165, 1.0), np.full(15, -1.0), np.full(165, -1.0), np.full(15, 1.0)])
    verdict = judge(logits, np.repeat([True, False], 180))
    assert verdict.accuracy == pytest.approx(0.9167, abs=1e-4)
    assert [round(100 * end, 1) for end in verdict.interval] == [88.4, 94.1]


def test_the_log_loss_is_the_cross_entropy_and_survives_large_logits() -> None:
    probabilities = 1 / (1 + np.exp(-LOGITS))
    naive = -np.log(np.where(GENERATED, probabilities, 1 - probabilities)).mean()
    assert log_loss(LOGITS, GENERATED) == pytest.approx(naive)
    assert log_loss(np.array([1e4, -1e4]), np.array([False, True])) == pytest.approx(1e4)


def test_the_area_under_the_roc_points_is_the_auc() -> None:
    false, true = roc_points(LOGITS, GENERATED)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(judge(LOGITS, GENERATED).auc)


@pytest.mark.parametrize(("n", "size", "expected"), [(7, 3, [3, 4]), (6, 3, [3, 3]), (8, 3, [3, 3, 2]), (1, 3, [1])])
def test_batches_leave_no_image_alone_and_lose_none(n: int, size: int, expected: list[int]) -> None:
    pieces = list(batches(np.arange(n), size))
    assert [len(piece) for piece in pieces] == expected
    assert np.array_equal(np.concatenate(pieces), np.arange(n))


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities / (1 - probabilities))


def test_a_detector_that_knows_how_sure_it_is_has_a_small_error() -> None:
    random = np.random.default_rng(0)
    probabilities = random.uniform(0.01, 0.99, 20_000)
    honest = calibration(logits_of(probabilities), random.random(20_000) < probabilities)
    assert honest.error < 0.02
    assert all(bin["interval"][0] - 0.01 <= bin["predicted"] <= bin["interval"][1] + 0.01 for bin in honest.bins)


def test_the_error_of_one_who_is_always_sure_is_the_share_of_mistakes() -> None:
    generated = np.arange(100) < 30
    found = calibration(np.full(100, 30.0), generated)
    assert found.error == pytest.approx(0.7)
    assert [(bin["low"], bin["high"], bin["n"], bin["observed"]) for bin in found.bins] == [(0.9, 1.0, 100, 0.3)]


def test_the_curve_is_scikit_learns() -> None:
    random = np.random.default_rng(1)
    logits, generated = random.normal(0, 2, 300), random.random(300) < 0.4
    found = calibration(logits, generated)
    observed, predicted = calibration_curve(generated, 1 / (1 + np.exp(-logits)), n_bins=10)
    np.testing.assert_allclose([bin["observed"] for bin in found.bins], observed)
    np.testing.assert_allclose([bin["predicted"] for bin in found.bins], predicted)
    assert sum(bin["n"] for bin in found.bins) == 300


def test_average_precision_of_a_small_case() -> None:
    generated = np.array([True, False, True, False])
    assert average_precision(np.array([4.0, 3, 2, 1]), generated) == pytest.approx((1 + 2 / 3) / 2)
