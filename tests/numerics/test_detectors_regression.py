"""A regression of `evaluate`: its penalty by held-out parts of its own images, against scikit-learn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fruitgan.train_detector import regression
from fruitgan.train_detector.protocols import Split
from fruitgan.train_detector.regression import PENALTIES, cross_fitted

NOBODY = np.array([], dtype=np.int64)


def drawn(count: int, signal: float = 0.5, dimensions: int = 8) -> tuple[np.ndarray, np.ndarray, list[str], Split]:
    """Images in groups of two, of which the last fifth is test and the fifth before it val."""
    random, truth = np.random.default_rng(0), np.arange(count) % 2 == 0
    features = random.normal(size=(count, dimensions)) + signal * truth[:, None] * (np.arange(dimensions) < 2)
    train, val, test = np.split(np.arange(count), [count * 3 // 5, count * 4 // 5])
    return features, truth, [f"thing {i // 2}" for i in range(count)], Split(train, val, test, NOBODY)


def test_the_penalty_is_that_of_the_lowest_held_out_loss_and_learns_from_all() -> None:
    features, truth, groups, split = drawn(100)
    found, loss = cross_fitted(features, truth, groups, split)
    rest, losses = np.arange(80), np.zeros(len(PENALTIES))
    for train, val in StratifiedGroupKFold(6).split(rest, truth[rest], np.array(groups)[rest]):
        assert not {groups[i] for i in train} & {groups[i] for i in val}
        for number, penalty in enumerate(PENALTIES):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, tol=1e-8))
            model.fit(features[train], truth[train])
            losses[number] += len(val) * log_loss(truth[val], model.predict_proba(features[val])[:, 1])
    assert loss == pytest.approx(losses.min() / 80, rel=1e-4)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / PENALTIES[losses.argmin()], tol=1e-8))
    model.fit(features[rest], truth[rest])
    np.testing.assert_allclose(found.logits(features), model.decision_function(features), atol=1e-3)


def test_many_images_are_held_out_once_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    trials = regression.trials

    def counting(*given: np.ndarray, done: int = 0) -> object:
        counted.append(len(given[2]))
        return trials(*given, done=done)

    monkeypatch.setattr(regression, "trials", counting)
    for count, fits in ((100, 6), (1000, 2), (2000, 1)):
        counted.clear()
        cross_fitted(*drawn(count))
        assert len(counted) == fits + 1
        assert sum(counted[:-1]) >= min(0.8 * count, 250)


def test_groups_that_allow_no_parts_are_fitted_by_the_split_itself() -> None:
    features, truth, _, split = drawn(60)
    groups = ["one"] * 36 + ["other"] * 24  # train, and val with test
    truth[36:] = True
    truth[40:] = False
    found, loss = cross_fitted(features, truth, groups, split)
    assert np.isfinite(loss)
    assert np.isfinite(found.logits(features)).all()
