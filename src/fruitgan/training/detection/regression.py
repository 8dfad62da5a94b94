"""Logistic regression on a detector's fixed features, through scikit-learn; the result goes into the detector's tensors."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fruitgan.errors import FruitganError
from fruitgan.models.contracts import LinearDetector
from fruitgan.training.detection.album import Album
from fruitgan.training.detection.rounds import OnRound, Round
from fruitgan.training.detection.splits import Indices, Parts
from fruitgan.training.detection.verdict import log_loss

Values = NDArray[np.float64]
Truth = NDArray[np.bool_]

PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)
"""Tried in this order; the choosing images say which is best."""


@dataclass(frozen=True)
class Regression:
    """A fitted logistic regression: for features f the logit is w (f - m) / s + b."""

    mean: Values
    spread: Values
    weight: Values
    bias: float

    def logits(self, features: Values) -> Values:
        """[n, D] to [n]."""
        return np.asarray(((features - self.mean) / self.spread) @ self.weight + self.bias)


def fit_regression(
    detector: LinearDetector, album: Album, parts: Parts, device: torch.device, batch_size: int, on_round: OnRound | None
) -> tuple[list[Round], Round, bool]:
    """Fit to the features of the album's images; the detector ends with the best.

    Raises:
        FruitganError: a feature is not finite.
    """
    train, choose = (features_of(detector, album, part, device, batch_size) for part in (parts.train, parts.choose))
    rounds, best, finished, regression = regress(
        train, album.generated[parts.train], choose, album.generated[parts.choose], on_round
    )
    store(detector, regression)
    return rounds, best, finished


def regress(
    train: Values, truth: Truth, choose: Values, choose_truth: Truth, on_round: OnRound | None = None
) -> tuple[list[Round], Round, bool, Regression]:
    """Standardise the features, [n, D], then fit with each penalty; the lowest loss on the choosing images is the best."""
    from sklearn.linear_model import LogisticRegression  # a second of imports that nobody else needs

    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread < 1e-6 * np.abs(mean) + 1e-12] = 1.0  # a feature that never changes says nothing, and must not divide
    train, choose = (train - mean) / spread, (choose - mean) / spread
    axes: Values | None = None
    if train.shape[1] > len(train):
        # The weights lie in the space of the training images, and a rotation does not change their length: n x n, not D x D.
        axes, _ = np.linalg.qr(train.T)  # [D, n]
        train, choose = train @ axes, choose @ axes
    rounds: list[Round] = []
    best: tuple[Round, Regression] | None = None
    stopped = False
    for number, penalty in enumerate(PENALTIES, start=1):
        began = time.monotonic()
        # Newton's method needs a handful of steps and no tuning; its matrix is [D, D].
        model = LogisticRegression(C=1 / penalty, solver="newton-cholesky", max_iter=200)
        model.fit(train, truth)
        train_loss, train_accuracy = _measures(model.decision_function(train), truth)
        loss, accuracy = _measures(model.decision_function(choose), choose_truth)
        round_ = Round(
            number=number,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            choose_loss=loss,
            choose_accuracy=accuracy,
            is_best=best is None or loss < best[0].choose_loss,
            seconds=time.monotonic() - began,
            penalty=penalty,
        )
        rounds.append(round_)
        if round_.is_best:
            weight = model.coef_[0] if axes is None else axes @ model.coef_[0]
            best = round_, Regression(mean, spread, weight, float(model.intercept_[0]))
        stopped = bool(on_round is not None and on_round(round_))
        if stopped:
            break
    assert best is not None
    return rounds, best[0], not stopped, best[1]


@torch.no_grad()
def features_of(
    detector: LinearDetector, album: Album, indices: Indices, device: torch.device, batch_size: int
) -> Values:
    """[n, D] of the album's images with these numbers.

    Raises:
        FruitganError: a feature is not finite.
    """
    detector.eval()
    # Filled in place: many small results kept one by one would pin the memory of the batches between them.
    features = np.empty((len(indices), detector.mean.numel()))
    for start in range(0, len(indices), batch_size):
        piece = indices[start : start + batch_size]
        features[start : start + len(piece)] = detector.features(album.batch(piece, device)).cpu().numpy()
    if not np.isfinite(features).all():
        raise FruitganError(f"the features of {type(detector).__name__} are not finite for some image; it cannot be fitted")
    return features


def _measures(logits: Values, generated: Truth) -> tuple[float, float]:
    return log_loss(logits, generated), float(((logits > 0) == generated).mean())


@torch.no_grad()
def store(detector: LinearDetector, regression: Regression) -> None:
    """Make the detector answer as the regression does."""
    detector.mean.copy_(torch.from_numpy(regression.mean))
    detector.spread.copy_(torch.from_numpy(regression.spread))
    detector.linear.weight.copy_(torch.from_numpy(regression.weight)[None])
    detector.linear.bias.fill_(regression.bias)
