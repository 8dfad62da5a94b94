"""Logistic regression on a detector's fixed features, through scikit-learn; the result goes into the detector's tensors."""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray

from fruitgan.errors import FruitganError
from fruitgan.models.contracts import LinearDetector
from fruitgan.objectives.contracts import Stateful
from fruitgan.training.detection.album import Album
from fruitgan.training.detection.keeping import History, Keeper
from fruitgan.training.detection.rounds import OnRound, Round
from fruitgan.training.detection.splits import Indices, Parts
from fruitgan.training.detection.verdict import log_loss

PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)
"""Tried in this order; the choosing images say which is best."""


def fit_regression(
    detector: LinearDetector,
    album: Album,
    parts: Parts,
    device: torch.device,
    batch_size: int,
    history: History,
    keeper: Keeper,
    on_round: OnRound | None,
) -> bool:
    """Standardise the features, then fit with each penalty that the history lacks; it ends with the best one's weights.

    Returns: whether it came to its end, or somebody asked it to stop.

    Raises:
        FruitganError: a feature is not finite.
    """
    stateful: dict[str, Stateful] = {"history": history}
    keeper.take_up(stateful, history)
    rest = list(enumerate(PENALTIES, start=1))[len(history.rounds) :]
    if not rest:
        return True
    from sklearn.linear_model import LogisticRegression  # a second of imports that nobody else needs

    train, choose = (_features(detector, album, part, device, batch_size) for part in (parts.train, parts.choose))
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread < 1e-6 * np.abs(mean) + 1e-12] = 1.0  # a feature that never changes says nothing, and must not divide
    train, choose = (train - mean) / spread, (choose - mean) / spread
    truth = album.generated[parts.train]
    for number, penalty in rest:
        began = time.monotonic()
        # Newton's method needs a handful of steps and no tuning; its matrix is [D, D].
        model = LogisticRegression(C=1 / penalty, solver="newton-cholesky", max_iter=200)
        model.fit(train, truth)
        train_loss, train_accuracy = _measures(model.decision_function(train), truth)
        loss, accuracy = _measures(model.decision_function(choose), album.generated[parts.choose])
        round_ = Round(
            number=number,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            choose_loss=loss,
            choose_accuracy=accuracy,
            is_best=history.is_gain(loss),
            seconds=time.monotonic() - began,
            penalty=penalty,
        )
        _store(detector, mean, spread, model.coef_[0], float(model.intercept_[0]))
        history.add(round_, detector)
        stopped = bool(on_round is not None and on_round(round_))
        keeper.keep(number, stateful, is_end=stopped or number == len(PENALTIES))
        if stopped:
            return False
    return True


@torch.no_grad()
def _features(
    detector: LinearDetector, album: Album, indices: Indices, device: torch.device, batch_size: int
) -> NDArray[np.float64]:
    detector.eval()
    # Filled in place: many small results kept one by one would pin the memory of the batches between them.
    features = np.empty((len(indices), detector.mean.numel()))
    for start in range(0, len(indices), batch_size):
        piece = indices[start : start + batch_size]
        features[start : start + len(piece)] = detector.features(album.batch(piece, device)).cpu().numpy()
    if not np.isfinite(features).all():
        raise FruitganError(f"the features of {type(detector).__name__} are not finite for some image; it cannot be fitted")
    return features


def _measures(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> tuple[float, float]:
    return log_loss(logits, generated), float(((logits > 0) == generated).mean())


@torch.no_grad()
def _store(
    detector: LinearDetector,
    mean: NDArray[np.float64],
    spread: NDArray[np.float64],
    weight: NDArray[np.float64],
    bias: float,
) -> None:
    detector.mean.copy_(torch.from_numpy(mean))
    detector.spread.copy_(torch.from_numpy(spread))
    detector.linear.weight.copy_(torch.from_numpy(weight)[None])
    detector.linear.bias.fill_(bias)
