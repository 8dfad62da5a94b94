"""What the attackers of an evaluation found out, and how it is made of their answers. Shares in [0, 1]; 95% intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fruitgan.data.labelled import LabelledImage
from fruitgan.measures.statistics import auc_interval
from fruitgan.train_detector.calibration import Calibration, Confusion, average_precision, balanced_accuracy, calibration, judge


@dataclass(frozen=True, kw_only=True)
class DetectorResult:
    """How often a detector tells the two apart: the strongest attacker, or the one that was given."""

    name: str
    accuracy: float
    interval: tuple[float, float]
    """Wilson, over the judged images, each counted once."""
    auc: float
    auc_interval: tuple[float, float]
    """By the bootstrap over groups of images."""
    average_precision: float
    balanced_accuracy: float
    calibration: Calibration
    p_value: float
    """Of the one permutation test of all attackers (evaluation/permutation.py)."""
    n: int
    chance: float
    confusion: Confusion
    protocol: str
    """In words: how it came about that the judged images had taught it nothing."""
    image_size_px: int
    chosen: Mapping[str, int]
    """In how many folds each attacker was the strongest on the choosing images."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AttackerResult:
    """One attacker in the same folds, whether it was chosen there or not."""

    name: str
    image_size_px: int
    accuracy: float
    interval: tuple[float, float]
    auc: float
    balanced_accuracy: float
    held_out_auc: float
    """On the half of the images that the permutation test looks at."""
    chosen_folds: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """Images that nobody should be able to tell apart, put to the same test."""

    name: str
    """`reals-against-reals`, or `identity-export`."""
    detail: str
    n: int
    """Images that took part."""
    p_value: float
    auc: float | None
    """The largest of the attackers'; None where every pixel is the same, so that nothing had to be trained."""
    told_apart: bool


@dataclass(frozen=True, kw_only=True)
class RobustnessResult:
    """The detector on the judged images after a change that it was not trained for."""

    change: str
    """`none`, `jpeg`, `blur`, `resize`, `crop` or `noise`."""
    amount: float
    """Quality, sigma in px, scale there and back, share of the side that is left, or sigma in grey levels."""
    accuracy: float
    interval: tuple[float, float]
    auc: float
    average_precision: float
    n: int


@dataclass(frozen=True, kw_only=True)
class JudgedImage:
    """What the detector said of one image; above 0 is generated."""

    file: str
    generated: bool
    group: str
    logit: float


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """Where the detector looked in one picture."""

    file: str
    kind: str
    """`surest` (a generated image, recognised), or `missed` (a generated image, taken for real)."""
    logit: float
    picture: str
    """The picture with the places marked that matter most, relative to the results' folder."""


@dataclass(frozen=True, kw_only=True)
class ReadingResult:
    """What share of the generated images a classifier of real sources against real target images takes for the target."""

    view: str
    """`as they are`, or `grey`, where colour alone cannot decide."""
    features: str
    share: float
    interval: tuple[float, float]
    """Wilson."""
    n: int
    sources_share: float
    """Of the real sources, which it did not learn from: where the generated images come from."""
    reals_share: float
    """Of the real images of the target, which it did not learn from: where they should arrive."""
    accuracy: float
    """Mean share of real sources and real target images told right; near 0.5 the classifier sees nothing in this view."""
    n_known: int


def judged_images(
    images: Sequence[LabelledImage], logits: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> tuple[JudgedImage, ...]:
    """What was said of each image."""
    return tuple(
        JudgedImage(file=image.path.name, generated=image.generated, group=image.group, logit=float(logit))
        for image, logit in zip(images, logits, strict=True)
    )


def result_of(
    name: str,
    logits: np.ndarray[tuple[int], np.dtype[np.float64]],
    generated: np.ndarray[tuple[int], np.dtype[np.bool_]],
    groups: Sequence[str],
    *,
    protocol: str,
    image_size_px: int,
    p_value: float,
    chosen: dict[str, int],
    seed: int,
    seconds: float,
) -> DetectorResult:
    """The numbers of one detector's answers."""
    verdict = judge(logits, generated)
    return DetectorResult(
        name=name,
        accuracy=verdict.accuracy,
        interval=verdict.interval,
        auc=verdict.auc,
        auc_interval=auc_interval(logits, generated, groups, seed=seed),
        average_precision=average_precision(logits, generated),
        balanced_accuracy=balanced_accuracy(logits, generated),
        calibration=calibration(logits, generated),
        p_value=p_value,
        n=verdict.n,
        chance=verdict.chance,
        confusion=verdict.confusion,
        protocol=protocol,
        image_size_px=image_size_px,
        chosen=chosen,
        seconds=round(seconds, 3),
    )
