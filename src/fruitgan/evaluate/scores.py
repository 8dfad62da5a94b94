"""Scores of a detector that was trained once a fold: what depends on the scale of its logits is averaged over the folds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruitgan.data.labelled import LabelledImage
from fruitgan.evaluate.results import DetectorResult, JudgedImage
from fruitgan.measures.statistics import auc, bootstrap_interval
from fruitgan.train_detector.calibration import average_precision, calibration, judge, roc_points
from fruitgan.train_detector.protocols import Indices

ROC_FALSE = np.linspace(0, 1, 51)
"""The shares of real images taken for generated at which the folds' ROC curves are averaged (Fawcett 2006, section 8.1)."""

Logits = NDArray[np.float64]
Truth = NDArray[np.bool_]


def fold_mean(statistic: Callable[[Logits, Truth], float], logits: Logits, generated: Truth, fold: Indices) -> float:
    """Mean of a statistic over the folds: each had a detector of its own, whose logits are on a scale of their own.

    Folds without images of both classes count for nothing.

    Raises:
        ValueError: no fold has both.
    """
    parts = [fold == number for number in np.unique(fold)]
    values = [statistic(logits[part], generated[part]) for part in parts if len(set(generated[part])) == 2]
    if not values:
        raise ValueError("no fold has images of both classes")
    return float(np.mean(values))


def result_of(
    logits: Logits, images: Sequence[LabelledImage], fold: Indices, *, p_value: float, seed: int, began: float, **named: Any
) -> DetectorResult:
    """All numbers of the logits [n] that the detectors of each fold gave its images.

    `began` is when they were, by the monotonic clock; `named` are the result's name, protocol, image_size_px and resize.
    """
    generated = np.array([image.generated for image in images])
    pooled = calibration(logits, generated)

    def roc(logits: Logits, generated: Truth) -> NDArray[np.float64]:
        return np.interp(ROC_FALSE, *roc_points(logits, generated))

    curves = [roc(logits[fold == number], generated[fold == number]) for number in np.unique(fold)]
    return DetectorResult(
        **vars(judge(logits, generated)) | {"p_value": p_value, "auc": fold_mean(auc, logits, generated, fold)},
        **named,
        auc_interval=bootstrap_interval(
            lambda drawn: fold_mean(auc, logits[drawn], generated[drawn], fold[drawn]),
            [image.group for image in images],
            seed=seed,
        ),
        average_precision=fold_mean(average_precision, logits, generated, fold),
        calibration=replace(pooled, error=fold_mean(lambda z, truth: calibration(z, truth).error, logits, generated, fold)),
        roc=tuple(float(share) for share in np.mean(curves, axis=0)),
        seconds=round(time.monotonic() - began, 3),
    )


def squashing(size_px: int) -> str:
    """How a detector that looks at pixels is shown every image."""
    return f"squashed to {size_px} px (Lanczos, antialiased, 8 bits)"


def scores(logits: Logits, generated: Truth, fold: Indices) -> dict[str, Any]:
    """Accuracy with its interval over all images, and AUC as the mean over the folds."""
    verdict = judge(logits, generated)
    return {"accuracy": verdict.accuracy, "interval": verdict.interval, "auc": fold_mean(auc, logits, generated, fold)}


def judged_images(images: Sequence[LabelledImage], logits: Logits) -> tuple[JudgedImage, ...]:
    """The detector's answer on each image."""
    return tuple(
        JudgedImage(file=image.path.name, generated=image.generated, logit=float(logit))
        for image, logit in zip(images, logits, strict=True)
    )
