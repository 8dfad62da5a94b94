"""Logistic regression on fixed features: its fit by scikit-learn, and the detector `logistic`, which uses a feature backend."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fruitgan.errors import FruitganError
from fruitgan.measures.contracts import Features
from fruitgan.measures.contracts import features as feature_backends
from fruitgan.networks.contracts import LinearDetector
from fruitgan.networks.weights import not_in_weights
from fruitgan.train_detector.calibration import accuracy, log_loss
from fruitgan.train_detector.detector import BATCH_SIZE, LabelledImageDataset, OnDone
from fruitgan.train_detector.protocols import Indices, Split

PROBE_PX = 256
"""Side of the image with which a backend is asked for the size it wants; one that takes any size is given this."""
Values = NDArray[np.float64]
Truth = NDArray[np.bool_]

PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)
"""Tried in this order; the lowest validation loss says which is best."""
INNER_PARTS = 6
ENOUGH_HELD_OUT = 250
"""Images: then a loss of about 0.5 is known to some 0.03."""


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


@dataclass(frozen=True, kw_only=True)
class Round:
    """One epoch of training, or one penalty of a regression. Losses are cross entropies in nats."""

    number: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    penalty: float | None = None
    """Of a regression: 1 / C, the weight of the squared coefficients."""


def trials(
    train: Values, train_truth: Truth, val: Values, val_truth: Truth, done: int = 0
) -> Iterator[tuple[Regression, Round]]:
    """Standardise the features [n, D] by the training images, then fit with one penalty after another from the `done`th on."""
    from sklearn.linear_model import LogisticRegression  # a second of imports that nobody else needs
    from threadpoolctl import ThreadpoolController

    # Matrices of a few hundred rows are done before further threads are awake, which burn 16 times the time by waiting.
    on_one_core = partial(ThreadpoolController().limit, limits=1, user_api="blas")

    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread < 1e-6 * np.abs(mean) + 1e-12] = 1.0  # a feature that never changes says nothing, and must not divide
    train, val = (train - mean) / spread, (val - mean) / spread
    axes: Values | None = None
    if train.shape[1] > len(train):
        # The weights lie in the space of the training images, and a rotation does not change their length: n x n, not D x D.
        with on_one_core():
            axes, _ = np.linalg.qr(train.T)  # [D, n]
            train, val = train @ axes, val @ axes
    for number, penalty in enumerate(PENALTIES[done:], start=done + 1):
        began = time.monotonic()
        # Newton's method needs a handful of steps and no tuning; its matrix is [D, D].
        model = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-8, max_iter=200)
        with on_one_core():
            model.fit(train, train_truth)
        train_logits, val_logits = model.decision_function(train), model.decision_function(val)
        weight = model.coef_[0] if axes is None else axes @ model.coef_[0]
        found = Round(
            number=number,
            train_loss=log_loss(train_logits, train_truth),
            train_accuracy=accuracy(train_logits, train_truth),
            val_loss=log_loss(val_logits, val_truth),
            val_accuracy=accuracy(val_logits, val_truth),
            seconds=time.monotonic() - began,
            penalty=penalty,
        )
        yield Regression(mean, spread, weight, float(model.intercept_[0])), found


def cross_fitted(features: Values, truth: Truth, groups: Sequence[str], split: Split) -> tuple[Regression, float]:
    """A regression on the split's train and val images, with the penalty of the lowest loss on held-out parts; and that loss.

    Few validation images choose by luck, and a regression is fitted in an instant: each of `INNER_PARTS` parts, by groups, is
    held out once, until `ENOUGH_HELD_OUT` images were.

    Args:
        features, truth, groups: of the whole set, which the split's numbers are of.
    """
    losses, count = np.zeros(len(PENALTIES)), 0
    for train, val in _inner_parts(truth, groups, split):
        rounds = [found for _, found in trials(features[train], truth[train], features[val], truth[val])]
        losses += [len(val) * found.val_loss for found in rounds]
        count += len(val)
    best, rest = int(losses.argmin()), np.union1d(split.train, split.val)
    regression, _ = next(trials(features[rest], truth[rest], features[rest], truth[rest], done=best))
    return regression, float(losses[best]) / count


def _inner_parts(truth: Truth, groups: Sequence[str], split: Split) -> list[tuple[Indices, Indices]]:
    """Train and val images of each fit; the split's own where the groups do not allow others."""
    from sklearn.model_selection import StratifiedGroupKFold

    rest = np.union1d(split.train, split.val)
    labels, names = truth[rest], np.asarray(groups)[rest]
    most = min(INNER_PARTS, len(set(names)), *np.bincount(labels, minlength=2).tolist())
    dealt = StratifiedGroupKFold(most).split(rest, labels, names) if most > 1 else ()
    parts = [(rest[train], rest[val]) for train, val in dealt if len(val) and len(set(labels[train])) == 2]
    wanted = math.ceil(ENOUGH_HELD_OUT * INNER_PARTS / len(rest))
    return parts[:wanted] or [(split.train, split.val)]


def features_of(
    detector: LinearDetector,
    dataset: LabelledImageDataset,
    indices: Indices,
    device: torch.device,
    batch_size: int = BATCH_SIZE,
    on_done: OnDone = lambda count: None,
) -> Values:
    """[n, D] of the dataset's images with these numbers. Raises: FruitganError if one is not finite."""
    found = dataset.outputs(detector.eval().features, indices, device, batch_size, on_done)
    return finite(found, type(detector).__name__)


def finite(features: Values, name: str) -> Values:
    """The features as they came; Raises: FruitganError if one is not finite."""
    if not np.isfinite(features).all():
        raise FruitganError(f"the features of {name} are not finite for some image; it cannot be fitted")
    return features


@torch.no_grad()
def store(detector: LinearDetector, regression: Regression) -> None:
    """Make the detector answer as the regression does."""
    detector.mean.copy_(torch.from_numpy(regression.mean))
    detector.spread.copy_(torch.from_numpy(regression.spread))
    detector.linear.weight.copy_(torch.from_numpy(regression.weight)[None])
    detector.linear.bias.fill_(regression.bias)


class Logistic(LinearDetector):
    """Logistic regression on a feature backend, at the backend's image size; the backend is not saved with it."""

    def __init__(self, backend: Features) -> None:
        super().__init__(backend.dimensions)
        self.trained_on = backend.trained_on
        self._backend = (backend.eval(),)  # in a tuple, where torch does not look for parts
        height, width = backend.prepare(np.zeros((PROBE_PX, PROBE_PX, 3), dtype=np.uint8)).shape[:2]
        if height != width:
            raise ValueError(f"the features {backend.name} want images of {width} x {height} px, not squares")
        self.image_size_px = height

    @property
    def backend(self) -> Features:
        return self._backend[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.backend._apply(fn)  # type: ignore[no-untyped-call]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def features(self, x: Tensor) -> Tensor:
        seen: Tensor = self.backend(x)
        return seen


def logistic(*, features: str = "random") -> Logistic:
    """Logistic regression on a feature backend (`--detector-option features=colour`): seconds on a CPU."""
    with not_in_weights():
        return Logistic(feature_backends.build(feature_backends.choose(features)))


def efficientnet_lite1() -> Logistic:
    """Logistic regression on the frozen backbone that ships (the features `efficientnet-lite1`): the strongest on a CPU."""
    return logistic(features="efficientnet-lite1")


def npr() -> Logistic:
    """Logistic regression on neighbouring pixel relations (Tan et al. 2024; the features `npr`): the traces of upsampling."""
    return logistic(features="npr")
