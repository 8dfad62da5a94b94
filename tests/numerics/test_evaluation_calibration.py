"""Calibration and further shares of right answers, against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from fruitgan.train_detector.calibration import average_precision, calibration


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
