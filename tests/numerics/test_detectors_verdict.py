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
    assert math.isnan(log_loss(np.array([np.inf, -1.0]), np.array([True, False])))


@pytest.mark.parametrize(("n", "size", "expected"), [(7, 3, [3, 4]), (6, 3, [3, 3]), (8, 3, [3, 3, 2]), (1, 3, [1])])
def test_batches_leave_no_image_alone_and_lose_none(n: int, size: int, expected: list[int]) -> None:
    pieces = list(batches(np.arange(n), size))
    assert [len(piece) for piece in pieces] == expected
    assert np.array_equal(np.concatenate(pieces), np.arange(n))


def test_the_error_of_one_who_is_always_sure_is_the_share_of_mistakes() -> None:
    generated = np.arange(100) < 30
    found = calibration(np.full(100, 30.0), generated)
    assert found.error == pytest.approx(0.7)
    assert [(bin["low"], bin["high"], bin["n"], bin["observed"]) for bin in found.bins] == [(0.9, 1.0, 100, 0.3)]


def test_the_curves_and_the_error_are_scikit_learns() -> None:
    random = np.random.default_rng(1)
    logits, generated = random.normal(0, 2, 300), random.random(300) < 0.4
    found = calibration(logits, generated)
    observed, predicted = calibration_curve(generated, 1 / (1 + np.exp(-logits)), n_bins=10)
    np.testing.assert_allclose([bin["observed"] for bin in found.bins], observed)
    np.testing.assert_allclose([bin["predicted"] for bin in found.bins], predicted)
    assert found.error == pytest.approx(np.average(np.abs(observed - predicted), weights=[bin["n"] for bin in found.bins]))
    assert sum(bin["n"] for bin in found.bins) == 300
    false, true = roc_points(logits, generated)
    assert np.trapezoid(true, false) == pytest.approx(judge(logits, generated).auc)
    assert average_precision(np.array([4.0, 3, 2, 1]), np.array([True, False, True, False])) == pytest.approx((1 + 2 / 3) / 2)
