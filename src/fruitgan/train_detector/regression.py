"""Logistic regression on fixed features: its fit by scikit-learn, and the detector `logistic`, which uses a feature backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
from fruitgan.train_detector.protocols import Indices

PROBE_PX = 256
"""Side of the image with which a backend is asked for the size it wants; one that takes any size is given this."""
Values = NDArray[np.float64]
Truth = NDArray[np.bool_]

PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)
"""Tried in this order; the lowest validation loss says which is best."""


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


def best_trial(train: Values, train_truth: Truth, val: Values, val_truth: Truth) -> tuple[Regression, Round]:
    """That of the lowest validation loss, the first of several."""
    return min(trials(train, train_truth, val, val_truth), key=lambda trial: trial[1].val_loss)


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
